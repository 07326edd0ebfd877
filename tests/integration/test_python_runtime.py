# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module and the role python_runtime on nodes without Python, over psrp and winrm."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import random
import shutil
import threading
import time
import zipfile

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import python_runtime
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

from lab import faults, package

MODULE = "wcow.snapshotter.python_runtime"
PYTHON = r"C:\Program Files\wcow\python\python.exe"
SNAPSHOT = {"wcow.snapshotter.snapshot": {"key": "work"}}
#: One node for each connection type. Some tests use more.
NODES = ["node1", "node2"]
ABSENT = {MODULE: {"state": "absent"}}


class Bare(Lab):
    """A lab of nodes without Python. ``digests`` has the digests of the packages on the controller, by version."""

    def __init__(self, directory, *options, **keywords):
        super().__init__(directory, *options, **keywords)
        self.files = self.controller() / "files"
        self.digests = {version: self.package(version) for version in ("3.12.10", "3.13.0")}

    def package(self, version):
        return package.write_package(self.files / f"{version}.zip", version)

    def task(self, version="3.12.10", **options):
        source = {} if "url" in options else {"src": f"{version}.zip"}
        return {MODULE: {"version": version, "checksum": self.digests[version], **source, **options}}

    def play(self, *tasks, nodes=NODES, **keywords):
        return super().play(*tasks, nodes=nodes, **keywords)

    def beside(self, node):
        """Return the names beside the runtime."""
        directory = self.file(node, "Program Files/wcow")
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def scripts(self):
        """Return how many scripts ran, not counting the line that starts Python."""
        return (self.directory / "access.jsonl").read_text().count("ErrorActionPreference")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    started = Bare(tmp_path_factory.mktemp("lab") / "lab", "--without-python", nodes=4)
    yield started
    started.lab("down")
    assert (started.directory / "lab.log").read_text() == ""


@pytest.fixture
def lab(shared):
    """The lab, with its nodes as they were before the first test."""
    for node in shared.nodes:
        for made in ("Program Files/wcow", "ProgramData/wcow"):
            shutil.rmtree(shared.file(node, made), ignore_errors=True)
    return shared


