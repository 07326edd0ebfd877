# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the check of containerd's store: each difference, what a repair does with it, and what it leaves alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any, Callable, Dict, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import on_disk
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import store_check as check_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.findings import CODES
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.discovery import Options
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.lock import is_locked
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.node import ContainerdNode
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.tests.builders import containerd_databases as build

BASE, WORK = f"{build.NAMESPACE}/1/base", f"{build.NAMESPACE}/2/work"
SNAPSHOTS = os.path.join("io.containerd.snapshotter.v1.windows", "snapshots")


class Situation:
    """A healthy store with the snapshots ``base`` (1) and ``work`` (2), which a test damages before it is written."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.objects = build.Objects()
        self.objects.snapshot("base")
        self.objects.snapshot("work", "base", {"containerd.io/snapshot/size": "40", "team": "blue"})
        self.records = build.Records()
        self.records.add(BASE)
        self.records.add(WORK, 2, BASE, {"containerd.io/snapshot/size": "40"})
        self.directories = ["1", "2"]
        self.version = 4

    def write(self) -> None:
        meta = build.metadata(self.version, k8s=self.objects)
        build.write_root(self.root, meta, build.store(self.records), self.directories)

    def path(self, *names: str) -> str:
        return os.path.join(self.root, SNAPSHOTS, *names)

    def check(self, dry_run: bool = False, **options: Any) -> Tuple[bool, Dict[str, Any]]:
        """Return whether the check changed something, and its result."""
        layers = DryRun(EmulatedLayers()) if dry_run else EmulatedLayers()
        node = ContainerdNode(Options("/none", self.root), "", layers, dry_run=dry_run)
        changed, result = check_module.check_store(node, **options)
        return changed, result

    def findings(self, **options: Any) -> List[Dict[str, Any]]:
        return list(self.check(**options)[1]["findings"])


@pytest.fixture
def situation(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Situation:
    monkeypatch.setattr(check_module, "PAUSE", 0.0)
    return Situation(str(tmp_path / "root"))


# -- the differences -----------------------------------------------------------


def unknown_schema(situation: Situation) -> None:
    situation.version = 5


def uncollected_record(situation: Situation) -> None:
    situation.records.add(f"{build.NAMESPACE}/3/gone")
    situation.directories.append("3")


def dangling_child(situation: Situation) -> None:
    situation.objects.snapshots["windows"][b"base"][b"children"][b"gone"] = b""


def missing_record(situation: Situation) -> None:
    situation.objects.snapshot("lost")


def abandoned_repair(situation: Situation) -> None:
    situation.objects.snapshot("wcow-1-a", labels={"wcow.snapshotter/repair": "wcow-1-a"})
    situation.records.add(f"{build.NAMESPACE}/3/wcow-1-a")
    situation.directories.append("3")


def missing_directory(situation: Situation) -> None:
    situation.directories.remove("2")


def broken_chain(situation: Situation) -> None:
    situation.objects.snapshot("torn", "nowhere")
    situation.records.add(f"{build.NAMESPACE}/3/torn")
    situation.directories.append("3")


def next_directory(situation: Situation) -> None:
    situation.directories.append("3")


def directory_of_a_spent_id(situation: Situation) -> None:
    situation.records.snapshots.sequence = 7
    situation.directories.append("5")


def directory_of_a_later_id(situation: Situation) -> None:
    situation.directories.append("99")


def leftover_removal(situation: Situation) -> None:
    situation.records.snapshots.sequence = 7
    situation.directories.append("rm-5")


def second_directory(situation: Situation) -> None:
    situation.directories.append("rm-2")


def interrupted_removal(situation: Situation) -> None:
    situation.directories.remove("2")
    situation.directories.append("rm-2")


def foreign_entry(situation: Situation) -> None:
    situation.directories.append("notes")


def container_without_snapshot(situation: Situation) -> None:
    situation.objects.container("c1", "gone")


def lease_without_snapshot(situation: Situation) -> None:
    situation.objects.lease("l1", snapshots=[("windows", "gone"), ("native", "other")])


def other_label(situation: Situation) -> None:
    situation.objects.snapshots["windows"][b"work"][b"labels"][b"containerd.io/snapshot/size"] = b"60"


def other_parent(situation: Situation) -> None:
    situation.records.add(WORK, 2, "", {"containerd.io/snapshot/size": "40"}, number=2)
    situation.records.parents.clear()


def missing_index(situation: Situation) -> None:
    situation.records.parents.clear()


def index_without_record(situation: Situation) -> None:
    situation.records.parents[build.uvarint(1) + b"\0" + build.uvarint(9)] = b"ghost"


DIFFERENCES: List[Tuple[str, Callable[[Situation], None], str]] = [
    ("unknown_schema", unknown_schema, "the schema has the version 5"),
    ("uncollected_record", uncollected_record, f'"{build.NAMESPACE}/3/gone" was removed, but its record and layer'),
    ("dangling_child", dangling_child, '"base" of the namespace k8s.io has the child "gone", which does not exist'),
    ("missing_record", missing_record, '"lost" of the namespace k8s.io has no record in metadata.db'),
    ("abandoned_repair", abandoned_repair, '"wcow-1-a" of the namespace k8s.io was created by a repair, which ended'),
    ("missing_directory", missing_directory, '"work" of the namespace k8s.io has no directory'),
    ("broken_chain", broken_chain, '"torn" of the namespace k8s.io has the parent "nowhere"'),
    ("next_directory", next_directory, "3 has the id of the next snapshot, which would get these files"),
    ("unknown_directory", directory_of_a_spent_id, "5 has no record: a removal was interrupted"),
    ("unknown_directory", directory_of_a_later_id, "99 has no record, and metadata.db never gave out its id"),
    ("leftover_removal", leftover_removal, "rm-5 waits to be destroyed; containerd does not try again"),
    ("leftover_removal", second_directory, "rm-2 waits to be destroyed; containerd does not try again"),
    ("interrupted_removal", interrupted_removal, f'rm-2 belongs to "{WORK}": its removal was interrupted'),
    ("foreign_entry", foreign_entry, "notes is not a layer of this store"),
    ("missing_snapshot", container_without_snapshot, 'the container "c1" of the namespace k8s.io needs the snapshot'),
    ("missing_snapshot", lease_without_snapshot, 'the lease "l1" of the namespace k8s.io needs the snapshot "gone"'),
    ("record_mismatch", other_label, '"work" of the namespace k8s.io has the label containerd.io/snapshot/size=60'),
    ("record_mismatch", other_parent, '"work" of the namespace k8s.io has another parent in metadata.db'),
    ("record_index", missing_index, f'the index of children in metadata.db lacks "{WORK}" (2) as a child of 1'),
    ("record_index", index_without_record, 'in metadata.db has, without such records, "ghost" (9) as a child of 1'),
]

#: What a repair changes while containerd is stopped, without being asked for it by name.
REPAIRED = {
    leftover_removal: "destroyed",
    second_directory: "destroyed",
    next_directory: "destroyed",
    interrupted_removal: "renamed back",
}

#: What it changes only while containerd runs.
THROUGH_API = (uncollected_record, dangling_child, missing_record, abandoned_repair)
STOPPED = (
    "not repaired: containerd does not run, and only containerd changes its records; start it, then run this again"
)


@pytest.mark.parametrize(("code", "make", "message"), DIFFERENCES, ids=[make.__name__ for _, make, _ in DIFFERENCES])
def test_each_difference(situation: Situation, code: str, make: Callable[[Situation], None], message: str) -> None:
    make(situation)
    situation.write()
    before = sorted(os.listdir(situation.path()))
    (finding,) = situation.findings()
    assert (finding["code"], finding["severity"]) == (code, CODES[code][0])
    assert message in finding["message"]
    assert finding["repairable"] is (make in REPAIRED)
    refusal = STOPPED if make in THROUGH_API else ""
    changed, planned = situation.check(dry_run=True, repair=True)
    assert planned["findings"][0]["action"] == (f"would be {REPAIRED[make]}" if make in REPAIRED else refusal)
    assert changed is (make in REPAIRED)
    assert sorted(os.listdir(situation.path())) == before
    changed, repaired = situation.check(repair=True)
    assert changed is (make in REPAIRED)
    assert repaired["findings"][0]["action"] == REPAIRED.get(make, refusal)
    if make in REPAIRED:
        assert sorted(os.listdir(situation.path())) == ["1", "2"]
        assert situation.findings() == []
    else:
        assert sorted(os.listdir(situation.path())) == before


def test_a_healthy_store(situation: Situation) -> None:
    situation.write()
    changed, result = situation.check(repair=True, inventory=True)
    assert not changed
    assert (result["healthy"], result["exists"], result["snapshots"]) == (True, True, 2)
    assert result["summary"] == "2 snapshots, no problems"
    assert [entry["name"] for entry in result["inventory"]] == ["base", "work"]
    assert result["containerd"]["root"] == situation.root


# -- repairs -------------------------------------------------------------------


def test_a_directory_of_a_spent_id_is_destroyed_if_the_task_names_the_code(situation: Situation) -> None:
    directory_of_a_spent_id(situation)
    directory_of_a_later_id(situation)
    situation.write()
    found = situation.findings(repair=True, only=["unknown_directory"])
    assert [finding["action"] for finding in found] == ["destroyed", ""]
    assert sorted(os.listdir(situation.path())) == ["1", "2", "99"]


def test_nothing_is_repaired_in_an_unknown_schema(situation: Situation) -> None:
    unknown_schema(situation)
    leftover_removal(situation)
    situation.write()
    changed, result = situation.check(repair=True)
    assert not changed
    assert [finding["repairable"] for finding in result["findings"]] == [False, False]
    assert os.path.isdir(situation.path("rm-5"))


def test_sizes_of_what_can_be_freed(situation: Situation) -> None:
    leftover_removal(situation)
    situation.write()
    with open(situation.path("rm-5", "sandbox.vhdx"), "wb") as file:
        file.write(b"x" * 70_000)
    assert situation.findings()[0]["reclaimable"] >= 70_000
    assert situation.findings(quick=True)[0]["reclaimable"] == 0
    assert situation.check(repair=True)[1]["reclaimed"] >= 70_000


@pytest.mark.posix
def test_nothing_is_destroyed_through_a_link(situation: Situation, tmp_path: Any) -> None:
    leftover_removal(situation)
    situation.directories.remove("rm-5")
    situation.write()
    victim = tmp_path / "victim"
    (victim / "precious").mkdir(parents=True)
    os.symlink(victim, situation.path("rm-5"))
    (finding,) = situation.findings(repair=True)
    assert finding["action"].startswith("not repaired: ")
    assert "is a link to" in finding["action"]
    assert (victim / "precious").is_dir()


def test_a_passing_difference_is_no_finding(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containerd creates a directory before the record."""
    next_directory(situation)
    situation.write()
    monkeypatch.setattr(check_module.time, "sleep", lambda _seconds: os.rmdir(situation.path("3")))
    assert situation.findings() == []


