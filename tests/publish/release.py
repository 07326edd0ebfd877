# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what only the publisher knows into the work tree: version, addresses, contact. `make release` calls it.

It changes ``galaxy.yml``, the names of artefacts on the pages, and ``SECURITY.md``. It refuses a work tree with changes
that are not committed, and a version that the changelog already has, before it writes anything.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import yaml

#: An address or a URL on one line. YAML and Markdown take it as it is.
URL = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[\w.~/%+#?=&-]*)?")
CONTACT = re.compile(rf"[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|{URL.pattern}")
#: Semantic versioning, as Galaxy wants it.
VERSION = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-[0-9A-Za-z.-]+)?")

#: Where SECURITY.md names the contact.
CONTACT_PLACE = re.compile(r"(?<=<!-- contact -->\n).*?(?=\n<!-- end of contact -->)", re.DOTALL)


class Refusal(Exception):
    """The release cannot be made; the message says why."""


def set_keys(galaxy: str, values: dict[str, str]) -> str:
    """Return the text of ``galaxy.yml`` with these values. A new key follows ``license``."""
    for key, value in values.items():
        line = f"{key}: {value}"
        galaxy, count = re.subn(rf"^{key}: .*$", lambda _match, line=line: line, galaxy, flags=re.MULTILINE)
        if not count:
            galaxy = re.sub(r"^tags:$", lambda _match, line=line: f"{line}\ntags:", galaxy, flags=re.MULTILINE)
    read = yaml.safe_load(galaxy)
    wrong = [key for key, value in values.items() if read[key] != value]
    if wrong:
        raise Refusal(f"galaxy.yml does not take {', '.join(wrong)}")
    return galaxy


def set_contact(policy: str, contact: str) -> str:
    """Return the text of ``SECURITY.md`` with this address."""
    shown = f"<{contact}>"
    policy, count = CONTACT_PLACE.subn(f"Send your report to {shown}.", policy)
    if count != 1:
        raise Refusal("SECURITY.md has no place for the contact")
    return policy


def check(tree: Path, options: argparse.Namespace) -> None:
    """Raise Refusal if the release cannot be made."""
    for name in ("repository", "issues", "documentation"):
        if not URL.fullmatch(getattr(options, name)):
            raise Refusal(f"{name.upper()} must be an https URL, not {getattr(options, name)!r}")
    if not VERSION.fullmatch(options.version):
        raise Refusal(f"VERSION must be a semantic version such as 1.0.0, not {options.version!r}")
    if options.contact and not CONTACT.fullmatch(options.contact):
        raise Refusal(f"CONTACT must be an e-mail address or an https URL, not {options.contact!r}")
    changelog = yaml.safe_load((tree / "changelogs/changelog.yaml").read_text(encoding="utf-8"))
    if options.version in changelog["releases"]:
        raise Refusal(f"the changelog already has {options.version}")
    command = ["git", "-C", str(tree), "status", "--porcelain"]
    changes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if changes:
        raise Refusal("the work tree has changes that are not committed:\n" + changes)


def write(tree: Path, options: argparse.Namespace) -> None:
    """Change the files of the work tree. Raises Refusal."""
    file = tree / "galaxy.yml"
    galaxy = file.read_text(encoding="utf-8")
    old = yaml.safe_load(galaxy)["version"]
    values = {name: getattr(options, name) for name in ("version", "repository", "documentation", "issues")}
    file.write_text(set_keys(galaxy, values), encoding="utf-8")
    for page in (tree / "README.md", *sorted(tree.glob("docs/*.md"))):
        text = page.read_text(encoding="utf-8")
        renamed = text.replace(f"wcow-snapshotter-{old}.tar.gz", f"wcow-snapshotter-{options.version}.tar.gz")
        if renamed != text:
            page.write_text(renamed, encoding="utf-8")
    if options.contact:
        file = tree / "SECURITY.md"
        file.write_text(set_contact(file.read_text(encoding="utf-8"), options.contact), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Return 0 if the work tree is ready to build, else 1."""
    parser = argparse.ArgumentParser(prog="release.py", description="Write the version and the addresses.")
    parser.add_argument("--tree", type=Path, default=Path.cwd())
    for name in ("version", "repository", "issues", "documentation", "contact"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args(arguments)
    base = options.repository.rstrip("/")
    options.issues = options.issues or f"{base}/issues"
    options.documentation = options.documentation or base
    try:
        check(options.tree, options)
        write(options.tree, options)
    except Refusal as refusal:
        print(f"make release: {refusal}", file=sys.stderr)
        return 1
    if not options.contact:
        print("SECURITY.md keeps its contact. To change it: make release ... CONTACT=address")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
