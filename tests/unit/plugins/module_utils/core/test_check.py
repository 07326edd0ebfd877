# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every code: how a store gets there, that the check says so and touches nothing, and that a repair mends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import check as care
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.ensure import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import vhdx
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.rehearsal import Rehearsal
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import ensure_store

GIB = 1024**3
SIZE = "containerd.io/snapshot/windows/rootfs.sizebytes"


@pytest.fixture
def store(tmp_path: Any) -> Iterator[Snapshotter]:
    """``base`` (1), ``app`` (2) over it, ``work`` (3) over that with a disk of 40 GiB, ``look`` (4), a view of it."""
    opened = Snapshotter(str(tmp_path / "root"), EmulatedLayers())
    opened.prepare("b", "")
    os.makedirs(path(opened, "snapshots", "1", "UtilityVM", "Files"))
    opened.commit("base", "b")
    opened.prepare("a", "base")
    opened.commit("app", "a")
    ensure_snapshot(opened, "active", key="work", parent="app", rootfs_size="40GB", uvm_scratch=True)
    opened.view("look", "app")
    yield opened
    opened.close()


def path(store: Snapshotter, *names: str) -> str:
    return os.path.join(store.root, *names)


def codes(store: Snapshotter, **options: Any) -> List[str]:
    return [finding.code for finding in care.check(store, **options).findings]


@contextlib.contextmanager
def metadata(store: Snapshotter) -> Iterator[sqlite3.Connection]:
    """What a hand that should have stayed away does to the metadata."""
    connection = sqlite3.connect(path(store, "metadata.sqlite3"), isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def everything(store: Snapshotter) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for parent, _directories, files in os.walk(store.root):
        found[parent] = None
        for name in files:
            if not name.startswith("metadata.sqlite3-"):
                with open(os.path.join(parent, name), "rb") as file:
                    found[os.path.join(parent, name)] = file.read()
    return found


def damage(file: str, offset: int) -> None:
    with open(file, "r+b") as disk:
        disk.seek(offset)
        byte = disk.read(1)
        disk.seek(offset)
        disk.write(bytes([byte[0] ^ 0xFF]))


def old(file: str) -> None:
    then = time.time() - 2 * care.ABANDONED_SECONDS
    os.utime(file, (then, then))


# -- how a store gets there -------------------------------------------------------


def without_record(store: Snapshotter) -> None:
    """A layer of a number that was given out, as where metadata older than it were restored and used."""
    store.prepare("gone", "app")
    store.remove("gone")
    os.mkdir(path(store, "snapshots", "5"))
    with open(path(store, "snapshots", "5", "sandbox.vhdx"), "wb") as file:
        file.write(bytes(12345))


def orphan(store: Snapshotter) -> None:
    without_record(store)
    with open(path(store, "snapshots", "new-5"), "wb"):
        pass


def next_one(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "5"))


def leftover(store: Snapshotter) -> None:
    without_record(store)
    os.rename(path(store, "snapshots", "5"), path(store, "snapshots", "rm-5"))


def interrupted_removal(store: Snapshotter) -> None:
    os.rename(path(store, "snapshots", "3"), path(store, "snapshots", "rm-3"))


def view_draft(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "rm-4"))


def stale_mark(store: Snapshotter) -> None:
    with store.metadata().write() as tx:
        tx.set_holder("work", "process 1 since yesterday")


def abandoned_import(store: Snapshotter) -> None:
    store.prepare("extract-1-2026-11-24T00:00:00.000000000Z-00c0ffee images/new", "app")
    with open(path(store, "snapshots", "5", "half"), "wb") as file:
        file.write(bytes(999))


def abandoned_upload(store: Snapshotter) -> None:
    os.mkdir(path(store, "incoming"))
    for name in ("0" * 64, "1" * 64 + ".part"):
        with open(path(store, "incoming", name), "wb") as file:
            file.write(bytes(100))
    old(path(store, "incoming", "0" * 64))


def abandoned_draft(store: Snapshotter) -> None:
    for number in (1, 2):
        with open(path(store, f"metadata.sqlite3.{number}.new"), "wb") as file:
            file.write(b"half")
    old(path(store, "metadata.sqlite3.1.new"))


