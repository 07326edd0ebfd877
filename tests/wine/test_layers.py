# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The Windows layer store in Windows Python, with the stand-in DLLs.

``traces/*.json`` are scenarios that containerd's own snapshotter ran with the
same stand-ins (commits 44e12dc5d8 and, ``head-``, v2.3.4): its operations, the
native calls that they made, and the files at the end. Where our calls differ
on purpose, ``ours`` has our calls and ``why`` the reason.
"""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._payload import payload

from lab import sample

from . import kit

HERE = pathlib.Path(__file__).parent
CASES = HERE / "layers_cases.py"
TRACES = sorted((HERE / "traces").glob("*.json"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path, winpython, windows):
    scenario = json.loads(path.read_text())
    # The patched Wine logs the calls that would grow a volume to the same file.
    environment = {"WINEKIT_IOCTL_LOG": str(windows.drive / "t" / "stub.log"), **scenario.get("environment", {})}
    done = winpython(kit.windows_path(HERE / "traces" / "driver.py"), input=path.read_text(), env=environment)
    outcome = json.loads(done.stdout)
    for operation, found in zip(scenario["operations"], outcome["operations"], strict=True):
        about = f"{operation['op']} {operation.get('key', '')}"
        assert found.get("calls", []) == operation.get("ours", operation.get("calls", [])), about
        assert ("error" in found) == ("error" in operation), (about, found)
        # The sentences that users search for.
        for sentence in re.findall(r"hcsshim::.*?\(0x\w+\)", operation.get("error", "")):
            assert sentence in found["error"]
    different = scenario.get("tree_ours", {"less": [], "more": []})
    assert outcome["tree"] == sorted(set(scenario["tree"]) - set(different["less"]) | set(different["more"]))
    assert outcome["left"] == []


def test_cases(winpython, folder):
    # Without a root, pytest would look at files outside the checkout.
    root = f"--rootdir={kit.windows_path(kit.CHECKOUT)}"
    options = ("--noconftest", "-p", "no:cacheprovider", "-c", "NUL", root, "--basetemp", folder.windows + r"\t", "-q")
    environment = {"WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"), "WINEKIT_DISK_LENGTH": str(1 << 40)}
    done = winpython("-m", "pytest", *options, kit.windows_path(CASES), env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in ", done.stdout, re.MULTILINE), done.stdout


def test_from_the_payload(winpython, folder):
    """As on a node: the core is only in memory, even for the process that destroys layers."""
    (folder.path / "payload.zip").write_bytes(payload("own").data)
    operations = [
        ("prepare", {"key": "key"}),
        ("commit", {"name": "base", "key": "key"}),
        ("remove", {"key": "base"}),
    ]
    request = {
        "protocol": 1,
        "root": folder.windows + "\\root",
        "layers": "windows",
        "operations": [{"operation": name, "arguments": arguments} for name, arguments in operations],
    }
    boot = payload("own").boot
    program = (
        f"path = r'{folder.windows}\\payload.zip'; data = open(path, 'rb').read(); names = {{'__name__': 'boot'}}; "
        f"exec(data[{boot.start}:{boot.stop}], names); raise SystemExit(names['run'](path, data))"
    )
    done = winpython("-c", program, input=json.dumps(request) + "\n", env={"PYTHONPATH": ""})
    results = json.loads(done.stdout)["results"]
    assert [result["ok"] for result in results] == [True] * 3, results
    assert [result["warnings"] for result in results] == [[]] * 3
    assert list((folder.path / "root" / "snapshots").iterdir()) == []


def test_an_image_on_a_share(winpython, windows, folder):
    """Wine finds shares in a directory of its prefix."""
    share = windows.prefix / "dosdevices" / "unc" / "files" / "images"
    sample.write_image(share / "image.tar", "10.0.20348.1")
    paths = [r"\\files\images\image.tar", r"\\?\UNC\FILES\images\image.tar", r"\\files\docs\image.tar"]
    arguments = [{"src": path, "os_version": "10.0.20348"} for path in paths]
    operations = [{"operation": "ensure_image", "arguments": each} for each in arguments]
    request = {"protocol": 1, "root": folder.windows + r"\root", "layers": "windows", "operations": operations}
    done = winpython("-m", "core.door", input=json.dumps(request), env={"WCSTUB_CONTENTS": "1"}, timeout=100)
    first, again, unreachable = json.loads(done.stdout)["results"]
    assert [result.get("changed") for result in (first, again, unreachable)] == [True, False, None], done.stdout
    assert unreachable["error"]["code"] == "not_found"
    assert unreachable["error"]["message"].startswith(rf"cannot read {paths[2]} on the node: ")
