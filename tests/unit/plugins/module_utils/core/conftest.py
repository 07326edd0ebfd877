# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store that most tests of the core start with."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders import stores


@pytest.fixture
def root(tmp_path: Any) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def open_store(root: str) -> Iterator[Callable[..., Snapshotter]]:
    """Return a function that opens the store of the test, for a dry run if ``dry_run``. The test's end closes all."""
    opened: List[Snapshotter] = []

    def open_it(dry_run: bool = False) -> Snapshotter:
        opened.append(stores.open_store(root, dry_run))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Snapshotter]) -> Snapshotter:
    """A store with the committed snapshot ``base``, whose id is 1."""
    opened = open_store()
    stores.add_committed(opened, "base")
    return opened