def stale_locks(store: Snapshotter) -> None:
    without_record(store)
    shutil.rmtree(path(store, "snapshots", "5"))
    with open(path(store, "locks", "5"), "wb"):
        pass


def label_rows(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("DELETE FROM labels WHERE key = ?", (SIZE,))


def id_reuse(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE sequence SET last = 2")


def usage_drift(store: Snapshotter) -> None:
    with open(path(store, "snapshots", "2", "Files", "added"), "wb") as file:
        file.write(bytes(77))


def smaller_disk(store: Snapshotter) -> None:
    store.update("work", {SIZE: str(50 * GIB)}, [f"labels.{SIZE}"])


def larger_disk(store: Snapshotter) -> None:
    vhdx.grow(path(store, "snapshots", "3", "sandbox.vhdx"), 60 * GIB)


def damaged_header(store: Snapshotter) -> None:
    damage(path(store, "snapshots", "3", "sandbox.vhdx"), 64 * 1024 + 100)


def damaged_region_table(store: Snapshotter) -> None:
    damage(path(store, "snapshots", "3", "vm", "sandbox.vhdx"), 256 * 1024 + 4)


def unprotected(store: Snapshotter) -> None:
    if os.name == "nt":
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import advapi32

        advapi32.write_security(store.root, "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FR;;;WD)")
    else:
        os.chmod(store.root, 0o755)


def half_mount(store: Snapshotter) -> None:
    import json

    target = path(store, "..", "target")
    store.mount("work", os.path.realpath(target))
    record = os.path.join(os.path.dirname(os.path.realpath(target)), ".target.wcow-mount.json")
    with open(record, encoding="utf-8") as file:
        state = json.load(file)
    with open(record, "w", encoding="utf-8") as file:
        json.dump({**state, "state": "filling"}, file)


REPAIRABLE: Dict[str, List[Callable[[Snapshotter], None]]] = {
    "orphan_directory": [orphan],
    "leftover_removal": [leftover],
    "interrupted_removal": [interrupted_removal, view_draft],
    "stale_mark": [stale_mark],
    "abandoned_import": [abandoned_import],
    "abandoned_upload": [abandoned_upload],
    "abandoned_draft": [abandoned_draft],
    "stale_locks": [stale_locks],
    "metadata_index": [label_rows],
    "id_reuse": [id_reuse],
    "usage_drift": [usage_drift],
    "scratch_size": [smaller_disk, larger_disk],
    "damaged_scratch_copy": [damaged_header, damaged_region_table],
    "unprotected_root": [unprotected],
    "attached_unused": [half_mount],
}


def lost_directory(store: Snapshotter) -> None:
    shutil.rmtree(path(store, "snapshots", "3"))


def no_files(store: Snapshotter) -> None:
    shutil.rmtree(path(store, "snapshots", "2", "Files"))


def no_template(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "1", "blank.vhdx"))


def no_scratch(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "3", "sandbox.vhdx"))


def no_uvm_scratch(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "3", "vm", "sandbox.vhdx"))


def two_headers(store: Snapshotter) -> None:
    damage(path(store, "snapshots", "3", "sandbox.vhdx"), 64 * 1024 + 100)
    damage(path(store, "snapshots", "3", "sandbox.vhdx"), 128 * 1024 + 100)


def directory_for_disk(store: Snapshotter) -> None:
    no_scratch(store)
    os.mkdir(path(store, "snapshots", "3", "sandbox.vhdx"))


def unknown(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "99"))


def second(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "rm-3"))


def foreign(store: Snapshotter) -> None:
    os.symlink("/", path(store, "snapshots", "7"))


