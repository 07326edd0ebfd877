# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the scripts for nodes without Python: their digests, their effect on a lab node, and interruptions."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shutil
import subprocess

import pytest
from ansible.plugins.shell.powershell import ShellModule
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._powershell import CLEAN, INSTALL, LOOK

from lab import package
from lab.host import HostFiles
from lab.powershell import Call, Exit, Unsupported
from lab.scripts import SCRIPTS, Script, digest_of, read
from lab.windows import ScriptError, Stopped, Windows

DIRECTORY = r"C:\Program Files\wcow\python"
OLD, NEW = package.content("3.12.10"), package.content("3.13.0")


class Node:
    """A lab node that stops a script before its Windows call number ``end``, or calls ``meanwhile`` there instead."""

    def __init__(self, directory):
        self.files = HostFiles("node1", directory)
        self.files.create(with_python=False)
        self.directory = self.files.native(DIRECTORY)
        self.windows = Windows(self.files, self.run_program, self.is_stopped)
        self.end = None
        self.meanwhile = None

    def run_program(self, words):
        program = self.files.program(words[0])
        if program is None:
            raise ScriptError(f"The term '{words[0]}' is not recognized")
        try:
            done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=True)
        except OSError as error:
            raise ScriptError(f"Program '{words[0]}' failed to run: {error}") from error
        return done.stdout.splitlines()

    def is_stopped(self):
        if self.end is not None:
            self.end -= 1
        if self.end == -1 and self.meanwhile is not None:
            self.meanwhile()
            return False
        return self.end is not None and self.end < 0 and self.meanwhile is None

    def run(self, script, lines=(), **request):
        (known,) = read(script)
        return json.loads(known.run(self.windows, [json.dumps({"directory": DIRECTORY, **request}), *lines]))

    def install(self, data, answer, **changes):
        marker = json.dumps({"version": answer})
        request = {"sha256": hashlib.sha256(data).hexdigest(), "version": answer, "marker": marker, **changes}
        lines = [base64.b64encode(data[start : start + 12]).decode() for start in range(0, len(data), 12)]
        return self.run(INSTALL, lines, **request)

    def calls(self, run):
        """Return how many Windows calls ``run`` makes."""
        self.end = 1_000_000
        run()
        calls, self.end = 1_000_000 - self.end, None
        return calls

    def left(self):
        return sorted(path.name for path in self.directory.parent.iterdir() if path.name.startswith("python.wcow-"))

    def version(self):
        found = self.run(LOOK)
        assert found["exists"] == bool(found.get("marker"))
        return found.get("version")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


# -- which scripts a node knows --


@pytest.mark.parametrize(("text", "name"), [(LOOK, "look"), (INSTALL, "install"), (CLEAN, "clean")])
def test_a_node_knows_the_scripts_of_the_collection(text, name):
    assert digest_of(text) in SCRIPTS, f"{name} has changed: change lab/scripts.py, then its digest {digest_of(text)}"
    script = SCRIPTS[digest_of(text)]
    assert script.name == name
    # Each connection sends it in its own form: unchanged, with a last line (psrp), without indentation (winrm).
    assert read(text) == [script]
    assert read(f"{text}\nexit $LASTEXITCODE") == [script, Exit(None)]
    encoded = ShellModule()._encode_script(text, as_list=True, strict_mode=False, preserve_rc=False)[-1]
    assert read(base64.b64decode(encoded).decode("utf-16-le")) == [script]


@pytest.mark.parametrize(
    "changed",
    [
        LOOK.replace("'look'", "'Look'"),
        LOOK.replace("$step", "$ step"),
        f"{LOOK}Get-Process\n",
        f"{LOOK}exit 1\n",
        LOOK + CLEAN,
        LOOK.rpartition("}")[0],
        "$ErrorActionPreference = 'Stop'\nGet-Process",
    ],
)
def test_a_changed_script_is_refused(changed):
    with pytest.raises(Unsupported, match="^lab node: the PowerShell script with the SHA-256") as caught:
        read(changed)
    assert f"SHA-256 {digest_of(changed)} is unknown. Known are the scripts look, install, clean" in str(caught.value)


@pytest.mark.parametrize("text", ["$x = 1", "Get-Process", f"'a'\n{LOOK}", f"$x = 1\n{LOOK}"])
def test_other_powershell_is_refused(text):
    with pytest.raises(Unsupported, match=r"^lab node: (?s:.)*A lab node understands"):
        read(text)


def test_a_script_that_starts_a_program_has_statements():
    assert read("& 'x'\nexit 3") == [Call(("x",), False), Exit(3)]
    assert read("") == []


