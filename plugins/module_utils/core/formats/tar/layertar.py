# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCI Windows layer tar: a reader that trusts nothing, and a writer.

The format is a tar in pax form (see ``pax``) with the attributes of Windows in
pax records, as go-winio backuptar/tar.go and hcsshim pkg/ociwclayer write and
read it.
"""

from __future__ import annotations

import hashlib
import re
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ...errors import InvalidArgument
from ..digest import format_digest
from ..ntfsnames import PATH_UNITS, fault, fold, link_doubt
from ..signatures import describe
from . import pax as paxformat
from .decompress import GIVE_DIGEST, MAX_SIZE, open_layer
from .pax import BLOCK, END_MARK, padding, time_from_text, time_text

__all__ = [
    "CREATION_TIME",
    "DIRECTORY",
    "END_MARK",
    "FILE",
    "FILES",
    "FILE_ATTRIBUTES",
    "HARD_LINK",
    "HIVES",
    "MAX_ENTRIES",
    "MAX_SIZE",
    "MOUNT_POINT",
    "STREAM",
    "SYMLINK",
    "UTILITY_VM",
    "UTILITY_VM_FILES",
    "WHITEOUT",
    "WHITEOUT_PREFIX",
    "Entry",
    "LayerReader",
    "WrongDigest",
    "depth_of",
    "header",
    "open_layer",
    "padding",
    "time_from_text",
    "time_text",
]

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"
HARD_LINK = "hard link"
WHITEOUT = "whiteout"
STREAM = "alternate stream"

#: hcsshim internal/wclayer/legacy.go: what a layer consists of.
FILES = "Files"
HIVES = "Hives"
UTILITY_VM = "UtilityVM"
UTILITY_VM_FILES = "UtilityVM/Files"

WHITEOUT_PREFIX = ".wh."
_MEANS_DELETION = f"begins with {WHITEOUT_PREFIX!r}, which in a layer tar means a deletion"

#: go-winio backuptar/tar.go.
FILE_ATTRIBUTES = "MSWINDOWS.fileattr"
CREATION_TIME = "LIBARCHIVE.creationtime"
MOUNT_POINT = "MSWINDOWS.mountpoint"

# What this reader and layerfiletar read.
_KEYS = re.compile(
    rb"mtime|atime|ctime|LIBARCHIVE\.creationtime|MSWINDOWS\.(?:fileattr|rawsd|sd|mountpoint|xattr\..*)", re.DOTALL
)

#: Far above any layer seen: Windows Server Core has some 200,000 entries.
MAX_ENTRIES = 2_000_000

# Links that a warning names.
_NAMED_LINKS = 3

# First names of entries in other archives: of docker save, of Linux layers, of a copied drive.
_IMAGE_ENTRY = re.compile(r"[0-9a-f]{64}(?:\.json|\.tar)?")
_LINUX = ("bin", "boot", "etc", "home", "lib", "lib64", "opt", "root", "sbin", "tmp", "usr", "var")
_WINDOWS = ("Windows", "Program Files", "Program Files (x86)", "ProgramData", "Users", "inetpub")

_CHUNK = 1024**2
_NANOSECONDS = 1_000_000_000

# FILETIME begins with 1601, and 63 bits of 100 ns last until 30828 (MS-DTYP 2.3.3).
_FIRST_SECOND = -11_644_473_600
_LAST_SECOND = 910_692_730_085

_TYPES = {
    **dict.fromkeys(paxformat.FILE_TYPES, FILE),
    paxformat.HARD_LINK_TYPE: HARD_LINK,
    paxformat.SYMLINK_TYPE: SYMLINK,
    paxformat.DIRECTORY_TYPE: DIRECTORY,
}
_SPARSE = "a sparse file of GNU tar"
_SPECIAL_TYPES = {"3": "a character device", "4": "a block device", "6": "a FIFO", paxformat.SPARSE_TYPE: _SPARSE}


class Entry(NamedTuple):
    """One checked entry of a layer.

    ``name`` has forward slashes, no ``.`` or ``..``, and spells each directory
    like the entry that created it. For a whiteout it is the deleted path. For
    an alternate stream it is the file, directory or symbolic link that has the
    stream, and ``link`` is the name of the stream. ``link`` of a hard link is
    the name of an entry, and of a symbolic link any text. ``size``
    is in bytes. ``mode`` holds permission bits; 0 if the writer does not know
    them, as on Windows. ``pax`` has the pax records that apply and that are
    read: times, ``MSWINDOWS.*`` and what tar itself defines.
    """

    name: str
    kind: str
    size: int
    mode: int
    mtime_ns: int
    link: str
    pax: Dict[str, str]


class WrongDigest(InvalidArgument):
    """The layer is another one than expected; the detail ``digest`` is its digest."""


class _NoEndMark(InvalidArgument):
    """The archive ends after a complete entry, or after half an end mark."""


class _NotATar(InvalidArgument):
    """The first header is damaged or cut off."""


class LayerReader:
    """Iterates over the entries of a plain layer tar, and reads their contents.

    ``read`` returns the content of the current entry; the iteration skips what
    is not read. After the iteration the stream has been read to its end, and
    ``size``, ``digest`` (the diff id of the OCI image specification) and
    ``entries`` are those of the whole layer.

    Every fault is an InvalidArgument that names the entry.

    With ``expected``, the digest that the layer must have, the iteration ends
    with WrongDigest for another one. A layer whose digest is right needs no
    end mark, and its names may begin with ``./``.
    """

    def __init__(
        self, stream: BinaryIO, *, expected: str = "", max_entries: int = MAX_ENTRIES, max_size: int = MAX_SIZE
    ) -> None:
        self.size = 0
        self.entries = 0
        self._expected = expected
        self._complete = False
        self._first = b""
        self._stream = stream
        self._headers = paxformat.HeaderReader(self._take_of_header, "the layer", self._where, _KEYS)
        self._hash = hashlib.sha256()
        self._max_entries = max_entries
        self._max_size = max_size
        self._left = 0
        self._padding = 0
        self._last = ""
        self._seen: Dict[Tuple[int, str], _Seen] = {}
        self._stream_owner = ("", "")
        self._doubts: List[str] = []
        self._doubtful_links = 0

    @property
    def warnings(self) -> List[str]:
        """Sentences about what was read that no Windows may be able to use."""
        if not self._doubtful_links:
            return []
        more = self._doubtful_links - len(self._doubts)
        return [
            "Windows may not find the targets of some links, which were imported as they are: "
            + "; ".join(self._doubts)
            + (f"; and {more} more" if more else "")
        ]

    @property
    def digest(self) -> str:
        """The digest of everything read so far."""
        return format_digest(self._hash)

    def read(self, limit: int = _CHUNK) -> bytes:
        """Read at most ``limit`` more bytes of the current entry; none at its end."""
        data = self._take(min(limit, self._left))
        self._left -= len(data)
        return data

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._read_entries()
        except _NotATar as error:
            found = describe(self._first)
            raise InvalidArgument(
                f"it is not the tar of a layer, but {found} ({error.message})" if found else error.message
            ) from None
        except _NoEndMark as error:
            if self._expected != self.digest:
                raise InvalidArgument(f"{error.message}: get it again, or {GIVE_DIGEST}") from None
        if self._expected not in ("", self.digest):
            raise WrongDigest(
                f"the layer's digest is {self.digest}, not {self._expected}; get the file again, or correct digest "
                "(it is the digest of the uncompressed tar, the diff id)",
                digest=self.digest,
            )

    def _read_entries(self) -> Iterator[Entry]:
        while True:
            try:
                found = self._headers.next()
            except InvalidArgument as error:
                if self.entries:
                    raise
                raise _NotATar(error.message) from None
            if found is None:
                # The end mark is two blocks of zeros.
                if any(self._take(BLOCK)):
                    raise InvalidArgument(f"the layer has a single block of zeros {self._where()}: it is damaged")
                self._drain()
                return
            self.entries += 1
            entry = self._entry(*found)
            if self.entries > self._max_entries or len(self._seen) > 2 * self._max_entries:
                name = entry.name if entry else "./"
                raise InvalidArgument(f"entry {name!r} is one too many: a layer has at most {self._max_entries}")
            if entry is None:
                self._complete = True
                continue
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            yield entry
            while self.read():
                pass
            self._complete = True
            self._take(self._padding)
            self._last = entry.name

    # -- bytes ---------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        """Read exactly ``count`` bytes of the stream."""
        parts: List[bytes] = []
        wanted = count
        while wanted:
            data = self._stream.read(wanted)
            if not data:
                message = f"the layer is cut off, {self._where()}"
                if self._complete and wanted == count:
                    raise _NoEndMark(message)
                raise InvalidArgument(f"{message}: get it again")
            if not self.size:
                self._first += data[: BLOCK - len(self._first)]
            parts.append(data)
            wanted -= len(data)
            self._hash.update(data)
        self.size += count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_of_header(self, count: int) -> bytes:
        if self.size > self._max_size:
            raise InvalidArgument(f"the layer is larger than {self._max_size} bytes")
        data = self._take(count)
        if any(data):
            self._complete = False
        return data

    def _drain(self) -> None:
        while True:
            data = self._stream.read(_CHUNK)
            if not data:
                return
            self._hash.update(data)
            self.size += len(data)
            if self.size > self._max_size:
                raise InvalidArgument(f"the layer goes on after its end mark, past {self._max_size} bytes")

    def _where(self) -> str:
        return f"after entry {self._last!r}" if self._last else "before its first entry was complete"

    # -- headers -------------------------------------------------------------

    def _entry(self, header: paxformat.Header, records: paxformat.Records) -> Optional[Entry]:
        """Check an entry; None for the layer's own directory, as ``tar -C DIRECTORY .`` writes it."""
        if header.type == paxformat.SYMLINK_TYPE and b"linkpath" in records:
            # No target is a reason to refuse a layer.
            records[b"linkpath"] = records[b"linkpath"].decode("utf-8", "replace").encode()
        pax = {self._headers.text(key): self._headers.text(value) for key, value in records.items()}
        raw = pax.get("path", header.name)
        if header.type not in _TYPES:
            what = _SPECIAL_TYPES.get(header.type, f"of the unknown type {header.type!r}")
            raise InvalidArgument(f"entry {raw!r} is {what}, which is not allowed in a Windows layer")
        if any(key.startswith("GNU.sparse.") for key in pax):
            raise InvalidArgument(f"entry {raw!r} is {_SPARSE}, which is not allowed in a Windows layer")
        if "path" not in pax and header.unreadable:
            raise InvalidArgument(
                f"the name of entry {raw!r} is not UTF-8: it was packed with another encoding; pack it in pax format "
                "(tar --format=pax) with names in UTF-8"
            )
        kind = _TYPES[header.type]
        # In archives older than POSIX only the name tells that an entry is a directory.
        if kind == FILE and raw.endswith("/"):
            kind = DIRECTORY
        size = header.size
        if "size" in pax:
            size = paxformat.parse_decimal(pax["size"], f"entry {raw!r} has a size")
        if kind != FILE:
            size = 0
        if size > self._max_size - self.size:
            raise InvalidArgument(
                f"entry {raw!r} has {size} bytes: the layer would be larger than {self._max_size} bytes"
            )
        mtime_ns = header.mtime * _NANOSECONDS
        if "mtime" in pax:
            try:
                mtime_ns = time_from_text(pax["mtime"])
            except InvalidArgument as error:
                raise error.with_context(f"entry {raw!r} is refused") from None
        if not _FIRST_SECOND * _NANOSECONDS <= mtime_ns < _LAST_SECOND * _NANOSECONDS:
            raise InvalidArgument(f"entry {raw!r} has a time that Windows cannot hold")
        link = pax.get("linkpath", header.link)
        if self._expected:
            raw = _without_dot(raw)
            link = _without_dot(link) if kind == HARD_LINK else link
            if not raw and kind == DIRECTORY:
                return None
        elif raw.startswith("./") or (raw == "." and kind == DIRECTORY):
            raise InvalidArgument(
                f"entry {raw!r} is refused: its name begins with '.', as tar writes it for a directory; name what to "
                f"pack (tar -cf layer.tar {FILES}), or, {GIVE_DIGEST}"
            )
        name, kind, link = self._place(raw, kind, link)
        if kind == SYMLINK:
            self._doubt(name, link, MOUNT_POINT in pax)
        return Entry(name, kind, size, header.mode & 0o777, mtime_ns, link, pax)

    def _doubt(self, name: str, link: str, junction: bool) -> None:
        doubt = link_doubt(depth_of(name), link, junction)
        if doubt:
            self._doubtful_links += 1
            if len(self._doubts) < _NAMED_LINKS:
                self._doubts.append(f"{name[:200]!r} links to {link[:200]!r}, which {doubt}")

    # -- names ---------------------------------------------------------------

    def _place(self, raw: str, kind: str, link: str) -> Tuple[str, str, str]:
        """Check name and link of an entry; returns name, kind and link for ``Entry``."""
        (owner, owner_name), self._stream_owner = self._stream_owner, ("", "")
        if kind == FILE and owner and raw.startswith(owner + ":"):
            stream = raw[len(owner) + 1 :]
            problem = fault(stream)
            if problem:
                raise InvalidArgument(f"entry {raw!r}: the name of the stream {problem}")
            self._stream_owner = (owner, owner_name)
            return owner_name, STREAM, stream
        components = self._components(raw, kind)
        if components[-1].startswith(WHITEOUT_PREFIX):
            return self._whiteout(raw, kind, components)
        if kind == HARD_LINK:
            link = self._hard_link(raw, link)
        name = self._register(raw, components, kind)
        if kind != HARD_LINK:
            self._stream_owner = (raw.removesuffix("/"), name)
        return name, kind, link

    def _components(self, raw: str, kind: str) -> List[str]:
        text = raw[:-1] if kind == DIRECTORY and raw.endswith("/") else raw
        if len(text.encode("utf-16-le")) > 2 * PATH_UNITS:
            raise InvalidArgument(f"entry {raw[:100]!r}... has a name of more than {PATH_UNITS} UTF-16 units")
        components = text.split("/")
        problem = _foreign(components)
        if problem:
            raise InvalidArgument(f"entry {raw!r} is refused: {problem}")
        for component in components:
            problem = fault(component)
            if problem:
                what = f"{component!r} {problem}" if component else "names must be relative, without empty parts"
                raise InvalidArgument(f"entry {raw!r} is refused: {what}")
        for component in components[:-1]:
            if component.startswith(WHITEOUT_PREFIX):
                raise InvalidArgument(f"entry {raw!r} is refused: {component!r} {_MEANS_DELETION}")
        root = components[0]
        if root not in (FILES, HIVES, UTILITY_VM):
            raise InvalidArgument(
                f"entry {raw!r} is refused: a layer consists of {FILES}, {HIVES} and {UTILITY_VM} only; if they are in "
                f"{root!r}, pack what is in it (tar -C {root} -cf layer.tar {FILES})"
            )
        if root == UTILITY_VM and components[1:2] not in ([], [FILES]):
            raise InvalidArgument(f"invalid UtilityVM layer: entry {raw!r} is not below {UTILITY_VM_FILES}")
        if kind != DIRECTORY and len(components) <= _root_length(components):
            raise InvalidArgument(f"entry {raw!r} is refused: it must be a directory")
        if kind in (SYMLINK, HARD_LINK) and root == HIVES:
            raise InvalidArgument(f"entry {raw!r} is refused: there are no links in {HIVES}")
        return components

    def _whiteout(self, raw: str, kind: str, components: List[str]) -> Tuple[str, str, str]:
        self._directory(raw, components[:-1], note=False)
        base = components[-1][len(WHITEOUT_PREFIX) :]
        if base.startswith(WHITEOUT_PREFIX):
            raise InvalidArgument(
                f"entry {raw!r} is an opaque whiteout, or deletes a name that no layer has: Windows would keep the "
                "files below; build the layer with one whiteout for each file that it deletes"
            )
        problem = fault(base)
        if problem or kind != FILE or components[0] == HIVES:
            raise InvalidArgument(f"invalid tombstone {raw!r}" + (f": {base!r} {problem}" if problem else ""))
        return "/".join([*components[:-1], base]), WHITEOUT, ""

    def _hard_link(self, raw: str, link: str) -> str:
        try:
            target = self._components(link, HARD_LINK)
            directory_id, path = self._directory(link, target[:-1], note=False)
        except InvalidArgument as error:
            raise error.with_context(f"invalid hard link in layer: entry {raw!r}") from None
        found = self._seen.get((directory_id, fold(target[-1])))
        if found and found.kind not in (FILE, HARD_LINK):
            raise InvalidArgument(
                f"invalid hard link in layer: entry {raw!r} links to {link!r}, which is a {found.kind}"
            )
        return path + (found.name if found else target[-1])

    def _register(self, raw: str, components: List[str], kind: str) -> str:
        """Note a name, and return its spelling; refuse one that an earlier entry has."""
        directory_id, path = self._directory(raw, components[:-1], note=True)
        key = (directory_id, fold(components[-1]))
        found = self._seen.get(key)
        if found is None:
            self._seen[key] = _Seen(kind, components[-1], len(self._seen) + 1)
        elif not found.kind == kind == DIRECTORY:
            raise InvalidArgument(
                f"entry {raw!r} is refused: there is an entry {path + found.name!r} already, a {found.kind}, "
                "and the names are one to Windows"
            )
        return path + self._seen[key].name

    def _directory(self, raw: str, components: List[str], *, note: bool) -> Tuple[int, str]:
        """Return the id of the directory of an entry, and its spelling with a slash at the end.

        Refuse it if an earlier entry made it a file or a link. The id is -1 if
        the directory has no entry.
        """
        directory_id, spelled = 0, []
        for component in components:
            key = (directory_id, fold(component))
            found = self._seen.get(key)
            if found is None:
                found = _Seen(DIRECTORY, component, len(self._seen) + 1 if note else -1)
                if note:
                    self._seen[key] = found
            spelled.append(found.name)
            if found.kind != DIRECTORY:
                path = "/".join(spelled)
                raise InvalidArgument(f"entry {raw!r} is refused: it lies below {path!r}, which is a {found.kind}")
            directory_id = found.directory_id
        return directory_id, "".join(f"{name}/" for name in spelled)


