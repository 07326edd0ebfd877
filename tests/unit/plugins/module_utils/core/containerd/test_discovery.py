# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what is found on nodes as projects and products set them up."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.discovery import (
    Containerd,
    Options,
    Value,
    find,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, NotFound

CONFIG = r"C:\Program Files\containerd\config.toml"
ROOT = r"C:\ProgramData\containerd\root"
STATE = r"C:\ProgramData\containerd\state"
PIPE = r"\\.\pipe\containerd-containerd"
SERVICE = r'"C:\Program Files\containerd\containerd.exe" --run-service'
LINE = "the command line of service containerd"
DEFAULT = "containerd's default"
PATHS = f"root = '{ROOT}'\nstate = '{STATE}'\n[grpc]\naddress = '{PIPE}'\n"


def check(found: Containerd, **values: Any) -> None:
    """Compare some of the values."""
    assert {name: getattr(found, name) for name in values} == values


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_upstream(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, "version = 3\n" + PATHS + "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'windows'\n")
    check(
        find(Options()),
        program="service containerd",
        is_running=True,
        root=Value(ROOT, CONFIG),
        state=Value(STATE, CONFIG),
        address=Value(PIPE, CONFIG),
        snapshotter=Value("windows", CONFIG),
        notes=(),
    )


def test_capz_with_imports(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, "version = 3\nimports = ['C:\\Program Files\\containerd\\conf.d\\*.toml']\n" + PATHS)
    extra = node.write(r"C:\Program Files\containerd\conf.d\disk.toml", "root = 'D:/data'\nversion = 3")
    check(find(Options()), root=Value("D:/data", extra), state=Value(STATE, CONFIG), address=Value(PIPE, CONFIG))


def test_aks_with_version_1_under_nssm(node: Any) -> None:
    # The service runs nssm, and the registry has what nssm starts.
    command_line = rf'"C:\Program Files\containerd\containerd.exe" --config "{CONFIG}" --log-file C:\k\containerd.log'
    node.add_service("containerd", command_line)
    text = "[plugins.cri.containerd]\nsnapshotter = 'windows'\ndiscard_unpacked_layers = true\n"
    text += "[plugins.cri.containerd.runtimes.default_runtime]\nruntime_type = 'io.containerd.runhcs.v1'\n"
    node.write(CONFIG, "root = 'C:/ProgramData/containerd/root'\n" + text)
    found = find(Options(), release="1.7.20+azure")
    check(found, root=Value("C:/ProgramData/containerd/root", CONFIG), address=Value(PIPE, DEFAULT), notes=())
    assert found.configuration.version == 1
    assert found.configuration.discard_unpacked_layers


def test_eks(node: Any) -> None:
    node.add_service("containerd", SERVICE, is_running=False)
    node.write(CONFIG, "version = 2\n" + PATHS)
    check(find(Options()), program="service containerd", is_running=False, root=Value(ROOT, CONFIG))


def test_gce_without_paths(node: Any) -> None:
    config = node.write(r"C:\etc\containerd\config.toml", "[plugins.scheduler]\nschedule_delay = '0s'\n")
    node.add_service("containerd", rf"C:\etc\kubernetes\bin\containerd.exe --config={config} --run-service")
    found = find(Options())
    check(found, root=Value(ROOT, DEFAULT), state=Value(STATE, DEFAULT), address=Value(PIPE, DEFAULT))
    assert found.configuration.files == (config,)


RKE2 = r"C:\var\lib\rancher\rke2\agent\etc\containerd\config.toml"
RKE2_ROOT = r"C:\var\lib\rancher\rke2\agent\containerd"


def test_rke2(node: Any) -> None:
    node.write(RKE2, f"version = 3\nroot = '{RKE2_ROOT}'\n[grpc]\naddress = '{PIPE}'\n")
    node.add_service("rke2", r"C:\usr\local\bin\rke2.exe agent service")
    node.add_process(4242, rf"C:\var\lib\rancher\rke2\bin\containerd.exe -c {RKE2}")
    check(find(Options()), program="process 4242", is_running=True, root=Value(RKE2_ROOT, RKE2))


def test_rke2_that_is_stopped(node: Any) -> None:
    node.write(RKE2, f"version = 3\nroot = '{RKE2_ROOT}'\n[grpc]\naddress = '{PIPE}'\n")
    check(find(Options()), program="", is_running=None, root=Value(RKE2_ROOT, RKE2), notes=())


