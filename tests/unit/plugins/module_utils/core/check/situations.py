# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make stores with one problem each, and assert what every check of them must do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from typing import Any, Callable, Dict, Iterator, List

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.findings import CODES, NOTICE
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.leftovers import ABANDONED_SECONDS
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import growth
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

GIB = 1024**3
SIZE = "containerd.io/snapshot/windows/rootfs.sizebytes"

Maker = Callable[[Snapshotter], None]


def path(store: Snapshotter, *names: str) -> str:
    return os.path.join(store.root, *names)


def codes(store: Snapshotter, **options: Any) -> List[str]:
    return [finding.code for finding in check(store, **options).findings]


@contextlib.contextmanager
def metadata(store: Snapshotter) -> Iterator[sqlite3.Connection]:
    """Open the metadata for changes that tasks never make."""
    connection = sqlite3.connect(path(store, "metadata.sqlite3"), isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def read_all(store: Snapshotter) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for parent, _directories, files in os.walk(store.root):
        found[parent] = None
        for name in files:
            if not name.startswith("metadata.sqlite3-"):
                with open(os.path.join(parent, name), "rb") as file:
                    found[os.path.join(parent, name)] = file.read()
    return found


def flip_byte(file: str, offset: int) -> None:
    with open(file, "r+b") as disk:
        disk.seek(offset)
        byte = disk.read(1)
        disk.seek(offset)
        disk.write(bytes([byte[0] ^ 0xFF]))


def make_old(file: str) -> None:
    then = time.time() - 2 * ABANDONED_SECONDS
    os.utime(file, (then, then))


def dry_run(store: Snapshotter) -> Snapshotter:
    return Snapshotter(store.root, DryRun(EmulatedLayers()), dry_run=True)


# -- metadata -------------------------------------------------------------------


def missing_label_rows(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("DELETE FROM labels WHERE key = ?", (SIZE,))


def id_reuse(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE sequence SET last = 2")


def damaged_labels(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE snapshots SET labels = '{' WHERE name = 'work'")


def damaged_file(store: Snapshotter) -> None:
    store.close()
    for name in os.listdir(store.root):
        if name.startswith("metadata.sqlite3"):
            with open(path(store, name), "wb") as file:
                file.write(b"SQLite format 3\0" + b"garbage" * 1000)


def missing_metadata(store: Snapshotter) -> None:
    store.close()
    for name in os.listdir(store.root):
        if name.startswith("metadata.sqlite3"):
            os.unlink(path(store, name))


# -- directories ----------------------------------------------------------------


def without_record(store: Snapshotter) -> None:
    """Leave a layer with a used id but no record, as after a restore and use of older metadata."""
    store.prepare("gone", "app")
    store.remove("gone")
    os.mkdir(path(store, "snapshots", "5"))
    with open(path(store, "snapshots", "5", "sandbox.vhdx"), "wb") as file:
        file.write(bytes(12345))


def unfinished_layer(store: Snapshotter) -> None:
    without_record(store)
    with open(path(store, "snapshots", "new-5"), "wb"):
        pass


def removed_layer(store: Snapshotter) -> None:
    without_record(store)
    os.rename(path(store, "snapshots", "5"), path(store, "snapshots", "rm-5"))


def interrupted_removal(store: Snapshotter) -> None:
    os.rename(path(store, "snapshots", "3"), path(store, "snapshots", "rm-3"))


def interrupted_view_mount(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "rm-4"))


def directory_of_next_id(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "5"))


def directory_of_unknown_id(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "99"))


def second_directory(store: Snapshotter) -> None:
    os.mkdir(path(store, "snapshots", "rm-3"))


def foreign_link(store: Snapshotter) -> None:
    os.symlink("/", path(store, "snapshots", "7"))


def linked_snapshots(store: Snapshotter) -> None:
    os.rename(store.directories.snapshots, path(store, "..", "elsewhere"))
    os.symlink("../elsewhere", store.directories.snapshots)


# -- snapshots ------------------------------------------------------------------


def stale_mark(store: Snapshotter) -> None:
    with store.store.write() as tx:
        tx.set_owner("work", "process 1 since yesterday")


def abandoned_import(store: Snapshotter) -> None:
    store.prepare("extract-1-2026-11-24T00:00:00.000000000Z-00c0ffee images/new", "app")
    with open(path(store, "snapshots", "5", "half"), "wb") as file:
        file.write(bytes(999))


def usage_drift(store: Snapshotter) -> None:
    with open(path(store, "snapshots", "2", "Files", "added"), "wb") as file:
        file.write(bytes(77))


def interrupted_mount(store: Snapshotter) -> None:
    target = path(store, "..", "target")
    store.mount("work", os.path.realpath(target))
    record = os.path.join(os.path.dirname(os.path.realpath(target)), ".target.wcow-mount.json")
    with open(record, encoding="utf-8") as file:
        state = json.load(file)
    with open(record, "w", encoding="utf-8") as file:
        json.dump({**state, "state": "filling"}, file)


def lost_directory(store: Snapshotter) -> None:
    shutil.rmtree(path(store, "snapshots", "3"))


def no_files(store: Snapshotter) -> None:
    shutil.rmtree(path(store, "snapshots", "2", "Files"))


def no_template(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "1", "blank.vhdx"))