def _foreign(names: List[str]) -> str:
    """Return what kind of archive has an entry with these names, if it is a known one other than a layer."""
    first = names[0]
    tops = (FILES, HIVES, UTILITY_VM)
    if "\\" in first and not set(tops).isdisjoint(first.split("\\")):
        return "backslashes separate its names; pack the directories with a tar program that writes slashes"
    if first in ("oci-layout", "index.json", "manifest.json", "repositories", "blobs") or _IMAGE_ENTRY.fullmatch(first):
        return "the archive is an image, not a layer; import it with the module image"
    if first in tops:
        return ""
    inner = next((number for number, name in enumerate(names) if name in tops), 0)
    if inner and not {"", ".", ".."} & set(names):
        folder = "/".join(names[:inner])
        return f"it is in a directory {folder!r}; pack what is in that (tar -C {folder} -cf layer.tar {names[inner]})"
    if first.capitalize() in tops or first.lower() == UTILITY_VM.lower():
        return f"the letters must be as in {FILES}, {HIVES} and {UTILITY_VM}"
    if first in _LINUX:
        return "it looks like a layer of a Linux image; a Windows layer consists of Files, Hives and UtilityVM"
    if first in _WINDOWS:
        return f"the files of Windows must be below {FILES} in a layer"
    return ""


