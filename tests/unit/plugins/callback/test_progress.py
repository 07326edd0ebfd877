# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the progress that users see: run ansible-playbook on a terminal and read its screen, and run it without one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest
from ansible_collections.wcow.snapshotter.plugins.callback import progress

#: The directory that holds ansible_collections. The path is not resolved, because a checkout links to the collection.
COLLECTIONS = pathlib.Path(progress.__file__).parents[5]
NAME = "wcow.snapshotter.progress"
LINES, COLUMNS = 20, 120

HOSTS = [f"host{number}" for number in range(1, 5)]
PLAY = {
    "name": "Work",
    "hosts": "all",
    "gather_facts": False,
    "tasks": [
        {"name": "Reach", "ansible.builtin.raw": "true", "ignore_unreachable": True},
        {"name": "Ask one", "ansible.builtin.debug": {"msg": "once"}, "run_once": True},
        {
            "name": "Fail on two",
            "ansible.builtin.fail": {"msg": "as asked"},
            "when": "inventory_hostname == 'host2'",
        },
        {"block": [{"name": "Go on\nat length", "ansible.builtin.raw": "sleep 0.4"}], "tags": "long"},
        {"name": "Never", "ansible.builtin.debug": {}, "tags": "never"},
        {"name": "Last", "ansible.builtin.debug": {"msg": "{{ range(30) | join('\n') }}"}},
    ],
}


class Playbook:
    """A playbook in its own directory. All hosts are this machine, but host4 is unreachable."""

    def __init__(self, directory, *plays):
        self.directory = directory
        hosts = {host: {"ansible_connection": "local"} for host in HOSTS}
        # The machine may lack a client for ssh. What matters here is that there is no connection.
        client = directory / "ssh"
        client.write_text("#!/bin/sh\necho 'ssh: connect to host 127.0.0.1 port 1: Connection refused' >&2\nexit 255\n")
        client.chmod(0o755)
        hosts["host4"] = {"ansible_connection": "ssh", "ansible_ssh_executable": str(client)}
        (directory / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        (directory / "play.json").write_text(json.dumps(plays))

    def start(
        self,
        enabled=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        options=(),
        **variables,
    ):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.pop("NO_COLOR", None)
        environment.update(
            HOME=str(self.directory),
            LC_ALL="C.UTF-8",
            TERM="xterm-256color",
            ANSIBLE_HOME=str(self.directory / "ansible"),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        )
        environment.update(variables)
        if enabled:
            environment["ANSIBLE_CALLBACKS_ENABLED"] = NAME
        command = [sys.executable, "-m", "ansible.cli.playbook", "-i", "inventory.json", "play.json", *options]
        streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=environment,
            text=True,
            start_new_session=True,
            **streams,
        )

    def run(self, **keywords):
        """Run the playbook; return its exit code, standard output and standard error."""
        process = self.start(**keywords)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors


