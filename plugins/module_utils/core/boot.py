# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first entry of the payload: make the bytes of the payload importable, then serve one request or be a service.

The controller sends the core as a zip file, and a small loader that verifies
and executes this file (plugins/plugin_utils/_loader.py). zipimport cannot be
used: it opens the file again by its path, so the executed bytes can differ
from the verified ones. An import of zipfile would cost more than this module.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time
import zlib
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Dict, Optional, Sequence, Tuple

#: How the payloads in the cache directory begin; other programs can use that directory too.
CACHED = "wcow-"

#: The age in seconds at which a payload is removed when another one arrives.
KEEP_SECONDS = 30 * 86400

# APPNOTE.TXT 4.3.7, 4.3.12 and 4.3.16: sizes of the three fixed headers.
LOCAL_SIZE = 30
ENTRY_SIZE = 46
END_SIZE = 22
STORED = 0


def entries(data: bytes) -> Dict[str, Tuple[int, int, int]]:
    """The files of a zip without comment: name -> (method, size in the zip, offset of its local header)."""
    count, _size, position = struct.unpack_from("<HII", data, len(data) - END_SIZE + 10)
    found = {}
    for _entry in range(count):
        method, size = struct.unpack_from("<10xH8xI", data, position)
        name_size, extra_size, comment_size, offset = struct.unpack_from("<28xHHH8xI", data, position)
        name = data[position + ENTRY_SIZE : position + ENTRY_SIZE + name_size].decode("ascii")
        found[name] = (method, size, offset)
        position += ENTRY_SIZE + name_size + extra_size + comment_size
    return found


class PayloadImporter:
    """Finds and loads the modules of a zip file that is in memory.

    ``path`` is where the zip lies, or would lie, on disk: tracebacks show it.
    They show source lines too, through ``get_source``.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        self.entries = entries(data)

    def entry_of(self, name: str) -> str:
        """The file that holds a module or package, ``""`` if the zip has none."""
        base = name.replace(".", "/")
        return next((entry for entry in (f"{base}.py", f"{base}/__init__.py") if entry in self.entries), "")

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        entry = self.entry_of(name)
        if not entry:
            return None
        package = entry.endswith("/__init__.py")
        spec = ModuleSpec(name, self, origin=f"{self.path}/{entry}", is_package=package)  # type: ignore[arg-type]  # importlib needs its methods
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        entry = self.entry_of(module.__name__)
        code = compile(self.read(entry), f"{self.path}/{entry}", "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the loader has verified the source

    def get_source(self, name: str) -> str:
        """The text of a module, for tracebacks (PEP 302)."""
        return self.read(self.entry_of(name)).decode("utf-8")

    def read(self, entry: str) -> bytes:
        """The bytes of one file of the zip."""
        method, size, offset = self.entries[entry]
        name_size, extra_size = struct.unpack_from("<26xHH", self.data, offset)
        start = offset + LOCAL_SIZE + name_size + extra_size
        content = self.data[start : start + size]
        return content if method == STORED else zlib.decompress(content, -zlib.MAX_WBITS)


def keep(path: str, data: bytes) -> None:
    """Put a verified payload into the cache at ``path`` and remove what is too old.

    A reader finds the whole file or none, and controllers that send the same
    payload at the same time do no harm. A cache that cannot be written costs
    time, nothing else: a line on standard output, ahead of the reply, says so.
    """
    directory = os.path.dirname(path)
    temporary = f"{path}.{os.urandom(8).hex()}.tmp"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        oldest = time.time() - KEEP_SECONDS
        for entry in os.scandir(directory):
            if entry.name.startswith(CACHED) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
    except OSError as error:
        import json

        try:
            os.unlink(temporary)
        except OSError:
            pass
        # Windows refuses to replace a file that another process reads: then it is there.
        if not is_kept(path, data):
            warning = f"The collection's code cannot be kept in {directory}, so that each task sends it again: {error}"
            said = {"loader": {"warnings": [warning]}}
            if "WCOW_EMULATED_DRIVES" in os.environ:
                sys.meta_path.insert(0, PayloadImporter(path, data))
                said = importlib.import_module("core.stores").display_paths(said)
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


def is_kept(path: str, data: bytes) -> bool:
    """Whether ``path`` holds ``data``."""
    try:
        # Opening a named pipe would wait for its other end.
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read() == data
    except OSError:
        return False


def run(path: str, data: bytes) -> int:
    """Serve the request on standard input with the core in ``data``; returns the exit code of the process.

    ``path`` is the payload's place in the cache. The request is one line; what
    follows it is its attachment.
    """
    sys.meta_path.insert(0, PayloadImporter(path, data))
    stdin = sys.stdin.buffer
    try:
        code: int = importlib.import_module("core.door").serve(stdin.readline(), stdin, sys.stdout.buffer)
    except Exception:  # noqa: BLE001 - each failure has to be reported
        # The interpreter's own report opens files by path and would show no source lines.
        import traceback

        traceback.print_exc()
        return 70
    return code


def start(path: str, data: bytes, module: str) -> int:
    """Run ``module.main()`` with the core in ``data``, which was read from ``path``; returns the exit code."""
    sys.meta_path.insert(0, PayloadImporter(path, data))
    code: int = importlib.import_module(module).main()
    return code
