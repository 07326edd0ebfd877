# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run what the README and the documentation of the modules show, against lab nodes over psrp and winrm."""

from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import reader
from ansible_collections.wcow.snapshotter.plugins.modules import layer, mount, scratch, snapshot, snapshot_info
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab

from lab import sample

GIB = 1024**3
NODES = ("node1", "node2")


@pytest.fixture
def lab(tmp_path):
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def recap(output):
    """Return the counts of each node in the last lines of a play."""
    found = re.findall(r"^(node\d) +: (.*)$", output, re.MULTILINE)
    assert len(found) == 2, output
    return {node: dict(re.findall(r"(\w+)=(\d+)", counts)) for node, counts in found}


def play_demo(lab, *options):
    process = lab.ansible_playbook(CHECKOUT / "playbooks" / "demo.yml", *options)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return recap(output), output


def disk_sizes(lab, node):
    snapshots = lab.file(node, "ProgramData/wcow-demo/snapshots")
    return {path.parent.name: reader.read_info(path).virtual_size for path in snapshots.glob("*/sandbox.vhdx")}


def test_the_demo(lab):
    demo = ("-e", json.dumps({"demo_layer": str(lab.directory / "base.tar.gz")}))
    counts, output = play_demo(lab, *demo, "--skip-tags", "remove")
    for node in NODES:
        assert int(counts[node]["changed"]) >= 7
        assert sorted(disk_sizes(lab, node).values()) == [20 * GIB, 60 * GIB]
    assert "grew from 40.00 GB to 60.00 GB" in output

    counts, _ = play_demo(lab, *demo, "--skip-tags", "remove")
    assert {counts[node]["changed"] for node in NODES} == {"0"}

    # Check mode plans nothing for what exists. It plans the removal and does not do it.
    counts, _ = play_demo(lab, *demo, "--check", "--diff")
    for node in NODES:
        assert counts[node]["changed"] == "2"
        assert len(disk_sizes(lab, node)) == 2

    counts, _ = play_demo(lab, *demo, "--tags", "remove")
    for node in NODES:
        assert counts[node]["changed"] == "2"
        assert list(lab.file(node, "ProgramData/wcow-demo/snapshots").iterdir()) == []


def test_the_playbook_of_the_readme(lab):
    """The text is unchanged except for the name of the group."""
    (text,) = re.findall("```yaml\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    playbook = lab.controller() / "readme.yml"
    playbook.write_text(text.replace("hosts: windows_build_nodes", "hosts: windows"))
    sample.write_layer(lab.controller() / "files" / "servercore-ltsc2022.tar.gz")
    for changed in ("2", "0"):
        process = lab.ansible_playbook(playbook)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        counts = recap(output)
        assert {counts[node]["changed"] for node in NODES} == {changed}


def test_the_acceptance_playbook(lab):
    """Users run this playbook on real nodes."""
    layer_tar = lab.directory / "base.tar.gz"
    sample.write_layer(layer_tar)
    process = lab.ansible_playbook("wcow.snapshotter.acceptance", "-e", f"acceptance_layer={layer_tar}")
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert output.count("ACCEPTED: node") == 2, output
    for node in NODES:
        assert list(lab.file(node, "ProgramData/wcow-acceptance/store/snapshots").iterdir()) == []


def examples(module, has_containerd=True):
    tasks = [
        {key: value for key, value in task.items() if key != "register"} for task in yaml.safe_load(module.EXAMPLES)
    ]
    return [task for task in tasks if has_containerd or "'store': 'containerd'" not in str(task)]


def write_layer(path):
    with tarfile.open(path, "w") as archive:
        for name in ("Files", "Files/app"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        entry = tarfile.TarInfo("Files/app/app.ini")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"x=1\n"))


def test_the_examples_of_the_modules(lab_with_containerd):
    run_the_examples(lab_with_containerd)


def run_the_examples(lab, has_containerd=True):
    """Run all examples in an order in which they work together. Those about containerd need nodes that have it."""
    files = lab.controller() / "files"
    files.mkdir()
    sample.write_layer(files / "servercore-ltsc2022.tar.gz")
    for node in NODES:
        image = lab.file(node, "images/app.tar")
        image.parent.mkdir()
        write_layer(image)
    name = "mcr.microsoft.com/windows/nanoserver:ltsc2022"
    sample.write_image(files / "nanoserver.tar", "10.0.20348.2700")
    given = {"name": "Import an image", "wcow.snapshotter.image": {"src": "nanoserver.tar", "names": [name]}}
    prepare, *others = examples(snapshot)
    name = "wcow.snapshotter.snapshot"
    another = {"name": "Have another one", name: {**prepare[name], "key": "build-43"}}
    preparing = [given, *examples(layer), prepare, another, *examples(scratch)]
    mounting = [{key: value for key, value in task.items() if key != "when"} for task in examples(mount)]
    tasks = [*preparing, *examples(snapshot_info, has_containerd), *mounting, *others]
    for results in lab.play(*tasks).values():
        for task, result in zip(tasks, results):
            assert not result.get("failed"), (task["name"], result.get("msg"))
        changed = [task["name"] for task, result in zip(tasks, results) if result["changed"]]
        assert changed == [task["name"] for task in (*preparing, *mounting, *others)]