class Terminal:
    """A terminal of ``LINES`` by ``COLUMNS``. ``bottoms`` records the texts of its last line in order."""

    def __init__(self):
        self.screen = pyte.HistoryScreen(COLUMNS, LINES, history=1000, ratio=1)
        self._stream = pyte.ByteStream(self.screen)
        self._master, self._slave = pty.openpty()
        self.resize(LINES)
        self.raw = b""
        self.bottoms = []

    def resize(self, lines):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, COLUMNS, 0, 0))
        self.screen.resize(lines, COLUMNS)

    def start(self, playbook, streams=("stdin", "stdout", "stderr"), **keywords):
        process = playbook.start(**dict.fromkeys(streams, self._slave), **keywords)
        os.close(self._slave)
        return process

    def watch(self, process, until=None):
        """Show what a process writes until ``until()`` is true (return None) or the process ends (return its code)."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if until and until():
                return None
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._master, 1 << 16)
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: no process has the other end open.
                    raise
                os.close(self._master)
                return process.wait(timeout=10)
            self.raw += data
            for piece in re.split(b"(?<=\x1b8)", data):  # This sequence ends each change of the bottom line.
                self._stream.feed(piece)
                bottom = self.screen.display[-1].rstrip()
                if bottom not in self.bottoms[-1:]:
                    self.bottoms.append(bottom)
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"the play takes too long: {self.text()}")

    def text(self):
        """Return the text that was written and not erased, including the lines that scrolled away."""
        gone = ["".join(line[column].data for column in range(COLUMNS)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*gone, *self.screen.display]).rstrip()


@pytest.fixture
def playbook(tmp_path):
    return Playbook(tmp_path, PLAY)


def progress_lines(errors):
    return [line for line in errors.splitlines() if line.startswith("progress: ")]


def test_a_line_stays_at_the_bottom_of_a_terminal(playbook):
    plain, terminal = Terminal(), Terminal()
    code = plain.watch(plain.start(playbook, enabled=False))
    assert terminal.watch(terminal.start(playbook)) == code != 0

    seen = [line for line in terminal.bottoms if " tasks/s | " in line]
    names = [line.split(" | ")[-1] for line in seen]
    assert list(dict.fromkeys(names)) == ["Reach", "Ask one", "Fail on two", "Go on at length", "Last"], seen
    assert re.fullmatch(
        r"[0-9]+%, [0-9]:[0-9]{2} left \| task 5 of 5: [0-9] of 2 hosts \| 1 failed \| 1 unreachable \| "
        r"[0-9.]+ tasks/s \| Last",
        seen[-1],
    ), seen
    # The output of the stdout callback is complete, as in a run without the line. Nothing of the line is left.
    assert sorted(terminal.text().splitlines()) == sorted(plain.text().splitlines())
    assert "tasks/s" not in terminal.text()
    assert terminal.screen.margins is None
    assert b"\x1b[0;31m1 failed" in terminal.raw


def test_without_a_terminal_there_are_lines_now_and_then(playbook):
    code, quiet, _errors = playbook.run(enabled=False)
    again, output, errors = playbook.run(WCOW_PROGRESS_INTERVAL="0")
    assert (again, sorted(output.splitlines())) == (code, sorted(quiet.splitlines()))
    lines = progress_lines(errors)
    assert lines[0] == (
        "progress: 0%, no estimate yet | task 1 of 5: 0 of 4 hosts | 0 failed | 0 unreachable | 0.0 tasks/s | Reach"
    )
    assert re.search(r"100%, 0:00 left \| task 5 of 5: 2 of 2 hosts \| 1 failed \| 1 unreachable .*\| Last$", lines[-2])
    assert re.search(r": 14 tasks in 0:[0-9]{2} \| 1 failed \| 1 unreachable \| [0-9.]+ tasks/s$", lines[-1])
    parts = [int(line.split("%")[0].removeprefix("progress: ")) for line in lines[:-1]]
    assert parts == sorted(parts)
    assert "\x1b" not in errors

    _code, output, errors = playbook.run()
    assert sorted(output.splitlines()) == sorted(quiet.splitlines())
    assert len(progress_lines(errors)) == 1


BATCHES = {
    "hosts": HOSTS[:3],
    "gather_facts": False,
    "serial": 2,
    "handlers": [{"name": "Handle", "ansible.builtin.raw": "true"}],
    "tasks": [
        {
            "block": [{"name": "Fail", "ansible.builtin.fail": {}, "when": "inventory_hostname == 'host1'"}],
            "rescue": [{"name": "Rescue", "ansible.builtin.raw": "true", "notify": "Handle"}],
            "always": [{"name": "Always", "ansible.builtin.debug": {}}],
        },
        {"name": "Last", "ansible.builtin.debug": {}},
    ],
}


def test_batches_rescues_handlers_and_several_plays(tmp_path):
    code, _output, errors = Playbook(tmp_path, BATCHES, {**BATCHES, "serial": 0}).run(WCOW_PROGRESS_INTERVAL="0")
    assert code == 0
    lines = [line.removeprefix("progress: ") for line in progress_lines(errors)]
    ends = [line for line in lines if line.endswith("| Last") and "task 3 of 3" in line]
    assert ends[2].startswith("67%, ")
    assert "task 3 of 3: 2 of 2 hosts" in ends[2]
    assert ends[4].startswith("100%, 0:00 left | task 3 of 3: 1 of 1 hosts | 1 failed | 0 unreachable")
    assert ends[-1].startswith("100%, 0:00 left | task 3 of 3: 3 of 3 hosts | 1 failed | 0 unreachable")
    assert any(line.endswith("| Rescue") and ": 1 of " in line for line in lines)
    assert any(line.endswith("| Handle") for line in lines)


def test_only_the_error_output_is_a_terminal_and_no_color(playbook):
    terminal = Terminal()
    process = terminal.start(playbook, streams=["stderr"], stdout=subprocess.DEVNULL, NO_COLOR="1")
    terminal.watch(process)
    assert any(line.endswith("| Last") for line in terminal.bottoms)
    assert b"\x1b[0;3" not in terminal.raw
    assert "tasks/s" not in terminal.text()


@pytest.mark.parametrize("variables", [{"WCOW_PROGRESS_PLAIN": "1"}, {"TERM": "dumb"}], ids=str)
def test_plain_lines_on_a_terminal(playbook, variables):
    terminal = Terminal()
    terminal.watch(terminal.start(playbook, **variables))
    assert b"\x1b7" not in terminal.raw
    assert len(progress_lines(terminal.text())) == 1


def test_another_size_and_an_interruption(tmp_path):
    tasks = [{"name": f"Step {number}", "ansible.builtin.raw": "sleep 0.2"} for number in range(8)]
    slow = {"name": "Take long", "ansible.builtin.raw": f"touch {tmp_path}/begun; sleep 20"}
    play = {"hosts": HOSTS[:1], "gather_facts": False, "tasks": [*tasks, slow]}
    terminal = Terminal()
    # The shell starts background jobs with SIGINT ignored, and child processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = terminal.start(Playbook(tmp_path, play))
    signal.signal(signal.SIGINT, before)
    terminal.watch(process, until=lambda: "| Step" in terminal.screen.display[-1])
    terminal.resize(LINES + 5)
    terminal.watch(process, until=lambda: "| Step" in terminal.screen.display[-1])
    assert not any("tasks/s" in line for line in terminal.screen.display[:-1])
    terminal.watch(process, until=(tmp_path / "begun").exists)
    # Ansible may miss an interruption while it starts a process.
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert terminal.watch(process) != 0
    assert "interrupted" in terminal.text()
    assert terminal.screen.margins is None
    assert "tasks/s" not in terminal.text()


def test_what_does_not_fit_is_cut():
    pieces = [("12%", None), ("a", "red"), ("long name", None)]
    assert progress.fit(pieces, 80) == "12% | a | long name"
    assert progress.fit(pieces, 19) == "12% | a | long name"
    assert progress.fit(pieces, 18) == "12% | a | long na…"
    assert progress.fit(pieces, 7) == "12% | a"
    assert [len(progress.fit(pieces, columns)) for columns in range(20)] == list(range(20))


def test_the_documentation_can_be_read(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    command = [sys.executable, "-m", "ansible.cli.doc", "--type", "callback", "--json", NAME]
    shown = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert set(shown[NAME]["doc"]["options"]) == {"plain", "interval"}


def test_check_mode_is_named(tmp_path):
    for options, begin in (((), "progress: "), (("--check",), "progress: check mode | ")):
        _code, _output, errors = Playbook(tmp_path, PLAY).run(options=options, WCOW_PROGRESS_INTERVAL="0")
        lines = [line for line in errors.splitlines() if line.startswith("progress: ")]
        assert lines
        assert all(line.startswith(begin) and ("check mode" in line) == bool(options) for line in lines)