def test_what_changes_before_its_repair_is_left_alone(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_removal(situation)
    situation.write()
    with monkeypatch.context() as patched:
        sizes: List[str] = []

        def finish_removal(_node: Any, problem: Any, quick: bool, *, is_repairable: bool) -> Any:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(situation.path("rm-2"))
            sizes.append(problem.path)
            return make_finding(_node, problem, quick, is_repairable=is_repairable)

        make_finding = check_module._finding
        patched.setattr(check_module, "_finding", finish_removal)
        (finding,) = situation.findings(repair=True)
    assert sizes
    assert finding["action"] == "not repaired: it is not there any more"
    assert not os.path.exists(situation.path("2"))


def test_the_locks_are_held_for_the_changes_of_names_only(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory_of_a_spent_id(situation)
    leftover_removal(situation)
    situation.directories[-1] = "rm-6"
    situation.write()
    meta = os.path.join(situation.root, "io.containerd.metadata.v1.bolt", "meta.db")
    seen: List[Tuple[str, bool]] = []
    rename, destroy = os.rename, on_disk.destroy

    def spy(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            seen.append((name, is_locked(meta)))
            return act(*arguments)

        return call

    monkeypatch.setattr(on_disk.os, "rename", spy("rename", rename))
    monkeypatch.setattr(on_disk, "destroy", spy("destroy", destroy))
    found = situation.findings(repair=True, only=["unknown_directory", "leftover_removal"])
    assert [finding["repaired"] for finding in found] == [True, True]
    assert seen == [("rename", True), ("destroy", False), ("destroy", False)]
    assert not is_locked(meta)


def test_the_locks_are_released_in_time(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A containerd that starts waits for the locks."""
    directory_of_a_spent_id(situation)
    situation.directories.append("6")
    situation.write()
    rename, lock = os.rename, on_disk.lock_databases
    locks: List[str] = []

    def rename_slowly(source: str, target: str) -> None:
        time.sleep(1.2)
        rename(source, target)

    def note(*paths: str, **options: Any) -> Any:
        locks.append(os.path.basename(paths[0]))
        return lock(*paths, **options)

    monkeypatch.setattr(on_disk, "LOCKED_SECONDS", 1.0)
    monkeypatch.setattr(on_disk.os, "rename", rename_slowly)
    monkeypatch.setattr(on_disk, "lock_databases", note)
    found = situation.findings(repair=True, only=["unknown_directory"])
    assert [finding["action"] for finding in found] == ["destroyed", "destroyed"]
    assert locks == ["meta.db", "meta.db"]


def test_a_reading_that_takes_too_long(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    next_directory(situation)
    situation.write()
    monkeypatch.setattr(on_disk, "LOCKED_SECONDS", -1.0)
    (finding,) = situation.findings(repair=True)
    assert finding["action"].startswith("not repaired: the databases could not be read in -1 seconds")
    assert os.path.isdir(situation.path("3"))


# -- options -------------------------------------------------------------------


def test_options(situation: Situation) -> None:
    leftover_removal(situation)
    foreign_entry(situation)
    situation.write()
    assert [finding["code"] for finding in situation.findings(only=["foreign_entry"])] == ["foreign_entry"]
    low = situation.findings(only=["low_free_space"], minimum_free="64TB")
    assert [finding["code"] for finding in low] == ["low_free_space"]
    with pytest.raises(InvalidArgument, match="unknown finding code 'orphans'"):
        situation.check(only=["orphans"])
