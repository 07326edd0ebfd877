# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Windows of the other tests in this folder."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest
from ansible_collections.wcow.snapshotter.tests.wine import kit

LEFT_BEHIND = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
ABOUT = "import json, os, sys; print(json.dumps([os.name, sys.version_info[:2], sys.getwindowsversion().build]))"

FAILING_STARTS = """
import subprocess, sys, sitecustomize

codes = [1359, 5, 1359, 1359]
real = sitecustomize._start

def fail(*arguments):
    if codes:
        raise OSError(None, "", None, codes.pop(0))
    return real(*arguments)

def run():
    try:
        return subprocess.run([sys.executable, "-c", ""]).returncode
    except OSError as error:
        return error.winerror

sitecustomize._start = fail
print(run(), run(), run(), codes)
"""

STAND_IN = r"""
import ctypes, sys
path = sys.argv[1]
driver = (ctypes.c_void_p * 2)()
for name in ("ActivateLayer", "ActivateLayer", "DeactivateLayer"):
    print(hex(getattr(ctypes.WinDLL("vmcompute"), name)(driver, ctypes.c_wchar_p(path)) & 0xFFFFFFFF))
"""

LINKS = r"""
import os, sys
top = sys.argv[1]
os.makedirs(top + r"\real\sub")
with open(top + r"\real\sub\file", "w") as file:
    file.write("through")
os.symlink(top + r"\real", top + r"\link", target_is_directory=True)
print(open(top + r"\link\sub\file").read(), os.path.islink(top + r"\link"), sorted(os.listdir(top)))
with open(top + r"\real\sub\file:stream", "w") as file:
    file.write("aside")
print(os.listdir(top + r"\real\sub"), open(top + r"\real\sub\file:stream").read())
os.rename(top + r"\link\sub\file", top + r"\link\sub\moved")
os.link(top + r"\real\sub\moved", top + r"\link\sub\linked")
print(sorted(os.listdir(top + r"\real\sub")))
try:
    with open(top + r"\real\sub\moved"):
        os.rename(top + r"\real", top + r"\other")
except OSError as error:
    print(error.winerror)
"""


def test_python_believes_to_be_on_windows(winpython):
    assert json.loads(winpython("-c", ABOUT).stdout) == ["nt", [3, 13], 20348]


def test_a_process_that_wine_does_not_start_is_started_again(winpython):
    """The second of the failing starts is another error, and the last two are of one process."""
    assert winpython("-c", FAILING_STARTS).stdout.split("\n")[0] == "5 1359 0 []"


def test_another_python_on_another_windows():
    with kit.temporary_windows(version=kit.OLDEST, release="ws2019") as windows:
        done = windows.python("-c", ABOUT, stdout=subprocess.PIPE)
        assert json.loads(done.stdout) == ["nt", [3, 9], 17763]


def test_stand_ins_log_their_calls_and_fail_by_rules(winpython, folder):
    rules = {"WCSTUB_LOG": rf"{folder.windows}\calls.log", "WCSTUB_RULES": "ActivateLayer:2=0x80070005"}
    done = winpython("-c", STAND_IN, folder.windows, env=rules)
    assert done.stdout.split() == ["0x0", "0x80070005", "0x0"]
    calls = (folder.path / "calls.log").read_text().splitlines()
    assert [line.split()[3] for line in calls] == ["ActivateLayer", "ActivateLayer", "DeactivateLayer"]
    assert calls[1].endswith("[injected] -> 0x80070005")


def test_files_behave_as_on_ntfs(winpython, folder):
    said = winpython("-c", LINKS, folder.windows).stdout.splitlines()
    assert said == ["through True ['link', 'real']", "['file'] aside", "['linked', 'moved']", "5"]


def test_the_core_answers(winpython):
    request = {"protocol": 1, "root": r"C:\store", "layers": "emulated", "requests": []}
    done = winpython("-m", "core.door", input=json.dumps(request))
    assert json.loads(done.stdout)["protocol"] == 1


def test_a_program_that_does_not_end_is_ended(windows):
    with pytest.raises(subprocess.TimeoutExpired):
        windows.python("-c", "import time; time.sleep(60)", timeout=3)


def test_nothing_is_left():
    with kit.temporary_windows() as windows:
        prefix = windows.prefix
        windows.python("-c", LEFT_BEHIND, stdout=subprocess.DEVNULL)
        assert running(prefix)
    assert not prefix.exists()
    assert not running(prefix)


def running(prefix):
    """Process ids of what runs in a Wine prefix."""
    wanted = f"WINEPREFIX={prefix}".encode()
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
        except OSError:
            pass  # The process has ended, or belongs to another user.
    return found
