# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the progress of a play: on the last line of the terminal, or as plain lines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: Shows the progress of a play
version_added: 0.1.0
description:
  - On a terminal, keeps one line at the bottom while the output of C(ansible-playbook) scrolls above it. The line shows
    the completed part of the play, the time left, the number of hosts that completed the current task, the numbers of
    failed and unreachable hosts, the rate, and the name of the task. With C(--check), it begins with C(check mode).
  - Without a terminal, writes the same as plain lines to the standard error output, by default every 10 seconds and
    once at the end. The standard output does not change.
  - It works with every stdout callback. Enable it with C(callbacks_enabled = wcow.snapshotter.progress) in the
    section C(defaults) of ansible.cfg, or with E(ANSIBLE_CALLBACKS_ENABLED).
notes:
  - The completed part and the time left are those of the current play. They count the tasks of the play and of its
    roles. Tasks of a C(rescue), handlers and the tasks of C(include_tasks) count for the rate only.
  - A host counts as failed when one of its tasks fails and C(ignore_errors) is not set, even if a C(rescue) follows.
  - Colors are those of Ansible. E(NO_COLOR) and E(ANSIBLE_NOCOLOR) turn them off.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
options:
  plain:
    description:
      - Writes plain lines on a terminal too. Use it when a program such as C(ansible-runner) or C(script) records the
        terminal.
      - The terminal is the standard output, or else the standard error output. If E(TERM) is V(dumb) or not set, there
        is no terminal.
    type: bool
    default: false
    env:
      - name: WCOW_PROGRESS_PLAIN
    ini:
      - section: callback_wcow_progress
        key: plain
  interval:
    description: Minimum number of seconds between two plain lines.
    type: float
    default: 10
    env:
      - name: WCOW_PROGRESS_INTERVAL
    ini:
      - section: callback_wcow_progress
        key: interval
"""

import atexit
import collections
import os
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, TextIO, Tuple

from ansible import constants, context
from ansible.playbook.block import Block
from ansible.plugins.callback import CallbackBase
from ansible.utils.color import stringc

from ..plugin_utils._text import one_line

#: Minimum number of seconds between two changes of the line on a terminal.
REFRESH = 0.1

SAVE_CURSOR = "\x1b7"
RESTORE_CURSOR = "\x1b8"
ERASE_LINE = "\x1b[2K"

#: A piece of the line, and the name of its color, or None for the default color.
Piece = Tuple[str, Optional[str]]


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible ships no types
    """Follows the events of a run. It does not use a thread, because a thread does not survive Ansible's forks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "wcow.snapshotter.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._begin = time.monotonic()
        self._results = 0
        self._failed: Set[str] = set()
        self._unreachable: Set[str] = set()
        #: The failed and unreachable hosts that get no more tasks.
        self._lost: Set[str] = set()
        self._play = _Play("", [], [], self._begin)
        self._line: Optional[_BottomLine] = None
        self._next = 0.0

    def set_options(self, *arguments: Any, **options: Any) -> None:
        super().set_options(*arguments, **options)
        terminal = None if self.get_option("plain") else _terminal()
        self._line = _BottomLine(terminal) if terminal else None
        self._next = time.monotonic() + (0 if terminal else self.get_option("interval"))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        # With `serial`, Ansible calls this for each batch, each time with a copy of the play.
        variables = play.get_variable_manager().get_vars(play=play)
        if play._uuid != self._play.uuid:
            hosts = [host for host in variables["ansible_play_hosts_all"] if host not in self._lost]
            tasks = _tasks(block.filter_tagged_tasks(variables) for block in play.compile())
            self._play = _Play(play._uuid, hosts, tasks, time.monotonic())
        self._play.next_batch(variables["ansible_play_batch"])

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._play.start(task, self._lost)
        self._show(new_task=True)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result, None if ignore_errors else self._failed)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._ended(result, self._unreachable)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._line:
            self._line.close()
            return
        seconds = time.monotonic() - self._begin
        pieces = [
            *_mode(),
            (f"{self._results} tasks in {_clock(seconds)}", None),
            *self._troubles(),
            (_rate(self._results, seconds), None),
        ]
        self._plain(pieces)

    def _ended(self, result: Any, trouble: Optional[Set[str]] = None) -> None:
        """Count a task that ended on a host. ``trouble`` is the set that the host joins, if any."""
        # Before ansible-core 2.19, results have no public attributes; 2.23 drops the others.
        host = (getattr(result, "host", None) or result._host).get_name()
        task = getattr(result, "task", None) or result._task
        self._results += 1
        self._play.end(task, host)
        # A host that runs another task after a failure was rescued.
        self._lost.discard(host)
        if trouble is not None:
            trouble.add(host)
            if trouble is self._failed or not task.ignore_unreachable:
                self._lost.add(host)
        self._show()

    def _show(self, new_task: bool = False) -> None:
        now = time.monotonic()
        # On a terminal, a new task appears at once, because the next event may be far away.
        if now < self._next and not (new_task and self._line):
            return
        if self._line:
            self._next = now + REFRESH
            self._line.draw(self._pieces(now))
        else:
            self._next = now + self.get_option("interval")
            self._plain(self._pieces(now))

    def _plain(self, pieces: List[Piece]) -> None:
        text = " | ".join(stringc(text, color) if color else text for text, color in pieces)
        self._display.display(f"progress: {text}", stderr=True, screen_only=True)

    def _pieces(self, now: float) -> List[Piece]:
        """Return the pieces of the line, the most important first. A narrow terminal cuts the last ones."""
        play = self._play
        seconds = now - play.begin
        done = play.done(self._lost)
        left = f"{_clock(seconds / done - seconds)} left" if done else "no estimate yet"
        ended = len(play.ended)
        return [
            *_mode(),
            (f"{done:.0%}, {left}", None),
            (f"task {play.started} of {len(play.tasks)}: {ended} of {max(play.expected, ended)} hosts", None),
            *self._troubles(),
            (_rate(play.results, seconds), None),
            (play.task, None),
        ]

    def _troubles(self) -> List[Piece]:
        return [
            (f"{len(hosts)} {word}", color if hosts else None)
            for hosts, word, color in (
                (self._failed, "failed", constants.COLOR_ERROR),
                (self._unreachable, "unreachable", constants.COLOR_UNREACHABLE),
            )
        ]


