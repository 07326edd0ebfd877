# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels: the three that the snapshotter reads itself, and the rules for all.

Sources: containerd plugins/snapshots/windows/windows.go (names and parsing),
pkg/labels/validate.go (length), core/snapshots/snapshotter.go (inheritance).
"""

from __future__ import annotations

import json
from typing import Dict, List, Mapping, NamedTuple

from .errors import InvalidArgument

#: Present (with any value, even ``false``): the snapshot gets a scratch disk for a utility VM too.
UVM_SCRATCH = "containerd.io/snapshot/io.microsoft.vm.storage.scratch"
#: Deprecated: rootfs size in GiB, unsigned decimal, 32 bits.
ROOTFS_SIZE_GB = "containerd.io/snapshot/io.microsoft.container.storage.rootfs.size-gb"
#: Rootfs size in bytes, unsigned decimal, 64 bits; 0 means "as the template is".
ROOTFS_SIZE_BYTES = "containerd.io/snapshot/windows/rootfs.sizebytes"

#: Labels that reach a snapshotter through containerd's metadata layer.
INHERITED_PREFIX = "containerd.io/snapshot/"
SNAPSHOT_REF = "containerd.io/snapshot.ref"

#: Longest key plus value, in bytes of UTF-8 (pkg/labels/validate.go).
MAXIMUM_LENGTH = 4096

_DEPRECATED = f'"{ROOTFS_SIZE_GB}" label is deprecated, please use "{ROOTFS_SIZE_BYTES}" instead.'


class ScratchOptions(NamedTuple):
    """What labels ask of a new scratch: bytes (0: the template's size), UVM scratch, warnings."""

    size: int
    uvm: bool
    warnings: List[str]


def scratch_options(labels: Mapping[str, str]) -> ScratchOptions:
    """Read the snapshotter's own labels.

    The deprecated label is parsed first and the one in bytes overrides it, so
    that a malformed old label is an error even beside a good new one, and
    bytes of 0 cancel it. Raises InvalidArgument for a malformed number.
    """
    size = 0
    warnings = []
    if ROOTFS_SIZE_GB in labels:
        warnings.append(_DEPRECATED)
        size = _parse_uint(labels, ROOTFS_SIZE_GB, 32) * 1024**3
    if ROOTFS_SIZE_BYTES in labels:
        size = _parse_uint(labels, ROOTFS_SIZE_BYTES, 64)
    return ScratchOptions(size, UVM_SCRATCH in labels, warnings)


def _parse_uint(labels: Mapping[str, str], label: str, bits: int) -> int:
    """Go's strconv.ParseUint in base 10: ASCII digits only, no sign, no spaces."""
    text = labels[label]
    problem = ""
    if not (text.isascii() and text.isdigit()):
        problem = "invalid syntax"
    elif len(text.lstrip("0")) > 20 or int(text) >= 1 << bits:
        problem = "value out of range"
    if problem:
        quoted = json.dumps(text)
        raise InvalidArgument(
            f'failed to parse label "{label}"={quoted}: strconv.ParseUint: parsing {quoted}: {problem}',
            label=label,
            value=text,
        )
    return int(text)


def inherited(labels: Mapping[str, str]) -> Dict[str, str]:
    """The labels that an upper layer may hand down to a snapshotter (FilterInheritedLabels)."""
    return {k: v for k, v in labels.items() if k == SNAPSHOT_REF or k.startswith(INHERITED_PREFIX)}


def validate(labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument for a label that is not Unicode text, or whose key and value together exceed 4096 bytes."""
    for key, value in labels.items():
        try:
            length = len(key.encode()) + len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"label {key[:64]!r} is not valid Unicode: {error.reason}", label=key[:64]) from None
        if length > MAXIMUM_LENGTH:
            raise InvalidArgument(
                f"label key and value length ({length} bytes) greater than maximum size "
                f"({MAXIMUM_LENGTH} bytes), key: {key[:64]}: invalid argument",
                label=key[:64],
                length=length,
            )
