# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's snapshotter suite on a store that is served: our client, a socket, the proxy snapshotter, the store."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Info, Mount, Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import Server, UnixListener
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store

from . import test_snapshotter as contract

pytestmark = pytest.mark.posix

#: The name of the proxy plugin. The service serves one store, whatever containerd calls it.
PLUGIN = "wcow"


class Served:
    """The operations over a connection. ``walk`` without filters is what an owner of the store would see."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.warnings: List[str] = []

    def prepare(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        return self.client.prepare(PLUGIN, key, parent, labels)

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        return self.client.view(PLUGIN, key, parent, labels)

    def mounts(self, key: str) -> List[Mount]:
        return self.client.mounts(PLUGIN, key)

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None) -> Info:
        self.client.commit(PLUGIN, name, key, labels)
        return self.stat(name)

    def remove(self, key: str) -> None:
        self.client.remove_snapshot(PLUGIN, key)

    def stat(self, key: str) -> Info:
        return self.client.stat(PLUGIN, key)

    def update(self, name: str, labels: Optional[Mapping[str, str]] = None, fieldpaths: Sequence[str] = ()) -> Info:
        return self.client.update_snapshot(PLUGIN, name, labels or {}, fieldpaths)

    def usage(self, key: str) -> Usage:
        return self.client.usage(PLUGIN, key)

    def walk(self, *filters: str) -> List[Info]:
        return self.client.snapshots(PLUGIN, *(filters or ("name",)))

    def close(self) -> None:
        self.client.close()


class Work(contract.Work):
    """Snapshots whose mounts are directories."""

    def mounted(self, key: str, change: Callable[[str], Any]) -> Any:
        (mount,) = self.snapshotter.mounts(key)
        return change(mount.source)


@pytest.fixture
def snapshotter(tmp_path: Any) -> Iterator[Served]:
    address, root = str(tmp_path / "s"), str(tmp_path / "root")
    service = Service(lambda later: open_store(root, "bind", later))
    server = Server(UnixListener(address), service)
    thread = threading.Thread(target=server.serve)
    thread.start()
    served = Served(Client(connect(address, "default")))
    yield served
    served.close()
    server.stop()
    thread.join()
    assert not os.path.exists(address)
    assert not [name for name in os.listdir(os.path.join(root, "snapshots")) if name.startswith("rm-")]


@pytest.fixture
def work(snapshotter: Served, tmp_path: Any) -> Work:
    directory = tmp_path / "work"
    directory.mkdir()
    return Work(snapshotter, str(directory))


test_basic = contract.test_basic
test_stat_active = contract.test_stat_active
test_stat_comitted = contract.test_stat_comitted
test_transitivity_test = contract.test_transitivity_test
test_preare_view_failingtest = contract.test_preare_view_failingtest
test_update = contract.test_update
test_remove = contract.test_remove
test_walk = contract.test_walk
test_layer_fileupdate = contract.test_layer_fileupdate
test_remove_directory_in_lower_layer = contract.test_remove_directory_in_lower_layer
test_chown = contract.test_chown
test_directory_permission_on_commit = contract.test_directory_permission_on_commit
test_remove_intermediate_snapshot = contract.test_remove_intermediate_snapshot
test_deleted_files_in_child_snapshot = contract.test_deleted_files_in_child_snapshot
test_move_file_from_lower_layer = contract.test_move_file_from_lower_layer
test_stat_in_walk = contract.test_stat_in_walk
test_close_twice = contract.test_close_twice
test_rename = contract.test_rename
