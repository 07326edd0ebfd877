# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Run the operations of one recorded scenario on the Windows layer store, in Windows Python.

    python driver.py < scenario.json > outcome.json

The outcome has, for each operation, the calls that reached the stand-in DLLs
and the error, and at the end the tree of ``C:\t\root\snapshots``.
"""

import base64
import contextlib
import ctypes
import json
import os
import re
import struct
import sys

from core.errors import SnapshotterError
from core.formats.tar import layertar
from core.layers import filetree
from core.layers.windows import conversion
from core.layers.windows.store import WindowsLayers
from core.snapshotter import Snapshotter
from core.win32 import kernel32, vmcompute

TOP = "C:\\t"
ROOT = TOP + "\\root"
LOG = TOP + "\\stub.log"
MTIME = 1_600_000_000_123_456_700

CONFIG = "Files/Windows/System32/config"
BASE = [
    ("Files", None),
    ("Files/Windows", None),
    ("Files/Windows/System32", None),
    (CONFIG, None),
    *((f"{CONFIG}/{name}", b"regf " + name.encode()) for name in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM")),
    ("Files/Windows/changed.txt", b"original"),
    ("Files/Windows/old.txt", b"old"),
    ("Files/empty", b""),
    ("Files/gone.txt", b"to be deleted"),
    ("Files/hard1.txt", b"hard linked"),
    ("Files/hard2.txt", "Files/hard1.txt"),
    ("Files/readonly.txt", b"ro", 0x21),
    ("Files/streams.txt", b"main"),
    ("Files/streams.txt:extra", b"alternate"),
]
BOOT = "UtilityVM/Files/EFI/Microsoft/Boot"
UTILITY_VM = [
    ("UtilityVM", None),
    ("UtilityVM/Files", None),
    ("UtilityVM/Files/EFI", None),
    ("UtilityVM/Files/EFI/Microsoft", None),
    (BOOT, None),
    (BOOT + "/BCD", b"regf BCD"),
    (BOOT + "/BCD.LOG", b""),
    (BOOT + "/bootmgfw.efi", b"MZ"),
    ("UtilityVM/Files/kernel.exe", b"kernel MZ"),
]
LAYER2 = [
    ("Files", None),
    ("Files/.wh.gone.txt", b""),
    ("Files/Windows", None),
    ("Files/Windows/changed.txt", b"changed in layer 2"),
    ("Files/app", None),
    ("Files/app/tool.exe", b"MZ tool"),
    ("Files/app/hard.txt", b"two name"),
    ("Files/app/hard2.txt", "Files/app/hard.txt"),
    ("Files/app/fromparent.txt", "Files/hard1.txt"),
    ("Hives", None),
    ("Hives/Software_Delta", b"regf delta"),
    ("Hives/System_Delta", b"regf delta"),
]
EXTENDED = [
    ("Files", None),
    ("Files/ea.txt", b"x", 0x20, {"MSWINDOWS.xattr.NAME": base64.b64encode(b"value").decode()}),
    ("Files/sddl.txt", b"x", 0x20, {"MSWINDOWS.sd": "O:BAG:SYD:(A;;FA;;;BA)"}),
    ("Files/bad.txt", b"x", "0x20"),
]
TARS = {"base": BASE, "baseuvm": BASE + UTILITY_VM, "layer2": LAYER2, "eas": EXTENDED}


def write_tar(path, entries):
    data = b""
    for name, what, *rest in entries:
        content = what if isinstance(what, bytes) else b""
        kind = layertar.DIRECTORY if what is None else layertar.FILE if what == content else layertar.HARD_LINK
        attributes = rest[0] if rest else 0x10 if what is None else 0x20
        pax = {layertar.FILE_ATTRIBUTES: str(attributes), layertar.CREATION_TIME: layertar.time_text(MTIME)}
        pax.update(*rest[1:])
        if "/.wh." in name:
            kind = layertar.WHITEOUT
        if ":" in name:
            pax = {}
        link = what if kind == layertar.HARD_LINK else ""
        data += layertar.header(name.replace(".wh.", ""), kind, size=len(content), mtime_ns=MTIME, link=link, pax=pax)
        data += content + layertar.padding(len(content))
    with open(path, "wb") as file:
        file.write(data + layertar.END_MARK)


def calls_of(log):
    """The lines of the stand-ins, without what differs between runs."""
    folder = re.escape(ROOT + "\\transport\\") + r"\d+-(?:im|ex)port"
    for line in log.splitlines():
        call = re.sub(r"^\d+ (p\w+ )?(t\w+ )?", "", line)
        # hcsshim has the folder in %TEMP%; we have it in the root, which other accounts cannot write to.
        yield re.sub(folder, r"<TEMP>\\hcs", call, flags=re.IGNORECASE)


def tree(top):
    found = []
    for directory, directories, files in os.walk(top):
        for name in directories:
            found.append(os.path.relpath(os.path.join(directory, name), ROOT) + "\\")
        for name in files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            links = f"\tlinks={status.st_nlink}" if status.st_nlink > 1 else ""
            read_only = "\tattr=0x21" if status.st_file_attributes & 1 else ""
            found.append(f"{os.path.relpath(path, ROOT)}\t{status.st_size}{links}{read_only}")
            found += [f"{os.path.relpath(path, ROOT)}:{stream}\t{size}" for stream, size in streams(path)]
    return sorted(found)


def streams(path):
    """The names and sizes of a file's alternate streams: FileStreamInfo, a chain of FILE_STREAM_INFO."""
    buffer = ctypes.create_string_buffer(1 << 16)
    with kernel32.create_file(path, 0) as file:
        kernel32.DLL.call("GetFileInformationByHandleEx", file, 7, buffer, len(buffer))
    offset = step = 0
    while True:
        offset += step
        step, length, size = struct.unpack_from("<IIq", buffer, offset)
        name = buffer.raw[offset + 24 : offset + 24 + length].decode("utf-16-le")[1:].removesuffix(":$DATA")
        if name:
            yield name, size
        if not step:
            return


