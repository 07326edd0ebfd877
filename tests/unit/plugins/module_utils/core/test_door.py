# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the door: the requests that it accepts and refuses, and the form of its replies."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door as door_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import staging
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

CORE = os.path.dirname(os.path.dirname(os.path.abspath(door_module.__file__)))


class Door:
    def __init__(self, root: str) -> None:
        self.root = root

    def raw(self, text: bytes, attachment: bytes = b"") -> Dict[str, Any]:
        reply = door_module.handle(text, io.BytesIO(attachment))
        json.dumps(reply).encode("ascii")
        return reply

    def request(self, *operations: Any, **keys: Any) -> Dict[str, Any]:
        listed = [{"operation": name, "arguments": arguments} for name, arguments in operations]
        return {"protocol": 1, "root": self.root, "layers": "emulated", "operations": listed, **keys}

    def __call__(self, *operations: Any, **keys: Any) -> List[Dict[str, Any]]:
        reply = self.raw(json.dumps(self.request(*operations, **keys)).encode())
        assert "error" not in reply
        results: List[Dict[str, Any]] = reply["results"]
        assert len(results) == len(operations)
        return results


@pytest.fixture
def door(tmp_path: Any) -> Door:
    return Door(str(tmp_path / "root"))


def test_lifecycle(door: Door) -> None:
    results = door(
        ("prepare", {"key": "b"}),
        ("commit", {"name": "base", "key": "b", "labels": {"l": "1"}}),
        ("prepare", {"key": "a", "parent": "base"}),
        ("view", {"key": "v", "parent": "base"}),
        ("mounts", {"key": "a"}),
        ("update", {"name": "a", "labels": {"x": "y"}, "fieldpaths": ["labels.x"]}),
        ("stat", {"key": "a"}),
        ("usage", {"key": "base"}),
        ("walk", {"filters": ["parent==base"]}),
        ("remove", {"key": "v"}),
        ("walk", {}),
    )
    assert [result["ok"] for result in results] == [True] * 11
    assert [result["changed"] for result in results] == [True] * 4 + [False, True] + [False] * 3 + [True, False]
    assert all(result["warnings"] == [] for result in results)
    stat = results[6]["result"]
    assert sorted(stat) == ["created", "id", "kind", "labels", "name", "parent", "updated"]
    assert (stat["kind"], stat["name"], stat["parent"], stat["labels"], stat["id"]) == (
        "active",
        "a",
        "base",
        {"x": "y"},
        2,
    )
    assert results[4]["result"] == results[2]["result"]
    assert sorted(results[2]["result"][0]) == ["options", "source", "type"]
    assert sorted(results[7]["result"]) == ["inodes", "size"]
    assert [info["name"] for info in results[8]["result"]] == ["a", "v"]
    assert [(info["name"], info["parent"], info["labels"]) for info in results[10]["result"]] == [
        ("a", "base", {"x": "y"}),
        ("base", "", {"l": "1"}),
    ]


def test_an_error_stops_the_list(door: Door) -> None:
    results = door(
        ("prepare", {"key": "a"}), ("prepare", {"key": "a"}), ("prepare", {"key": "b"}), ("stat", {"key": "a"})
    )
    assert [result["ok"] for result in results] == [True, False, False, False]
    assert results[1]["error"] == {
        "code": "already_exists",
        "message": "failed to create snapshot: snapshot a: already exists",
        "details": {"operation": "prepare", "key": "a"},
    }
    assert (
        results[2]["error"]["message"]
        == results[3]["error"]["message"]
        == "not run: operation 1 (prepare) failed before it"
    )
    assert [info["name"] for info in door(("walk", {}))[0]["result"]] == ["a"]


def test_continue(door: Door) -> None:
    results = door(("prepare", {"key": "a"}), ("stat", {"key": "x"}), ("prepare", {"key": "b"}), on_error="continue")
    assert [result["ok"] for result in results] == [True, False, True]


