# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of .NET and the cmdlets that the collection's scripts use, on the files of a lab node.

Names are in lower case here, since PowerShell does not tell case. What a
function raises reaches the script as the exception that PowerShell makes of
it. Access rights are modelled by two modes: 0700 stands for a protected
directory of the administrators, any other mode for inherited rights.
"""

from __future__ import annotations

import base64
import errno
import fnmatch
import hashlib
import http.client
import json
import ntpath
import os
import shutil
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .host import HostFiles
from .powershell import Unsupported

#: Rights of a directory for nobody but administrators and SYSTEM, as they are asked for and as Windows shows them.
PROTECTED = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
_PROTECTED_SHOWN = "O:BAG:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
_INHERITED_SHOWN = "O:BAG:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1200a9;;;BU)"

#: Seconds that the other end of a download may be silent.
_PATIENCE = 100.0


#: What the functions here raise where .NET and cmdlets have exceptions of their own.
_FAILURES = (OSError, ValueError, zipfile.BadZipFile, http.client.HTTPException)


class PowerShellError(Exception):
    """An exception of the script's world, which ``catch`` catches."""


class Node(Protocol):
    """What a script finds where it runs."""

    files: HostFiles
    #: The objects of ``$input``.
    input: list[str]

    def native(self, words: list[str]) -> Any:
        """The output of a program: None, a line, or a list of lines. Raises PowerShellError."""

    def stopped(self) -> bool:
        """Whether the script is to end."""


class Command(NamedTuple):
    """A cmdlet: the parameters that it may have here, and what it does."""

    parameters: tuple[str, ...]
    function: Callable[..., Any]

    def run(self, node: Node, parameters: dict[str, Any]) -> Any:
        """Its output. Raises PowerShellError."""
        try:
            return self.function(node, **parameters)
        except _FAILURES as error:
            raise PowerShellError(str(error)) from error


def array(value: Any) -> list[Any]:
    """``@(value)``."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def member(value: Any, name: str) -> Any:
    """The property, or the method, of an object. Raises Unsupported."""
    if isinstance(value, dict):
        return value.get(name)
    if name.lower() == "length" and isinstance(value, (str, bytes, list)):
        return len(value)
    if isinstance(value, Object) and hasattr(value, name.lower()):
        return getattr(value, name.lower())
    raise Unsupported(f"lab node: the member {name!r} of {type(value).__name__} is not supported (docs/lab.md).")


def invoke(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method as PowerShell does, which wraps the exceptions of .NET in one of its own."""
    try:
        return function(*arguments)
    except _FAILURES as error:
        # The node is not a value that a script has passed.
        count = sum(not hasattr(argument, "stopped") for argument in arguments)
        raise PowerShellError(f'Exception calling "{name}" with "{count}" argument(s): "{error}"') from error


class Object:
    """An instance of a .NET class; its members have lower-case names."""


class FileStream(Object):
    """System.IO.FileStream."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file = path.open(mode)

    def write(self, data: bytes, offset: int, count: int) -> None:
        self._file.write(data[offset : offset + count])

    def close(self) -> None:
        self._file.close()


class DirectorySecurity(Object):
    """System.Security.AccessControl.DirectorySecurity."""

    def __init__(self, node: Node) -> None:
        self.protected = False

    def setsecuritydescriptorsddlform(self, text: str) -> None:
        if text != PROTECTED:
            raise Unsupported(f"lab node: of all rights, only {PROTECTED} is supported.")
        self.protected = True


class WebClient(Object):
    """System.Net.WebClient."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def downloadfile(self, url: str, path: str) -> None:
        # A proxy of the controller's environment has no business on a node.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_PATIENCE) as answer, _native(self._node, path).open("wb") as file:
            shutil.copyfileobj(answer, file)


class Guid(Object):
    """System.Guid."""

    def __init__(self) -> None:
        self._value = uuid.uuid4()

    def tostring(self, style: str) -> str:
        if style != "N":
            raise Unsupported(f"lab node: the format {style!r} of a GUID is not supported.")
        return self._value.hex


def _native(node: Node, path: Any) -> Path:
    """Where a path of the node lies here. Raises ValueError."""
    native = node.files.native(path) if isinstance(path, str) else None
    if native is None:
        raise ValueError(f"The path {path!r} is not absolute.")
    return native


def _create_directory(node: Node, path: str, rights: DirectorySecurity) -> str:
    native = _native(node, path)
    for directory in reversed([native, *native.parents]):
        if not directory.exists():
            directory.mkdir(mode=0o700 if rights.protected else 0o755)
    return path


def _get_directories(node: Node, path: str, pattern: str) -> list[str]:
    names = [entry.name for entry in os.scandir(_native(node, path)) if entry.is_dir()]
    return [ntpath.join(path, name) for name in sorted(names) if fnmatch.fnmatch(name.casefold(), pattern.casefold())]


def _in_use(node: Node, path: Path) -> bool:
    return os.path.lexists(path) and node.files.identity(path) in node.files.running


def _delete_directory(node: Node, path: str, recursive: bool) -> None:
    native = _native(node, path)
    for directory, _names, files in os.walk(native):
        for name in files:
            if _in_use(node, Path(directory) / name):
                raise PermissionError(f"Access to the path '{name}' is denied.")
    if recursive:
        shutil.rmtree(native)
    else:
        native.rmdir()