class Driver:
    def __init__(self):
        self.layers = WindowsLayers()
        self.snapshotter = Snapshotter(ROOT, self.layers)
        self.held = []

    def layer(self, key):
        mount = self.snapshotter.mounts(key)[0]
        parents = json.loads(mount.options[1].partition("=")[2]) or []
        return mount.source, parents

    def run(self, operation):
        name = operation["op"]
        key = operation.get("key", "")
        path = operation.get("path", "")
        if name in ("prepare", "view"):
            getattr(self.snapshotter, name)(key, operation["parent"], operation.get("labels"))
        elif name == "commit":
            self.snapshotter.commit(operation["name"], key, operation.get("labels"))
        elif name == "remove":
            self.snapshotter.remove(key)
        elif name == "usage":
            self.snapshotter.usage(key)
        elif name == "apply":
            with open(path, "rb") as stream:
                conversion.import_tar(*self.layer(key), stream)
        elif name == "export":
            directory, parents = self.layer(key) if key else (path, operation.get("parents", []))
            with open(operation["to"], "wb") as stream:
                self.layers.export_layer(directory, parents, stream)
        elif name == "mount":
            self.snapshotter.mount(key, operation["to"])
        elif name == "unmount":
            if operation["to"]:
                self.snapshotter.unmount(operation["to"])
        elif name == "write":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", newline="") as file:
                file.write(operation["data"])
        elif name == "read":
            with open(path) as file:
                return file.read()
        elif name == "mkdir":
            os.makedirs(path)
        elif name == "delete":
            os.unlink(path)
        elif name == "hold":
            self.held.append(open(path, "rb"))
        elif name == "release":
            self.held.pop().close()
        elif name == "rules":
            os.environ["WCSTUB_RULES"] = operation["data"]
        elif name == "activate":
            vmcompute.activate_layer(path)
        else:
            raise ValueError(name)
        return None


def main():
    scenario = json.load(sys.stdin)
    filetree.remove(TOP)
    os.makedirs(TOP)
    os.environ.update(scenario.get("environment", {}), WCSTUB_LOG=LOG)
    for name, entries in TARS.items():
        write_tar(f"{TOP}\\{name}.tar", entries)
    driver = Driver()
    outcome = []
    seen = 0
    for operation in scenario["operations"]:
        done = {}
        try:
            result = driver.run(operation)
            if result is not None:
                done["result"] = result
        except SnapshotterError as error:
            done["error"] = error.message
        if driver.snapshotter.warnings:
            done["warnings"] = driver.snapshotter.warnings
            driver.snapshotter.warnings = []
        with contextlib.suppress(FileNotFoundError), open(LOG, encoding="utf-8") as log:
            log.seek(seen)
            done["calls"] = list(calls_of(log.read()))
            seen = log.seek(0, os.SEEK_END)
        outcome.append(done)
    driver.snapshotter.close()
    left = [name for _place, names, _files in os.walk(ROOT + "\\transport") for name in names]
    json.dump({"operations": outcome, "tree": tree(ROOT + "\\snapshots"), "left": left}, sys.stdout)


main()
