# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: deleting files that are open, read-only, or links."""

from __future__ import annotations

import _winapi
import io
import os
import re
import stat
import subprocess
import sys
import threading
import time
import winreg

import pytest
from core.errors import FailedPrecondition, SnapshotterError
from core.formats.tar import layertar
from core.layers import filetree
from core.layers.dry_run import DryRun
from core.layers.emulated.store import EmulatedLayers
from core.layers.windows import cleanup, conversion
from core.layers.windows.store import WindowsLayers
from core.snapshotter import Snapshotter
from core.win32 import errors, kernel32

BASE = (
    layertar.header("Files", layertar.DIRECTORY, pax={layertar.FILE_ATTRIBUTES: "16"})
    + layertar.header("Files/a", layertar.FILE)
    + layertar.END_MARK
)


@pytest.fixture(autouse=True)
def standins(tmp_path, monkeypatch):
    monkeypatch.setenv("WCSTUB_LOG", str(tmp_path / "stub.log"))
    monkeypatch.setenv("WCSTUB_RULES", "")


@pytest.fixture
def store(tmp_path):
    opened = Snapshotter(str(tmp_path / "root"), WindowsLayers())
    yield opened
    opened.close()


@pytest.fixture
def directory(tmp_path):
    path = str(tmp_path / "root" / "snapshots" / "rm-7")
    os.makedirs(path)
    return path


