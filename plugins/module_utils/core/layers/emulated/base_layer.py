# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for what vmcompute.dll makes from the files of a base layer."""

from __future__ import annotations

import os

from ...failpoint import failpoint
from ...files import sync_directory
from .. import filetree
from ..base import BLANK, FILES, UTILITY_VM, UVM_TEMPLATE

#: Bytes of the disk that a container gets if nothing else is asked for (containerd
#: integration/windows_rootfs_size_test.go).
TEMPLATE_SIZE = 20 * 1024**3


def finish(directory: str) -> None:
    """Make ``Hives``, ``Layout`` and template disks of a base layer, as ProcessBaseImage and ProcessUtilityImage do.

    Files that exist are kept, so an interrupted call can be repeated. Raises
    OSError, and what ``vhdx.create`` raises.
    """
    failpoint("base.hives")
    os.makedirs(os.path.join(directory, "Hives"), exist_ok=True)
    layout = os.path.join(directory, "Layout")
    if not os.path.lexists(layout):
        failpoint("base.layout")
        # Empty, so that it has only its name to flush.
        os.close(os.open(layout, os.O_CREAT | os.O_WRONLY, 0o666))
    _make_templates(directory, BLANK, "blank-base.vhdx")
    utility_vm = os.path.join(directory, UTILITY_VM)
    if os.path.isdir(os.path.join(utility_vm, FILES)):
        _make_templates(utility_vm, UVM_TEMPLATE, "SystemTemplateBase.vhdx")
        sync_directory(utility_vm)
    # Once, for all new names.
    failpoint("base.flush")
    sync_directory(directory)


def _make_templates(directory: str, template: str, base: str) -> None:
    """Make a template disk and its base if they do not exist. The caller makes their names durable."""
    template, base = os.path.join(directory, template), os.path.join(directory, base)
    if not os.path.lexists(template):
        _make_template(template)
    if not os.path.lexists(base):
        failpoint("base.link")
        try:
            # One file with two names is flushed once.
            os.link(template, base)
        except OSError:
            # A file system without hard links.
            _make_template(base)


def _make_template(path: str) -> None:
    from ...formats.vhdx import creation

    new = path + ".new"
    filetree.remove(new)
    creation.create(new, TEMPLATE_SIZE, flush_name=False)
    failpoint("base.template")
    os.rename(new, path)
    failpoint("base.templated")