@pytest.mark.parametrize(("text", "step"), [(LOOK, "look"), (INSTALL, "prepare"), (CLEAN, "replace")])
@pytest.mark.parametrize("lines", [[], ["{"]])
def test_a_request_that_cannot_be_read(node, text, step, lines):
    (script,) = read(text)
    assert isinstance(script, Script)
    answer = json.loads(script.run(node.windows, lines))
    assert (set(answer), answer["step"]) == ({"step", "error"}, step)


# -- what the scripts do --


def test_from_nothing_to_another_version_and_away(node):
    assert node.run(LOOK) == {"exists": False, "empty": True, "protected": False, "left": []}
    assert node.install(OLD, "3.12.10") == {"installed": True}
    found = node.run(LOOK)
    assert (found["exists"], found["empty"], found["protected"], found["left"]) == (True, False, True, [])
    assert (json.loads(found["marker"]), found["version"]) == ({"version": "3.12.10"}, "3.12.10")
    assert sorted(path.name for path in node.directory.iterdir()) == ["LICENSE.txt", "python.exe", "wcow-runtime.json"]
    assert node.install(NEW, "3.13.0") == {"installed": True}
    assert node.version() == "3.13.0"
    (old,) = node.left()
    assert old.startswith("python.wcow-old-")
    assert node.run(CLEAN) == {"left": []}
    assert node.left() == []
    assert node.run(CLEAN, absent=True) == {"left": []}
    assert list(node.directory.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"sha256": "0" * 64}, "verify", f"its SHA-256 is {hashlib.sha256(NEW).hexdigest().upper()}"),
        ({"version": "3.13.1"}, "try", "its python.exe answers '3.13.0'"),
        ({"url": "http://127.0.0.1:9/python.zip"}, "receive", 'Exception calling "DownloadFile" with "2" argument(s)'),
    ],
)
def test_a_package_that_does_not_match_the_request(node, changes, step, words):
    node.install(OLD, "3.12.10")
    answer = node.install(NEW, "3.13.0", **changes)
    assert answer["step"] == step
    assert words in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


@pytest.mark.parametrize(
    ("data", "step"), [(b"no zip", "unpack"), (b"", "unpack"), (package.content("3.13.0")[:-30], "unpack")]
)
def test_a_package_that_cannot_be_unpacked(node, data, step):
    answer = node.install(data, "3.13.0")
    assert answer["step"] == step
    assert list(node.directory.parent.iterdir()) == []


def test_a_running_runtime_stays(node):
    node.install(OLD, "3.12.10")
    node.files.running.append(node.files.identity(node.directory / "python.exe"))
    for answer in (node.install(NEW, "3.13.0"), node.run(CLEAN, absent=True)):
        assert answer["step"] == "replace"
        assert "being used by another process" in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


def test_a_running_leftover_stays_and_is_reported(node):
    node.install(OLD, "3.12.10")
    node.install(NEW, "3.13.0")
    (old,) = node.left()
    node.files.running.append(node.files.identity(node.directory.parent / old / "python.exe"))
    (left,) = node.run(CLEAN)["left"]
    assert left.startswith(rf"{DIRECTORY}.wcow-old-")
    assert "is denied" in left
    # The Python that still runs needs its library.
    assert len(list((node.directory.parent / old).iterdir())) == 3
    node.files.running.clear()
    assert node.run(CLEAN) == {"left": []}
    assert node.left() == []


def test_the_old_runtime_returns_if_the_new_one_cannot_be_renamed(node, monkeypatch):
    node.install(OLD, "3.12.10")
    naps = []
    monkeypatch.setattr("time.sleep", naps.append)
    rename = type(node.directory).rename

    def refuse(path, target):
        if "wcow-new" in path.name:
            raise PermissionError("Access to the path is denied.")
        return rename(path, target)

    monkeypatch.setattr(type(node.directory), "rename", refuse)
    answer = node.install(NEW, "3.13.0")
    assert (answer["step"], len(naps)) == ("replace", 9)
    assert "denied" in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


def test_a_scanner_that_closes_the_file_in_time(node, monkeypatch):
    holds = iter([True, True])
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    rename = type(node.directory).rename

    def slow(path, target):
        if "wcow-new" in path.name and next(holds, False):
            raise PermissionError("Access to the path is denied.")
        return rename(path, target)

    monkeypatch.setattr(type(node.directory), "rename", slow)
    assert node.install(NEW, "3.13.0") == {"installed": True}
    assert node.version() == "3.13.0"


def test_an_unprotected_program_is_not_run(node):
    node.install(OLD, "3.12.10")
    node.directory.chmod(0o755)
    (node.directory / "python.exe").write_text("#!/bin/sh\ntouch $HOME/run\n")
    found = node.run(LOOK)
    assert found["protected"] is False
    assert "version" not in found
    assert node.install(OLD, "3.12.10") == {"installed": True}
    assert node.version() == "3.12.10"


