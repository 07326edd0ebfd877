# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Sphinx for the documentation site, which tests/build_docs makes."""

from __future__ import annotations

from docutils import nodes
from pygments.lexers.special import TextLexer

project = "wcow.snapshotter"
project_copyright = "2026 wcow.snapshotter maintainers"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "sphinx_ansible_theme"
html_show_sphinx = False
html_copy_source = False
# The links of the Markdown pages name headings by GitHub's rules.
myst_heading_anchors = 4

#: What the reference names of ansible-core: the label or a pattern, and the page on docs.ansible.com.
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
MODULE = "ansible_collections.ansible.builtin."


def ansible_core(_app, _env, node, content):
    """Return a link to the documentation of ansible-core, without asking it: the site is built without a network."""
    target = node["reftarget"]
    page = PAGES.get(target)
    if target.startswith(MODULE):
        page = f"collections/ansible/builtin/{target[len(MODULE) :]}.html"
    elif node["reftype"] == "envvar":
        page = f"reference_appendices/config.html#envvar-{target}"
    return nodes.reference("", "", content, refuri=ANSIBLE + page) if page else None


def setup(app):
    """Show pictures as their text, because the theme has no Mermaid."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("missing-reference", ansible_core)
