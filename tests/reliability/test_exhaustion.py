# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node runs out of a resource: space, inodes, file handles, its place in the write queue, or a steady clock.

Each test of a full volume runs in a child process that has its own tmpfs in
its own namespaces, so the test needs no special rights. The tests leave
different amounts of space, in steps over the whole range that matters. At
each step the error must be clear and the state must be as before. With more
space, the same request must succeed.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import traceback

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import (
    door,
    errors,
    labels,
    model,
    snapshotter,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import reader
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy, filetree
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import mounts
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import store as emulated
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import errors as metastore_errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar, with_directories

pytestmark = pytest.mark.posix

_KIB = 1024
_GIB = 1024**3

# linux/sched.h and linux/mount.h
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 32, 16384, 1 << 18

_CHILD_SECONDS = 100


# -- a process of its own ----------------------------------------------------


def in_child(function, *arguments):
    """Run ``function`` in a child process and return its result. If it fails, this test fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(_CHILD_SECONDS)
        try:
            outcome = (True, function(*arguments))
        except BaseException as error:  # noqa: BLE001 - the parent reports every failure
            outcome = (isinstance(error, _NoRights), traceback.format_exc())
        with open(writer, "wb", closefd=False) as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        written = pipe.read()
    _pid, status = os.waitpid(child, 0)
    if not written:
        pytest.fail(f"the child ended with status {status} and said nothing")
    fine, answer = pickle.loads(written)
    if fine and isinstance(answer, str):
        pytest.skip("this account may not make name spaces and mount in them")
    if not fine:
        pytest.fail(f"in the child:\n{answer}")
    return answer


class _NoRights(Exception):
    """The process is not root and cannot create its own user namespace."""


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def mount_volume(directory, options):
    """Mount a tmpfs at ``directory`` for this process only. The process must have a single thread."""
    user, group = os.geteuid(), os.getegid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNS) == 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    elif user or _libc().unshare(_CLONE_NEWNS):
        raise _NoRights
    _libc().mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    os.makedirs(directory, exist_ok=True)
    if _libc().mount(b"none", os.fsencode(directory), b"tmpfs", 0, options.encode("ascii")):
        raise OSError(ctypes.get_errno(), f"mount of a tmpfs at {directory}")


def remount(directory, flags):
    if _libc().mount(b"none", os.fsencode(directory), b"tmpfs", _MS_REMOUNT | flags, None):
        raise OSError(ctypes.get_errno(), f"remount of {directory}")


# -- a store to work on ------------------------------------------------------


def _layer_tar(*names):
    return layer_tar(*with_directories((name, b"0123456789" * 500) for name in names))


def ask(root, operation, attachment=b"", **arguments):
    """Return the result of one operation that goes through the door, as a task does."""
    request = {
        "protocol": 1,
        "root": root,
        "layers": "emulated",
        "operations": [{"operation": operation, "arguments": arguments}],
    }
    reply = door.handle(json.dumps(request).encode(), io.BytesIO(attachment))
    json.dumps(reply)
    return reply["results"][0]


def must(root, operation, attachment=b"", **arguments):
    result = ask(root, operation, attachment, **arguments)
    assert result["ok"], result
    return result


def make_store(top):
    """Make a store in ``top``/root: a base with a utility VM, active snapshots with and without content, a view."""
    root, tar = os.path.join(top, "root"), os.path.join(top, "base.tar")
    with open(tar, "wb") as file:
        file.write(_layer_tar("Files/a", "UtilityVM/Files/u"))
    with open(os.path.join(top, "layer.tar"), "wb") as file:
        file.write(_layer_tar(*(f"Files/dir/{number}" for number in range(12))))
    must(root, "ensure_layer", name="base", src=tar)
    os.unlink(tar)
    must(root, "prepare", key="filled", parent="base", labels={"kept": "1"})
    must(root, "mount", key="filled", target=os.path.join(top, "place"))
    for number in range(8):
        with open(os.path.join(top, "place", f"new{number}"), "wb") as file:
            file.write(b"content" * 1500)
    must(root, "unmount", target=os.path.join(top, "place"))
    must(root, "prepare", key="plain", parent="base")
    must(root, "view", key="seen", parent="base")
    must(root, "prepare", key="open", parent="base")
    must(root, "mount", key="open", target=os.path.join(top, "mounted"))
    for number in range(8):
        with open(os.path.join(top, "mounted", f"written{number}"), "wb") as file:
            file.write(b"content" * 1500)


_PIECE = base64.encodebytes(bytes(range(256)) * 600)
_DIGEST = "sha256:" + hashlib.sha256(bytes(range(256)) * 600).hexdigest()

#: The requests to the store in ``{top}/root``, by name.
OPERATIONS = {
    "prepare": ("prepare", {"key": "new", "parent": "base", "labels": {labels.ROOTFS_SIZE_BYTES: str(300 * _GIB)}}),
    "uvm scratch": ("prepare", {"key": "new", "parent": "base", "labels": {labels.UVM_SCRATCH: "true"}}),
    "view": ("view", {"key": "new", "parent": "base", "labels": {"l": "x" * 3000}}),
    "commit": ("commit", {"name": "new", "key": "filled"}),
    "remove": ("remove", {"key": "plain"}),
    "update": ("update", {"name": "plain", "labels": {f"l{number}": "y" * 3000 for number in range(4)}}),
    "grow": ("ensure_scratch", {"key": "plain", "size": 300 * _GIB}),
    "import": ("ensure_layer", {"name": "new", "parent": "base", "src": "{top}/layer.tar"}),
    "import base": ("ensure_layer", {"name": "new", "src": "{top}/layer.tar"}),
    "export": ("ensure_export", {"name": "base", "dest": "{top}/out.tar"}),
    "mount": ("mount", {"key": "filled", "target": "{top}/place/here"}),
    "mount view": ("mount", {"key": "seen", "target": "{top}/place/there"}),
    "unmount": ("unmount", {"target": "{top}/mounted"}),
    "settings": ("ensure_store", {"rootfs_size": "50GB"}),
    "stage": ("stage", {"digest": _DIGEST, "size": 256 * 600, "offset": 0}),
    "ensure": ("ensure_snapshot", {"state": "active", "key": "new", "parent": "base", "rootfs_size": "40GB"}),
}


def run(name, top):
    operation, arguments = OPERATIONS[name]
    arguments = json.loads(json.dumps(arguments).replace("{top}", top))
    return ask(os.path.join(top, "root"), operation, _PIECE if name == "stage" else b"", **arguments)


#: SQLite's side files, the list of a layer's mounts, and its lock. The list only counts where the targets confirm it.
_BOOKKEEPING = (METADATA_FILE + "-", mounts.MOUNTS, mounts.LOCK)


def tree(top):
    """Return everything below ``top`` except bookkeeping files: path, kind, mode, and hash of the content."""
    found = {}
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if name != "locks"]
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            # An empty file among the incoming ones is equivalent to a missing one.
            arriving = os.path.join(top, "root", "incoming")
            if path == arriving or (path.startswith(arriving) and not os.path.getsize(path)):
                continue
            if name.startswith(_BOOKKEEPING) or path == os.path.join(top, "filler"):
                continue
            content = ""
            if name.endswith(".vhdx"):
                # A growth that is undone leaves a different write GUID and sequence number.
                content = reader.read_info(path)
            elif stat.S_ISREG(mode) and name != METADATA_FILE:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            found[os.path.relpath(path, top)] = (stat.S_IFMT(mode), content)
    return found


#: A failure may leave these paths, because the next run of the same task starts from them: the layer that a commit made
#: of a scratch and could not record, the scratch disk of a view, which the first mount makes once, and the contents
#: of a mount that could not be undone.
_CONTINUED = {
    "commit": r"root/snapshots/2/(Files(/.*)?|tombstones\.txt)",
    "mount view": "root/snapshots/4(/sandbox.vhdx)?",
    "unmount": r"root/snapshots/5/sandbox\.contents(/.*)?",
}
#: Without a file handle the process cannot list these directories, so it cannot delete them. The next run of the task
#: or of check does.
_NOT_DELETED = r"root/snapshots/(rm-\d+|2/Files\.new)(/.*)?|place/(here|there|\.(here|there)\.wcow-mount\.json)(/.*)?"


def unchanged(before, top, but="-"):
    present = tree(top)
    differing = [
        f"{path}: {before.get(path)} -> {present.get(path)}"
        for path in sorted({*before, *present})
        if before.get(path) != present.get(path) and not re.fullmatch(but, path)
    ]
    assert not differing, "\n".join(differing)


def records(top):
    opened = snapshotter.Snapshotter(os.path.join(top, "root"), emulated.EmulatedLayers())
    try:
        return opened.walk()
    finally:
        opened.close()


def after_failure(result, name, top, before, known, but=""):
    """Assert that a failed operation changed nothing, or warned about what it left, and that check then removes it."""
    warnings = result.get("warnings", [])
    assert all("could not " in warning for warning in warnings), warnings
    present = records(top)
    if [info for info in present if snapshotter.is_unpack_key(info.name)]:
        assert any(warning.startswith('could not remove "extract-') for warning in warnings), warnings
        report = must(os.path.join(top, "root"), "check", repair=True)
        present = records(top)
        assert not [info for info in present if snapshotter.is_unpack_key(info.name)], report
    assert [_lasting(info) for info in present] == [_lasting(info) for info in known]
    unchanged(before, top, f"{but or '-'}|{_CONTINUED.get(name, '-')}")


def _lasting(info):
    """Return an info without what a failed growth may leave: the label, written first, and the time of the change."""
    kept = {key: value for key, value in info.labels.items() if key != labels.ROOTFS_SIZE_BYTES}
    return info._replace(labels=kept, updated="")


def restore(kept, top):
    """Make ``top`` equal to ``kept``, including holes. Files that are only in ``top`` are removed."""
    for name in os.listdir(top):
        filetree.remove(os.path.join(top, name))

    def copy(source, target):
        if os.path.getsize(source) > 1 << 20:
            diskcopy.copy_disk(source, target)
            shutil.copystat(source, target)
        else:
            shutil.copy2(source, target)

    shutil.copytree(kept, top, symlinks=True, copy_function=copy, dirs_exist_ok=True)


# -- full volumes ------------------------------------------------------------

_SIZE = 48 * 1024


def leave_space(top, kib):
    """Fill the volume until ``kib`` KiB are left."""
    status = os.statvfs(top)
    descriptor = os.open(os.path.join(top, "filler"), os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(descriptor, 0, max(status.f_bavail * status.f_frsize - kib * _KIB, 1))
    os.close(descriptor)


def leave_names(top, count):
    """Use up the volume's inodes until ``count`` are left."""
    os.mkdir(os.path.join(top, "filler"))
    for number in range(os.statvfs(top).f_favail - count):
        os.close(os.open(os.path.join(top, "filler", str(number)), os.O_CREAT | os.O_WRONLY))


def steps(attempt, first, most):
    """Call ``attempt(step)`` for steps over the range in which the outcome changes. Return how many attempts failed.

    The steps are small at first, where metadata is written. Then they are wider
    until one succeeds, and small again just below that step.
    """
    outcomes = {}
    step = 0
    while step <= most and sum(outcomes.values()) < 2:
        outcomes[step] = attempt(step)
        step += first if step < 12 * first else max(first, step // 5 // first * first)
    assert any(outcomes.values()), f"nothing up to {most} is enough"
    enough = min(step for step, fine in outcomes.items() if fine)
    below = max((step for step, fine in outcomes.items() if not fine and step < enough), default=enough)
    for near in range(max(below + first, enough - 12 * first), enough, first):
        outcomes[near] = attempt(near)
    return sum(not fine for fine in outcomes.values())


def check_failure(result, top):
    error = result["error"]
    message = error["message"]
    assert error["code"] == "unavailable", message
    assert "no space left" in message.lower() or "volume is full" in message, message
    assert "free" in message, message
    assert top in message, message


def exhaust(top, kept, name, leave, first, most):
    """Run an operation with more and more of a resource left. Return how many times it failed."""
    restore(kept, top)
    before, known = tree(top), records(top)
    succeeded = run(name, top)
    assert succeeded["ok"], succeeded
    after = sorted(info.name for info in records(top))

    def attempt(step):
        restore(kept, top)
        leave(top, step)
        result = run(name, top)
        filetree.remove(os.path.join(top, "filler"))
        if not result["ok"]:
            check_failure(result, top)
            if name == "export":
                assert re.search(f"out.tar|{METADATA_FILE}", result["error"]["message"]), result
            after_failure(result, name, top, before, known)
            again = run(name, top)
            assert again["ok"], again["error"]["message"]
        assert sorted(info.name for info in records(top)) == after
        return result["ok"]

    return steps(attempt, first, most)


def _exhaust_space(directory, name):
    mount_volume(directory, f"size={4 * _SIZE}k")
    kept, top = os.path.join(directory, "kept"), os.path.join(directory, "volume")
    os.mkdir(kept)
    make_kept(kept, top)
    _libc().mount(b"none", os.fsencode(top), b"tmpfs", 0, f"size={_SIZE}k".encode("ascii"))
    return exhaust(top, kept, name, leave_space, 4, 24 * 1024)


def make_kept(kept, top):
    """Make a store at ``top`` and move it to ``kept``. The tests copy it back to ``top`` again and again."""
    os.mkdir(top)
    make_store(top)
    for name in os.listdir(top):
        os.rename(os.path.join(top, name), os.path.join(kept, name))


def _exhaust_names(directory, name):
    mount_volume(directory, f"size={4 * _SIZE}k")
    kept, top = os.path.join(directory, "kept"), os.path.join(directory, "volume")
    os.mkdir(kept)
    make_kept(kept, top)
    _libc().mount(b"none", os.fsencode(top), b"tmpfs", 0, f"size={_SIZE}k,nr_inodes=400".encode("ascii"))
    return exhaust(top, kept, name, leave_names, 1, 200)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_full_volume_changes_nothing(tmp_path, figures, name):
    figures(resource_faults=in_child(_exhaust_space, str(tmp_path), name), losses=0)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_more_names_on_the_volume_changes_nothing(tmp_path, figures, name):
    figures(resource_faults=in_child(_exhaust_names, str(tmp_path), name), losses=0)


def _exhaust_creation(directory, leave, first, most, inodes):
    volume = os.path.join(directory, "volume")
    mount_volume(volume, f"size=4m,nr_inodes={inodes}")

    def attempt(step):
        for name in os.listdir(volume):
            filetree.remove(os.path.join(volume, name))
        leave(volume, step)
        root = os.path.join(volume, "root")
        result = ask(root, "prepare", key="base")
        filetree.remove(os.path.join(volume, "filler"))
        if not result["ok"]:
            check_failure(result, volume)
            present = set(tree(volume))
            assert present <= {"root", "root/snapshots", "root/locks", f"root/{METADATA_FILE}"}, present
            must(root, "prepare", key="base")
        assert [info.name for info in records(volume)] == ["base"]
        return result["ok"]

    return steps(attempt, first, most)


@pytest.mark.parametrize(("leave", "first", "most"), [(leave_space, 4, 3000), (leave_names, 1, 60)])
def test_a_store_is_made_whole_or_not_at_all(tmp_path, figures, leave, first, most):
    figures(resource_faults=in_child(_exhaust_creation, str(tmp_path), leave, first, most, 100), losses=0)


# -- read-only volumes -------------------------------------------------------


def reads_work_and_writes_do_not(top):
    """Check the answers of a read-only store. Return the number of refusals."""
    root = os.path.join(top, "root")
    known = must(root, "walk")["result"]
    assert [info["name"] for info in known] == ["base", "filled", "open", "plain", "seen"]
    before = tree(top)
    for info in known:
        assert must(root, "stat", key=info["name"])["result"] == info
        assert must(root, "usage", key=info["name"])["result"]["size"] >= 0
    assert must(root, "mounts", key="filled")["result"][0]["type"] == "windows-layer"
    listed = must(root, "list", usage=True, mounts=True, scratch=True)["result"]["snapshots"]
    assert [info["name"] for info in listed] == [info["name"] for info in known]
    refused = 0
    for name in sorted(OPERATIONS):
        error = run(name, top)["error"]
        assert error["code"] == "failed_precondition", error["message"]
        assert top in error["message"], error["message"]
        assert "read-only" in error["message"].lower(), error["message"]
        refused += 1
    unchanged(before, top)
    return refused


def _read_only_volume(directory):
    top = os.path.join(directory, "volume")
    mount_volume(top, f"size={_SIZE}k")
    make_store(top)
    remount(top, _MS_RDONLY)
    refused = reads_work_and_writes_do_not(top)
    remount(top, 0)
    for name in ("prepare", "update", "grow", "mount view", "stage"):
        assert run(name, top)["ok"]
    return refused


def test_a_read_only_volume_is_read_and_not_written(tmp_path, figures):
    figures(resource_faults=in_child(_read_only_volume, str(tmp_path)), losses=0)


def _no_permission(top):
    make_store(top)
    # Without capabilities, file modes also restrict root (linux/capability.h, version 3).
    if _libc().capset(struct.pack("<Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")
    paths = [os.path.join(directory, name) for directory, names, files in os.walk(top) for name in [*names, *files]]
    modes = {path: stat.S_IMODE(os.lstat(path).st_mode) for path in [top, *paths] if not os.path.islink(path)}
    for path, mode in modes.items():
        os.chmod(path, mode & 0o555)
    try:
        return reads_work_and_writes_do_not(top)
    finally:
        for path, mode in modes.items():
            os.chmod(path, mode)


def test_a_store_that_may_only_be_read(tmp_path, figures):
    figures(resource_faults=in_child(_no_permission, str(tmp_path)), losses=0)


# -- file handles ------------------------------------------------------------


def _few_handles(directory, name):
    kept, top = os.path.join(directory, "kept"), os.path.join(directory, "volume")
    os.mkdir(kept)
    make_kept(kept, top)
    restore(kept, top)
    # The first run imports modules, which also takes file handles.
    assert run(name, top)["ok"]
    after = sorted(info.name for info in records(top))
    restore(kept, top)
    before, known = tree(top), records(top)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def attempt(step):
        restore(kept, top)
        # The lowest free handle and the limit determine how many handles are available.
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + step, limits[1]))
        try:
            result = run(name, top)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if not result["ok"]:
            error = result["error"]
            assert error["code"] in ("unavailable", "failed_precondition"), error["message"]
            assert "too many open files" in error["message"].lower() or "cannot be opened" in error["message"], error
            after_failure(result, name, top, before, known, _NOT_DELETED)
            assert run(name, top)["ok"]
        assert sorted(info.name for info in records(top)) == after
        return result["ok"]

    return steps(attempt, 1, 40)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_more_handles_changes_nothing(tmp_path, figures, name):
    figures(resource_faults=in_child(_few_handles, str(tmp_path), name), losses=0)


# -- waiting -----------------------------------------------------------------

_HOLDER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("holding", flush=True)
sys.stdin.read()
"""


def test_waiting_for_another_process_ends(tmp_path, figures, monkeypatch):
    make_store(str(tmp_path))
    monkeypatch.setattr(metastore_errors, "BUSY_TIMEOUT", 0.4)
    before, known = tree(str(tmp_path)), records(str(tmp_path))
    database = str(tmp_path / "root" / METADATA_FILE)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"holding\n"
        assert [info["name"] for info in must(str(tmp_path / "root"), "walk")["result"]] == [
            info.name for info in known
        ]
        for name in sorted(set(OPERATIONS) - {"stage"}):
            start = time.monotonic()
            error = run(name, str(tmp_path))["error"]
            assert time.monotonic() - start < 5
            assert error["code"] == "unavailable", error["message"]
            assert "run the task again" in error["message"]
            assert str(tmp_path) in error["message"]
        holder.stdin.close()
    unchanged(before, str(tmp_path))
    assert records(str(tmp_path)) == known
    assert run("commit", str(tmp_path))["ok"]
    figures(resource_faults=len(OPERATIONS) - 1, losses=0)


# -- clocks ------------------------------------------------------------------


def test_a_clock_that_is_set_back_makes_nothing_older_than_it_is(tmp_path, figures, monkeypatch):
    make_store(str(tmp_path))
    root = str(tmp_path / "root")
    # Each read of the clock returns a time one day earlier. The last reads return times before 1970.
    moment = [time.time_ns()]

    def back():
        moment[0] -= 86_400 * 10**9 if moment[0] > 0 else 10**9
        return moment[0]

    monkeypatch.setattr(model.time, "time_ns", back)
    monkeypatch.setattr(model.time, "time", lambda: back() / 10**9)
    changes = 0
    for number in range(10):
        for operation, arguments in (
            ("update", {"name": "plain", "labels": {"n": str(number)}}),
            ("prepare", {"key": f"k{number}", "parent": "base"}),
            ("commit", {"name": f"n{number}", "key": f"k{number}"}),
            ("update", {"name": f"n{number}", "labels": {"n": str(number)}}),
            ("ensure_layer", {"name": f"i{number}", "parent": "base", "src": str(tmp_path / "layer.tar")}),
        ):
            must(root, operation, **arguments)
            changes += 1
        moment[0] = moment[0] if number < 5 else -number * 10**9
    infos = records(str(tmp_path))
    assert len(infos) == 5 + 2 * 10
    for info in infos:
        assert info.created <= info.updated
    figures(resource_faults=changes, losses=0)


def test_imports_at_one_moment_have_keys_of_their_own(tmp_path, figures, monkeypatch):
    """Process ids and times can repeat. The leftovers of a dead process must not block a new import."""
    make_store(str(tmp_path))
    root = str(tmp_path / "root")
    monkeypatch.setattr(model.time, "time_ns", lambda: 1_700_000_000 * 10**9)
    opened = snapshotter.Snapshotter(root, emulated.EmulatedLayers())
    seen = []

    def fill(_unpack):
        raise errors.InvalidArgument("the layer is cut off")

    # Simulate a process that died.
    monkeypatch.setattr(opened, "_abandon", seen.append)
    for _attempt in range(5):
        with contextlib.suppress(errors.InvalidArgument):
            opened.import_layer("new", "base", {}, fill)
    opened.close()
    assert len(set(seen)) == 5
    figures(resource_faults=5, losses=0)
