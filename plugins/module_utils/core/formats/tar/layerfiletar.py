# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert an OCI Windows layer tar to the records of a layer's files, and back.

The mapping is that of go-winio backuptar/tar.go and hcsshim pkg/ociwclayer. As
in theirs, the flags of extended attributes are lost, because a tar cannot hold
them. Alternate streams of directories and links are written like those of
files; theirs reads such entries but does not write them. Unlike theirs, a tar
written here depends only on the layer. The times of the last access and of the
last change of any kind depend on the disk (an export reads the file), so both
records get the time of the last write.
"""

from __future__ import annotations

import base64
import re
from typing import BinaryIO, Callable, Dict, Iterable, Iterator, Tuple

from ...errors import InvalidArgument
from .. import eas, reparse, securitydescriptor
from ..layerfile import (
    DIRECTORY_ATTRIBUTE,
    FileTimes,
    LayerFile,
    Records,
    Stream,
    from_nanoseconds,
    to_nanoseconds,
)
from ..ntfsnames import fault
from . import layertar

#: Keys of pax records, besides those of layertar (go-winio backuptar/tar.go).
RAW_SECURITY = "MSWINDOWS.rawsd"
SDDL_SECURITY = "MSWINDOWS.sd"
EXTENDED_ATTRIBUTE = "MSWINDOWS.xattr."
ACCESS_TIME = "atime"
CHANGE_TIME = "ctime"

# Unix file types, in mode bits that tar does not use. go-winio writes no permissions.
_MODE_FILE = 0o100000
_MODE_DIRECTORY = 0o40000
_MODE_SYMLINK = 0o120000
_MODE_HARD_LINK = 0o644

_UINT32_DIGITS = re.compile(r"[0-9]{1,10}")


def read(reader: layertar.LayerReader, from_sddl: Callable[[str], bytes]) -> Records:
    """Yield the records of a layer tar.

    ``from_sddl`` converts a text in SDDL (MS-DTYP 2.5.1) to a security
    descriptor: old layers have such texts. Raises InvalidArgument that names
    the entry.
    """
    entries = iter(reader)
    entry = next(entries, None)

    def streams(owner: layertar.Entry) -> Iterator[Stream]:
        nonlocal entry
        if owner.kind == layertar.FILE:
            yield Stream("", owner.size, iter(reader.read, b""))
        entry = next(entries, None)
        while entry is not None and entry.kind == layertar.STREAM:
            yield Stream(entry.link, entry.size, iter(reader.read, b""))
            entry = next(entries, None)

    while entry is not None:
        following = streams(entry)
        yield record(entry, following, from_sddl)
        for _entry in following:
            pass


def record(entry: layertar.Entry, streams: Iterator[Stream], from_sddl: Callable[[str], bytes]) -> LayerFile:
    """Return the record of an entry that is not an alternate stream. Raises as ``read``."""
    try:
        return _record(entry, streams, from_sddl)
    except InvalidArgument as error:
        raise error.with_context(f"entry {entry.name!r} is refused") from None


def write(files: Iterable[LayerFile], stream: BinaryIO) -> None:
    """Write a layer tar of these records, with its end mark: the same bytes for the same layer.

    Raises InvalidArgument that names the file that a tar cannot hold.
    """
    for file in files:
        try:
            _write_file(file, stream)
        except InvalidArgument as error:
            raise error.with_context(f"{file.name!r} cannot be written to a layer tar") from None
    stream.write(layertar.END_MARK)


def _record(entry: layertar.Entry, streams: Iterator[Stream], from_sddl: Callable[[str], bytes]) -> LayerFile:
    if entry.kind in (layertar.WHITEOUT, layertar.HARD_LINK):
        return LayerFile(entry.name, entry.kind, link=entry.link, streams=streams)
    pax = entry.pax
    attributes = _attributes(pax.get(layertar.FILE_ATTRIBUTES, "0"))
    link = b""
    if entry.kind == layertar.SYMLINK:
        junction = layertar.MOUNT_POINT in pax
        link = reparse.encode(reparse.Link(entry.link, junction))
        if junction:
            attributes |= DIRECTORY_ATTRIBUTE
    elif entry.kind == layertar.DIRECTORY:
        attributes |= DIRECTORY_ATTRIBUTE
    elif attributes & DIRECTORY_ATTRIBUTE:
        raise InvalidArgument("it is a file, but has the attribute of a directory")
    return LayerFile(
        entry.name,
        layertar.DIRECTORY if attributes & DIRECTORY_ATTRIBUTE else layertar.FILE,
        attributes,
        _times(pax, from_nanoseconds(entry.mtime_ns)),
        _security(pax, from_sddl),
        _eas(pax),
        link,
        streams=streams,
    )


def _attributes(text: str) -> int:
    if not _UINT32_DIGITS.fullmatch(text) or int(text) >= 1 << 32:
        raise InvalidArgument(f"it has file attributes {text[:40]!r} that are not a number of 32 bits")
    return int(text)


def _times(pax: Dict[str, str], write: int) -> FileTimes:
    """Return the times of an entry. The time of the last write replaces a missing one."""
    creation, access, change = (
        from_nanoseconds(layertar.time_from_text(pax[key])) if key in pax else write
        for key in (layertar.CREATION_TIME, ACCESS_TIME, CHANGE_TIME)
    )
    return FileTimes(creation, access, write, change)


def _security(pax: Dict[str, str], from_sddl: Callable[[str], bytes]) -> bytes:
    data = b""
    if RAW_SECURITY in pax:
        data = _from_base64(pax[RAW_SECURITY], "security descriptor")
    elif SDDL_SECURITY in pax:
        data = from_sddl(pax[SDDL_SECURITY])
    problem = securitydescriptor.fault(data) if data else ""
    if problem:
        raise InvalidArgument(f"its security descriptor {problem}")
    return data


def _eas(pax: Dict[str, str]) -> bytes:
    # Sorted, so that the same entry always results in the same file.
    names = sorted(key[len(EXTENDED_ATTRIBUTE) :] for key in pax if key.startswith(EXTENDED_ATTRIBUTE))
    return eas.encode(
        eas.ExtendedAttribute(name.encode(), _from_base64(pax[EXTENDED_ATTRIBUTE + name], "extended attribute"))
        for name in names
    )


def _from_base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidArgument(f"it has a damaged {what}: {error}") from None


def _write_file(file: LayerFile, stream: BinaryIO) -> None:
    _check_name(*file.name.split("/"))
    if file.kind == layertar.WHITEOUT:
        stream.write(layertar.header(file.name, file.kind))
        return
    kind, mode, link, pax = _header(file)
    mtime_ns = to_nanoseconds(file.times.write)
    content = next(file.streams, None)
    if content and not content.name and kind != layertar.FILE:
        # A link in a tar has no content.
        content = next(file.streams, None)
    size = content.size if content and not content.name else 0
    stream.write(layertar.header(file.name, kind, size=size, mode=mode, mtime_ns=mtime_ns, link=link, pax=pax))
    pax = {key: pax[key] for key in (ACCESS_TIME, CHANGE_TIME)}
    while content is not None:
        if content.name:
            _check_name(content.name)
            name = f"{file.name}:{content.name}"
            entry = layertar.header(name, layertar.FILE, size=content.size, mode=_MODE_FILE, mtime_ns=mtime_ns, pax=pax)
            stream.write(entry)
        stream.writelines(content.chunks)
        stream.write(layertar.padding(content.size))
        content = next(file.streams, None)


def _check_name(*components: str) -> None:
    for component in components:
        problem = fault(component)
        if problem:
            raise InvalidArgument(f"{component!r} {problem}")


def _header(file: LayerFile) -> Tuple[str, int, str, Dict[str, str]]:
    """Return kind, mode, link and pax records for the entry of a record."""
    written = layertar.time_text(to_nanoseconds(file.times.write))
    pax = {
        layertar.FILE_ATTRIBUTES: str(file.attributes),
        layertar.CREATION_TIME: layertar.time_text(to_nanoseconds(file.times.creation)),
        ACCESS_TIME: written,
        CHANGE_TIME: written,
    }
    if file.kind == layertar.HARD_LINK:
        return file.kind, _MODE_HARD_LINK, file.link, pax
    if file.security:
        pax[RAW_SECURITY] = base64.b64encode(file.security).decode("ascii")
    for attribute in eas.decode(file.eas):
        try:
            name = attribute.name.decode()
        except UnicodeDecodeError:
            name = ""
        if not name or "=" in name:
            raise InvalidArgument(f"the extended attribute {attribute.name!r} has a name that cannot be a PAX key")
        pax[EXTENDED_ATTRIBUTE + name] = base64.b64encode(attribute.value).decode("ascii")
    mode = _MODE_DIRECTORY if file.kind == layertar.DIRECTORY else _MODE_FILE
    if not file.reparse:
        return file.kind, mode, "", pax
    link = reparse.decode(file.reparse)
    if link.junction:
        pax[layertar.MOUNT_POINT] = "1"
    try:
        link.target.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"its target {link.target!r} is not Unicode text") from None
    return layertar.SYMLINK, mode & _MODE_DIRECTORY | _MODE_SYMLINK, link.target, pax