class _Play:
    """The progress of one play.

    ``hosts`` are all hosts of the play, ``batch`` those of the current batch.
    ``tasks`` are the identifiers of the tasks that are known before the play runs.
    """

    def __init__(self, uuid: str, hosts: List[str], tasks: Iterable[str], begin: float) -> None:
        self.uuid = uuid
        self.hosts = hosts
        self.batch: List[str] = hosts
        self.tasks = frozenset(tasks)
        self.begin = begin
        self.results = 0
        #: The name of the current task, the hosts that ended it, and the number of hosts that it runs on.
        self.task = ""
        self.ended: Set[str] = set()
        self.expected = 0
        self.started = 0
        self._current = ""
        self._begun: Set[str] = set()
        #: The number of known tasks that each host ended.
        self._over: Dict[str, int] = collections.defaultdict(int)

    def next_batch(self, hosts: List[str]) -> None:
        self.batch = hosts
        self._begun.clear()

    def start(self, task: Any, lost: Set[str]) -> None:
        # A name can contain what a node said: line ends would break the line, escape sequences the terminal.
        self.task = one_line(task.get_name())
        self.ended = set()
        self.expected = 1 if task.run_once else len([host for host in self.batch if host not in lost])
        self._current = task._uuid
        if self._current in self.tasks:
            self._begun.add(self._current)
            self.started = len(self._begun)

    def end(self, task: Any, host: str) -> None:
        self.results += 1
        if task._uuid == self._current:
            self.ended.add(host)
        if task._uuid in self.tasks:
            for one in self.batch if task.run_once else [host]:
                self._over[one] += 1

    def done(self, lost: Set[str]) -> float:
        """Return the part of the play, 0 to 1, that ended. The tasks of ``lost`` hosts count as ended."""
        tasks = len(self.tasks)
        whole = tasks * len(self.hosts)
        over = sum(tasks if host in lost else min(self._over[host], tasks) for host in self.hosts)
        return over / whole if whole else 0.0


class _BottomLine:
    """The last line of a terminal. The output of all programs scrolls above it.

    A scrolling region (DECSTBM), which terminals support since the VT100, ends
    above the last line. Each change is one write, so the output of other
    programs does not mix with it. It leaves the cursor in its place.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._size = os.terminal_size((0, 0))
        self._owner = os.getpid()
        # This runs however Ansible ends. Its forks have another process id, so they change nothing.
        atexit.register(self.close)

    def draw(self, pieces: List[Piece]) -> None:
        size = os.get_terminal_size(self._stream.fileno())
        # A terminal that does not know its size reports 0.
        if size.lines < 3 or size.columns < 1:
            return
        text = ""
        if size != self._size:
            # If the cursor is on the last line, the line feed scrolls the screen, and moving up leaves that line.
            # Setting the region moves the cursor.
            text = f"{self._leave()}\n{SAVE_CURSOR}\x1b[1;{size.lines - 1}r{RESTORE_CURSOR}\x1b[1A"
            self._size = size
        # One column stays free. Wrapping is off, because a character can be wider than one column.
        text += f"{SAVE_CURSOR}\x1b[{size.lines};1H{ERASE_LINE}\x1b[?7l{fit(pieces, size.columns - 1)}\x1b[?7h"
        self._write(text + RESTORE_CURSOR)

    def close(self) -> None:
        """Release the last line. A second call changes nothing."""
        if os.getpid() == self._owner:
            self._write(self._leave())
            self._size = os.terminal_size((0, 0))

    def _leave(self) -> str:
        lines = self._size.lines
        return f"{SAVE_CURSOR}\x1b[{lines};1H{ERASE_LINE}\x1b[r{RESTORE_CURSOR}" if lines else ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # The terminal is gone, or cannot show a character of a name.


def fit(pieces: List[Piece], columns: int) -> str:
    """Join the pieces into one line of at most ``columns`` characters. Color codes do not count."""
    line, free = "", columns
    for number, (piece, color) in enumerate(pieces):
        separator = " | " if number else ""
        if len(separator + piece) > free:
            cut = (separator + piece)[: max(free - 1, 0)] + "…"
            return line + cut[:free]
        free -= len(separator + piece)
        line += separator + (stringc(piece, color) if color else piece)
    return line


def _tasks(blocks: Iterable[Any]) -> Iterator[str]:
    """Yield the identifiers of the tasks that each host runs if nothing fails."""
    for entry in blocks:
        if isinstance(entry, Block):
            yield from _tasks([*entry.block, *entry.always])
        elif not entry.implicit and entry.action not in constants._ACTION_META:
            yield entry._uuid


def _terminal() -> Optional[TextIO]:
    """Return the stream of the terminal, or None if there is no usable terminal."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return None
    return next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)


def _mode() -> List[Piece]:
    """Return a piece that says that the run changes nothing, if so."""
    return [("check mode", None)] if context.CLIARGS.get("check") else []


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rate(results: int, seconds: float) -> str:
    return f"{results / seconds if seconds else 0:.1f} tasks/s"