@pytest.fixture
def web(lab):
    """Return the URL of a web server with the packages, and the requested paths."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=lab.files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def runtime(version, lab):
    return {"python": PYTHON, "version": version, "sha256": lab.digests[version]}


def test_the_life_of_a_runtime(lab):
    task, upgrade = lab.task(), {**lab.task("3.13.0"), "diff": True}
    plays = lab.play(
        SNAPSHOT, {**task, "check_mode": True}, SNAPSHOT, task, task, SNAPSHOT, {**upgrade, "check_mode": True}, upgrade
    )
    for node, (bare, planned, still_bare, made, again, used, plan, upgraded) in plays.items():
        for result in (bare, still_bare):
            assert "Install it with the role wcow.snapshotter.python_runtime" in result["msg"]
        for result in (planned, made):
            assert (result["changed"], result["actions"]) == (True, ["install 3.12.10"])
            assert result["runtime"] == runtime("3.12.10", lab)
        assert (again["changed"], again["actions"], again["runtime"]) == (False, [], runtime("3.12.10", lab))
        assert used["snapshot"]["name"] == "work"
        for result in (plan, upgraded):
            assert result["actions"] == ["replace 3.12.10 by 3.13.0"]
            assert result["diff"] == {"before": runtime("3.12.10", lab), "after": runtime("3.13.0", lab)}
        assert lab.beside(node) == ["payload", "python"]
    plays = lab.play(SNAPSHOT, {**ABSENT, "check_mode": True}, SNAPSHOT, ABSENT, ABSENT, SNAPSHOT)
    for node, (used, planned, still_used, removed, again, bare) in plays.items():
        assert not used["changed"]
        assert not still_used["changed"]
        for result in (planned, removed):
            assert (result["changed"], result["actions"], result["runtime"]) == (True, ["remove"], None)
        assert not again["changed"]
        assert "python_runtime" in bare["msg"]
        assert lab.beside(node) == ["payload"]


@pytest.mark.long
def test_from_a_url(lab, web):
    url, asked = web
    plays = lab.play(
        lab.task(url=f"{url}/none.zip"),
        lab.task(url=f"{url}/3.12.10.zip", checksum="0" * 64),
        lab.task(url=f"{url}/3.13.0.zip", version="3.12.10", checksum=lab.digests["3.13.0"]),
        lab.task(url=f"{url}/3.12.10.zip"),
        lab.task(url=f"{url}/3.12.10.zip"),
        SNAPSHOT,
    )
    for node, (missing, wrong, other, made, again, used) in plays.items():
        assert [result["error"]["details"]["step"] for result in (missing, wrong, other)] == [
            "receive",
            "verify",
            "try",
        ]
        assert missing["error"]["code"] == "unavailable"
        assert f"{url}/none.zip did not arrive" in missing["msg"]
        assert "404" in missing["msg"]
        assert f"its SHA-256 is {lab.digests['3.12.10'].upper()}" in wrong["msg"]
        assert "its python.exe answers '3.13.0'" in other["msg"]
        assert (made["changed"], again["changed"]) == (True, False)
        assert used["changed"]
        assert lab.beside(node) == ["payload", "python"]
    assert asked.count("/3.12.10.zip") == 2 * len(NODES)


def test_a_failure_leaves_nothing(lab, web):
    url, _asked = web
    for node, (wrong,) in lab.play(lab.task(url=f"{url}/3.12.10.zip", checksum="1" * 64)).items():
        assert wrong["failed"]
        assert lab.beside(node) == []
    lab.play(lab.task())
    for node, (wrong, used) in lab.play(lab.task(url=f"{url}/3.13.0.zip", checksum="1" * 64), SNAPSHOT).items():
        assert wrong["failed"]
        assert used["changed"]
        assert lab.beside(node) == ["payload", "python"]


def test_a_wrong_file_on_the_controller_is_not_sent(lab):
    before = lab.scripts()
    (lab.files / "damaged.zip").write_bytes(b"damaged")
    for (result,) in lab.play(lab.task(src="damaged.zip")).values():
        assert (
            f"has the SHA-256 {hashlib.sha256(b'damaged').hexdigest()}, not {lab.digests['3.12.10']}" in result["msg"]
        )
    assert lab.scripts() == before


@pytest.mark.long
def test_leftovers_of_an_interruption_are_removed(lab):
    lab.play(lab.task())
    for node in NODES:
        left = lab.file(node, "Program Files/wcow/python.wcow-new-0123456789abcdef")
        left.mkdir()
        (left / "package.zip").write_bytes(b"half of a pack")
    for node, (planned, cleaned, again) in lab.play({**lab.task(), "check_mode": True}, lab.task(), lab.task()).items():
        assert planned["actions"] == cleaned["actions"] == ["clean"]
        assert not again["changed"]
        assert lab.beside(node) == ["python"]


@pytest.mark.long
def test_nodes_that_die_during_an_installation(lab, figures):
    """The package is so large that its upload takes many requests."""
    with zipfile.ZipFile(lab.files / "large.zip", "w") as file:
        file.writestr("python312.zip", random.Random(5).randbytes(3_000_000))
        file.writestr("python.exe", zipfile.ZipFile(lab.files / "3.12.10.zip").read("python.exe"))
    task = lab.task(src="large.zip", checksum=hashlib.sha256((lab.files / "large.zip").read_bytes()).hexdigest())
    for node, at in zip(lab.nodes, (11, 11, 18, 18)):
        faults.arm(lab.directory / node, faults.Fault("die", at, 0.5))
    for (lost,) in lab.play(task, nodes=lab.nodes).values():
        assert lost.get("unreachable") or lost["failed"]
        assert "Rerunning the task is safe" in lost["msg"]
    for node, (made, used) in lab.play(task, SNAPSHOT, nodes=lab.nodes).items():
        assert made["changed"]
        assert used["changed"]
        assert lab.beside(node) == ["payload", "python"]
    figures(network_faults=len(lab.nodes), losses=0)


#: A program that creates a file after its start. It ends when it finds another file, or after a minute.
WAIT = """import os,time;t=os.environ['TEMP'];open(t+'/started','w').close();\
[time.sleep(.1) for i in range(600) if not os.path.exists(t+'/go')]"""


@pytest.mark.long
def test_a_running_runtime_stays(lab):
    lab.play(lab.task())
    code = WAIT.replace("\\\n", "").replace("'", "''")
    busy = lab.start({"ansible.builtin.raw": f"& '{PYTHON}' -c '{code}'"}, name="busy", nodes=NODES)
    temps = [lab.file(node, "Windows/Temp") for node in NODES]
    for _attempt in range(300):
        if all((temp / "started").exists() for temp in temps):
            break
        time.sleep(0.1)
    refusals = lab.play(lab.task("3.13.0"), ABSENT)
    for temp in temps:
        (temp / "go").touch()
    for results in refusals.values():
        for result in results:
            assert result["error"] == {"code": "unavailable", "details": {"step": "replace"}}
            assert "being used by another process" in result["msg"]
            assert "Its python.exe may be running" in result["msg"]
    assert [result["rc"] for (result,) in lab.results(busy).values()] == [0, 0]
    for node, (upgraded,) in lab.play(lab.task("3.13.0")).items():
        assert upgraded["actions"] == ["replace 3.12.10 by 3.13.0"]
        assert lab.beside(node) == ["python"]


def test_an_unprotected_runtime_is_replaced(lab):
    lab.play(lab.task())
    for node in NODES:
        directory = lab.file(node, "Program Files/wcow/python")
        directory.chmod(0o777)
        (directory / "python.exe").write_text("#!/bin/sh\ntouch $HOME/planted\n")
    for node, (replaced, used) in lab.play(lab.task(), SNAPSHOT).items():
        assert replaced["actions"] == ["install 3.12.10"]
        assert used["changed"]
        assert not lab.file(node, "Users/Administrator/planted").exists()


def test_a_python_of_another_origin_is_left_alone(tmp_path):
    lab = Bare(tmp_path / "lab")
    try:
        for made, removed, used in lab.play(lab.task(), ABSENT, SNAPSHOT).values():
            for result in (made, removed):
                assert "contains files that this module did not install, and is left alone" in result["msg"]
            assert used["changed"]
    finally:
        lab.lab("down")


def test_the_role(lab):
    shared = {"wcow_python": r"D:\tools\wcow\python.exe"}
    source = {"python_runtime_src": "3.12.10.zip", "python_runtime_checksum": f"sha256:{lab.digests['3.12.10']}"}
    playbook = lab.controller() / "role.yml"
    for variables, changed in ((source, 1), (source, 0), ({"python_runtime_state": "absent"}, 1)):
        role = {"role": "wcow.snapshotter.python_runtime", **variables}
        play = {"hosts": NODES, "gather_facts": False, "vars": shared, "roles": [role]}
        playbook.write_text(json.dumps([play]))
        process = lab.ansible_playbook(playbook)
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        assert output.count(f"changed={changed} ") == len(NODES), output
        for node in NODES:
            there = sorted(path.name for path in (lab.directory / node / "D" / "tools").iterdir())
            assert there == ([] if "python_runtime_state" in variables else ["wcow"])


def test_the_examples(lab, web):
    """The examples are unchanged, but the packages come from this machine instead of python.org and a mirror."""
    url, _asked = web
    by_default, from_controller, another, removal = yaml.safe_load(python_runtime.EXAMPLES)
    here = {"checksum": lab.digests["3.12.10"]}
    (lab.files / from_controller[MODULE]["src"]).write_bytes((lab.files / "3.12.10.zip").read_bytes())
    by_default[MODULE] = {**(by_default[MODULE] or {}), "url": f"{url}/3.12.10.zip", **here}
    from_controller[MODULE].update(here)
    another[MODULE].update(url=f"{url}/3.13.0.zip", checksum=lab.digests["3.13.0"])
    for results in lab.play(by_default, from_controller, another, removal).values():
        assert [result["actions"] for result in results] == [
            ["install 3.12.10"],
            [],
            ["replace 3.12.10 by 3.13.0"],
            ["remove"],
        ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": "3.13.0"}, "The collection only knows the digest of the default package, 3.12.10 for amd64"),
        ({"url": "https://example.com/p.zip"}, "only knows the digest of the default package"),
        ({"url": "ftp://example.com/p.zip", "checksum": "0" * 64}, "is not a URL that begins with https:// or http://"),
        ({"url": "https://example.com/", "src": "p.zip"}, "from url or from src: set one of them"),
        ({"checksum": "md5:00"}, "checksum 'md5:00' is not sha256: and 64 hexadecimal digits"),
        ({"version": "3.8.10", "checksum": "0" * 64}, "is not a version from 3.9.0 on"),
        ({"python": "python.exe"}, "is not a valid path for a runtime"),
        ({"python": r"C:\python.exe"}, "is not a valid path for a runtime"),
        ({"python": r"C:\wcow\..\python.exe"}, "is not a valid path for a runtime"),
        ({"python": r"C:\wcow\python3.exe"}, "is not a valid path for a runtime"),
        ({"python": r"\\server\share\wcow\python.exe"}, "is not a valid path for a runtime"),
        ({"src": "missing.zip"}, "missing.zip"),
    ],
)
def test_wrong_options_touch_no_node(shared, options, words):
    before = (shared.directory / "access.jsonl").stat().st_size
    for (result,) in shared.play({MODULE: options}, nodes=["node1"]).values():
        assert words in result["msg"]
    assert (shared.directory / "access.jsonl").stat().st_size == before


def test_a_host_without_windows(shared):
    variables = {"ansible_connection": "local"}
    for (result,) in shared.play({MODULE: {}, "vars": variables}, nodes=["node1"]).values():
        assert "is for Windows nodes" in result["msg"]