def lost_parent(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("DELETE FROM snapshots WHERE name = 'base'")


def parent_loop(store: Snapshotter) -> None:
    with metadata(store) as tables:
        tables.execute("UPDATE snapshots SET parent = 'app' WHERE name = 'base'")


# -- disks ----------------------------------------------------------------------


def smaller_disk(store: Snapshotter) -> None:
    store.update("work", {SIZE: str(50 * GIB)}, [f"labels.{SIZE}"])


def larger_disk(store: Snapshotter) -> None:
    growth.grow(path(store, "snapshots", "3", "sandbox.vhdx"), 60 * GIB)


def damaged_header(store: Snapshotter) -> None:
    flip_byte(path(store, "snapshots", "3", "sandbox.vhdx"), 64 * 1024 + 100)


def damaged_region_table(store: Snapshotter) -> None:
    flip_byte(path(store, "snapshots", "3", "vm", "sandbox.vhdx"), 256 * 1024 + 4)


def no_scratch(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "3", "sandbox.vhdx"))


def no_uvm_scratch(store: Snapshotter) -> None:
    os.unlink(path(store, "snapshots", "3", "vm", "sandbox.vhdx"))


def two_headers(store: Snapshotter) -> None:
    flip_byte(path(store, "snapshots", "3", "sandbox.vhdx"), 64 * 1024 + 100)
    flip_byte(path(store, "snapshots", "3", "sandbox.vhdx"), 128 * 1024 + 100)


def directory_for_disk(store: Snapshotter) -> None:
    no_scratch(store)
    os.mkdir(path(store, "snapshots", "3", "sandbox.vhdx"))


# -- leftovers ------------------------------------------------------------------


def abandoned_upload(store: Snapshotter) -> None:
    os.mkdir(path(store, "incoming"))
    for name in ("0" * 64, "1" * 64 + ".part"):
        with open(path(store, "incoming", name), "wb") as file:
            file.write(bytes(100))
    make_old(path(store, "incoming", "0" * 64))


def abandoned_metadata(store: Snapshotter) -> None:
    for number in (1, 2):
        with open(path(store, f"metadata.sqlite3.{number}.new"), "wb") as file:
            file.write(b"half")
    make_old(path(store, "metadata.sqlite3.1.new"))


def leftover_transport(store: Snapshotter) -> None:
    for name in ("3-export", "7-import"):
        os.makedirs(path(store, "transport", name, "Files"))
    os.chmod(path(store, "transport"), 0o700)


def stale_locks(store: Snapshotter) -> None:
    without_record(store)
    shutil.rmtree(path(store, "snapshots", "5"))
    with open(path(store, "locks", "5"), "wb"):
        pass


# -- protection -----------------------------------------------------------------


def unprotected_root(store: Snapshotter) -> None:
    if os.name == "nt":
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import advapi32

        advapi32.write_security(store.root, "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FR;;;WD)")
    else:
        os.chmod(store.root, 0o755)


def shared_root(store: Snapshotter) -> None:
    os.chmod(store.root, 0o702)


def shared_snapshots(store: Snapshotter) -> None:
    os.chmod(store.directories.snapshots, 0o777)


def shared_locks(store: Snapshotter) -> None:
    os.chmod(store.directories.locks, 0o777)


def shared_metadata(store: Snapshotter) -> None:
    os.chmod(path(store, "metadata.sqlite3"), 0o666)


def shared_layer(store: Snapshotter) -> None:
    os.chmod(path(store, "snapshots", "3"), 0o777)


def linked_lock(store: Snapshotter) -> None:
    os.symlink("../metadata.sqlite3", path(store, "locks", "7"))


def shared_upload(store: Snapshotter) -> None:
    os.mkdir(path(store, "incoming"), 0o700)
    with open(path(store, "incoming", "0" * 64), "wb"):
        pass
    os.chmod(path(store, "incoming", "0" * 64), 0o666)


def linked_upload(store: Snapshotter) -> None:
    os.mkdir(path(store, "incoming"), 0o700)
    os.symlink("../metadata.sqlite3", path(store, "incoming", "0" * 64 + ".part"))


