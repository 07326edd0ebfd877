# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for labels, and the three that the snapshotter reads.

Sources: containerd plugins/snapshots/windows/windows.go (names and parsing),
pkg/labels/validate.go (length).
"""

from __future__ import annotations

import json
from typing import Dict, List, Mapping, NamedTuple, Sequence

from .errors import InvalidArgument

#: If present (with any value, even ``false``), the snapshot also gets a scratch disk for a utility VM.
UVM_SCRATCH = "containerd.io/snapshot/io.microsoft.vm.storage.scratch"
#: Deprecated: rootfs size in GiB, unsigned decimal, 32 bits.
ROOTFS_SIZE_GB = "containerd.io/snapshot/io.microsoft.container.storage.rootfs.size-gb"
#: Rootfs size in bytes, unsigned decimal, 64 bits; 0 is the size of the template.
ROOTFS_SIZE_BYTES = "containerd.io/snapshot/windows/rootfs.sizebytes"

#: The chain id of a layer. containerd asks a snapshotter for layers with this label, and unpacks those that it lacks.
SNAPSHOT_REF = "containerd.io/snapshot.ref"

#: With the name of an image behind it, a label of the image's top layer in our own store. The value is the platform of
#: the image as containerd writes it (platforms.FormatAll): ``windows(10.0.20348.2700)/amd64``.
IMAGE = "wcow.snapshotter/image/"

#: Longest key plus value, in bytes of UTF-8 (pkg/labels/validate.go).
MAXIMUM_LENGTH = 4096

_DEPRECATED = f'"{ROOTFS_SIZE_GB}" label is deprecated, please use "{ROOTFS_SIZE_BYTES}" instead.'


class ScratchOptions(NamedTuple):
    """A new scratch as the labels want it.

    ``size`` in bytes (0: that of the template), whether there is a UVM scratch
    too, and warnings for the reply.
    """

    size: int
    uvm: bool
    warnings: List[str]


def scratch_options(labels: Mapping[str, str]) -> ScratchOptions:
    """Read the snapshotter's own labels.

    The deprecated label is parsed first, then the one in bytes overrides it: a
    malformed old label is an error even beside a good new one, and a new one
    of 0 cancels the old one. Raises InvalidArgument for a malformed number.
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
            advice="The value must be a whole number without a unit, in quotes; the option rootfs_size accepts units",
        )
    return int(text)


def select(
    name: str, current: Mapping[str, str], labels: Mapping[str, str], fieldpaths: Sequence[str]
) -> Dict[str, str]:
    """Return the labels of snapshot ``name`` after an update; a label with an empty value is one to remove.

    The field path ``labels``, and none at all, replaces all of them. ``labels.<key>`` sets one (the key is everything
    after the first dot). Raises InvalidArgument for any other path.
    """
    wanted: Dict[str, str] = dict(current) if fieldpaths else dict(labels)
    for path in fieldpaths:
        if path.startswith("labels."):
            key = path[len("labels.") :]
            wanted[key] = labels.get(key, "")
        elif path == "labels":
            wanted = dict(labels)
        else:
            raise InvalidArgument(
                f"cannot update {json.dumps(path, ensure_ascii=False)} field on snapshot "
                f"{json.dumps(name, ensure_ascii=False)}: invalid argument",
                name=name,
                path=path,
            )
    return wanted


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
                advice="Shorten the label, or keep the text in a file and a reference to it in the label",
            )