def lost_parent(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("DELETE FROM snapshots WHERE name = 'base'")


def loop(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE snapshots SET parent = 'app' WHERE name = 'base'")


def no_labels(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE snapshots SET labels = '{' WHERE name = 'work'")


def no_database(store: Snapshotter) -> None:
    store.close()
    for name in os.listdir(store.root):
        if name.startswith("metadata.sqlite3"):
            with open(path(store, name), "wb") as file:
                file.write(b"SQLite format 3\0" + b"garbage" * 1000)


def no_metadata(store: Snapshotter) -> None:
    store.close()
    for name in os.listdir(store.root):
        if name.startswith("metadata.sqlite3"):
            os.unlink(path(store, name))


def linked(store: Snapshotter) -> None:
    os.rename(store.directories.snapshots, path(store, "..", "elsewhere"))
    os.symlink("../elsewhere", store.directories.snapshots)


LEFT_ALONE: Dict[str, List[Callable[[Snapshotter], None]]] = {
    "missing_directory": [lost_directory],
    "incomplete_layer": [no_files, no_template],
    "missing_scratch": [no_scratch],
    "missing_uvm_scratch": [no_uvm_scratch],
    "damaged_scratch": [two_headers],
    "unreadable_scratch": [directory_for_disk],
    "unknown_directory": [unknown, second, next_one, without_record],
    "foreign_entry": [foreign],
    "linked_directory": [linked],
    "broken_chain": [lost_parent, loop],
    "metadata_damaged": [no_labels, no_database],
    "metadata_missing": [no_metadata],
}


def cases(table: Dict[str, List[Callable[[Snapshotter], None]]]) -> List[Any]:
    return [pytest.param(code, make, id=f"{code}-{make.__name__}") for code, makes in table.items() for make in makes]


def rehearsal(store: Snapshotter) -> Snapshotter:
    return Snapshotter(store.root, Rehearsal(EmulatedLayers()), rehearse=True)


# -- the checks -------------------------------------------------------------------


def test_a_store_that_is_well(store: Snapshotter) -> None:
    before = everything(store)
    report = care.check_store(store)
    assert report.result["findings"] == []
    assert report.result["healthy"] is True
    assert report.result["summary"] == "4 snapshots, no problems"
    assert report.result["free"] > 0
    assert report.changed is False
    assert everything(store) == before
    assert care.check_store(store, repair=True).changed is False
    assert everything(store) == before


def test_no_store(tmp_path: Any) -> None:
    store = Snapshotter(str(tmp_path / "root"), EmulatedLayers())
    report = care.check_store(store, repair=True)
    assert (report.changed, report.result["exists"], report.result["findings"]) == (False, False, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("code", "make"), cases(REPAIRABLE))
def test_what_can_be_repaired(store: Snapshotter, code: str, make: Callable[[Snapshotter], None]) -> None:
    make(store)
    before = everything(store)
    found = care.check_store(store)
    finding = next(finding for finding in found.result["findings"] if finding["code"] == code)
    assert finding["severity"] == care.CODES[code][0]
    assert finding["repairable"] is True
    assert (finding["repaired"], finding["action"], found.changed) == (False, "", False)
    assert finding["message"]
    assert finding["remedy"]
    assert everything(store) == before

    rehearsed = care.check_store(rehearsal(store), repair=True)
    plan = next(finding for finding in rehearsed.result["findings"] if finding["code"] == code)
    assert (plan["repaired"], plan["action"][:9], rehearsed.changed) == (False, "would be ", True)
    assert everything(store) == before

    repaired = care.check_store(store, repair=True)
    done = next(finding for finding in repaired.result["findings"] if finding["code"] == code)
    assert (done["repaired"], repaired.changed) == (True, True), done
    assert plan["action"] == "would be " + done["action"] or make is view_draft
    assert repaired.result["healthy"] is True
    assert codes(store) == []
    for name in ("base", "app", "work", "look"):
        store.stat(name)
    store.prepare("next", "app")


@pytest.mark.parametrize(("code", "make"), cases(LEFT_ALONE))
def test_what_only_a_person_can_mend(store: Snapshotter, code: str, make: Callable[[Snapshotter], None]) -> None:
    make(store)
    again = Snapshotter(store.root, EmulatedLayers())
    before = everything(store)
    found = care.check_store(again, repair=True, inventory=True)
    finding = next(finding for finding in found.result["findings"] if finding["code"] == code)
    assert (finding["repairable"], finding["repaired"], finding["action"]) == (False, False, "")
    # Whatever is wrong, what can be read is told.
    with contextlib.closing(Snapshotter(store.root, EmulatedLayers())) as opened:
        try:
            names = [info.name for info in opened.walk()]
        except FailedPrecondition:
            names = []
    assert [snapshot["name"] for snapshot in found.result["inventory"]] == names
    assert bool(names) is not code.startswith(("metadata_", "linked_"))
    assert found.result["exists"] is True
    assert found.result["healthy"] is (finding["severity"] == care.NOTICE)
    assert {name for name in everything(store) if "metadata" not in name} == {
        name for name in before if "metadata" not in name
    }


def test_the_root_of_another_snapshotter_is_no_store(store: Snapshotter) -> None:
    no_metadata(store)
    with open(path(store, "metadata.db"), "wb"):
        pass
    again = Snapshotter(store.root, EmulatedLayers())
    report = care.check_store(again, inventory=True).result
    assert (report["exists"], report["healthy"], report["findings"], report["inventory"]) == (False, True, [], [])
    with pytest.raises(FailedPrecondition, match="is the root of a snapshotter of containerd; name another root"):
        again.walk()


def test_an_inventory_with_a_disk_that_cannot_be_read(store: Snapshotter) -> None:
    two_headers(store)
    inventory = care.check_store(store, inventory=True).result["inventory"]
    assert {snapshot["name"]: bool(snapshot["scratch"]) for snapshot in inventory} == {
        "app": False,
        "base": False,
        "look": False,
        "work": False,
    }
    assert all(snapshot["usage"] for snapshot in inventory)
    assert "usage" not in care.check_store(store, inventory=True, quick=True).result["inventory"][0]


def test_all_codes_are_shown_here_or_below() -> None:
    shown = set(REPAIRABLE) | set(LEFT_ALONE) | {"low_free_space", "links_near_limit"}
    assert shown == set(care.CODES)


def test_bytes_are_counted(store: Snapshotter) -> None:
    leftover(store)
    abandoned_upload(store)
    assert care.check_store(store).result["reclaimable"] == 12345 + 100
    repaired = care.check_store(store, repair=True).result
    assert (repaired["reclaimed"], repaired["reclaimable"]) == (12345 + 100, 0)
    assert sorted(os.listdir(path(store, "incoming"))) == ["1" * 64 + ".part"]


def test_only_some(store: Snapshotter) -> None:
    leftover(store)
    unprotected(store)
    assert codes(store, repair=True, only=["leftover_removal"]) == ["leftover_removal"]
    assert codes(store) == ["unprotected_root"]
    with pytest.raises(InvalidArgument, match="unknown finding code 'orphans'; known are abandoned_draft, "):
        care.check(store, only=["orphans"])


def test_quick_visits_no_layer(store: Snapshotter) -> None:
    usage_drift(store)
    assert codes(store, quick=True) == []
    assert codes(store) == ["usage_drift"]


def test_free_space(store: Snapshotter) -> None:
    assert codes(store, minimum_free=1) == []
    report = care.check_store(store, minimum_free="64TB")
    assert [finding["code"] for finding in report.result["findings"]] == ["low_free_space"]


def test_links(store: Snapshotter) -> None:
    file = path(store, "snapshots", "2", "Files", "many")
    with open(file, "wb"):
        pass
    for number in range(1, 1001):
        os.link(file, f"{file}{number}")
    store.remove("look")
    found = {finding.code: finding for finding in care.check(store).findings}
    assert found["links_near_limit"].message.endswith('of "app" has 1001 names; NTFS allows 1023')


# -- layers whose metadata were lost -----------------------------------------------


def restored(store: Snapshotter, number: int) -> Snapshotter:
    """The store with a backup of its metadata, made before its last ``number`` snapshots."""
    copy = path(store, "copy")
    with contextlib.closing(sqlite3.connect(copy)) as target, metadata(store) as tables:
        tables.backup(target)
    for fresh in range(number):
        store.prepare(f"fresh{fresh}", "app")
    no_metadata(store)
    os.rename(copy, path(store, "metadata.sqlite3"))
    return Snapshotter(store.root, EmulatedLayers())


@pytest.mark.parametrize("number", [1, 2, 5])
def test_layers_that_are_newer_than_restored_metadata_stay(store: Snapshotter, number: int) -> None:
    wanted = [str(5 + fresh) for fresh in range(number)]
    opened = restored(store, number)
    assert codes(opened, repair=True) == ["unknown_directory"] * number
    # Also when work goes on, and the numbers of those layers are passed over.
    opened.prepare("later", "app")
    assert opened.stat("later").id == 5 + number
    assert codes(opened, repair=True) == ["unknown_directory"] * number
    assert set(wanted) < set(os.listdir(path(store, "snapshots")))
    opened.close()


def test_layers_that_are_older_than_new_metadata_stay(store: Snapshotter) -> None:
    no_metadata(store)
    opened = Snapshotter(store.root, EmulatedLayers())
    ensure_store(opened, force=True)
    opened.prepare("new")
    assert opened.stat("new").id == 4
    assert codes(opened, repair=True) == ["unknown_directory"] * 3
    assert sorted(os.listdir(path(store, "snapshots"))) == ["1", "2", "3", "4"]

    # Who says so by its name gets rid of them.
    planned = care.check(opened, repair=False, only=["unknown_directory"]).findings
    assert all(finding.reclaimable > 0 and "with only=[unknown_directory]" in finding.remedy for finding in planned)
    assert codes(opened, repair=True, only=["unknown_directory"]) == ["unknown_directory"] * 3
    assert os.listdir(path(store, "snapshots")) == ["4"]
    assert codes(opened) == []
    opened.close()


# -- living processes -------------------------------------------------------------


@pytest.mark.parametrize("make", [leftover, orphan, stale_mark, abandoned_import, interrupted_removal])
def test_what_a_living_process_works_on_is_left_alone(store: Snapshotter, make: Callable[[Snapshotter], None]) -> None:
    make(store)
    number = 3 if make in (stale_mark, interrupted_removal) else 5
    lock = store.directories.lock(number)
    assert lock is not None
    with lock:
        assert codes(store, repair=True) == []
    assert codes(store, repair=True) == [code for code, makes in REPAIRABLE.items() if make in makes]
    assert codes(store) == []


def test_a_directory_whose_record_is_about_to_be_committed(store: Snapshotter) -> None:
    other = Snapshotter(store.root, EmulatedLayers())
    with other.metadata().write() as tx:
        tx.create_snapshot("active", "fresh", "app", {})
        other.directories.begin(5)
        assert codes(store) == []
        shutil.copyfile(path(store, "snapshots", "1", "blank.vhdx"), path(store, "snapshots", "5", "sandbox.vhdx"))
    assert codes(store) == []
    other.close()


@pytest.mark.posix
def test_what_cannot_be_destroyed_says_why(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover(store)

    def refuse(_layers: EmulatedLayers, directory: str) -> None:
        raise FailedPrecondition(f"{directory} is in use")

    monkeypatch.setattr(EmulatedLayers, "destroy_patiently", refuse)
    with open(path(store, "snapshots", "rm-5", "sandbox.vhdx"), "rb") as file:
        holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[file.fileno()])
    try:
        (finding,) = care.check(store, repair=True, at_restart=True).findings
    finally:
        holder.communicate()
    assert finding.repaired is False
    assert finding.action.startswith("not repaired: ")
    assert f"rm-5 is in use; in use: process {holder.pid} " in finding.action
    assert "and not scheduled: only Windows can" in finding.action
    monkeypatch.undo()
    assert codes(store, repair=True) == ["leftover_removal"]
    assert codes(store) == []


def test_the_manual_lists_all_codes() -> None:
    manual = (Path(__file__).parents[5] / "docs" / "recovery.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in manual.partition("## Codes")[2].splitlines() if line.startswith("| `")]
    listed = {code.strip("`| "): severity for codes, severity, *_rest in rows for code in codes.split(",")}
    assert listed == {code: severity for code, (severity, _remedy) in care.CODES.items()}
