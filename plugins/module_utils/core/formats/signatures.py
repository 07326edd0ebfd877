# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what a file is that is not a tar, from its first bytes."""

from __future__ import annotations

_DECOMPRESS = "decompress it first, or pack it with gzip"
_PACK = "unpack it, and pack the files as a tar"
_DISK = "a layer is a tar of files, not a disk"
_ANSWER = "the server or proxy sent a page instead of the file: get it again"

# What a file begins with, what it is, and what to do. The letters of texts are compared in lower case.
_SIGNATURES = (
    (b"\x1f\x8b", "compressed with gzip, and was compressed already before", _DECOMPRESS),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd, and was compressed already before", _DECOMPRESS),
    (b"\xfd7zXZ\0", "compressed with xz", _DECOMPRESS),
    (b"BZh", "compressed with bzip2", _DECOMPRESS),
    (b"LZIP", "compressed with lzip", _DECOMPRESS),
    (b"\x04\x22\x4d\x18", "compressed with lz4", _DECOMPRESS),
    (b"\x5d\0\0", "compressed with lzma", _DECOMPRESS),
    (b"PK\x03\x04", "a zip archive", _PACK),
    (b"PK\x05\x06", "an empty zip archive", _PACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _PACK),
    (b"Rar!\x1a\x07", "a rar archive", _PACK),
    (b"MSCF", "a cabinet file", _PACK),
    (b"MSWIM\0\0\0", "a Windows image (WIM)", "a layer is a tar of files: export it with docker save"),
    (b"vhdxfile", "a virtual disk (VHDX)", _DISK),
    (b"conectix", "a virtual disk (VHD)", _DISK),
    (b"QFI\xfb", "a virtual disk (qcow2)", _DISK),
    (b"MZ", "a program of Windows", "give the tar of a layer"),
)
_TEXTS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull, and try again"),
    (b"<!doctype html", "an HTML page", _ANSWER),
    (b"<html", "an HTML page", _ANSWER),
    (b"<?xml", "an XML document", _ANSWER),
    (b"{", "a JSON document", "give the file of the layer or image, not its description; or get it again"),
    (b"[", "a JSON document", "give the file of the layer or image, not its description; or get it again"),
)


def describe(head: bytes) -> str:
    """Return what a file with these first bytes is and what to do, as "X: do Y"; empty if that is not known.

    The bytes of a tar have no meaning here: ask only about a file that is not a tar.
    """
    if not head:
        return "empty: get it again"
    for start, what, remedy in _SIGNATURES:
        if head.startswith(start):
            return f"{what}: {remedy}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, what, remedy in _TEXTS:
        if text.startswith(start):
            return f"{what}: {remedy}"
    if not head.strip(b"\0"):
        return "full of zeros: it was not downloaded or copied completely; get it again"
    if not head.translate(None, bytes(range(32, 127)) + b"\t\r\n"):
        return f"a text that begins with {head[:40].decode('ascii')!r}: get the file again"
    return ""
