# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores for tests of the proxy snapshotter, and calls of its service without a connection."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.messages import METHODS
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter


class Calls:
    """Calls of a service by the names of methods, with messages as dictionaries."""

    def __init__(self, service: Service, root: str) -> None:
        self.service = service
        self.root = root

    def stream(self, method_name: str, /, **message: Any) -> List[Dict[str, Any]]:
        method = METHODS[f"Snapshots/{method_name}"]
        request = protobuf.encode(method.request, message)
        return [protobuf.decode(method.answer, answer) for answer in self.service.call(method.path, request)]

    def __call__(self, method_name: str, /, **message: Any) -> Dict[str, Any]:
        (answer,) = self.stream(method_name, **message)
        return answer

    def names(self, *filters: str) -> List[str]:
        return [info["name"] for answer in self.stream("List", filters=filters) for info in answer["infos"]]

    def layer(self, name: str, parent: str = "") -> None:
        """Create a committed snapshot."""
        self("Prepare", key=f"{name}-key", parent=parent)
        self("Commit", name=name, key=f"{name}-key")


@pytest.fixture
def root(tmp_path: Any) -> str:
    return os.path.join(str(tmp_path), "root")


@pytest.fixture
def store(root: str) -> Iterator[Snapshotter]:
    """The store as tasks of Ansible see it."""
    opened = Snapshotter(root, EmulatedLayers())
    yield opened
    opened.close()


@pytest.fixture
def service(root: str) -> Iterator[Service]:
    opened = Service(lambda later: open_store(root, "emulated", later), "1.2.3")
    yield opened
    opened.stop(time.monotonic() + 30)


@pytest.fixture
def calls(service: Service, root: str) -> Calls:
    return Calls(service, root)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition; a busy machine gets a long time."""

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    return wait