# -- what a repair does with each ------------------------------------------------

#: The findings that a repair removes.
REPAIRABLE: Dict[str, List[Maker]] = {
    # metadata
    "metadata_index": [missing_label_rows],
    "id_reuse": [id_reuse],
    # directories
    "orphan_directory": [unfinished_layer],
    "leftover_removal": [removed_layer],
    "interrupted_removal": [interrupted_removal, interrupted_view_mount],
    # snapshots
    "stale_mark": [stale_mark],
    "abandoned_import": [abandoned_import],
    "usage_drift": [usage_drift],
    "attached_unused": [interrupted_mount],
    # disks
    "scratch_size": [smaller_disk, larger_disk],
    "damaged_scratch_copy": [damaged_header, damaged_region_table],
    # leftovers
    "abandoned_upload": [abandoned_upload],
    "abandoned_draft": [abandoned_metadata],
    "leftover_transport": [leftover_transport],
    "stale_locks": [stale_locks],
    # protection
    "unprotected_root": [unprotected_root, shared_root],
    "unprotected_entry": [
        shared_snapshots,
        shared_locks,
        shared_metadata,
        shared_layer,
        linked_lock,
        shared_upload,
        linked_upload,
    ],
}
if os.name == "nt":
    # The modes of POSIX stand for access lists there.
    REPAIRABLE["unprotected_root"] = [unprotected_root]
    REPAIRABLE["unprotected_entry"] = [linked_lock, linked_upload]

#: The findings that a repair only reports.
LEFT_ALONE: Dict[str, List[Maker]] = {
    # metadata
    "metadata_damaged": [damaged_labels, damaged_file],
    "metadata_missing": [missing_metadata],
    # directories
    "unknown_directory": [
        directory_of_unknown_id,
        second_directory,
        directory_of_next_id,
        without_record,
    ],
    "foreign_entry": [foreign_link],
    # snapshots
    "missing_directory": [lost_directory],
    "incomplete_layer": [no_files, no_template],
    "broken_chain": [lost_parent, parent_loop],
    # disks
    "missing_scratch": [no_scratch],
    "missing_uvm_scratch": [no_uvm_scratch],
    "damaged_scratch": [two_headers],
    "unreadable_scratch": [directory_for_disk],
    # protection
    "linked_directory": [linked_snapshots],
}


# -- assertions for every check ----------------------------------------------------


def assert_repaired(store: Snapshotter, code: str, make: Maker) -> None:
    """Assert that a check only reports the problem, a dry run plans the repair and a repair corrects the problem."""
    make(store)
    before = read_all(store)
    found = check_store(store)
    finding = next(finding for finding in found.result["findings"] if finding["code"] == code)
    assert finding["severity"] == CODES[code][0]
    assert finding["repairable"] is True
    assert (finding["repaired"], finding["action"], found.changed) == (False, "", False)
    assert finding["message"]
    assert finding["remedy"]
    assert read_all(store) == before

    planned_report = check_store(dry_run(store), repair=True)
    plan = next(finding for finding in planned_report.result["findings"] if finding["code"] == code)
    assert (plan["repaired"], plan["action"][:9], planned_report.changed) == (False, "would be ", True)
    assert read_all(store) == before

    repaired = check_store(store, repair=True)
    done = next(finding for finding in repaired.result["findings"] if finding["code"] == code)
    assert (done["repaired"], repaired.changed) == (True, True), done
    assert plan["action"] == "would be " + done["action"] or make is interrupted_view_mount
    assert repaired.result["healthy"] is True
    assert codes(store) == []
    for name in ("base", "app", "work", "look"):
        store.stat(name)
    store.prepare("next", "app")


def assert_left_alone(store: Snapshotter, code: str, make: Maker) -> None:
    """Assert that a repair reports the problem and changes nothing."""
    make(store)
    again = Snapshotter(store.root, EmulatedLayers())
    before = read_all(store)
    found = check_store(again, repair=True, inventory=True)
    finding = next(finding for finding in found.result["findings"] if finding["code"] == code)
    assert (finding["repairable"], finding["repaired"], finding["action"]) == (False, False, "")
    # The inventory has every readable record.
    with contextlib.closing(Snapshotter(store.root, EmulatedLayers())) as opened:
        try:
            names = [info.name for info in opened.walk()]
        except FailedPrecondition:
            names = []
    assert [snapshot["name"] for snapshot in found.result["inventory"]] == names
    assert bool(names) is not code.startswith(("metadata_", "linked_"))
    assert found.result["exists"] is True
    assert found.result["healthy"] is (finding["severity"] == NOTICE)
    assert {name for name in read_all(store) if "metadata" not in name} == {
        name for name in before if "metadata" not in name
    }
