# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the layouts and numbers in core/win32 with the headers of mingw-w64. Its compiler does the comparison."""

from __future__ import annotations

import ctypes
import subprocess

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import (
    advapi32,
    bindflt,
    dispatcher,
    errors,
    eventlog,
    kernel32,
    library,
    namedpipe,
    ntdll,
    services,
    virtdisk,
    vmcompute,
)

COMPILER = "x86_64-w64-mingw32-gcc"

#: Structures, their C types, and the C names of fields that have another name there.
STRUCTURES = [
    (library.Guid, "GUID", {}),
    (advapi32.Luid, "LUID", {}),
    (
        advapi32.TokenPrivileges,
        "TOKEN_PRIVILEGES",
        {"Luid": "Privileges[0].Luid", "Attributes": "Privileges[0].Attributes"},
    ),
    (kernel32.FileBasicInfo, "FILE_BASIC_INFO", {}),
    (kernel32.FileStandardInfo, "FILE_STANDARD_INFO", {}),
    (kernel32.FileIdInfo, "FILE_ID_INFO", {}),
    (kernel32.FileIdBothDirectoryInfo, "FILE_ID_BOTH_DIR_INFO", {}),
    (kernel32.Overlapped, "OVERLAPPED", {}),
    (ntdll.UnicodeString, "UNICODE_STRING", {}),
    (ntdll.ObjectAttributes, "OBJECT_ATTRIBUTES", {}),
    (ntdll.IoStatusBlock, "IO_STATUS_BLOCK", {}),
    (ntdll.FileLinkInformation, "FILE_LINK_INFORMATION", {}),
    (ntdll.OsVersionInfo, "OSVERSIONINFOW", {}),
    (services.ServiceConfig, "QUERY_SERVICE_CONFIGW", {}),
    (services.ServiceStatusProcess, "SERVICE_STATUS_PROCESS", {}),
    (services.EnumServiceStatus, "ENUM_SERVICE_STATUSW", {}),
    (services.Action, "SC_ACTION", {}),
    (services.FailureActions, "SERVICE_FAILURE_ACTIONSW", {}),
    (dispatcher.ServiceStatus, "SERVICE_STATUS", {}),
    (dispatcher.TableEntry, "SERVICE_TABLE_ENTRYW", {}),
    (virtdisk.VirtualStorageType, "VIRTUAL_STORAGE_TYPE", {}),
    (
        virtdisk.OpenVirtualDiskParameters,
        "OPEN_VIRTUAL_DISK_PARAMETERS",
        {name: f"Version2.{name}" for name in ("GetInfoOnly", "ReadOnly", "ResiliencyGuid")},
    ),
]


def constants(module):
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int)
    }


def assertions():
    for structure, c_type, renamed in STRUCTURES:
        yield f"sizeof({c_type}) == {ctypes.sizeof(structure)}"
        for name, *_ in structure._fields_:
            field = getattr(structure, name)
            member = renamed.get(name, name)
            yield f"offsetof({c_type}, {member}) == {field.offset}"
            yield f"sizeof((({c_type} *)0)->{member}) == {field.size}"
    numbers = {**constants(kernel32), **constants(errors), **constants(ntdll), **constants(services)}
    numbers["ERROR_FAILED_SERVICE_CONTROLLER_CONNECT"] = dispatcher.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT
    for name in ("STOPPED", "START_PENDING", "STOP_PENDING", "RUNNING"):
        numbers[f"SERVICE_{name}"] = getattr(dispatcher, name)
    for name in ("ERROR", "WARNING", "INFORMATION"):
        numbers[f"EVENTLOG_{name}_TYPE"] = getattr(eventlog, name)
    private = ("SC_MANAGER_CREATE_SERVICE", "SERVICE_CHANGE_CONFIG", "SERVICE_ENUMERATE_DEPENDENTS", "SERVICE_START")
    for name in (*private, "SERVICE_STOP", "SERVICE_CONFIG_FAILURE_ACTIONS_FLAG", "SERVICE_CONTROL_STOP"):
        numbers[name] = getattr(services, f"_{name}")
    for name in ("FILE_FLAG_OVERLAPPED", "SECURITY_SQOS_PRESENT", "SECURITY_ANONYMOUS", "WAIT_TIMEOUT"):
        numbers[name] = getattr(namedpipe, name)
    del numbers["ERROR_REPARSE_POINT_ENCOUNTERED"]  # see test_numbers_without_a_public_header
    numbers["FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE"] = numbers.pop("SHARE_ALL")
    numbers["VIRTUAL_DISK_ACCESS_DETACH"] = virtdisk._ACCESS_DETACH
    for name, value in numbers.items():
        yield f"(unsigned)({name}) == {value}u"


@pytest.mark.requires_tool(COMPILER, "gcc-mingw-w64-x86-64-posix")
def test_layouts_and_numbers_are_those_of_the_headers(tmp_path):
    claims = list(assertions())
    source = tmp_path / "layouts.c"
    source.write_text(
        "#define _WIN32_WINNT 0x0A00\n"
        "#include <stddef.h>\n#include <windows.h>\n#include <winioctl.h>\n#include <winternl.h>\n"
        "#include <virtdisk.h>\n" + "".join(f'_Static_assert({claim}, "{claim}");\n' for claim in claims)
    )
    done = subprocess.run(
        [COMPILER, "-std=c11", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(claims) > 140


def test_layouts_without_a_public_header():
    # From hcsshim, internal/wclayer/layerutils.go, on a 64-bit system.
    assert ctypes.sizeof(vmcompute.DriverInfo) == 16
    assert vmcompute.DriverInfo.HomeDir.offset == 8
    assert ctypes.sizeof(vmcompute.LayerDescriptor) == 32
    assert vmcompute.LayerDescriptor.Flags.offset == 16
    assert vmcompute.LayerDescriptor.Path.offset == 24


def test_numbers_without_a_public_header():
    # From go-winio, pkg/bindfilter/bind_filter.go.
    assert (bindflt.READ_ONLY_MAPPING, bindflt.NO_MULTIPLE_TARGETS) == (0x1, 0x40)
    # From winerror.h and virtdisk.h of the SDK for Windows 11. mingw-w64 10 does not have these numbers.
    assert errors.ERROR_REPARSE_POINT_ENCOUNTERED == 4395
    assert virtdisk.ATTACH_BYPASS_DEFAULT_ENCRYPTION_POLICY == 0x20
