# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: each call of core/win32, its results, its failures, and the calls of the DLLs."""

from __future__ import annotations

import _winapi
import ctypes
import functools
import inspect
import os
import random
import re
import shutil
import struct
import sys
import threading
import uuid

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import (
    advapi32,
    bindflt,
    errors,
    kernel32,
    library,
    messages,
    ntdll,
    offreg,
    safefile,
    trace,
    virtdisk,
    vmcompute,
)

#: The GUIDs that the stand-in gives to directories of these names.
GUIDS = {"1": "b4ba5a34-c207-57f8-af0e-4608c811efbe", "2": "b4c303af-f407-5802-862b-4308c8abebbe"}

LIBRARIES = [module.DLL for module in (advapi32, bindflt, kernel32, messages, ntdll, offreg, virtdisk, vmcompute)]

# winbase.h
CREATE_NEW = 1


@pytest.fixture
def top(tmp_path):
    return str(tmp_path)


@pytest.fixture
def dll_log(tmp_path_factory, monkeypatch):
    """Read the calls of the stand-ins since the last read: lines without number, process and thread."""
    path = str(tmp_path_factory.mktemp("log") / "calls.log")
    monkeypatch.setenv("WCSTUB_LOG", path)

    def read():
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as log:
            lines = log.read().splitlines()
        os.remove(path)
        return [re.sub(r"^\d+ p\d+ t\d+ ", "", line) for line in lines]

    return read


@pytest.fixture
def rules(monkeypatch):
    """Set the faults of the stand-ins."""
    return lambda text: monkeypatch.setenv("WCSTUB_RULES", text)


@pytest.fixture
def layers(top):
    """Two layer directories: a base with Files, and one with a disk over it."""
    base, scratch = top + r"\1", top + r"\2"
    os.makedirs(base + r"\Files")
    os.makedirs(scratch)
    write(scratch + r"\sandbox.vhdx", b"disk")
    return base, scratch