def test_warnings_belong_to_their_operation(door: Door) -> None:
    label = "containerd.io/snapshot/io.microsoft.container.storage.rootfs.size-gb"
    results = door(
        ("prepare", {"key": "b"}),
        ("commit", {"name": "base", "key": "b"}),
        ("prepare", {"key": "a", "parent": "base", "labels": {label: "30"}}),
        ("walk", {"filters": ["name~=("]}),
        ("stat", {"key": "a"}),
    )
    assert [len(result["warnings"]) for result in results] == [0, 0, 1, 1, 0]
    assert "deprecated" in results[2]["warnings"][0]
    assert results[3]["result"] == []


def test_check_mode_plans_the_whole_list_and_writes_nothing(door: Door) -> None:
    results = door(
        ("prepare", {"key": "b"}),
        ("commit", {"name": "base", "key": "b"}),
        ("ensure_snapshot", {"state": "active", "key": "a", "parent": "base", "rootfs_size": "40GB"}),
        ("ensure_scratch", {"key": "a", "size": "60GB"}),
        ("walk", {}),
        check_mode=True,
    )
    assert [result["ok"] for result in results] == [True] * 5
    assert results[3]["result"]["scratch"]["virtual_size"] == 60 * 1024**3
    assert [info["name"] for info in results[4]["result"]] == ["a", "base"]
    assert not os.path.exists(door.root)


GOOD = {"protocol": 1, "root": "/x", "operations": [{"operation": "walk", "arguments": {}}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (json.dumps(GOOD).encode()[:-1], "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 100000, "not JSON that can be read: nested too deeply"),
        (b'{"protocol": 1, "protocol": 1}', "an object has the same key twice"),
        (b'{"protocol": NaN}', "NaN is not JSON"),
        (b'{"protocol": ' + b"9" * 5000 + b"}", ""),
        (json.dumps({**GOOD, "protocol": 2}).encode(), "version 2 (expected 1)"),
        (json.dumps({**GOOD, "protocol": True}).encode(), "version True (expected 1)"),
        (json.dumps({**GOOD, "extra": 1, "more": 2}).encode(), "the request has unknown keys: extra, more; known are"),
        (json.dumps({**GOOD, "root": ""}).encode(), "root must be the path"),
        (json.dumps({**GOOD, "root": 1}).encode(), "root must be the path"),
        (json.dumps({**GOOD, "layers": "zfs"}).encode(), "layers 'zfs' is not one of auto, windows, emulated"),
        (json.dumps({**GOOD, "layers": []}).encode(), "layers"),
        (json.dumps({**GOOD, "check_mode": "yes"}).encode(), "check_mode and trace must be true or false"),
        (json.dumps({**GOOD, "on_error": "ignore"}).encode(), "on_error 'ignore' is not one of stop, continue"),
        (json.dumps({**GOOD, "environment": {"A": 1}}).encode(), "environment must be an object of strings"),
        (json.dumps({**GOOD, "environment": {"A=B": "1"}}).encode(), "environment must be an object of strings"),
        (json.dumps({**GOOD, "operations": []}).encode(), "operations must be a list of at least one operation"),
        (json.dumps({**GOOD, "operations": {}}).encode(), "operations must be a list of at least one operation"),
        (b" " * (10 * 1024 * 1024), "the request is 10485760 bytes long; at most 8388608 are possible"),
    ],
)
def test_requests_that_are_refused(door: Door, text: bytes, message: str) -> None:
    reply = door.raw(text)
    assert reply["results"] == []
    assert reply["error"]["code"] == "invalid_argument"
    assert message in reply["error"]["message"]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("walk", 'an operation is an object with "operation" and "arguments"'),
        ({"arguments": {}}, 'an operation is an object with "operation" and "arguments"'),
        ({"operation": "walk", "args": {}}, "an operation has unknown keys: args"),
        ({"operation": "destroy", "arguments": {}}, 'unknown operation "destroy"; known are prepare, view,'),
        ({"operation": "walk", "arguments": []}, "walk: arguments must be an object"),
        ({"operation": "stat", "arguments": {}}, 'stat needs the argument "key"'),
        ({"operation": "stat", "arguments": {"key": None}}, 'stat needs the argument "key"'),
        ({"operation": "stat", "arguments": {"key": 1}}, "stat: key must be a string"),
        ({"operation": "stat", "arguments": {"key": "a", "name": "b"}}, 'stat has no argument "name"; it takes key'),
        (
            {"operation": "prepare", "arguments": {"key": "a", "labels": {"l": 1}}},
            "prepare: labels must be an object of strings",
        ),
        (
            {"operation": "prepare", "arguments": {"key": "a", "labels": ["l"]}},
            "prepare: labels must be an object of strings",
        ),
        ({"operation": "walk", "arguments": {"filters": "kind==view"}}, "walk: filters must be a list of strings"),
        ({"operation": "list", "arguments": {"usage": 1}}, "list: usage must be true or false"),
        (
            {"operation": "ensure_scratch", "arguments": {"key": "a", "size": True}},
            "ensure_scratch: size must be a number of bytes or a text",
        ),
        (
            {"operation": "stage", "arguments": {"digest": "x", "size": -1}},
            "stage: size must be a whole number of 0 or more",
        ),
        (
            {"operation": "ensure_layer", "arguments": {"name": "a", "src": {"url": "x"}}},
            "ensure_layer: src must be a path, or",
        ),
        ({"operation": "stat", "arguments": {"key": "\ud800"}}, "stat: a text is not valid Unicode"),
    ],
)
def test_operations_that_are_refused(door: Door, operation: Any, message: str) -> None:
    request = {**door.request(("prepare", {"key": "good"})), "on_error": "continue"}
    request["operations"].append(operation)
    reply = door.raw(json.dumps(request).encode())
    assert [result["ok"] for result in reply["results"]] == [False, False]
    assert reply["results"][0]["error"]["message"].startswith("not run: another operation of the request is not valid")
    assert reply["results"][1]["error"]["code"] == "invalid_argument"
    assert message in reply["results"][1]["error"]["message"]
    assert not os.path.exists(door.root)