def test_many_disks_in_one_round_trip(lab):
    size = {"rootfs_size": "40GB"}
    keys = [f"work-{number:02}" for number in range(20)]
    setup = [
        {"wcow.snapshotter.snapshot": {"key": "k"}},
        {"wcow.snapshotter.snapshot": {"key": "k", "name": "base", "state": "committed"}},
        {
            "wcow.snapshotter.snapshot_set": {
                "snapshots": [{"key": key, "parent": "base", "rootfs_size": "20GB"} for key in keys]
            }
        },
    ]
    tasks = [
        {"wcow.snapshotter.scratch": {**size, "keys": [*keys, "work-00"]}, "check_mode": True, "diff": True},
        {"wcow.snapshotter.scratch": {**size, "keys": ["gone", *keys, "base"]}},
        {"wcow.snapshotter.scratch": {**size, "keys": keys}},
        {"wcow.snapshotter.scratch": {**size, "keys": []}},
        {"wcow.snapshotter.scratch": {**size, "keys": keys, "key": "work-00"}},
        {"wcow.snapshotter.scratch": size},
    ]
    lab.play(*setup)
    before = {node: len(requests) for node, requests in lab.requests().items()}
    found = lab.play(*tasks)
    after = {node: len(requests) for node, requests in lab.requests().items()}
    # Three of the tasks reach the node. node1 uses psrp, node2 uses winrm.
    assert {node: after[node] - before[node] for node in NODES} == {"node1": 3 * 6, "node2": 3 * 7}
    for results in found.values():
        planned, some, none, nothing, both, neither = results
        assert [outcome["key"] for outcome in planned["outcomes"]] == keys
        assert planned["changed"]
        assert planned["diff"]["before"]["work-19"]["rootfs_size"] == 20 * GIB
        assert planned["diff"]["after"]["work-19"]["rootfs_size"] == 40 * GIB

        assert some["failed"]
        assert some["changed"]
        assert some["msg"].startswith('2 of 22 disks failed; the first: "gone": "gone": snapshot does not exist')
        assert some["error"] == {"code": "not_found", "details": {"key": "gone", "failed": 2}}
        assert [outcome["error"]["code"] for outcome in some["outcomes"] if "error" in outcome] == [
            "not_found",
            "failed_precondition",
        ]
        assert some["actions"] == [f"grow {key}" for key in keys]
        assert {outcome["previous_size"] for outcome in some["outcomes"] if outcome["changed"]} == {20 * GIB}

        assert (none["changed"], none["actions"]) == (False, [])
        assert (nothing["changed"], nothing["outcomes"]) == (False, [])
        assert "mutually exclusive: key|keys" in both["msg"]
        assert "one of the following is required: key, keys" in neither["msg"]


BAD_INPUT = (
    ({"key": "x", "parent": "nowhere"}, "not_found", 'missing parent "nowhere"'),
    ({"key": "x", "rootfs_size": "0"}, "invalid_argument", "a disk of 0 bytes cannot be made"),
    ({"key": "x", "rootfs_size": "-1"}, "invalid_argument", "is not a size"),
    ({"key": "x", "rootfs_size": "1e9"}, "invalid_argument", "is not a size"),
    ({"key": "x", "rootfs_size": "40G B"}, "invalid_argument", "is not a size"),
    ({"key": "x", "rootfs_size": "65TB"}, "invalid_argument", "larger than a VHDX can be"),
    ({"key": "k" * 4097}, "invalid_argument", "key is 4097 bytes long"),
    ({"key": "x", "labels": {"l": "v" * 4096}}, "invalid_argument", "greater than maximum size"),
    ({"key": "x", "root": "relative"}, "invalid_argument", "is not absolute"),
    ({"key": "x", "root": r"C:\a-file"}, "failed_precondition", "is a file, not a directory"),
    ({"key": "x", "state": "there"}, "invalid_argument", "value of state must be one of"),
    ({"key": "x", "unknown": 1}, "invalid_argument", "Unsupported parameters"),
    ({"state": "committed", "key": "x"}, "invalid_argument", "name"),
)


def test_bad_input(lab):
    for node in NODES:
        lab.file(node, "a-file").write_text("")
    tasks = [{"wcow.snapshotter.snapshot": options} for options, _, _ in BAD_INPUT]
    tasks.append({"wcow.snapshotter.snapshot": {"key": "x"}, "environment": {"WCOW_EMULATED_FILESYSTEM": "FAT32"}})
    for node, results in lab.play(*tasks).items():
        for (options, code, message), result in zip(BAD_INPUT, results):
            assert result["failed"], options
            assert result["error"]["code"] == code, result
            assert message in result["msg"]
        assert "is not on an NTFS volume - only NTFS volumes are supported" in results[-1]["msg"]
        assert not lab.file(node, "ProgramData/wcow").exists()
