# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The files of the proxy snapshotter: one protected directory for each version.

::

    <home>\<version>-<digest>\core.zip    the payload of the task that installed it
    <home>\<version>-<digest>\start.py    verifies core.zip and runs it
    <home>\logs\                          what the service writes

A version is never changed while it can run: another payload has another digest, and so another directory. A service of
SYSTEM runs what is here, so no other account may be able to change it, or the Python that runs it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from typing import Any, Callable, Dict, List, NamedTuple

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError
from ..files import make_directories, os_error, sync_directory
from ..layers import protection

CORE = "core.zip"
START = "start.py"
LOGS = "logs"

_BOOT = "core/boot.py"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}", re.ASCII)
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}-[0-9a-f]{12}", re.ASCII)

_PROGRAM = """\
# Written by the module wcow.snapshotter.proxy_snapshotter. Do not change it: the next task would write it again.
import hashlib
import os
import sys

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), {core!r})
with open(path, "rb") as file:
    data = file.read()
if hashlib.sha256(data).hexdigest() != {digest!r}:
    sys.exit("the file core.zip beside this program was changed: it was not executed. Run the task that installed it")
boot = {{}}
exec(data[{start}:{end}], boot)
sys.exit(boot["start"](path, data, {module!r}))
"""


class Version(NamedTuple):
    """A version: the name of its directory, its version as users know it, and its files by name."""

    name: str
    version: str
    files: Dict[str, bytes]


def own_version(version: str, module: str) -> Version:
    """Return the version that this process runs from, whose service is the function ``main`` of ``module``.

    Raises InvalidArgument for a version that cannot be the name of a directory, FailedPrecondition if the core does
    not run from a payload.
    """
    if not _VERSION.fullmatch(version):
        raise InvalidArgument(f"the version {version!r} has other characters than letters, digits, dots, + and -")
    importer: Any = globals().get("__loader__")
    data = getattr(importer, "data", None)
    if data is None:
        raise FailedPrecondition(
            "the core does not run from the payload of the collection, so there is nothing to install; use the module "
            "proxy_snapshotter"
        )
    return make_version(version, data, importer.read(_BOOT), module)


def make_version(version: str, payload: bytes, boot: bytes, module: str) -> Version:
    """Return the version of a payload. ``boot`` is the source of its first module."""
    start = payload.index(boot)
    program = _PROGRAM.format(
        core=CORE,
        digest=hashlib.sha256(payload).hexdigest(),
        start=start,
        end=start + len(boot),
        module=module,
    ).encode("ascii")
    digest = hashlib.sha256(hashlib.sha256(payload).digest() + program).hexdigest()
    return Version(f"{version}-{digest[:12]}", version, {CORE: payload, START: program})


def is_version(name: str) -> bool:
    """Return True for the name of a directory of a version."""
    return _NAME.fullmatch(name) is not None


def version_of(name: str) -> str:
    """Return the version in the name of a directory, empty for another name."""
    return name.rpartition("-")[0] if is_version(name) else ""


def is_intact(directory: str, files: Dict[str, bytes]) -> bool:
    """Return True if a directory is protected and has these files with these contents. Raises OSError."""
    if not os.path.isdir(directory) or protection.link_fault(directory) or not protection.is_protected(directory):
        return False
    for name, content in files.items():
        path = os.path.join(directory, name)
        if not os.path.isfile(path) or protection.fault(path):
            return False
        with open(path, "rb") as file:
            if file.read() != content:
                return False
    return True


def write(home: str, version: Version, display: Callable[[str], str] = str) -> str:
    """Write a version below ``home``, durably, and return its directory. What is there is replaced.

    Raises FailedPrecondition for a home or directory that is a link, and for a home that contains other things.
    """
    directory = os.path.join(home, version.name)
    try:
        refuse_foreign(home, display)
        for path in (home, directory):
            if protection.link_fault(path):
                raise FailedPrecondition(f"{display(path)} {protection.link_fault(path, display)}; remove the link")
            make_directories(path)
            protection.protect(path)
        for name, content in version.files.items():
            path = os.path.join(directory, name)
            temporary = f"{path}.{os.urandom(8).hex()}.tmp"
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            protection.protect(temporary)
            os.replace(temporary, path)
        sync_directory(directory)
    except OSError as error:
        raise os_error(error, f"cannot write {display(directory)}") from error
    return directory


def refuse_foreign(home: str, display: Callable[[str], str] = str) -> None:
    """Raise FailedPrecondition if a directory has something else than versions and logs. Raises OSError."""
    if not os.path.isdir(home):
        return
    foreign = sorted(name for name in os.listdir(home) if not is_version(name) and name != LOGS)
    if foreign:
        raise FailedPrecondition(
            f"{display(home)} has {', '.join(foreign[:5])}, which are not of the proxy snapshotter; name another "
            "directory, or empty it",
            directory=display(home),
        )


def list_versions(home: str) -> List[str]:
    """Return the names of the versions below ``home``. Raises OSError."""
    return sorted(name for name in os.listdir(home) if is_version(name)) if os.path.isdir(home) else []


def remove(home: str, name: str) -> bool:
    """Remove a version. Return False if a part of it is in use: then a later task removes it."""
    directory = os.path.join(home, name)
    if os.path.islink(directory) or protection.link_fault(directory):
        return False
    shutil.rmtree(directory, ignore_errors=True)
    return not os.path.lexists(directory)


def remove_home(home: str) -> List[str]:
    """Remove all versions, the logs, and the directory itself. Return what stays in it. Raises OSError."""
    if not os.path.isdir(home) or protection.link_fault(home):
        return []
    for name in list_versions(home):
        remove(home, name)
    logs = os.path.join(home, LOGS)
    if not protection.link_fault(logs):
        shutil.rmtree(logs, ignore_errors=True)
    left = sorted(os.listdir(home))
    if not left:
        os.rmdir(home)
    return left


def last_problem(path: str, size: int = 16384) -> str:
    """Return the last line of a log that is an error, empty if there is none in the last ``size`` bytes."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(" ERROR ")[2] for line in reversed(lines) if " ERROR " in line), "")


def refuse_unsafe(directory: str, display: Callable[[str], str] = str) -> None:
    """Raise FailedPrecondition if another account can change the files of a version, or the Python that runs them."""
    try:
        is_safe = protection.is_protected(directory)
    except (OSError, SnapshotterError) as error:
        raise FailedPrecondition(f"{display(directory)} cannot be examined: {error}") from error
    if not is_safe:
        raise FailedPrecondition(
            f"other accounts can access {display(directory)}, from which a service of SYSTEM would run; run the task "
            "again, which protects it"
        )
    refuse_interpreter(sys.executable, display)


def refuse_interpreter(path: str, display: Callable[[str], str] = str) -> None:
    """Raise FailedPrecondition if this Python cannot run a service safely.

    The launchers of virtual environments, ``py.exe`` and the Store start a second process, which the Service Control
    Manager does not know. Windows loads a DLL from the directory of a program first.
    """
    advice = "install Python with the role wcow.snapshotter.python_runtime, and set wcow_python to it"
    if os.name == "nt" and (sys.prefix != sys.base_prefix or "\\windowsapps\\" in path.lower()):
        raise FailedPrecondition(
            f"{display(path)} is the launcher of another Python, which cannot run a service: {advice}"
        )
    for each in (os.path.dirname(path), path):
        reason = "" if os.path.islink(each) else protection.fault(each, display)
        if reason:
            raise FailedPrecondition(
                f"{display(each)} {reason}, and a service of SYSTEM would run it: give it to the administrators, or "
                f"{advice}"
            )