def test_k0s(node: Any) -> None:
    node.write(CONFIG, "# k0s_managed=true\nversion = 3\nimports = ['C:\\etc\\k0s\\containerd.d\\*.toml']\n")
    node.add_process(
        77,
        r"C:\var\lib\k0s\bin\containerd.exe --root=C:\var\lib\k0s\containerd --state=C:\var\lib\k0s\run\containerd "
        rf'--address={PIPE} --log-level=info "--config={CONFIG}"',
    )
    line = "the command line of process 77"
    check(
        find(Options()),
        program="process 77",
        root=Value(r"C:\var\lib\k0s\containerd", line),
        state=Value(r"C:\var\lib\k0s\run\containerd", line),
        address=Value(PIPE, line),
    )


def test_k0s_that_is_stopped(node: Any) -> None:
    node.write(CONFIG, "# k0s_managed=true\r\nversion = 3\r\n")
    check(
        find(Options()),
        root=Value(r"C:\var\lib\k0s\containerd", "k0s's default"),
        state=Value(r"C:\var\lib\k0s\run\containerd", "k0s's default"),
    )


DOCKER = r"C:\ProgramData\docker\containerd\daemon\containerd.toml"


def add_docker(node: Any) -> None:
    text = (
        "version = 2\nroot = 'C:\\ProgramData\\docker\\containerd\\daemon'\nstate = 'C:\\ProgramData\\docker\\state'\n"
    )
    node.write(DOCKER, text + "[grpc]\naddress = '\\\\.\\pipe\\docker-containerd'\n")
    node.add_process(99, rf'"C:\Program Files\Docker\containerd.exe" --config {DOCKER} --log-level info')


def test_docker(node: Any) -> None:
    add_docker(node)
    check(
        find(Options()),
        program="process 99",
        root=Value(r"C:\ProgramData\docker\containerd\daemon", DOCKER),
        address=Value(r"\\.\pipe\docker-containerd", DOCKER),
        snapshotter=Value("windows", DEFAULT),
    )


def test_docker_next_to_others(node: Any) -> None:
    add_docker(node)
    node.write(RKE2, f"version = 3\nroot = '{RKE2_ROOT}'\n")
    node.add_process(4242, rf"containerd.exe -c {RKE2}")
    check(find(Options()), program="process 4242")
    check(find(Options(address=r"\\.\PIPE\docker-containerd")), program="process 99")
    node.add_service("containerd", SERVICE, is_running=False)
    check(find(Options()), program="service containerd", is_running=False)
    check(find(Options(address="npipe:////./pipe/docker-containerd")), program="process 99")


def test_a_node_without_containerd(node: Any) -> None:
    check(
        find(Options()),
        program="",
        is_running=None,
        root=Value(ROOT, DEFAULT),
        state=Value(STATE, DEFAULT),
        address=Value(PIPE, DEFAULT),
        snapshotter=Value("windows", DEFAULT),
        notes=("No service, process or configuration file of containerd was found; its defaults are used",),
    )


# -- command lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        r"--root D:\r --address \\.\pipe\x",
        r"-root D:\r -address=\\.\pipe\x",
        r"-a \\.\pipe\x --root=D:\r",
        r"--root C:\1 --log-level debug --root D:\r -l=info --run-service -a \\.\pipe\x",
        r'"--root=D:\r" --service-name other --address "\\.\pipe\x"',
        r"--root D:\r --log-file --root --address \\.\pipe\x -- --root C:\1",
        r"--root D:\r --address \\.\pipe\x ignored --root C:\1",
    ],
)
def test_flags_count_more_than_the_file(node: Any, flags: str) -> None:
    node.write(CONFIG, PATHS)
    node.add_service("containerd", rf'"C:\Program Files\containerd\containerd.exe" {flags}')
    check(find(Options()), root=Value(r"D:\r", LINE), address=Value(r"\\.\pipe\x", LINE), state=Value(STATE, CONFIG))


@pytest.mark.parametrize(
    "command",
    ["config dump", r"--address \\.\pipe\y publish --topic /x", "-- config", "--version", "-h", "--register-service"],
)
def test_processes_for_single_commands_do_not_count(node: Any, command: str) -> None:
    node.add_process(5, f"containerd.exe {command}")
    check(find(Options()), program="")


def test_a_service_whose_wrapper_is_not_known(node: Any) -> None:
    node.add_service("containerd", "", is_running=True)
    check(find(Options()), program="service containerd", root=Value(ROOT, DEFAULT))
    node.add_process(5, rf"containerd.exe --address {PIPE} --root D:\r")
    check(find(Options()), program="process 5", root=Value(r"D:\r", "the command line of process 5"))


