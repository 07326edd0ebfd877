# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build layer tars: with the writer of the collection, and with Python's own tarfile.

An entry is ``(name, what)``, ``(name, what, link)`` or ``(name, what, link, pax records)``. ``what`` is the content of
a file as bytes, or a kind such as "directory".
"""

from __future__ import annotations

import io
import tarfile
from typing import Any, Dict, Iterable, Iterator, List, Tuple, Union

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar

#: The unit of NTFS times is 100 nanoseconds.
MTIME = 1_600_000_000_123_456_700

#: The tarfile type of each kind.
TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}

_Entry = Tuple[str, Union[bytes, str], str, Dict[str, str]]


def layer_tar(*entries: Tuple[Any, ...]) -> bytes:
    """Return a layer tar that ``layertar`` wrote."""
    data = b""
    for name, what, link, pax in _complete(entries):
        content, kind = (what, layertar.FILE) if isinstance(what, bytes) else (b"", what)
        data += layertar.header(name, kind, size=len(content), mtime_ns=MTIME, link=link, pax=pax)
        data += content + layertar.padding(len(content))
    return data + layertar.END_MARK


def with_directories(entries: Iterable[Tuple[Any, ...]]) -> List[Tuple[Any, ...]]:
    """Return the entries with an entry for each directory that has none, as Windows requires it."""
    completed: List[Tuple[Any, ...]] = []
    known = set()
    for entry in entries:
        name, what = entry[:2]
        for end in (at for at, char in enumerate(name) if char == "/" and what != layertar.WHITEOUT):
            if name[:end].upper() not in known:
                completed.append((name[:end], layertar.DIRECTORY))
                known.add(name[:end].upper())
        completed.append(entry)
        known.add(name.upper())
    return completed


def tarfile_tar(*entries: Tuple[Any, ...], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar that Python's tarfile wrote. Whiteouts are files with names such as ``.wh.name``."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as archive:
        for name, what, link, pax in _complete(entries):
            info = tarfile.TarInfo(name)
            info.mtime = MTIME // 10**9
            info.linkname = link
            info.pax_headers = pax
            if isinstance(what, bytes):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
            else:
                info.type = TYPES[what]
                archive.addfile(info)
    return stream.getvalue()


def _complete(entries: Tuple[Tuple[Any, ...], ...]) -> Iterator[_Entry]:
    for name, what, *rest in entries:
        yield name, what, rest[0] if rest else "", rest[1] if len(rest) > 1 else {}


def with_checksum(header: bytes) -> bytes:
    """Return a tar header of 512 bytes with the right checksum."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def with_checksums(data: bytes) -> bytes:
    """Return a damaged tar with the right checksum in each header, so that a reader gets past the checksums."""
    blocks = [data[start : start + 512] for start in range(0, len(data), 512)]
    return b"".join(
        with_checksum(block) if len(block) == 512 and block[257:262] == b"ustar" else block for block in blocks
    )