def picture(top):
    """Everything at and below a directory, with attributes and times."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in ("", *directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = (status.st_file_attributes, status.st_mtime_ns, status.st_nlink, content)
    return found


@pytest.fixture
def outside(tmp_path):
    """A directory outside the store. The test must not change it."""
    top = tmp_path / "outside"
    (top / "sub").mkdir(parents=True)
    (top / "kept").write_bytes(b"\0precious" * 1000)
    (top / "sub" / "read-only").write_text("precious")
    (top / "sub" / "read-only").chmod(0o400)
    before = picture(top)
    yield str(top)
    assert picture(top) == before


def plant(directory, outside):
    os.makedirs(directory + r"\deep\er", exist_ok=True)
    for path in (directory, directory + r"\deep\er"):
        _winapi.CreateJunction(outside, path + r"\junction")
        _winapi.CreateJunction(directory, path + r"\cycle")
        os.symlink(outside, path + r"\directory", target_is_directory=True)
        os.symlink(outside + r"\kept", path + r"\file")
        os.symlink(outside + r"\nothing", path + r"\dangling")


def write(path, text="x"):
    with open(path, "w") as file:
        file.write(text)


def destroyed(log):
    """The number of calls of DestroyLayer that have ended."""
    if not os.path.exists(log):
        return 0
    with open(log, encoding="utf-8") as file:
        return len(re.findall("DestroyLayer", file.read()))


def held_by_another(path):
    """A process that has a file open in a way that no other process can write or delete it."""
    program = "import sys; file = open(sys.argv[1], 'rb'); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


# -- retries and holders -------------------------------------------------------


def test_a_layer_whose_file_is_closed_soon_is_destroyed(directory):
    write(directory + r"\held")
    file = open(directory + r"\held", "rb")
    log = os.environ["WCSTUB_LOG"]

    def close_after_the_first_attempt():
        # A time would not do: on a busy machine, the process that makes the attempt starts late.
        while not destroyed(log):
            time.sleep(0.05)
        file.close()

    closing = threading.Thread(target=close_after_the_first_attempt, daemon=True)
    closing.start()
    WindowsLayers().destroy_with_retries(directory)
    closing.join(60)
    assert not os.path.exists(directory)
    assert destroyed(os.environ["WCSTUB_LOG"]) > 1


def test_the_retries_end(directory, monkeypatch):
    assert sum(cleanup._PAUSES) == pytest.approx(5)
    pauses = []
    monkeypatch.setattr(cleanup, "_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(time, "sleep", pauses.append)
    write(directory + r"\sandbox.vhdx")
    with open(directory + r"\sandbox.vhdx", "rb"), pytest.raises(errors.Win32Unavailable, match="DestroyLayer.*0x20"):
        WindowsLayers().destroy_with_retries(directory)
    assert pauses == [0.01, 0.02]
    with open(os.environ["WCSTUB_LOG"], encoding="utf-8") as log:
        calls = re.findall(r" (\w+(?:Layer|Disk)) ", log.read())
    detaching = ["DeactivateLayer", "OpenVirtualDisk", "DetachVirtualDisk"]
    assert calls == ["DestroyLayer", *detaching, "DestroyLayer", *detaching, "DestroyLayer"]
    WindowsLayers().destroy_with_retries(directory)


def test_other_errors_are_not_retried(directory, monkeypatch):
    monkeypatch.setenv("WCSTUB_RULES", "DestroyLayer:*=0x80070057")
    with pytest.raises(SnapshotterError, match="0x57"):
        WindowsLayers().destroy_with_retries(directory)
    assert destroyed(os.environ["WCSTUB_LOG"]) == 1


def test_a_removal_tries_once(directory):
    write(directory + r"\sandbox.vhdx")
    with open(directory + r"\sandbox.vhdx", "rb"), pytest.raises(errors.Win32Unavailable, match="DestroyLayer.*0x20"):
        WindowsLayers().destroy(directory)
    assert destroyed(os.environ["WCSTUB_LOG"]) == 1


def test_holders_are_named(directory):
    os.makedirs(directory + r"\Files")
    for name in ("Files\\a", "sandbox.vhdx", "free"):
        write(f"{directory}\\{name}")
    assert WindowsLayers().holders(directory) == []
    processes = [held_by_another(f"{directory}\\{name}") for name in ("Files\\a", "sandbox.vhdx")]
    found = WindowsLayers().holders(directory)
    for process in processes:
        process.communicate("", timeout=120)
    # Wine does not know the processes that have a file open; Windows does.
    process = r"(process \d+ \(python\.exe\)|an unknown process) has "
    assert len(found) == 2
    assert re.fullmatch(process + re.escape(directory + r"\sandbox.vhdx") + " open", found[0])
    assert re.fullmatch(process + re.escape(directory + r"\Files\a") + " open", found[1])
    assert WindowsLayers().holders(directory) == []
    assert WindowsLayers().holders(directory + "-none") == []


def test_mounts_are_holders(store, tmp_path):
    store.prepare("key")
    store.mount("key", str(tmp_path / "mnt"))
    assert f"mounted at {tmp_path}\\mnt" in store.layers.holders(str(tmp_path / "root" / "snapshots" / "1"))
    store.unmount(str(tmp_path / "mnt"))
    assert store.layers.holders(str(tmp_path / "root" / "snapshots" / "1")) == []


def test_the_name_of_a_process():
    assert kernel32.process_name(os.getpid()).lower() == "python.exe"
    with pytest.raises(errors.Win32Error, match="OpenProcess 999999"):
        kernel32.process_name(999999)


# -- at the next start ---------------------------------------------------------


def pending():
    """The paths that Windows deletes at its next start, in order."""
    key = r"SYSTEM\CurrentControlSet\Control\Session Manager"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
        try:
            entries = winreg.QueryValueEx(opened, "PendingFileRenameOperations")[0]
        except FileNotFoundError:
            return []
    return [entry.removeprefix("\\??\\") for entry in entries if entry]


def test_what_is_held_is_deleted_at_the_next_start(directory, outside):
    plant(directory + r"\Files", outside)
    for name in ("held", "read-only", r"Files\held"):
        write(f"{directory}\\{name}")
    os.chmod(directory + r"\read-only", 0o400)
    before = pending()
    with open(directory + r"\held", "rb"), open(directory + r"\Files\held", "rb"):
        assert WindowsLayers().destroy_at_restart(directory) == 4
        left = picture(directory)
        assert set(left) - {directory + "\\", directory + "\\Files\\"} == {
            directory + name for name in ("\\held", "\\Files", "\\Files\\held")
        }
    added = pending()[len(before) :]
    assert sorted(added) == sorted(directory + name for name in ("", "\\held", "\\Files", "\\Files\\held"))
    for path in added:
        assert not any(other.startswith(path + "\\") for other in added[added.index(path) :])
    # Wine does here what Windows does at its start.
    subprocess.run(["wineboot"], check=True, timeout=180)
    assert not os.path.lexists(directory)


def test_what_is_not_held_is_deleted_at_once(directory, outside):
    plant(directory, outside)
    before = pending()
    assert WindowsLayers().destroy_at_restart(directory) == 0
    assert not os.path.lexists(directory)
    assert WindowsLayers().destroy_at_restart(directory) == 0
    assert pending() == before


def test_a_dry_run_deletes_nothing(directory):
    assert DryRun(WindowsLayers()).destroy_at_restart(directory) == 0
    assert os.path.isdir(directory)


# -- links ---------------------------------------------------------------------


@pytest.mark.parametrize("layers", [WindowsLayers, EmulatedLayers])
@pytest.mark.parametrize("method", ["destroy", "discard"])
def test_a_layer_full_of_links(directory, outside, layers, method):
    plant(directory, outside)
    getattr(layers(), method)(directory)
    assert not os.path.lexists(directory)


@pytest.mark.parametrize(
    ("layers", "method"),
    [
        (WindowsLayers, "destroy"),
        (WindowsLayers, "destroy_with_retries"),
        (WindowsLayers, "discard"),
        (WindowsLayers, "destroy_at_restart"),
        (EmulatedLayers, "destroy"),
        (EmulatedLayers, "discard"),
    ],
)
@pytest.mark.parametrize("kind", ["junction", "symlink"])
def test_a_layer_that_is_a_link(directory, outside, layers, method, kind):
    os.rmdir(directory)
    if kind == "junction":
        _winapi.CreateJunction(outside, directory)
    else:
        os.symlink(outside, directory, target_is_directory=True)
    getattr(layers(), method)(directory)
    assert not os.path.lexists(directory)


def test_a_snapshot_with_links_is_removed(store, outside):
    store.prepare("key")
    plant(os.path.join(store.root, "snapshots", "1", "Files"), outside)
    store.remove("key")
    assert store.warnings == []
    assert os.listdir(os.path.join(store.root, "snapshots")) == []


def test_an_import_that_fails_with_links_in_its_directory(store, outside):
    class Planting(io.BytesIO):
        """Plants links in the layer when its end is read: by then the first entries are there."""

        def read(self, size=-1):
            data = super().read(size)
            if not data:
                plant(self.directory + r"\Files", outside)
            return data

    def fill(unpack):
        stream = Planting(BASE[:-600])
        stream.directory = os.path.join(store.root, "snapshots", "1")
        try:
            return unpack(stream)
        finally:
            assert os.listdir(stream.directory) == []

    with pytest.raises(SnapshotterError, match="cut off"):
        store.import_layer("base", "", {}, fill)


@pytest.mark.parametrize("purpose", ["import", "export"])
def test_a_transport_folder_whose_name_is_taken_by_a_link(directory, outside, purpose):
    conversion._prepare_transport(directory)
    with conversion._folder(directory, purpose) as folder:
        plant(folder, outside)
    assert not os.path.lexists(folder)
    _winapi.CreateJunction(outside, folder)
    with conversion._folder(directory, purpose) as again:
        assert again == folder
        assert os.listdir(folder) == []
    assert not os.path.lexists(folder)


def test_a_transport_directory_that_is_a_link(directory, outside, tmp_path):
    _winapi.CreateJunction(outside, str(tmp_path / "root" / "transport"))
    with pytest.raises(SnapshotterError, match="transport is a link to .*: examine it, then run the module store"):
        conversion.convert_files(directory, [])


def test_a_read_only_mount_with_links_is_unmounted(tmp_path, outside):
    store = Snapshotter(str(tmp_path / "root"), EmulatedLayers())
    target = str(tmp_path / "mnt")
    store.import_layer("base", "", {}, lambda unpack: unpack(io.BytesIO(BASE)))
    store.view("view", "base")
    store.mount("view", target)
    plant(target, outside)
    store.unmount(target)
    assert os.listdir(target) == []
    store.close()


# -- read-only files -----------------------------------------------------------


def test_a_read_only_link_is_deleted_and_the_other_stays_read_only(tmp_path):
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    write(one)
    os.link(one, other)
    os.chmod(one, 0o400)
    filetree.remove(one)
    assert not os.path.lexists(one)
    assert not os.access(other, os.W_OK)
    assert os.stat(other).st_nlink == 1
    os.mkdir(tmp_path / "d")
    os.link(other, tmp_path / "d" / "third")
    filetree.empty(str(tmp_path / "d"))
    assert not os.access(other, os.W_OK)


def test_what_cannot_be_deleted_is_named(directory, monkeypatch):
    monkeypatch.setattr(filetree, "_REMOVAL_PAUSE", 0)
    for name in ("held", "other"):
        write(f"{directory}\\{name}")
    with open(directory + r"\held", "rb"), pytest.raises(errors.Win32Unavailable, match=r"rm-7\\held: .*0x20"):
        EmulatedLayers().destroy(directory)
    assert os.listdir(directory) == ["held"]
    EmulatedLayers().destroy(directory)
    assert not os.path.lexists(directory)


def test_a_mounted_layer_is_not_destroyed(store, tmp_path):
    store.prepare("key")
    store.mount("key", str(tmp_path / "mnt"))
    for destroy in (store.layers.destroy, store.layers.destroy_at_restart):
        with pytest.raises(FailedPrecondition, match="is mounted at"):
            destroy(os.path.join(store.root, "snapshots", "1"))
    store.unmount(str(tmp_path / "mnt"))