@pytest.mark.parametrize("root", ["data", r"..\data", "C:data"])
def test_a_relative_root(node: Any, root: str) -> None:
    node.add_service("containerd", rf"containerd.exe --root {root}")
    with pytest.raises(FailedPrecondition, match=r"is relative to a directory that is not known; set the option root"):
        find(Options())
    check(find(Options(root=r"D:\data")), root=Value(r"D:\data", "the option root"))


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_override(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, PATHS)
    check(
        find(Options(root=r"D:\r", snapshotter="cimfs")),
        program="service containerd",
        root=Value(r"D:\r", "the option root"),
        address=Value(PIPE, CONFIG),
        snapshotter=Value("cimfs", "the option snapshotter"),
    )


@pytest.mark.parametrize(
    "address",
    [
        PIPE,
        PIPE.upper(),
        "npipe:" + PIPE,
        "npipe:////./pipe/containerd-containerd",
        "npipe://./pipe/containerd-containerd",
        "//./pipe/containerd-containerd",
    ],
)
def test_spellings_of_an_address(node: Any, address: str) -> None:
    node.add_service("containerd", SERVICE)
    found = find(Options(address=address))
    assert found.program == "service containerd"
    assert found.address.value.lower() == PIPE
    assert found.address.source == "the option address"


def test_an_address_of_no_containerd(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, PATHS)
    add_docker(node)
    with pytest.raises(FailedPrecondition) as caught:
        find(Options(address=r"\\.\pipe\x"))
    assert caught.value.message == (
        r"containerd on this node does not listen on \\.\pipe\x, but on \\.\pipe\containerd-containerd (service "
        r"containerd); \\.\pipe\docker-containerd (process 99). Correct the option address, or set the option root as "
        "well"
    )


def test_address_and_root_of_another_containerd(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, PATHS + "[plugins.cri.containerd]\nsnapshotter = 'cimfs'")
    check(
        find(Options(address="unix:///run/x.sock", root=r"D:\r")),
        program="",
        is_running=None,
        root=Value(r"D:\r", "the option root"),
        state=Value("", ""),
        address=Value("/run/x.sock", "the option address"),
        snapshotter=Value("windows", DEFAULT),
        notes=(),
    )


def test_several_that_are_not_at_the_default_address(node: Any) -> None:
    add_docker(node)
    node.add_process(5, r"containerd.exe --address \\.\pipe\x --config " + DOCKER)
    with pytest.raises(FailedPrecondition) as caught:
        find(Options())
    assert caught.value.message == (
        r"several containerds run on this node: \\.\pipe\docker-containerd (process 99); \\.\pipe\x (process 5). "
        "Select one with the option address"
    )


# -- notes and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'cimfs'",
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nsnapshotter = 'cimfs'",
    ],
)
def test_a_snapshotter_that_is_not_managed(node: Any, text: str) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, text)
    assert find(Options()).notes == ("cimfs is a snapshotter of this node: its layers are not managed",)


def test_what_depends_on_the_release_is_noted(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'x'")
    assert len(find(Options()).notes) == 1
    assert not find(Options(), release="1.7.20").notes


def test_a_configuration_that_cannot_be_read(node: Any) -> None:
    node.add_service("containerd", SERVICE)
    node.write(CONFIG, "root =")
    with pytest.raises(FailedPrecondition) as caught:
        find(Options(root=r"D:\r"))
    assert caught.value.message == (
        rf"{CONFIG}: line 1: the end of the file is where a value should be. To work without this file, set the "
        "options address and root"
    )
    found = find(Options(address=PIPE, root=r"D:\r"))
    assert found.notes == (
        rf"The configuration is not known: {CONFIG}: line 1: the end of the file is where a value should be",
    )


def test_a_configuration_that_is_missing(node: Any) -> None:
    node.add_service("containerd", SERVICE + r" --config C:\none.toml")
    with pytest.raises(NotFound, match=r"cannot read C:\\none.toml: .*set the options address and root"):
        find(Options())


@pytest.mark.posix
def test_defaults_of_posix(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for variable in ("WCOW_EMULATED_DRIVES", "WCOW_EMULATED_SERVICES"):
        monkeypatch.delenv(variable, raising=False)
    address = str(tmp_path / "socket")
    found = find(Options(address=f"unix://{address}", root=str(tmp_path)))
    assert (found.address.value, found.root.value) == (address, str(tmp_path))