class _Seen(NamedTuple):
    """A name of an earlier entry, or of a directory above it.

    The key is the id of the directory above, 0 for the layer, and the folded
    name: with whole paths, a layer of deep directories would cost the square
    of its size.
    """

    kind: str
    name: str
    directory_id: int


def _without_dot(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return "" if name == "." else name


def depth_of(name: str) -> int:
    """Return the number of directories between the root of the layer's files and the entry of this name."""
    components = name.split("/")
    return len(components) - _root_length(components) - 1


def _root_length(components: List[str]) -> int:
    return 2 if components[0] == UTILITY_VM else 1


# -- writing -------------------------------------------------------------------


def header(
    name: str,
    kind: str,
    *,
    size: int = 0,
    mode: int = 0,
    mtime_ns: int = 0,
    link: str = "",
    pax: Optional[Dict[str, str]] = None,
) -> bytes:
    """Return the header of an entry: the same bytes for the same arguments, which are those of ``Entry``.

    The name of a whiteout is the deleted path; it gets no other attributes.
    The content follows the header, then ``padding(size)``.

    Raises:
        InvalidArgument: a reader would take a part of the name for a whiteout.
            A container can create such files, but a tar cannot hold them.

    """
    directory, _slash, base = name.rpartition("/")
    for component in directory.split("/") if kind == WHITEOUT else name.split("/"):
        if component.startswith(WHITEOUT_PREFIX):
            raise InvalidArgument(f"{name!r}: {component!r} {_MEANS_DELETION}; rename or remove it")
    if kind == WHITEOUT:
        return paxformat.header(
            f"{directory}/{WHITEOUT_PREFIX}{base}", "0", size=0, mode=0, mtime_ns=0, link="", pax={}
        )
    types = {FILE: "0", HARD_LINK: "1", SYMLINK: "2", DIRECTORY: "5"}
    return paxformat.header(name, types[kind], size=size, mode=mode, mtime_ns=mtime_ns, link=link, pax=pax or {})