@pytest.mark.parametrize("name", sorted(door_module.OPERATIONS))
def test_every_operation_refuses_unknown_arguments(door: Door, name: str) -> None:
    assert 'has no argument "surprise"' in door((name, {"surprise": 1}))[0]["error"]["message"]


def test_an_unexpected_failure_is_a_reply_too(door: Door, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("as if by a mistake of ours")

    monkeypatch.setattr(Snapshotter, "stat", fail)
    error = door(("stat", {"key": "a"}))[0]["error"]
    assert (error["code"], error["message"]) == ("internal", "ZeroDivisionError: as if by a mistake of ours")
    assert "Traceback" in capsys.readouterr().err


def test_environment(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    # monkeypatch restores this variable after the test, including the value that the request sets.
    monkeypatch.setenv("WCOW_EMULATED_FILESYSTEM", "NTFS")
    error = door(("walk", {}), environment={"WCOW_EMULATED_FILESYSTEM": "FAT32"})[0]["error"]
    assert "is not on an NTFS volume" in error["message"]


@pytest.mark.posix
def test_layers(door: Door) -> None:
    assert door(("walk", {}), layers="emulated")[0]["ok"]
    assert door(("walk", {}), layers="windows")[0]["error"]["code"] == "not_implemented"


def test_trace(door: Door) -> None:
    reply = door.raw(json.dumps(door.request(("walk", {}), trace=True)).encode())
    assert reply["trace"] == []
    assert "trace" not in door.raw(json.dumps(door.request(("walk", {}))).encode())


def test_mount_and_unmount(door: Door, tmp_path: Any) -> None:
    target = str(tmp_path / "m")
    door(("prepare", {"key": "b"}), ("mount", {"key": "b", "target": target}))
    with open(os.path.join(target, "hello"), "w") as file:
        file.write("x")
    results = door(
        ("unmount", {"target": target}),
        ("commit", {"name": "base", "key": "b"}),
        ("view", {"key": "v", "parent": "base"}),
        ("mount", {"key": "v", "target": target}),
    )
    assert [result["ok"] for result in results] == [True] * 4
    assert os.listdir(target) == ["hello"]
    door(("unmount", {"target": target}))
    assert os.listdir(target) == []


# -- staged files ------------------------------------------------------------


def test_stage(door: Door) -> None:
    content = os.urandom(100_000)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()

    def stage(offset: Any, data: bytes = b"") -> Dict[str, Any]:
        lines = b"".join(base64.b64encode(data[at : at + 6000]) + b"\r\n" for at in range(0, len(data), 6000))
        arguments = {"digest": digest, "size": len(content), "offset": offset}
        result: Dict[str, Any] = door.raw(json.dumps(door.request(("stage", arguments))).encode(), lines)["results"][0]
        return result

    assert stage(None)["result"]["offset"] == 0
    assert not os.path.exists(door.root)
    assert stage(0, content[:60_000])["result"] == {
        "path": os.path.join(door.root, "incoming", digest[7:]),
        "offset": 60_000,
        "complete": False,
    }
    ahead = stage(60_001, content[60_001:])["error"]["message"]
    assert ahead == f"piece at byte 60001 of {digest} does not follow: 60000 bytes are here"
    # Another task has sent the same piece.
    assert stage(0, content[:60_000])["result"]["offset"] == 60_000
    assert stage(0, content[:1000])["result"]["offset"] == 60_000
    other = stage(0, b"other" + content[5:60_000])["error"]
    assert (other["code"], other["message"].partition(";")[2]) == ("unavailable", " run the task again")
    assert stage(None)["result"]["offset"] == 60_000
    assert "more bytes than announced" in stage(60_000, content)["error"]["message"]
    assert stage(60_000, content[60_000:])["result"]["complete"]
    with open(os.path.join(door.root, "incoming", digest[7:]), "rb") as file:
        assert file.read() == content
    assert stage(None)["result"] == {
        "path": os.path.join(door.root, "incoming", digest[7:]),
        "offset": 100_000,
        "complete": True,
    }
    assert door(("unstage", {"digest": digest}))[0]["changed"]
    assert not door(("unstage", {"digest": digest}))[0]["changed"]
    assert os.listdir(os.path.join(door.root, "incoming")) == []


def test_stage_refuses_what_is_not_the_file(door: Door) -> None:
    digest = "sha256:" + hashlib.sha256(b"right").hexdigest()
    request = json.dumps(door.request(("stage", {"digest": digest, "size": 5, "offset": 0}))).encode()
    assert (
        "the file that arrived is not"
        in door.raw(request, base64.b64encode(b"wrong"))["results"][0]["error"]["message"]
    )
    assert "is not base64" in door.raw(request, b"!!!!")["results"][0]["error"]["message"]
    assert door.raw(request, base64.b64encode(b"right"))["results"][0]["result"]["complete"]
    assert "is not sha256: and 64" in door(("unstage", {"digest": "../../etc/passwd"}))[0]["error"]["message"]
    assert (
        "has not been received"
        in door(("ensure_layer", {"name": "x", "src": {"staged": "sha256:" + "0" * 64}}))[0]["error"]["message"]
    )


def test_a_planted_file_is_not_imported(door: Door) -> None:
    """A file counts by its content, also if its name is the digest that the task wants."""
    wanted = "sha256:" + hashlib.sha256(b"wanted").hexdigest()
    incoming = os.path.join(door.root, "incoming")
    path = os.path.join(incoming, wanted[7:])
    door(("ensure_store", {}))
    os.mkdir(incoming)
    with open(path, "wb") as file:
        file.write(b"planted")
    error = door(("ensure_layer", {"name": "x", "src": {"staged": wanted}}))[0]["error"]
    assert error["code"] == "not_found"
    assert "has other content and was deleted; run the task again" in error["message"]
    assert os.listdir(incoming) == []
    assert door(("walk", {}))[0]["result"] == []
    if os.name != "nt":
        for plant in (lambda: os.mkfifo(path), lambda: os.symlink("/dev/zero", path)):
            plant()
            error = door(("ensure_layer", {"name": "x", "src": {"staged": wanted}}))[0]["error"]
            assert "has not been received" in error["message"]
            os.unlink(path)


def test_tasks_that_send_one_file_at_the_same_time(door: Door) -> None:
    """Each continues where the file is, and all of them end with the whole file."""
    content = os.urandom(200_000)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()

    def send(_number: int) -> bool:
        state: Dict[str, Any] = {"offset": 0, "complete": False}
        while not state["complete"]:
            offset = state["offset"]
            request = door.request(("stage", {"digest": digest, "size": len(content), "offset": offset}))
            lines = base64.b64encode(content[offset : offset + 9_999])
            entry = door.raw(json.dumps(request).encode(), lines)["results"][0]
            assert entry["ok"], entry
            state = entry["result"]
        return True

    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(send, range(5)))
    with open(os.path.join(door.root, "incoming", digest[7:]), "rb") as file:
        assert file.read() == content


def test_a_file_that_another_task_completes_meanwhile(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks of this task, the other one gives the file its final name."""
    digest = "sha256:" + hashlib.sha256(b"whole").hexdigest()
    piece = door.request(("stage", {"digest": digest, "size": 5, "offset": 0}))
    door.raw(json.dumps(piece).encode(), base64.b64encode(b"who"))
    path = os.path.join(door.root, "incoming", digest[7:])
    look = staging._file_size

    def look_before_it_is_complete(looked_at: str) -> Any:
        found = look(looked_at)
        if os.path.exists(path + ".part"):
            with open(path + ".part", "ab") as file:
                file.write(b"le")
            os.rename(path + ".part", path)
        return found

    monkeypatch.setattr(staging, "_file_size", look_before_it_is_complete)
    rest = door.request(("stage", {"digest": digest, "size": 5, "offset": 3}))
    result = door.raw(json.dumps(rest).encode(), base64.b64encode(b"le"))["results"][0]["result"]
    assert (result["offset"], result["complete"]) == (5, True)


def test_a_file_that_another_task_deletes_meanwhile(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other task has imported it, and this one wants to."""
    digest = "sha256:" + hashlib.sha256(b"right").hexdigest()
    door.raw(
        json.dumps(door.request(("stage", {"digest": digest, "size": 5, "offset": 0}))).encode(),
        base64.b64encode(b"right"),
    )
    require = staging.Staging.require

    def require_before_it_is_deleted(self: staging.Staging, digest: str) -> None:
        require(self, digest)
        self.discard(digest)

    monkeypatch.setattr(staging.Staging, "require", require_before_it_is_deleted)
    error = door(("ensure_layer", {"name": "x", "src": {"staged": digest}}))[0]["error"]
    assert error["code"] == "not_found"
    assert f"the file {digest} has not been received; run the task again" in error["message"]


# -- as a program ------------------------------------------------------------


def run(text: bytes) -> Any:
    environment = {**os.environ, "PYTHONPATH": CORE}
    command = [sys.executable, "-m", "core.door"]
    return subprocess.run(command, input=text, env=environment, capture_output=True, check=False)


def test_program(door: Door) -> None:
    """Run `python3 -m core.door < request.json`. The request may have several lines."""
    done = run(json.dumps(door.request(("prepare", {"key": "k\u00e9y"}), ("walk", {})), indent=2).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
    assert json.loads(done.stdout.decode("ascii"))["results"][1]["result"][0]["name"] == "k\u00e9y"


def test_program_with_a_request_that_is_too_long() -> None:
    assert "at most 8388608" in json.loads(run(b"x" * (9 * 1024 * 1024)).stdout)["error"]["message"]