def write(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def failure(call, *arguments):
    with pytest.raises(errors.Win32Error) as caught:
        call(*arguments)
    return caught.value


def junction(path, target):
    _winapi.CreateJunction(target, path)


def open_any(path, access=kernel32.GENERIC_READ, disposition=kernel32.OPEN_EXISTING):
    flags = kernel32.FILE_FLAG_BACKUP_SEMANTICS | kernel32.FILE_FLAG_OPEN_REPARSE_POINT
    return kernel32.create_file(path, access, disposition=disposition, flags=flags)


# -- binding -----------------------------------------------------------------


@pytest.mark.parametrize("dll", LIBRARIES, ids=lambda dll: dll.name)
def test_every_prototype_has_its_export(dll):
    assert dll.missing() == []


def test_what_is_missing_is_named():
    gone = library.Library("nosuch.dll", "a Windows of tomorrow", {"F": (library.DWORD,), "G": (library.DWORD,)})
    assert gone.missing() == ["nosuch.dll"]
    with pytest.raises(FailedPrecondition, match=r"Failed to load nosuch.dll: .* It comes with a Windows of tomorrow"):
        gone.call("F")
    old = library.Library(
        "kernel32.dll", "a Windows of tomorrow", {"NoSuchCall": (library.DWORD,), "GetTickCount": (library.DWORD,)}
    )
    assert old.missing() == ["NoSuchCall in kernel32.dll"]
    assert old.call("GetTickCount") != 0
    with pytest.raises(FailedPrecondition, match="Failed to find NoSuchCall procedure in kernel32.dll"):
        old.call("NoSuchCall")


def test_only_system32_is_searched(top, monkeypatch):
    shutil.copy(r"C:\windows\system32\offreg.dll", top + r"\planted.dll")
    monkeypatch.chdir(top)
    monkeypatch.setenv("PATH", top)
    assert library.Library("planted.dll", "nowhere", {"ORCreateHive": (library.DWORD,)}).missing() == ["planted.dll"]


# -- vmcompute ---------------------------------------------------------------


def test_the_life_of_a_layer(layers, dll_log):
    base, scratch = layers
    parent = f'[{GUIDS["1"]} f=0 "{base}"]'
    volume = vmcompute_life(base, scratch)
    assert volume.startswith("\\\\?\\Volume{")
    assert dll_log() == [
        f'ProcessBaseImage "\\\\?\\{base}" -> 0x00000000',
        f'ExpandSandboxSize "{scratch}" drv=(1,"") size=42949672960 -> 0x00000000',
        f'ActivateLayer "{scratch}" drv=(1,"") active=1 -> 0x00000000',
        f'NameToGuid "1" guid={GUIDS["1"]} -> 0x00000000',
        f'PrepareLayer "{scratch}" drv=(1,"") n=1 {parent} prepared=1 -> 0x00000000',
        f'GetLayerMountPath "{scratch}" drv=(1,"") buf=null -> 0x00000000',
        f'GetLayerMountPath "{scratch}" drv=(1,"") buf=yes path="{volume}" -> 0x00000000',
        f'UnprepareLayer "{scratch}" drv=(1,"") prepared=0 -> 0x00000000',
        f'DeactivateLayer "{scratch}" drv=(1,"") active=0 -> 0x00000000',
    ]


def vmcompute_life(base, scratch):
    vmcompute.process_base_image(base)
    vmcompute.expand_sandbox_size(scratch, 40 << 30)
    vmcompute.activate_layer(scratch)
    vmcompute.prepare_layer(scratch, [base])
    volume = vmcompute.get_layer_mount_path(scratch)
    vmcompute.unprepare_layer(scratch)
    vmcompute.deactivate_layer(scratch)
    return volume


def test_export_and_import_carry_the_parents(layers, top, dll_log):
    base, scratch = layers
    folder, layer = top + r"\transport", top + r"\3"
    os.mkdir(folder)
    os.mkdir(layer)
    vmcompute.activate_layer(scratch)
    vmcompute.prepare_layer(scratch, [])
    vmcompute.unprepare_layer(scratch)
    dll_log()
    vmcompute.export_layer(scratch, folder, [scratch, base])
    vmcompute.import_layer(layer, folder, [base])
    vmcompute.deactivate_layer(scratch)
    near, far = (f'[{GUIDS[name]} f=0 "{top}\\{name}"]' for name in ("2", "1"))
    assert [line for line in dll_log() if not line.startswith("NameToGuid")] == [
        f'ExportLayer "{scratch}" drv=(1,"") to="{folder}" n=2 {near} {far} -> 0x00000000',
        f'ImportLayer "\\\\?\\{layer}" drv=(1,"") from="{folder}" n=1 {far} -> 0x00000000',
        f'DeactivateLayer "{scratch}" drv=(1,"") active=0 -> 0x00000000',
    ]
    assert os.path.isdir(layer + r"\Hives")


def test_no_parents_are_a_null_list(layers, dll_log):
    base, _ = layers
    vmcompute.activate_layer(base)
    vmcompute.prepare_layer(base, [])
    assert vmcompute.get_layer_mount_path(base) == base
    vmcompute.unprepare_layer(base)
    vmcompute.deactivate_layer(base)
    assert f'PrepareLayer "{base}" drv=(1,"") n=0 null prepared=1 -> 0x00000000' in dll_log()


def test_the_utility_vm_is_spelled_long(layers, dll_log):
    base, _ = layers
    os.makedirs(base + r"\UtilityVM\Files")
    vmcompute.process_utility_image(base + r"\UtilityVM")
    assert dll_log() == [f'ProcessUtilityImage "\\\\?\\{base}\\UtilityVM" -> 0x00000000']
    assert os.path.exists(base + r"\UtilityVM\SystemTemplate.vhdx")


def test_a_name_has_a_guid():
    # containerd issue 4419.
    assert str(uuid.UUID(bytes_le=vmcompute.name_to_guid("4"))) == "bd9c3ef9-f239-59b5-a27e-15c523b1d149"


LAYER = r"C:\layer"

#: Each function with an export and hcsshim's name for it.
CALLS = [
    (vmcompute.activate_layer, (LAYER,), "ActivateLayer", "ActivateLayer"),
    (vmcompute.deactivate_layer, (LAYER,), "DeactivateLayer", "DeactivateLayer- failed"),
    (vmcompute.prepare_layer, (LAYER, []), "PrepareLayer", "PrepareLayer"),
    (vmcompute.unprepare_layer, (LAYER,), "UnprepareLayer", "UnprepareLayer"),
    (vmcompute.expand_sandbox_size, (LAYER, 1), "ExpandSandboxSize", "ExpandScratchSize"),
    (vmcompute.export_layer, (LAYER, LAYER, []), "ExportLayer", "ExportLayer"),
    (vmcompute.import_layer, (LAYER, LAYER, []), "ImportLayer", "ImportLayer"),
    (vmcompute.get_layer_mount_path, (LAYER,), "GetLayerMountPath", "GetLayerMountPath"),
    (vmcompute.name_to_guid, ("x",), "NameToGuid", "NameToGuid"),
    (vmcompute.process_base_image, (LAYER,), "ProcessBaseImage", "ProcessBaseLayer"),
    (vmcompute.process_utility_image, (LAYER,), "ProcessUtilityImage", "ProcessUtilityVMImage"),
]


@pytest.mark.parametrize(("call", "arguments", "export", "title"), CALLS, ids=[case[2] for case in CALLS])
@pytest.mark.parametrize(
    ("hresult", "text", "code"),
    [
        ("0x80070005", "Access is denied.", 0x5),
        ("0x800705b4", "This operation returned because the timeout period expired.", 0x5B4),
        ("0xc0370106", "winapi error #3224830214", 0xC0370106),
        ("0x80004005", "Unspecified error", 0x80004005),
    ],
)
def test_every_failure_has_its_sentence(call, arguments, export, title, hresult, text, code, rules):
    rules(f"{export}:*={hresult}")
    error = failure(call, *arguments)
    suffix = " (first call)" if export == "GetLayerMountPath" else ""
    where = f" \\\\?\\{arguments[0]}:" if export.startswith("Process") else " failed in Win32:"
    assert error.message == f"hcsshim::{title}{where} {text} (0x{code:x}){suffix}"
    assert error.winerror == code
    assert error.details["call"] == export


def test_the_second_call_for_a_mount_path_fails_as_such(layers, rules):
    rules("GetLayerMountPath:2=0x80070003")
    error = failure(vmcompute.get_layer_mount_path, layers[1])
    assert error.message.endswith("The system cannot find the path specified. (0x3) (second call)")


def test_a_positive_hresult_is_a_success(rules):
    rules("ActivateLayer:*=1")  # S_FALSE
    vmcompute.activate_layer(LAYER)


def test_calls_are_traced(layers, rules):
    base, scratch = layers
    trace.start()
    vmcompute.activate_layer(scratch)
    vmcompute.prepare_layer(scratch, [base])
    volume = vmcompute.get_layer_mount_path(scratch)
    rules("UnprepareLayer:1=0x80070006")
    failure(vmcompute.unprepare_layer, scratch)
    vmcompute.unprepare_layer(scratch)
    vmcompute.deactivate_layer(scratch)
    records = trace.stop()
    assert all(record.pop("microseconds") >= 0 for record in records)
    path = {"path": scratch}
    assert records == [
        {"call": "vmcompute.ActivateLayer", "arguments": path, "result": None},
        {"call": "vmcompute.NameToGuid", "arguments": {"name": "1"}, "result": GUIDS["1"]},
        {"call": "vmcompute.PrepareLayer", "arguments": {**path, "parents": [base]}, "result": None},
        {"call": "vmcompute.GetLayerMountPath", "arguments": path, "result": None},
        {"call": "vmcompute.GetLayerMountPath", "arguments": path, "result": volume},
        {"call": "vmcompute.UnprepareLayer", "arguments": path, "error": "0x6"},
        {"call": "vmcompute.UnprepareLayer", "arguments": path, "result": None},
        {"call": "vmcompute.DeactivateLayer", "arguments": path, "result": None},
    ]


# -- disks and volumes -------------------------------------------------------


def test_a_disk_is_attached_while_it_is_open(layers, dll_log):
    disk = layers[1] + r"\sandbox.vhdx"
    with virtdisk.open_virtual_disk(disk) as handle:
        virtdisk.attach_virtual_disk(handle)
        virtdisk.detach_virtual_disk(disk)
        with pytest.raises(PermissionError):
            os.remove(disk)
    os.remove(disk)
    assert dll_log() == [
        f'OpenVirtualDisk "{disk}" access=0x0 flags=0x0 version=2 -> 0x00000000',
        "AttachVirtualDisk sd=null flags=0x20 provider=0x0 version=0 -> 0x00000000",
        f'OpenVirtualDisk "{disk}" access=0x40000 flags=0x0 version=0 -> 0x00000000',
        "DetachVirtualDisk flags=0x0 provider=0x0 -> 0x00000000",
    ]


@pytest.mark.parametrize("export", ["OpenVirtualDisk", "AttachVirtualDisk", "DetachVirtualDisk"])
def test_a_failure_of_a_disk_names_it(export, layers, rules):
    disk = layers[1] + r"\sandbox.vhdx"
    rules(f"{export}:*=32")

    def use():
        with virtdisk.open_virtual_disk(disk) as handle:
            virtdisk.attach_virtual_disk(handle)
            virtdisk.detach_virtual_disk(disk)

    error = failure(use)
    assert error.message == (
        f"{export} {disk}: The process cannot access the file because it is being used by another process. (0x20)"
    )
    assert error.code == "unavailable"
    os.remove(disk)  # It is closed.


def test_a_volume_is_grown():
    log = "Z:" + os.environ["WINEKIT_IOCTL_LOG"]
    size = kernel32.volume_size("C:")
    assert size == kernel32.volume_size("C:\\") == shutil.disk_usage("C:\\").total
    trace.start()
    with kernel32.open_volume("\\\\?\\C:\\") as volume:
        assert kernel32.get_length(volume) == 1 << 40
        kernel32.extend_volume(volume, (1 << 40) // 512)
    calls = [(record["call"], record.get("result")) for record in trace.stop()]
    assert calls == [("kernel32.IOCTL_DISK_GET_LENGTH_INFO", 1 << 40), ("kernel32.FSCTL_EXTEND_VOLUME", None)]
    assert read(log).decode().splitlines()[-1] == "FSCTL_EXTEND_VOLUME sectors 2147483648"


def test_the_volume_of_a_path_is_that_of_what_it_leads_to(top):
    os.mkdir(top + r"\real")
    junction(top + r"\there", top + r"\real")
    for path in (top, top + r"\not\yet", top + r"\there\not\yet", "C:\\"):
        assert kernel32.volume_of(path) == "C:\\"
    junction(top + r"\other", "Z:\\tmp")
    assert kernel32.volume_of(top + r"\other\not\yet") == "Z:\\"
    assert kernel32.filesystem_name("C:\\") == kernel32.filesystem_name("C:") == "NTFS"
    assert failure(kernel32.volume_of, r"Q:\data").winerror == errors.ERROR_PATH_NOT_FOUND


# -- bindings and hives ------------------------------------------------------


def test_bindings_come_and_go(top, dll_log):
    root, target = top + r"\mnt", top + "\\"
    bindflt.setup_filter(root, target, bindflt.NO_MULTIPLE_TARGETS | bindflt.READ_ONLY_MAPPING)
    again = failure(bindflt.setup_filter, root, target, bindflt.NO_MULTIPLE_TARGETS)
    assert again.message == f"BfSetupFilter {root}: {again.message.split(': ', 1)[1]}"
    bindflt.remove_mapping(root)
    gone = failure(bindflt.remove_mapping, root)
    assert gone.winerror == errors.ERROR_NOT_FOUND
    assert gone.details["advice"] == "Nothing is bound to this path."
    assert dll_log()[0] == f'BfSetupFilter "{root}" target="{target}" job=null flags=0x41 exceptions=0 -> 0x00000000'


def test_an_empty_hive_is_saved_once(top, dll_log):
    path = top + r"\SAM"
    offreg.create_empty_hive(path, 10, 0)
    assert os.path.exists(path)
    assert failure(offreg.create_empty_hive, path, 10, 0).message.startswith(f"ORSaveHive \\\\?\\{path}: ")
    saved = f'ORSaveHive "\\\\?\\{path}" version=10.0'
    assert dll_log() == [
        *("ORCreateHive -> 0x00000000", f"{saved} -> 0x00000000", "ORCloseHive -> 0x00000000"),
        *("ORCreateHive -> 0x00000000", f"{saved} -> 0x00000050", "ORCloseHive -> 0x00000000"),
    ]


# -- privileges --------------------------------------------------------------


def thread_has_token():
    handle = library.HANDLE()
    found = advapi32.DLL.call("OpenThreadToken", -2, 0x8, True, ctypes.byref(handle))
    if found:
        kernel32.Handle(handle.value, "").close()
    return bool(found)


def test_privileges_are_those_of_the_thread_and_of_the_block():
    seen = {}
    with advapi32.privileges(advapi32.BACKUP, advapi32.RESTORE, advapi32.SECURITY):
        seen["inside"] = thread_has_token()
        other = threading.Thread(target=lambda: seen.update(other=thread_has_token()))
        other.start()
        other.join(10)
    seen["after"] = thread_has_token()
    with pytest.raises(KeyError), advapi32.privileges(advapi32.BACKUP):
        raise KeyError
    seen["after an error"] = thread_has_token()
    assert seen == {"inside": True, "other": False, "after": False, "after an error": False}


def test_a_privilege_that_the_account_lacks_is_named():
    lacking = "SeLockMemoryPrivilege"
    with pytest.raises(errors.Win32FailedPrecondition, match=lacking) as caught, advapi32.privileges(lacking):
        raise AssertionError("not reached")
    assert caught.value.code == "failed_precondition"
    assert not thread_has_token()


def test_a_privilege_that_does_not_exist_is_named():
    with pytest.raises(errors.Win32Error, match="SeNoSuchPrivilege"), advapi32.privileges("SeNoSuchPrivilege"):
        raise AssertionError("not reached")
    assert not thread_has_token()


def test_the_tests_run_as_an_administrator():
    assert advapi32.is_administrator()


def test_a_security_descriptor_is_read_from_text():
    assert advapi32.descriptor_from_sddl("O:BAG:SYD:P(A;OICI;FA;;;SY)") == SECURITY_DESCRIPTOR
    with pytest.raises(InvalidArgument, match="is not a security descriptor in SDDL: "):
        advapi32.descriptor_from_sddl("D:(A;;FA;;;nobody)")


# -- files -------------------------------------------------------------------


def test_a_file_is_written_and_read(top):
    path = top + r"\file"
    with kernel32.create_file(path, kernel32.GENERIC_WRITE, 0, CREATE_NEW) as file:
        kernel32.write_file(file, b"abc")
        kernel32.write_file(file, b"")
        kernel32.write_file(file, b"defg")
    with kernel32.create_file(path, kernel32.GENERIC_READ) as file:
        assert [kernel32.read_file(file, 5), kernel32.read_file(file, 5), kernel32.read_file(file, 5)] == [
            b"abcde",
            b"fg",
            b"",
        ]
        assert kernel32.get_standard_info(file)[1:] == (7, 1, False)
        assert kernel32.final_path(file) == path
    exists = failure(kernel32.create_file, path, kernel32.GENERIC_WRITE, 0, CREATE_NEW)
    assert exists.message.startswith(f"CreateFile {path}: ")
    with kernel32.create_file(path, kernel32.GENERIC_READ, 0):
        assert failure(kernel32.create_file, path, kernel32.GENERIC_READ).winerror == errors.ERROR_SHARING_VIOLATION


def test_one_byte_is_locked_until_the_handle_is_closed(top):
    path = top + r"\meta.db"
    last = (1 << 64) - 1
    with kernel32.create_file(path, kernel32.GENERIC_WRITE, disposition=CREATE_NEW) as file:
        kernel32.write_file(file, b"pages")
    with open_any(path) as other:
        with open_any(path) as owner:
            assert kernel32.try_lock(owner, last, exclusive=True)
            assert not kernel32.try_lock(other, last, exclusive=True)
            assert not kernel32.try_lock(other, last, exclusive=False)
            assert kernel32.try_lock(other, last - 1, exclusive=True)
            assert kernel32.read_file(other, 9) == b"pages"
        assert kernel32.try_lock(other, last, exclusive=False)
        with open_any(path) as third:
            assert kernel32.try_lock(third, last, exclusive=False)
            assert not kernel32.try_lock(third, last, exclusive=True)
    with open_any(top) as directory:
        assert failure(kernel32.try_lock, directory, last, True).details["call"] == "LockFileEx"


def test_a_closed_handle_is_rejected(top):
    handle = open_any(top)
    handle.close()
    handle.close()
    assert failure(kernel32.get_basic_info, handle).winerror == 6


def test_long_paths_work_throughout(top):
    directory = top + ("\\" + "d" * 100) * 3
    os.makedirs("\\\\?\\" + directory)
    path = directory + "\\" + "f" * 200
    with kernel32.create_file(path, kernel32.GENERIC_WRITE, disposition=CREATE_NEW) as file:
        kernel32.write_file(file, b"deep")
    with safefile.open_root(directory) as root:
        assert [entry.name for entry in kernel32.list_directory(root)] == ["f" * 200]


def test_times_and_attributes_are_set_and_what_is_zero_stays(top):
    path = top + r"\file"
    write(path)
    first = kernel32.BasicInfo(131_000_000_000_000_000, 131_000_000_010_000_000, 131_000_000_020_000_000, 0, 0x2006)
    with open_any(path, kernel32.GENERIC_READ | kernel32.GENERIC_WRITE) as file:
        kernel32.set_basic_info(file, first)
        assert kernel32.get_basic_info(file)._replace(change_time=0) == first
        kernel32.set_basic_info(file, kernel32.BasicInfo(0, 0, 131_000_000_030_000_000, 0, 0))
        expected = first._replace(last_write_time=131_000_000_030_000_000)
        assert kernel32.get_basic_info(file)._replace(change_time=0) == expected


def test_hard_links_are_one_file(top):
    write(top + r"\one", b"x")
    os.link(top + r"\one", top + r"\two")
    write(top + r"\three", b"x")
    ids = []
    for name in ("one", "two", "three"):
        with open_any(f"{top}\\{name}") as file:
            ids.append(kernel32.get_file_id(file))
            links = kernel32.get_standard_info(file).links
    assert ids[0] == ids[1] != ids[2]
    assert links == 1


def test_a_large_directory_is_listed_twice(top):
    names = {f"{number:04}{'n' * 100}" for number in range(1500)} | {"x", "🪟"}
    for name in names:
        write(f"{top}\\{name}", b"12" if name == "x" else b"")
    os.mkdir(top + r"\sub")
    with open_any(top) as directory:
        for _ in range(2):
            entries = {entry.name: entry for entry in kernel32.list_directory(directory)}
            assert set(entries) == names | {"sub"}
            assert entries["x"].size == 2
            assert entries["sub"].attributes & kernel32.FILE_ATTRIBUTE_DIRECTORY
    assert failure(kernel32.list_directory, kernel32.Handle(0, "C:\\gone")).message.startswith(
        r"GetFileInformationByHandleEx C:\gone: "
    )


# -- the backup functions ----------------------------------------------------

SECURITY_DESCRIPTOR = bytes.fromhex(
    # O:BAG:SYD:P(A;OICI;FA;;;SY), self-relative.
    "0100049014000000240000000000000030000000"
    "01020000000000052000000020020000"
    "010100000000000512000000"
    "02001c000100000000031400ff011f00010100000000000512000000"
)


def stream(kind, data, name="", attributes=0):
    encoded = name.encode("utf-16-le")
    return struct.pack("<IIQI", kind, attributes, len(data), len(encoded)) + encoded + data


def restore(path, data, sizes, access=kernel32.GENERIC_WRITE | kernel32.WRITE_DAC | kernel32.WRITE_OWNER):
    with open_any(path, access, CREATE_NEW) as file, kernel32.BackupWriter(file, True) as writer:
        position = 0
        while position < len(data):
            position += writer.write(data[position : position + sizes()])


def back_up(path, security, sizes):
    with open_any(path) as file, kernel32.BackupReader(file, security) as reader:
        return b"".join(iter(lambda: reader.read(sizes()), b""))


@pytest.mark.parametrize("largest", [3, 60, 100_000])
def test_backup_streams_survive_the_round_trip_however_they_are_cut(top, largest):
    rng = random.Random(largest)
    sizes = functools.partial(rng.randint, 1, largest)
    content = rng.randbytes(5000)
    original = stream(3, SECURITY_DESCRIPTOR) + stream(1, content) + stream(4, b"alternate", ":ads.txt:$DATA")
    with advapi32.privileges(advapi32.BACKUP, advapi32.RESTORE, advapi32.SECURITY):
        restore(top + r"\file", original, sizes)
        assert read(top + r"\file") == content
        assert read(top + r"\file:ads.txt") == b"alternate"
        assert back_up(top + r"\file", True, sizes) == original
        assert back_up(top + r"\file", False, sizes) == original[len(stream(3, SECURITY_DESCRIPTOR)) :]


def test_reading_skips_at_most_to_the_end_of_a_stream(top):
    write(top + r"\file", b"0123456789")
    write(top + r"\file:s", b"more")
    with open_any(top + r"\file") as file, kernel32.BackupReader(file, False) as reader:
        assert reader.read(20) == stream(1, b"0123456789")[:20]
        assert reader.skip(4) == 4
        assert reader.read(2) == b"45"
        assert reader.skip(1 << 33) == 4
        assert reader.read(100) + reader.read(100) == stream(4, b"more", ":s:$DATA")


def test_reading_may_end_early(top):
    write(top + r"\file", b"x" * 1000)
    with open_any(top + r"\file") as file:
        reader = kernel32.BackupReader(file, False)
        reader.read(30)
        reader.close()
        reader.close()
        assert kernel32.get_standard_info(file).size == 1000  # the file stays open
    os.remove(top + r"\file")


def test_a_damaged_backup_stream_is_refused(top):
    error = failure(restore, top + r"\file", stream(77, b"x"), lambda: 100)
    assert error.message.startswith(f"BackupWrite {top}\\file: ")
    os.remove(top + r"\file")  # It is closed.


# -- relative to a directory -------------------------------------------------


@pytest.fixture
def tree(top):
    r"""A root with the file ``a\b\file`` and the junction ``a\out`` to a directory outside, and that directory."""
    os.makedirs(top + r"\root\a\b")
    write(top + r"\root\a\b\file", b"inside")
    os.mkdir(top + r"\outside")
    write(top + r"\outside\file", b"outside")
    junction(top + r"\root\a\out", top + r"\outside")
    with safefile.open_root(top + r"\root") as root:
        yield root
    assert read(top + r"\outside\file") == b"outside"


THROUGH = r"a\out\file"
NOTHING = kernel32.BasicInfo(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda root: safefile.open_file(root, THROUGH, kernel32.GENERIC_READ),
        lambda root: safefile.open_file(root, r"a\out", kernel32.GENERIC_READ),
        lambda root: safefile.open_file(root, r"a\out\new", kernel32.GENERIC_WRITE, disposition=ntdll.FILE_CREATE),
        lambda root: safefile.make_directory(root, r"a\out\new"),
        lambda root: safefile.link(root, r"a\b\file", root, r"a\out\new"),
        lambda root: safefile.link(root, THROUGH, root, "new"),
        lambda root: safefile.remove(root, THROUGH),
        lambda root: safefile.remove_all(root, THROUGH),
        lambda root: list(safefile.walk(root, r"a\out")),
        lambda root: safefile.set_directory_info(root, r"a\out\sub", NOTHING),
    ],
)
def test_no_path_leads_through_a_junction(call, tree):
    error = failure(call, tree)
    # If a directory is requested, Wine checks that first.
    assert error.winerror in {errors.ERROR_REPARSE_POINT_ENCOUNTERED, errors.ERROR_DIRECTORY}
    assert error.message.startswith(f"NtCreateFile {tree.path}\\a\\out")
    assert os.listdir(tree.path) == ["a"]


def test_a_junction_on_the_way_is_explained(tree):
    error = failure(safefile.remove, tree, THROUGH)
    assert error.winerror == errors.ERROR_REPARSE_POINT_ENCOUNTERED
    assert error.details["ntstatus"] == "0xc000050b"
    assert "was not followed" in error.details["advice"]
    with safefile.open_file(tree, r"a\b\file", kernel32.GENERIC_READ) as file:
        assert kernel32.read_file(file, 10) == b"inside"


def test_dots_are_names_to_the_kernel(tree):
    for name in ("..", r"a\..\a", "."):
        assert failure(ntdll.create_file, tree, name, 0).winerror != 0


def test_names_that_are_too_long_are_refused(tree):
    assert failure(safefile.remove, tree, "x" * 40000).winerror == errors.ERROR_FILENAME_EXCED_RANGE
    assert failure(safefile.make_directory, tree, "x" * 300).winerror != 0


def test_links_also_lead_to_another_root(tree, top):
    os.mkdir(top + r"\other")
    with safefile.open_root(top + r"\other") as other:
        safefile.link(tree, r"a\b\file", other, "l")
    safefile.link(tree, r"a\b\file", tree, r"a\second name")
    assert read(top + r"\other\l") == b"inside"
    assert os.stat(top + r"\root\a\second name").st_nlink == 3
    taken = failure(safefile.link, tree, r"a\b\file", tree, r"a\second name")
    assert taken.winerror == errors.ERROR_ALREADY_EXISTS
    assert taken.message.startswith(f"NtSetInformationFile {top}\\root\\a\\second name: ")


def test_read_only_files_are_removed_and_full_directories_are_not(tree, top):
    os.chmod(top + r"\root\a\b\file", 0o400)
    assert failure(safefile.remove, tree, r"a\b").winerror == 145
    safefile.remove(tree, r"a\b\file")
    safefile.remove(tree, r"a\b")
    safefile.remove(tree, r"a\out")
    assert os.listdir(top + r"\root\a") == []


def test_a_read_only_link_is_removed_and_the_other_stays_read_only(tree, top):
    os.link(top + r"\root\a\b\file", top + r"\root\a\other")
    os.chmod(top + r"\root\a\other", 0o400)
    safefile.remove(tree, r"a\b\file")
    assert not os.access(top + r"\root\a\other", os.W_OK)


def test_a_tree_is_removed_without_its_links_targets(tree, top):
    write(top + r"\root\a\readonly")
    os.chmod(top + r"\root\a\readonly", 0o400)
    safefile.remove_all(tree, "a")
    safefile.remove_all(tree, "a")
    assert os.listdir(top + r"\root") == []


def test_as_much_as_possible_is_removed(tree, top):
    write(top + r"\root\a\b\held")
    with kernel32.create_file(top + r"\root\a\b\held", kernel32.GENERIC_READ, kernel32.FILE_SHARE_READ):
        error = failure(safefile.remove_all, tree, "a")
    assert error.winerror == errors.ERROR_SHARING_VIOLATION
    assert error.message.startswith(f"NtCreateFile {top}\\root\\a\\b\\held: ")
    assert [path for path, _ in safefile.walk(tree, "a")] == ["a", r"a\b", r"a\b\held"]


def test_any_depth_is_deleted(tree, top):
    depth = 120
    os.makedirs(f"\\\\?\\{top}\\root\\" + "\\".join("d" * depth))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + depth // 2)
    try:
        assert sum(1 for _ in safefile.walk(tree, "d")) == depth
        safefile.remove_all(tree, "d")
    finally:
        sys.setrecursionlimit(limit)
    assert os.listdir(top + r"\root") == ["a"]


def test_a_walk_goes_down_and_does_not_enter_links(tree, top):
    write(top + r"\root\a\🪟")
    found = dict(safefile.walk(tree, "a"))
    assert sorted(found) == ["a", r"a\b", r"a\b\file", r"a\out", r"a\🪟"]
    assert next(iter(found)) == "a"
    assert list(found).index(r"a\b") < list(found).index(r"a\b\file")
    link = kernel32.FILE_ATTRIBUTE_DIRECTORY | kernel32.FILE_ATTRIBUTE_REPARSE_POINT
    assert [path for path, attributes in found.items() if attributes & link == link] == [r"a\out"]


def test_times_of_a_directory_are_set_also_of_a_junction(tree):
    info = kernel32.BasicInfo(131_000_000_000_000_000, 131_000_000_010_000_000, 131_000_000_020_000_000, 0, 0)
    for path in ("a", r"a\out"):
        safefile.set_directory_info(tree, path, info)
        with open_any(f"{tree.path}\\{path}") as directory:
            assert kernel32.get_basic_info(directory)[:3] == info[:3]


def test_the_version_is_that_of_windows():
    assert ntdll.get_version() == (10, 0, 20348)


# -- protection ------------------------------------------------------------------


def test_a_root_is_protected_and_what_is_in_it_keeps_its_rights(top):
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import protection

    os.makedirs(rf"{top}\root\inside")
    advapi32.write_security(rf"{top}\root", "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FA;;;WD)")
    advapi32.write_security(rf"{top}\root\inside", "O:BAD:P(A;;FA;;;BA)(A;;FR;;;WD)")
    inside = advapi32.read_security(rf"{top}\root\inside")
    assert not protection.is_protected(rf"{top}\root")
    protection.protect(rf"{top}\root")
    assert protection.is_protected(rf"{top}\root")
    assert advapi32.read_security(rf"{top}\root\inside") == inside
    with pytest.raises(InvalidArgument, match="is not a security descriptor in SDDL"):
        advapi32.write_security(rf"{top}\root", "nonsense")
    failure(lambda: advapi32.read_security(rf"{top}\none"))
