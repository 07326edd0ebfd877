# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, upgrade, restart and remove the proxy snapshotter with its module, on lab nodes over psrp and winrm."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import health
from ansible_collections.wcow.snapshotter.plugins.modules import proxy_snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.containerd_databases import Objects, metadata
from ansible_collections.wcow.snapshotter.tests.integration import nodes
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab

MODULE = "wcow.snapshotter.proxy_snapshotter"
HOME = "Program Files/wcow/snapshotter"
NEW_VERSION = "99.0.0"


@pytest.fixture
def lab(tmp_path_factory):
    """Two nodes. The path of a socket must be short, so the directory does not have the name of a test."""
    started = Lab(tmp_path_factory.mktemp("s") / "lab")
    yield started
    started.lab("down")


def socket(lab, node):
    return str(lab.directory / node / "pipe" / "wcow-snapshotter")


def test_the_examples(lab_with_containerd):
    lab = lab_with_containerd
    installed, configured, restarted, removed = yaml.safe_load(proxy_snapshotter.EXAMPLES)
    planned = lab.play({**installed, "check_mode": True, "diff": True})
    assert not any(lab.file(node, HOME).exists() or (lab.directory / node / "services").exists() for node in lab.nodes)
    done = lab.play(installed, installed, configured, configured, {**restarted, "check_mode": True}, restarted)
    for node, (made, again, known, known_again, would, restart) in done.items():
        (plan,) = planned[node]
        assert (plan["changed"], plan["health"]) == (True, None)
        assert plan["actions"] == made["actions"]
        assert plan["service"] == made["service"] == plan["diff"]["after"]
        assert [action.split()[0] for action in made["actions"]] == ["create", "write", "create", "start"]
        assert made["health"]["version"] == made["service"]["version"]
        assert made["health"]["root"] == r"C:\ProgramData\wcow"
        assert made["service"]["directory"].startswith("C:\\Program Files\\wcow\\snapshotter\\")
        assert (made["configuration"], made["restart_needed"]) == (None, False)
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["health"]["process"] == made["health"]["process"]
        assert [file["action"] for file in known["configuration"]["files"]] == ["create"]
        assert (known["changed"], known["restart_needed"]) == (True, True)
        assert (known_again["changed"], known_again["configuration"]["files"]) == (False, [])
        assert would["actions"] == restart["actions"] == ["change the service", "restart the service"]
        assert restart["health"]["process"] != made["health"]["process"]
        assert restart["downtime"] > 0
        config = lab.file(node, "Program Files/containerd/config.toml").read_text()
        assert r"\\.\pipe\wcow-snapshotter" in config

    # The service runs on while no task does, and as long as the lab.
    before = {node: health.ask(socket(lab, node))["process"] for node in lab.nodes}
    for node, (result,) in lab.play(removed).items():
        assert result["actions"][-2:] == ["remove the service", "remove its files"]
        assert (result["service"], result["health"]) == (None, None)
        assert not lab.file(node, HOME).exists()
        assert "wcow" not in "".join(path.read_text() for path in lab.file(node, "Program Files/containerd").glob("*"))
        assert before[node]
        with pytest.raises(SnapshotterError):
            health.ask(socket(lab, node), 1.0)


class Watch:
    """Asks a service for its health, again and again. ``longest`` is the longest time without an answer, in seconds."""

    def __init__(self, address):
        self._address = address
        self._is_over = threading.Event()
        self.longest = 0.0
        self.versions = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self):
        answered = time.monotonic()
        while not self._is_over.wait(0.01):
            try:
                found = health.ask(self._address, 1.0)
            except SnapshotterError:
                continue
            now = time.monotonic()
            self.longest, answered = max(self.longest, now - answered), now
            if found["version"] not in self.versions:
                self.versions.append(found["version"])

    def end(self):
        self._is_over.set()
        self._thread.join()


@pytest.fixture
def newer_collection(tmp_path, monkeypatch):
    """Let playbooks use this collection as a newer version. Its core is the same."""

    def use():
        target = tmp_path / "newer" / "ansible_collections" / "wcow" / "snapshotter"
        for name in ("plugins", "meta"):
            shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        text = (CHECKOUT / "galaxy.yml").read_text(encoding="utf-8")
        fields = {**yaml.safe_load(text), "version": NEW_VERSION}
        (target / "galaxy.yml").write_text(yaml.safe_dump(fields), encoding="utf-8")
        monkeypatch.setattr(nodes, "COLLECTIONS", tmp_path / "newer")

    return use


@pytest.mark.long
def test_an_upgrade_keeps_serving_but_for_a_restart(lab, newer_collection, figures):
    task = {MODULE: {}}
    old = lab.play(task, {"wcow.snapshotter.snapshot": {"key": "kept"}})
    newer_collection()
    watches = {node: Watch(socket(lab, node)) for node in lab.nodes}
    new = lab.play(task, task, {"wcow.snapshotter.snapshot_info": {"names": ["kept"]}})
    for node, (result, again, kept) in new.items():
        watch = watches[node]
        watch.end()
        version = old[node][0]["service"]["version"]
        assert watch.versions == [version, NEW_VERSION]
        assert [action.split()[0] for action in result["actions"]] == ["write", "change", "restart"]
        assert (result["previous_version"], result["service"]["version"]) == (version, NEW_VERSION)
        assert result["health"]["version"] == NEW_VERSION
        assert not again["changed"]
        assert [snapshot["name"] for snapshot in kept["snapshots"]] == ["kept"]
        # The task waits for the first answer, and this test asks every hundredth of a second.
        assert watch.longest * 1000 < result["downtime"] + 2000
        figures(service_upgrades=1, service_gap_milliseconds=int(watch.longest * 1000))
        assert len(list(lab.file(node, HOME).glob("*/core.zip"))) == 2
    # The services start again with their nodes, as after a restart of a host.
    lab.lab("down")
    assert not any(is_served(lab, node) for node in lab.nodes)
    lab.lab("up", "--nodes", "2", "--connection", "psrp,winrm")
    assert all(is_served(lab, node) for node in lab.nodes)


def is_served(lab, node):
    try:
        return bool(health.ask(socket(lab, node), 5.0))
    except SnapshotterError:
        return False


@pytest.mark.long
def test_what_containerd_uses_is_not_removed(lab):
    objects = Objects()
    objects.snapshot("pod", snapshotter="wcow")
    objects.container("pod", "pod", "wcow")
    used, absent = {MODULE: {}}, {MODULE: {"state": "absent"}}
    lab.play(used)
    for node in lab.nodes:
        path = lab.file(node, "ProgramData/containerd/root/io.containerd.metadata.v1.bolt/meta.db")
        path.parent.mkdir(parents=True)
        path.write_bytes(metadata(k8s=objects))
    results = lab.play(absent, {MODULE: {"state": "absent", "name": "other"}}, absent)
    for node, (refused, other, after) in results.items():
        assert refused["failed"]
        assert refused["error"]["code"] == "failed_precondition"
        assert (
            "containerd uses the snapshotter wcow: it has 1 snapshots and 1 containers of it in 1 namespaces"
            in (refused["msg"])
        )
        # containerd has no records of a snapshotter with this name.
        assert other["actions"] == ["remove the service", "remove its files"]
        assert after["failed"] is False
        assert not after["changed"]
        assert not is_served(lab, node)