def _move_directory(node: Node, source: str, target: str) -> None:
    if os.path.lexists(_native(node, target)):
        raise FileExistsError("Cannot create a file when that file already exists.")
    _native(node, source).rename(_native(node, target))


def _delete_file(node: Node, path: str) -> None:
    native = _native(node, path)
    if _in_use(node, native):
        raise PermissionError(f"Access to the path '{path}' is denied.")
    native.unlink(missing_ok=True)


def _open_file(node: Node, path: str, mode: str, access: str, share: str) -> FileStream:
    if (mode, access, share) != ("Open", "ReadWrite", "ReadWrite"):
        raise Unsupported("lab node: only 'Open', 'ReadWrite', 'ReadWrite' is supported of [IO.File]::Open.")
    native = _native(node, path)
    if _in_use(node, native):
        raise BlockingIOError(
            errno.EBUSY, f"The process cannot access the file '{path}' because it is being used by another process."
        )
    return FileStream(native, "r+b")


def _write_all_text(node: Node, path: str, text: str) -> None:
    _native(node, path).write_text(text, encoding="utf-8")


def _extract(node: Node, package: str, path: str) -> None:
    """All programs of Windows can be executed: there is no bit for that."""
    native = _native(node, path)
    with zipfile.ZipFile(_native(node, package)) as file:
        for name in file.namelist():
            extracted = file.extract(name, native)
            if name.lower().endswith(".exe"):
                os.chmod(extracted, 0o700)


def _acl(node: Node, literalpath: str) -> dict[str, str]:
    mode = _native(node, literalpath).stat().st_mode
    return {"Sddl": _INHERITED_SHOWN if mode & 0o077 else _PROTECTED_SHOWN}


def _file_hash(node: Node, literalpath: str, algorithm: str) -> dict[str, str]:
    if algorithm != "SHA256":
        raise Unsupported(f"lab node: the algorithm {algorithm!r} is not supported.")
    return {"Hash": hashlib.sha256(_native(node, literalpath).read_bytes()).hexdigest().upper()}


def _from_json(_node: Node, inputobject: str) -> Any:
    return json.loads(inputobject)


def _to_json(_node: Node, inputobject: Any, compress: bool = False) -> str:
    return json.dumps(inputobject, separators=(",", ":") if compress else None)


def _sleep(_node: Node, seconds: int) -> None:
    time.sleep(seconds)


def _new_object(node: Node, typename: str) -> Object:
    classes: dict[str, Callable[[Node], Object]] = {
        "security.accesscontrol.directorysecurity": DirectorySecurity,
        "net.webclient": WebClient,
    }
    if typename.lower() not in classes:
        raise Unsupported(f"lab node: objects of the type {typename} are not supported.")
    return classes[typename.lower()](node)


_DIRECTORY, _FILE, _PATH, _SERVICE = "io.directory", "io.file", "io.path", "net.servicepointmanager"

STATIC: dict[tuple[str, str], Callable[..., Any]] = {
    (_DIRECTORY, "exists"): lambda node, path: _native(node, path).is_dir(),
    (_DIRECTORY, "createdirectory"): _create_directory,
    (_DIRECTORY, "delete"): _delete_directory,
    (_DIRECTORY, "move"): _move_directory,
    (_DIRECTORY, "getdirectories"): _get_directories,
    (_DIRECTORY, "getfilesystementries"): lambda node, path: os.listdir(_native(node, path)),
    (_FILE, "exists"): lambda node, path: _native(node, path).is_file(),
    (_FILE, "create"): lambda node, path: FileStream(_native(node, path), "wb"),
    (_FILE, "open"): _open_file,
    (_FILE, "delete"): _delete_file,
    (_FILE, "readalltext"): lambda node, path: _native(node, path).read_text(encoding="utf-8"),
    (_FILE, "writealltext"): _write_all_text,
    (_PATH, "getdirectoryname"): lambda _node, path: ntpath.dirname(path),
    (_PATH, "getfilename"): lambda _node, path: ntpath.basename(path),
    ("guid", "newguid"): lambda _node: Guid(),
    ("convert", "frombase64string"): lambda _node, text: base64.b64decode(text, validate=True),
    ("io.compression.zipfile", "extracttodirectory"): _extract,
    # Protocols of TLS are flags; a lab node's URLs are on loopback and need none.
    (_SERVICE, "securityprotocol"): lambda _node: 0,
    (_SERVICE, "securityprotocol="): lambda _node, _flags: None,
    ("net.securityprotocoltype", "tls12"): lambda _node: 3072,
}

COMMANDS: dict[str, Command] = {
    "convertfrom-json": Command(("inputobject",), _from_json),
    "convertto-json": Command(("inputobject", "compress"), _to_json),
    "get-acl": Command(("literalpath",), _acl),
    "get-filehash": Command(("literalpath", "algorithm"), _file_hash),
    "new-object": Command(("typename",), _new_object),
    "start-sleep": Command(("seconds",), _sleep),
    # Of the one assembly that is asked for, the members above are there already.
    "add-type": Command(("assemblyname",), lambda _node, **_parameters: None),
}