@pytest.mark.parametrize("damage", ["gone", "empty", "no program"])
def test_a_damaged_runtime_is_found(node, damage):
    node.install(OLD, "3.12.10")
    program = node.directory / "python.exe"
    if damage == "gone":
        program.unlink()
    elif damage == "empty":
        program.write_bytes(b"")
    else:
        program.chmod(0o600)
    assert not node.version()


def test_lines_that_are_not_base64(node):
    (script,) = read(INSTALL)
    request = {"directory": DIRECTORY, "sha256": "0" * 64, "version": "3.13.0", "marker": "{}"}
    answer = json.loads(script.run(node.windows, [json.dumps(request), "?"]))
    assert answer["step"] == "receive"
    assert answer["error"].startswith('Exception calling "FromBase64String" with "1" argument(s): "')
    assert list(node.directory.parent.iterdir()) == []


def test_a_path_that_is_not_absolute(node):
    answer = node.run(LOOK, directory="python")
    expected = 'Exception calling "Exists" with "1" argument(s): "The path \'python\' is not absolute."'
    assert answer == {"step": "look", "error": expected}


def test_errors_show_no_path_of_the_host(node, tmp_path):
    answer = node.run(LOOK, directory="C:\\Windows\\Temp\\file")
    assert "error" not in answer
    (node.files.directory / "C" / "Windows" / "Temp" / "file").touch()
    with pytest.raises(ScriptError) as caught:
        node.windows.is_empty("C:\\Windows\\Temp\\file")
    assert str(tmp_path) not in str(caught.value)
    assert "'C:\\Windows\\Temp\\file'" in str(caught.value)


def test_a_drive_that_the_node_does_not_have(node):
    with pytest.raises(ScriptError, match="Could not find a part of the path"):
        node.windows.create_protected_directory("Z:\\python")


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_links_are_not_followed(node, tmp_path, where):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    node.install(OLD, "3.12.10")
    link = node.directory / "link" if where == "inside" else node.directory.parent / "python.wcow-old-link"
    link.symlink_to(outside)
    node.run(CLEAN, absent=True)
    assert list(node.directory.parent.iterdir()) == []
    assert (outside / "keep").read_text() == "kept"


def interrupted(node, run):
    """Stop ``run`` before its first Windows call, then before its second, and so on; yield after each interruption."""
    for end in itertools.count():
        node.end = end
        try:
            run()
        except Stopped:
            node.end = None
            yield end
        else:
            node.end = None
            return


def test_an_interruption_at_each_call_of_an_upgrade(node, figures):
    tried = 0
    for _end in interrupted(node, lambda: node.install(NEW, "3.13.0")):
        tried += 1
        # The runtime is missing between the two renames, but it is never incomplete.
        assert node.version() in {None, "3.12.10", "3.13.0"}
        assert node.install(NEW, "3.13.0") == {"installed": True}
        assert node.version() == "3.13.0"
        assert node.run(CLEAN) == {"left": []}
        assert node.left() == []
        shutil.rmtree(node.directory)
        node.install(OLD, "3.12.10")
    assert tried > 40
    figures(operations_killed=1, kills=tried, losses=0)


def test_an_interruption_at_each_call_of_a_removal(node, figures):
    """A removal deletes the runtime and the runtime that it replaced."""

    def install_twice():
        node.install(NEW, "3.13.0")
        node.install(OLD, "3.12.10")

    install_twice()
    tried = 0
    for _end in interrupted(node, lambda: node.run(CLEAN, absent=True)):
        tried += 1
        exists = node.run(LOOK)["exists"]
        assert node.version() == ("3.12.10" if exists else None)
        assert node.run(CLEAN, absent=exists) == {"left": []}
        assert list(node.directory.parent.iterdir()) == []
        install_twice()
    assert tried > 10
    figures(operations_killed=1, kills=tried, losses=0)


def test_another_run_at_each_call_of_an_upgrade(tmp_path, monkeypatch):
    """Either run may win. The runtime is complete afterwards, and the run that loses reports an error."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    node, other = Node(tmp_path), Node(tmp_path)

    def rival():
        assert other.run(LOOK)["exists"] in {True, False}
        assert other.install(NEW, "3.13.0") == {"installed": True}
        assert other.run(CLEAN) == {"left": []}

    node.install(OLD, "3.12.10")
    calls = node.calls(lambda: node.install(NEW, "3.13.0"))
    assert node.run(CLEAN) == {"left": []}
    shutil.rmtree(node.directory)
    node.meanwhile = rival
    lost = 0
    for end in range(calls):
        node.install(OLD, "3.12.10")
        node.end = end
        answer = node.install(NEW, "3.13.0")
        node.end = None
        lost += "error" in answer
        assert node.version() == "3.13.0"
        assert node.run(CLEAN) == {"left": []}
        assert node.left() == []
        shutil.rmtree(node.directory)
    assert 0 < lost < calls
    assert calls > 40
