# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the loader and the payload in real interpreters: cached, missing, sent, damaged and obstructed payloads."""

from __future__ import annotations

import ast
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _call, _command, _loader, _payload
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import NodeFailure, Output

#: The door of a core that returns what it received. It can delete files before it imports its second module.
DISPATCH = """
import json, os, sys

def serve(line, attachment, out):
    request = json.loads(line)
    for path in request.get("delete", []):
        os.unlink(path)
    from .late import LATE
    result = {"request": request, "attachment": attachment.read().decode(), "late": LATE}
    out.write(json.dumps({"protocol": 1, "results": [{"result": result}]}).encode("ascii") + b"\\n")
    out.flush()
    return 0
"""


def find(*versions):
    """Yield one interpreter for each version that is installed, on PATH or by pyenv."""
    for version in versions:
        pyenv = sorted(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        for candidate in [shutil.which(f"python{version}"), *map(str, pyenv)]:
            # PATH has a pyenv shim for every version, but a shim works only for the selected versions.
            if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield candidate
                break


SUPPORTED = [sys.executable, *find("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")]
TOO_OLD = list(find("3.6", "3.7", "3.8"))
PYTHON_2 = list(find("2.7"))


class Node:
    """A replacement for the connection: a real shell and a real Python on this machine."""

    def __init__(self, python, directory):
        self.python = python
        self.directory = directory
        self.calls = []
        self.change = lambda text: text

    def execute(self, text):
        self.calls.append(text)
        done = subprocess.run(
            ["/bin/sh", "-c", _command.posix(self.python)],
            input=self.change(text).encode(),
            capture_output=True,
            check=False,
        )
        return Output(done.returncode, done.stdout.decode(), done.stderr.decode())

    def call(self, request=None, attachment=()):
        """Return the reply and the number of calls that it took."""
        self.calls.clear()
        reply = _call.call(self.execute, self.python, str(self.directory), json.dumps(request or {}), attachment)
        return reply, len(self.calls)

    @property
    def file(self):
        (file,) = self.directory.iterdir()
        return file


def stub(directory, door=DISPATCH):
    """Return the payload of a core that consists only of a door."""
    core = directory / "core"
    core.mkdir()
    for name, text in (("__init__", ""), ("door", door), ("late", "LATE = 'late'\n")):
        (core / f"{name}.py").write_text(text)
    shutil.copy(_payload.CORE / "boot.py", core)
    return _payload.build(core)


@pytest.fixture
def payload(tmp_path, monkeypatch):
    built = stub(tmp_path)
    monkeypatch.setattr(_call, "payload", lambda _store: built)
    return built


@pytest.fixture
def node(payload, tmp_path):
    return Node(sys.executable, tmp_path / "cache" / "payload")


@pytest.mark.parametrize("python", SUPPORTED)
def test_the_payload_is_sent_once(payload, tmp_path, python):
    node = Node(python, tmp_path / "cache" / "payload")
    reply, calls = node.call({"n": 1}, ["QQ==", "Qg=="])
    assert calls == 2
    assert reply.body["results"] == [{"result": {"request": {"n": 1}, "attachment": "QQ==\nQg==\n", "late": "late"}}]
    assert reply.warnings == []
    assert node.file.name == f"wcow-{payload.digest}.zip"
    assert node.file.read_bytes() == payload.data
    reply, calls = node.call({"n": 2}, ["QQ=="])
    assert calls == 1
    assert reply.body["results"] == [{"result": {"request": {"n": 2}, "attachment": "QQ==\n", "late": "late"}}]


@pytest.mark.parametrize("python", SUPPORTED)
def test_the_real_core_answers(tmp_path, python):
    node = Node(python, tmp_path / "cache")
    request = {"protocol": 1, "root": str(tmp_path / "root"), "layers": "emulated"}
    request["operations"] = [{"operation": "list", "arguments": {}}]
    for expected in (2, 1):
        reply, calls = node.call(request)
        assert calls == expected
        assert reply.body["results"][0]["result"]["snapshots"] == []


@pytest.mark.parametrize("version", [0x020712F0, 0x03060FF0, 0x030812F0])
def test_an_old_version_is_named(version):
    with pytest.raises(
        NodeFailure, match=r"needs Python 3\.9 or newer, and .* is (2\.7|3\.6|3\.8)\. .*wcow_python"
    ) as caught:
        _call.check_version("python", version)
    assert caught.value.code == "failed_precondition"


def test_an_old_python_can_say_that_it_is_old():
    ast.parse(_call.source_of(_loader.load), feature_version=(3, 6))


@pytest.mark.parametrize("cached", [False, True])
def test_old_pythons_that_are_installed(node, cached):
    if cached:
        node.call()
    for python in TOO_OLD:
        with pytest.raises(NodeFailure, match=r"is 3\.[678]\. "):
            Node(python, node.directory).call()
    for python in PYTHON_2:
        with pytest.raises(NodeFailure, match=r"did not answer as Python 3\.9 or newer does"):
            Node(python, node.directory).call()


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/passwd"])
def test_no_python(node, python):
    with pytest.raises(NodeFailure, match=f'No Python can be started on the node at "{python}"'):
        Node(python, node.directory).call()


def test_what_runs_is_what_was_verified(node):
    node.call()
    # The door deletes the cached file before it imports the second module.
    reply, _calls = node.call({"delete": [str(node.file)]})
    assert reply.body["results"][0]["result"]["late"] == "late"


@pytest.mark.parametrize("where", ["boot", "module", "end", "longer", "half"])
def test_a_damaged_payload_is_not_executed_and_replaced(node, payload, where):
    node.call()
    data = bytearray(payload.data)
    if where == "boot":
        data[payload.boot.start] ^= 1
    elif where == "module":
        data[payload.boot.stop + 60] ^= 0x80
    elif where == "end":
        data[-1] ^= 1
    elif where == "longer":
        data += b"\0"
    else:
        del data[len(data) // 2 :]
    node.file.write_bytes(data)
    reply, calls = node.call({"n": 3})
    assert calls == 2
    assert reply.body["results"][0]["result"]["request"] == {"n": 3}
    assert reply.warnings == [f"{node.file} was damaged or tampered with: it was not executed, and is replaced"]
    assert node.file.read_bytes() == payload.data
    assert node.call()[1] == 1


def test_tampered_code_never_runs(node, payload, tmp_path):
    node.call()
    # The code has the length and the place of the real boot.py, so only the hash differs.
    evil = f"open({str(tmp_path / 'executed')!r}, 'w')\n".encode().ljust(len(payload.boot), b"#")
    data = payload.data[: payload.boot.start] + evil + payload.data[payload.boot.stop :]
    node.file.write_bytes(data)
    node.call()
    assert not (tmp_path / "executed").exists()


def test_an_empty_file_counts_as_missing(node, payload):
    node.call()
    node.file.write_bytes(b"")
    assert node.call()[1] == 2
    assert node.file.read_bytes() == payload.data


@pytest.mark.posix
def test_a_named_pipe_in_the_cache_is_replaced(node, payload):
    node.call()
    file = node.file
    file.unlink()
    os.mkfifo(file)
    assert node.call()[1] == 2
    assert file.read_bytes() == payload.data


def test_a_payload_that_arrives_damaged_is_not_executed(node):
    def change(text):
        lines = text.split("\n")
        if len(lines) > 3:
            lines[1] = lines[1][:100] + ("A" if lines[1][100] != "A" else "B") + lines[1][101:]
        return "\n".join(lines)

    node.change = change
    with pytest.raises(NodeFailure, match="arrived damaged and was not executed. Rerunning the task is safe") as caught:
        node.call()
    assert caught.value.code == "unavailable"
    assert not node.directory.exists()


@pytest.mark.parametrize("obstacle", ["file", "directory"])
def test_a_cache_that_cannot_be_written_costs_a_warning(payload, tmp_path, obstacle):
    node = Node(sys.executable, tmp_path / "cache")
    if obstacle == "file":
        node.directory.write_text("in the way")
    else:
        (node.directory / f"wcow-{payload.digest}.zip" / "in the way").mkdir(parents=True)
    for _attempt in (1, 2):
        reply, calls = node.call()
        assert calls == 2
        assert reply.body["results"][0]["result"]["late"] == "late"
        assert len(reply.warnings) == 1
        assert f"cannot be kept in {node.directory}, so that each task sends it again" in reply.warnings[0]


def test_many_controllers_at_once(payload, tmp_path):
    nodes = [Node(sys.executable, tmp_path / "cache") for _node in range(6)]
    replies = []
    threads = [threading.Thread(target=lambda node=node: replies.append(node.call())) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [reply.body["results"][0]["result"]["late"] for reply, _calls in replies] == ["late"] * 6
    assert all(reply.warnings == [] for reply, _calls in replies)
    assert nodes[0].file.read_bytes() == payload.data


def test_powershell_may_add_a_mark_and_carriage_returns(node):
    node.change = lambda text: "\ufeff" + text.replace("\n", "\r\n")
    for expected in (2, 1):
        reply, calls = node.call({"n": 4}, ["QQ=="])
        assert calls == expected
        assert reply.body["results"][0]["result"]["attachment"] == "QQ==\r\n"


def test_the_cache_directory_is_expanded_on_the_node(payload, tmp_path, monkeypatch):
    monkeypatch.setenv("ProgramFiles", str(tmp_path / "Program Files"))
    node = Node(sys.executable, pathlib.Path("$ProgramFiles/wcow/payload"))
    assert node.call()[1] == 2
    assert node.call()[1] == 1
    assert os.listdir(tmp_path / "Program Files/wcow/payload") == [f"wcow-{payload.digest}.zip"]


def test_a_crash_shows_where(tmp_path, monkeypatch):
    defective = stub(tmp_path, "def serve(line, attachment, out):\n    return 1 // 0  # on purpose\n")
    monkeypatch.setattr(_call, "payload", lambda _store: defective)
    node = Node(sys.executable, tmp_path / "cache")
    for _attempt in (1, 2):
        with pytest.raises(NodeFailure, match=r"(?s)exit code 70.*core/door\.py.*# on purpose.*ZeroDivisionError"):
            node.call()


def test_all_that_is_sent_is_ascii_in_lines_of_64_kib(node):
    node.call({"key": "ключ \u2028"}, list(_call.lines_of(os.urandom(200_000))))
    for text in node.calls:
        assert text.isascii()
        lines = text.split("\n")
        assert lines == [*text.splitlines(), ""]
        assert max(map(len, lines)) <= 65536


def test_lines_of_is_base64_of_the_data():
    data = os.urandom(100_001)
    assert b"".join(map(base64.b64decode, _call.lines_of(data))) == data
    assert list(_call.lines_of(b"")) == []


def test_the_loader_is_small():
    # A small task over psrp sends at most 16,700 bytes; pypsrp and WS-Man need 15,100 of them.
    line = _call.loader_line(_loader.load, f"$ProgramFiles/wcow/payload/wcow-{'0' * 64}.zip", "0" * 64, 42, 5000)
    assert len(line) < 500


@pytest.mark.parametrize("function", [_loader.load, _loader.receive])
def test_short_names_do_not_change_the_loader(function):
    written = function.__code__
    module = compile(_call.source_of(function), "loader", "exec")
    (sent,) = [constant for constant in module.co_consts if hasattr(constant, "co_names")]
    assert sent.co_names == written.co_names
    # Arguments of instructions are indexes of constants. They differ, because only ``written`` has a docstring.
    assert sent.co_code[::2] == written.co_code[::2]
    assert len(sent.co_varnames) == len(written.co_varnames)


def test_a_task_makes_nothing_that_all_tasks_send():
    """Ansible forks a process for each task and node, and imports the action plugin before."""
    program = """
from ansible_collections.wcow.snapshotter.plugins.action import snapshot_info
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _call, _payload
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import Output

made = [function.cache_info().misses for function in (_payload.payload, _payload.strip, _call.source_of)]
answers = iter(2 * len(_payload.KINDS) * ['{"protocol": 1, "need_payload": 0, "python": 50921472}'])
for kind in _payload.KINDS:
    try:
        _call.call(lambda text: Output(0, next(answers), ""), "python", "/d", "{}", (), kind)
    except _call.NodeFailure:
        pass
assert next(answers, None) is None
assert made == [function.cache_info().misses for function in (_payload.payload, _payload.strip, _call.source_of)]
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
