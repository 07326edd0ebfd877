# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a desired state as a dry run, for real, and again."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.outcome import Outcome
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store


def on_disk(store: Snapshotter) -> Dict[str, Tuple[int, int]]:
    """Return size and modification time of every layer file and staged file."""
    found = {}
    for parent, directories, files in os.walk(store.root):
        if "locks" in directories:
            directories.remove("locks")
        for name in files:
            # SQLite moves pages between its files when a process closes them. The walks compare their contents.
            if not name.startswith("metadata.sqlite3"):
                status = os.stat(os.path.join(parent, name))
                found[os.path.join(parent, name)] = (status.st_size, status.st_mtime_ns)
    return found


class Task:
    """Applies a desired state as a dry run, for real, and again. Checks that the three outcomes agree."""

    def __init__(self, store: Snapshotter) -> None:
        self.store = store

    def __call__(self, function: Callable[..., Outcome], *arguments: Any, **options: Any) -> Outcome:
        before = on_disk(self.store), self.store.walk()
        trial = open_store(self.store.root, dry_run=True)
        planned = function(trial, *arguments, **options)
        trial.close()
        assert (on_disk(self.store), self.store.walk()) == before
        done = function(self.store, *arguments, **options)
        assert (planned.changed, planned.result["actions"]) == (done.changed, done.result["actions"])
        assert planned.result["diff"] == done.result["diff"]
        assert done.changed == bool(done.result["actions"])
        assert (done.result["diff"]["before"] == done.result["diff"]["after"]) == (not done.changed)
        again = function(self.store, *arguments, **options)
        assert not again.changed
        assert again.result["actions"] == []
        if "snapshot" in done.result:
            assert again.result["snapshot"] == done.result["snapshot"]
        return done

    def fails(
        self, error: Any, message: str, function: Callable[..., Outcome], *arguments: Any, **options: Any
    ) -> None:
        """Check that a dry run and a real run give the same error and change nothing."""
        before = on_disk(self.store), self.store.walk()
        for store in (open_store(self.store.root, dry_run=True), self.store):
            with pytest.raises(error, match=message):
                function(store, *arguments, **options)
        assert (on_disk(self.store), self.store.walk()) == before
