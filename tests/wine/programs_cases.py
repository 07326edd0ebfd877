# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: services, processes and command lines, and a containerd that is found by them."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import uuid
import winreg

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import discovery, programs
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import commandline
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import errors, kernel32, ntdll, services

ADVAPI32 = ctypes.WinDLL("advapi32", use_last_error=True)
SHELL32 = ctypes.WinDLL("shell32", use_last_error=True)
ADVAPI32.OpenSCManagerW.restype = ctypes.c_void_p
ADVAPI32.OpenSCManagerW.argtypes = (ctypes.c_wchar_p, ctypes.c_wchar_p, ctypes.c_uint32)
ADVAPI32.CreateServiceW.restype = ctypes.c_void_p
ADVAPI32.CreateServiceW.argtypes = (
    ctypes.c_void_p,
    ctypes.c_wchar_p,
    ctypes.c_wchar_p,
    *(ctypes.c_uint32,) * 4,
    ctypes.c_wchar_p,
    *(ctypes.c_void_p,) * 5,
)
ADVAPI32.DeleteService.argtypes = ADVAPI32.CloseServiceHandle.argtypes = (ctypes.c_void_p,)
SHELL32.CommandLineToArgvW.restype = ctypes.POINTER(ctypes.c_wchar_p)
SHELL32.CommandLineToArgvW.argtypes = (ctypes.c_wchar_p, ctypes.POINTER(ctypes.c_int))

# winnt.h, winsvc.h
ALL_ACCESS = 0xF003F
OWN_PROCESS = 0x10
DEMAND_START = 3


@pytest.fixture
def create_service():
    """Create services that are never started, and delete them at the end."""
    manager = ADVAPI32.OpenSCManagerW(None, None, ALL_ACCESS)
    created = []

    def create(name, command_line):
        service = ADVAPI32.CreateServiceW(
            manager, name, name, 0xF01FF, OWN_PROCESS, DEMAND_START, 1, command_line, *(None,) * 5
        )
        assert service, ctypes.get_last_error()
        created.append(service)

    yield create
    for service in created:
        ADVAPI32.DeleteService(service)
        ADVAPI32.CloseServiceHandle(service)
    ADVAPI32.CloseServiceHandle(manager)


@pytest.fixture
def containerd(tmp_path):
    """Start a process whose program is named containerd.exe, with these flags. It waits for its standard input."""
    program = str(tmp_path / "containerd.exe")
    shutil.copy(r"C:\windows\system32\cmd.exe", program)
    started = []

    def start(*flags):
        process = subprocess.Popen([program, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def set_parameters(service, **values):
    path = rf"SYSTEM\CurrentControlSet\Services\{service}\Parameters"
    with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
        for name, value in values.items():
            winreg.SetValueEx(key, name, 0, winreg.REG_EXPAND_SZ, value)


# -- services ----------------------------------------------------------------------------------------------------------


def test_a_service_has_its_command_line(create_service):
    name = f"wcow-{uuid.uuid4()}"
    assert services.find_service(name) is None
    assert programs.find_service(name, "containerd.exe") is None
    command_line = r'"C:\Program Files\containerd\containerd.exe" --root %SystemDrive%\x --run-service'
    create_service(name, command_line)
    found = services.find_service(name)
    assert (found.command_line, found.start_type, found.is_running) == (command_line, DEMAND_START, False)
    assert programs.find_service(name, "containerd.exe") == programs.Program(
        f"service {name}", command_line.replace("%SystemDrive%", "C:"), False
    )


def test_a_service_that_runs():
    # Wine starts it with the first program that needs it.
    found = services.find_service("RpcSs")
    assert found is not None
    assert "rpcss.exe" in found.command_line.lower()


def test_nssm_names_the_program_that_it_starts(create_service):
    name = f"wcow-{uuid.uuid4()}"
    create_service(name, r"C:\k\nssm.exe")
    assert programs.find_service(name, "containerd.exe") == programs.Program(f"service {name}", "", False)
    set_parameters(name, Application=r"%ProgramFiles%\containerd\containerd.exe", AppParameters=r'--config "C:\a b"')
    found = programs.find_service(name, "containerd.exe")
    assert commandline.split(found.command_line) == [
        rf"{os.environ['PROGRAMFILES']}\containerd\containerd.exe",
        "--config",
        r"C:\a b",
    ]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_processes_have_program_and_command_line():
    processes = dict(kernel32.list_processes())
    assert processes[os.getpid()] == os.path.basename(sys.executable)
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCommandLineW.restype = ctypes.c_wchar_p
    with kernel32.open_process(os.getpid()) as process:
        assert ntdll.get_command_line(process) == kernel.GetCommandLineW()


def test_a_process_that_has_ended():
    unused = max(dict(kernel32.list_processes())) + 4000
    with pytest.raises(errors.Win32Error) as caught:
        kernel32.open_process(unused)
    assert caught.value.winerror == errors.ERROR_INVALID_PARAMETER


def test_a_process_is_found_by_its_program(containerd):
    flags = ["--config", r"C:\a b\config.toml", "--root", "C:\\ü\U0001f4be\\"]
    process = containerd(*flags)
    (found,) = programs.find_processes("Containerd.EXE")
    assert found.name == f"process {process.pid}"
    assert found.is_running
    assert commandline.split(found.command_line)[1:] == flags
    assert not list(programs.find_processes("other.exe"))


# -- command lines -----------------------------------------------------------------------------------------------------


def test_command_lines_are_split_like_windows_does():
    count = ctypes.c_int()
    generator = random.Random(1)
    for _ in range(20_000):
        text = "".join(generator.choice('ab\\\\"" \t') for _ in range(generator.randrange(16)))
        pointer = SHELL32.CommandLineToArgvW("program " + text, ctypes.byref(count))
        assert commandline.split("program " + text) == pointer[: count.value], text


# -- discovery ---------------------------------------------------------------------------------------------------------


def test_containerd_is_found_by_its_process_and_by_its_service(containerd, create_service, tmp_path):
    nothing = discovery.find(discovery.Options())
    assert nothing.program == ""
    assert nothing.root.value == rf"{os.environ['PROGRAMDATA']}\containerd\root"
    config = str(tmp_path / "config.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"version = 3\nimports = ['conf.d\\*.toml']\nroot = '{tmp_path}\\root'\n")
    os.mkdir(tmp_path / "conf.d")
    with open(tmp_path / "conf.d" / "a.toml", "w", encoding="utf-8") as file:
        file.write("version = 3\nstate = 'D:\\state'\n")
    process = containerd("--config", config)
    found = discovery.find(discovery.Options())
    assert found.program == f"process {process.pid}"
    assert found.root == discovery.Value(rf"{tmp_path}\root", config)
    assert found.state == discovery.Value(r"D:\state", rf"{tmp_path}\conf.d\a.toml")
    assert found.address.value == r"\\.\pipe\containerd-containerd"
    create_service("containerd", r"C:\k\nssm.exe")
    set_parameters("containerd", Application="containerd.exe", AppParameters=rf'--config "{config}" --root D:\nssm')
    found = discovery.find(discovery.Options())
    assert (found.program, found.is_running) == ("service containerd", False)
    assert found.root == discovery.Value(r"D:\nssm", "the command line of service containerd")
