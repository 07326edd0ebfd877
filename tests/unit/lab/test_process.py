# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the programs that the statements of a script run."""

from __future__ import annotations

import asyncio

import pytest

from lab.host import PYTHON, HostFiles
from lab.process import ScriptRun
from lab.scripts import read


@pytest.mark.parametrize("ends", ["by itself", "with the script"])
def test_asyncio_has_no_error_to_log_about_unread_input(tmp_path, ends):
    """The log of a lab must be empty, also when the lab ends right after a program that left its input unread."""
    files = HostFiles("node1", tmp_path / "node1")
    files.create(with_python=True)
    errors = []

    async def run():
        started = asyncio.Event()

        async def output(_line):
            started.set()

        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        script = ScriptRun(files, output, output)
        for _number in range(16):
            script.feed("x" * 65536)
        code = "print(1)" if ends == "by itself" else "import time;print(1,flush=True);time.sleep(60)"
        task = asyncio.ensure_future(script.run(read(f"$input | & '{PYTHON}' -c '{code}'")))
        if ends == "with the script":
            await started.wait()
            script.kill()
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # The end of a loop cancels the tasks that it finds. asyncio then has errors about what they waited for.
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(run()) == set()
    assert errors == []
