# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test addresses, namespaces, and answers that cannot be decoded."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import connection as connections
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import (
    check_namespace,
    connect,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import NotListening
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.containerd.fake import Failure, Fake

PIPE = r"\\.\pipe\wcow-no-such-pipe"


@pytest.mark.parametrize("name", ["k8s.io", "default", "a", "A1_b-c.d", "x" * 76])
def test_namespaces(name: str) -> None:
    check_namespace(name)


@pytest.mark.parametrize("name", ["", ".", "a.", "_a", "a__b", "a b", "a/b", "é", "x" * 77, "a\n", "a\r\nx: y"])
def test_names_that_are_not_allowed(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not a namespace of containerd"):
        connect(PIPE, name)


@pytest.mark.parametrize("address", ["", "relative", "C:\\x", r"\\server\pipe\x", r"\\.\pipe\a\b", "npipe:x"])
def test_addresses_that_are_not_allowed(address: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not an address of containerd: on Windows it is a named pipe"):
        connect(address, "k8s.io")


@pytest.mark.parametrize("address", [PIPE, "//./pipe/wcow-no-such-pipe", "npipe:////./pipe/wcow-no-such-pipe"])
def test_pipes(address: str) -> None:
    """Windows users write the names of pipes in these ways."""
    kind = NotListening if os.name == "nt" else errors.NotImplementedHere
    opened = connect(address, "k8s.io")
    assert opened.server == f"containerd at {address}"
    with pytest.raises(kind):
        opened.call("Version/Version", {})


@pytest.mark.posix
@pytest.mark.parametrize("address", ["/no/such.sock", "unix:///no/such.sock"])
def test_sockets(address: str) -> None:
    with pytest.raises(NotListening, match="there is no socket /no/such.sock"):
        connect(address, "k8s.io").call("Version/Version", {})


def test_answers_that_cannot_be_decoded() -> None:
    fake = Fake({"Snapshots/Stat": b"\x0a\xff", "Snapshots/List": b"\x07"})
    with fake.client() as client:
        with pytest.raises(errors.Internal, match="of containerd at x to /containerd.*Stat cannot be decoded: "):
            client.stat("windows", "x")
        with pytest.raises(errors.Internal, match="cannot be decoded"):
            client.snapshots("windows")


def test_a_method_that_is_not_there() -> None:
    fake = Fake({"Leases/List": Failure(12, "unknown service containerd.services.leases.v1.Leases")})
    with fake.client() as client, pytest.raises(errors.NotImplementedHere, match="unknown service") as caught:
        client.leases()
    assert caught.value.details["advice"].startswith(
        "This containerd does not offer containerd.services.leases.v1.Leases"
    )


def test_text_that_is_not_unicode() -> None:
    fake = Fake({})
    with fake.client() as client, pytest.raises(errors.InvalidArgument, match="'\\\\ud800' is not valid Unicode"):
        client.stat("windows", "\ud800")
    assert fake.asked == []


def test_a_list_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_LIST", 1000)
    fake = Fake({"Snapshots/List": [{"infos": [{"name": "x" * 300}]}] * 4})
    with (
        fake.client() as client,
        pytest.raises(errors.Internal, match="answers Snapshots/List with more than 1000 bytes"),
    ):
        client.snapshots("windows")
