# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and playbooks against lab nodes over psrp and winrm."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import json
import os
import re
import shutil

import pytest
import yaml
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab

from lab import package, sample

NODES = ("node1", "node2")
GIB = 1024**3

ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())
PLAYBOOKS = {
    "provision": ("python_runtime", "store", "base_layers"),
    "resize": ("rootfs_size",),
    "maintenance": ("maintenance",),
    "decommission": ("decommission",),
    "support": ("support",),
}


@pytest.fixture
def lab(tmp_path):
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def options_of(role):
    (entry,) = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())[
        "argument_specs"
    ].values()
    return entry["options"]


@pytest.mark.parametrize("role", ROLES)
def test_the_documentation_of_role_variables(role):
    """argument_specs, defaults and README agree."""
    options = options_of(role)
    defaults = yaml.safe_load((CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text())
    # The variables of the host belong to the modules. tests/unit/roles compares them.
    options = {name: option for name, option in options.items() if not name.startswith("wcow_")}
    assert {name: option["default"] for name, option in options.items() if "default" in option} == (defaults or {})
    readme = (CHECKOUT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert [name for name in options if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_the_documentation_of_playbook_variables(playbook):
    text = (CHECKOUT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    options = [name for role in PLAYBOOKS[playbook] for name in options_of(role)]
    host = [name for name in options if name.startswith("wcow_")]
    assert [name for name in host if not re.search(rf"\b{name}\b", text)] == []
    options = [name for name in options if name not in host]
    for name in (*options, "wcow_hosts", "wcow_serial", "wcow_max_fail_percentage"):
        assert re.search(rf"^#   {name} +\w", text, re.MULTILINE), name


#: These use up one more id. A test can then create its directory, as a crash would leave it.
REMOVED = (
    {"wcow.snapshotter.snapshot": {"key": "gone"}},
    {"wcow.snapshotter.snapshot": {"key": "gone", "state": "absent"}},
)


def write_layer(lab):
    """Write a layer tar on the controller and return it as an entry of base_layers_layers."""
    path = lab.directory / "base.tar.gz"
    sample.write_layer(path)
    digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    return {"name": "base", "src": str(path), "digest": f"sha256:{digest}"}


def run(lab, playbook, *options, **variables):
    """Run a playbook. Return the exit code, each node's recap and each node's verdict."""
    process = lab.ansible_playbook(f"wcow.snapshotter.{playbook}", "-e", json.dumps(variables), *options)
    lab.output = process.communicate(timeout=120)[0]
    recap = {
        node: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", counts)}
        for node, counts in re.findall(r"^(node\d) +: (.*)$", lab.output, re.MULTILINE)
    }
    verdicts = {
        node: (verdict, text) for verdict, node, text in re.findall(r'"msg": "([A-Z ]+) (node\d): (.*)"', lab.output)
    }
    return process.returncode, recap, verdicts


def run_twice(lab, playbook, changed, **variables):
    """Run a playbook twice. Both runs succeed, the second changes nothing. Return the verdicts of the first."""
    code, recap, verdicts = run(lab, playbook, **variables)
    assert code == 0, lab.output
    assert {node: recap[node]["changed"] for node in NODES} == dict.fromkeys(NODES, changed), lab.output
    code, recap, again = run(lab, playbook, **variables)
    assert code == 0, lab.output
    assert {node: recap[node]["changed"] for node in NODES} == dict.fromkeys(NODES, 0), lab.output
    assert set(again) == set(NODES), lab.output
    return verdicts


def test_the_life_of_a_fleet(lab):
    store = {"store_rootfs_size": "40GB", "store_minimum_free": "1MB", "base_layers_layers": [write_layer(lab)]}
    verdicts = run_twice(lab, "provision", 2, **store)
    assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "1 snapshot, no problems")), verdicts

    prepare = [{"wcow.snapshotter.snapshot": {"key": key, "parent": "base"}} for key in ("blue", "green")]
    for results in lab.play(*prepare, *REMOVED).values():
        assert [result["snapshot"]["rootfs_size"] for result in results[:2]] == [40 * GIB, 40 * GIB]

    code, recap, verdicts = run(lab, "resize", "--check", rootfs_size_minimum="60GiB")
    assert (code, recap["node1"]["changed"]) == (0, 1), lab.output
    assert verdicts["node1"] == ("WOULD BE HEALTHY", "disks that would grow: 2; 3 snapshots, no problems")
    assert "blue: would grow from 40.00 GB to 60.00 GB" in lab.output
    verdicts = run_twice(lab, "resize", 1, rootfs_size_minimum="60GiB")
    assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "disks grown: 2; 3 snapshots, no problems"))

    lost = [lab.file(node, "ProgramData/wcow/snapshots/rm-4") for node in NODES]
    for path in lost:
        path.mkdir()
    code, _, verdicts = run(lab, "maintenance", "--check")
    assert code == 0, lab.output
    assert verdicts["node1"][0] == "WOULD BE HEALTHY"
    assert verdicts["node1"][1].startswith("1 findings would be repaired; now: 3 snapshots, 1 problem")
    assert all(path.exists() for path in lost)
    verdicts = run_twice(lab, "maintenance", 1, maintenance_minimum_free="1MB")
    assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "3 snapshots, no problems"))
    assert not any(path.exists() for path in lost)

    code, _, verdicts = run(lab, "decommission")
    assert code == 2, lab.output
    assert "set decommission_confirm to true" in verdicts["node1"][1]
    assert all(lab.file(node, "ProgramData/wcow").exists() for node in NODES)
    code, _, verdicts = run(lab, "decommission", "--check", decommission_confirm=True)
    assert (code, verdicts["node1"]) == (0, ("WOULD BE REMOVED", "the store would not exist")), lab.output
    verdicts = run_twice(lab, "decommission", 1, decommission_confirm=True)
    assert verdicts == dict.fromkeys(NODES, ("REMOVED", "the store does not exist"))
    assert not any(lab.file(node, "ProgramData/wcow").exists() for node in NODES)


def test_a_damaged_disk_does_not_stop_the_others(lab):
    run(lab, "provision", base_layers_layers=[write_layer(lab)])
    lab.play(*({"wcow.snapshotter.snapshot": {"key": key, "parent": "base"}} for key in ("blue", "green", "red")))
    os.truncate(lab.file("node1", "ProgramData/wcow/snapshots/2/sandbox.vhdx"), 1000)
    shutil.rmtree(lab.file("node1", "ProgramData/wcow/snapshots/4"))
    listed, *_ = lab.play({"wcow.snapshotter.snapshot_info": {"scratch": True}})["node1"]
    assert {
        entry["name"]: entry["error"]["code"] for entry in listed["snapshots"] if "error" in entry
    } == dict.fromkeys(("blue", "red"), "failed_precondition")
    assert len(listed["warnings"]) == 2
    code, _, verdicts = run(lab, "resize", rootfs_size_minimum="60GB")
    assert code == 2, lab.output
    assert verdicts["node2"][0] == "HEALTHY"
    assert verdicts["node1"][0] == "NOT HEALTHY"
    assert '2 of 3 disks failed; the first: \\"blue\\"' in verdicts["node1"][1], verdicts
    assert "green: grew from 20.00 GB to 60.00 GB" in lab.output


def test_a_run_that_manages_nothing_fails(lab):
    """No store, a root of containerd, filters that match nothing, a missing variable: the verdict names each."""
    root = r"C:\\ProgramData\\wcow"
    code, _, verdicts = run(lab, "provision", "--check")
    assert (code, verdicts["node1"]) == (0, ("WOULD BE HEALTHY", f"a store would be created in {root}")), lab.output
    code, _, verdicts = run(lab, "maintenance")
    assert code == 2, lab.output
    assert verdicts["node1"][0] == "NOT HEALTHY"
    assert verdicts["node1"][1].startswith(f"Nothing was checked: there is no store in {root}")
    code, _, verdicts = run(lab, "maintenance", "--check")
    assert (code, verdicts["node2"][0]) == (2, "WOULD NOT BE HEALTHY"), lab.output
    code, _, verdicts = run(lab, "resize", rootfs_size_minimum="60GB")
    assert code == 2, lab.output
    assert verdicts["node1"][1].startswith("There is no store")

    lab.play({"wcow.snapshotter.snapshot": {"key": "work"}})
    code, _, verdicts = run(lab, "resize", rootfs_size_minimum="60GB", rootfs_size_filters=["label.team==blue"])
    assert code == 2, lab.output
    assert verdicts["node1"][1].startswith('rootfs_size_filters: snapshots have no field \\"label.team\\"')

    code, _, verdicts = run(lab, "resize")
    assert code == 2, lab.output
    assert lab.output.count("fatal: ") == 1, lab.output
    assert "Set rootfs_size_minimum, which is missing on 2 nodes" in lab.output

    lab.file("node1", "containerd/io.containerd.snapshotter.v1.windows").mkdir(parents=True)
    for playbook, variables in (("maintenance", {}), ("resize", {"rootfs_size_minimum": "60GB"})):
        code, _, verdicts = run(lab, playbook, "--limit", "node1", wcow_root=r"C:\containerd", **variables)
        assert code == 2, lab.output
        assert "belongs to containerd" in verdicts["node1"][1]
        assert "Name another wcow_root" in verdicts["node1"][1]


@pytest.mark.long
def test_bare_nodes(tmp_path):
    """Provision nodes without Python, then decommission them completely."""
    lab = Lab(tmp_path / "lab", "--without-python")
    try:
        zip_file = tmp_path / "python.zip"
        digest = package.write_package(zip_file, "3.12.10")
        runtime = {"python_runtime_src": str(zip_file), "python_runtime_checksum": digest}
        verdicts = run_twice(lab, "provision", 2, wcow_install_runtime=True, **runtime)
        assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "no snapshots, no problems"))
        run_twice(lab, "decommission", 2, decommission_confirm=True, decommission_runtime=True)
        assert not any(lab.file(node, "Program Files/wcow/python").exists() for node in NODES)
    finally:
        lab.lab("down")


@pytest.mark.long
def test_nodes_with_problems(lab):
    """The exit code reports a failure, the verdict names the problem, and the other nodes continue."""
    lab.hosts["node2"]["wcow_python"] = r"C:\nowhere\python.exe"
    code, _, verdicts = run(lab, "provision")
    assert code == 2, lab.output
    assert verdicts["node1"][0] == "HEALTHY"
    assert verdicts["node2"][0] == "NOT HEALTHY"
    assert verdicts["node2"][1].count("No Python can be started") == 1
    del lab.hosts["node2"]["wcow_python"]

    # One message names everything that is missing.
    lab.file("node1", "ProgramData/other").mkdir()
    lab.file("node1", "ProgramData/other/notes.txt").touch()
    lab.hosts["node1"]["wcow_root"] = r"C:\ProgramData\other"
    code, _, verdicts = run(lab, "provision", store_minimum_free="60TB")
    assert code == 2, lab.output
    assert "is not a store, and not empty: it has notes.txt" in verdicts["node1"][1]
    assert "65970697666560 are wanted" in verdicts["node1"][1]
    assert "65970697666560 are wanted" in verdicts["node2"][1]
    del lab.hosts["node1"]["wcow_root"]

    prepare = {"wcow.snapshotter.snapshot": {"key": "work"}}
    lab.play(prepare)
    shutil.rmtree(lab.file("node1", "ProgramData/wcow/snapshots/1"))
    code, _, verdicts = run(lab, "maintenance")
    assert code == 2, lab.output
    assert verdicts["node1"][0] == "NOT HEALTHY"
    assert verdicts["node2"] == ("HEALTHY", "1 snapshot, no problems")

    # A rolling run stops at the first node that fails. An unreachable node is named.
    code, recap, _ = run(lab, "resize", rootfs_size_minimum="60GB", wcow_serial=1, wcow_max_fail_percentage=0)
    assert code == 2, lab.output
    assert set(recap) == {"node1"}
    lab.lab("fault", "node2", "--kind", "down", "--seconds", "20")
    code, recap, _ = run(lab, "maintenance")
    assert code == 4, lab.output
    assert recap["node2"]["unreachable"] == 1, lab.output


def exit_codes():
    """Return the table of docs/roles.md: for each playbook, what each exit code means."""
    text = (CHECKOUT / "docs/roles.md").read_text(encoding="utf-8")
    section = re.search(r"^### Exit codes\n(.*?)^#", text, re.DOTALL | re.MULTILINE)[1]
    lines = re.findall(r"^\|.*", section, re.MULTILINE)
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {
        playbook: {int(row[0]): row[column] for row in rows}
        for column, names in enumerate(head)
        for playbook in re.findall(r"`(\w+)`", names)
    }


@pytest.mark.long
def test_the_table_of_exit_codes(lab, tmp_path):
    table = exit_codes()
    report = {"wcow_report": str(tmp_path / "report")}
    layer = {"acceptance_layer": write_layer(lab)["src"]}
    confirmed = {"decommission_confirm": True}
    file = tmp_path / "file"
    file.write_text("no layer tar, and no directory")
    tried = set()

    def check(playbook, meaning, node="node1", **variables):
        lab.lab("fault", "node2", "--kind", "down", "--seconds", "60")
        code, _, _ = run(lab, playbook, wcow_hosts=node, wcow_minimum_free="1MB", **variables)
        assert meaning in table[playbook][code], (playbook, code, lab.output)
        tried.add((playbook, code))

    for playbook in ("resize", "maintenance"):
        check(playbook, "has no store", rootfs_size_minimum="30GB")
    check("decommission", "no node has the store", **confirmed)
    for playbook in ("provision", "resize", "maintenance", "audit"):
        check(playbook, "all nodes are healthy", rootfs_size_minimum="30GB", **report)
    check("audit", "a node is unreachable", "node2", **report)
    for playbook in ("provision", "resize", "maintenance", "decommission", "acceptance"):
        check(playbook, "a node was unreachable", "node2", rootfs_size_minimum="30GB", **confirmed, **layer)
    check(
        "provision",
        "a node failed",
        base_layers_layers=[{"name": "x", "src": str(file), "digest": f"sha256:{'0' * 64}"}],
    )
    check("acceptance", "all nodes are accepted", **layer)
    check("acceptance", "a node failed a test", acceptance_layer=str(file))
    for node in ("node1", "node2"):
        check("support", "each node has its file", node, support_dest=str(tmp_path / "support"))
    check("support", "a file could not be written", support_dest=str(file))
    check("decommission", "a node failed", wcow_store="containerd", **confirmed)

    wanted = {
        (playbook, code) for playbook, row in table.items() for code, meaning in row.items() if meaning != "never"
    }
    assert tried == wanted


def window(start, end):
    """Return a window from ``start`` to ``end``, in minutes from now. If ``end`` is first, only that gap is closed."""
    now = dt.datetime.now()  # noqa: DTZ005  # The window is in local time.
    return "-".join((now + dt.timedelta(minutes=minutes)).strftime("%H:%M") for minutes in (start, end))


@pytest.mark.long
def test_the_window_and_the_levels(lab):
    lab.play(*REMOVED)
    left = [lab.file(node, "ProgramData/wcow/snapshots/rm-1") for node in NODES]
    roots = [lab.file(node, "ProgramData/wcow") for node in NODES]
    for path, root in zip(left, roots):
        path.mkdir()
        root.chmod(0o755)
    for variables in ({"maintenance_window": window(60, 120)}, {"maintenance_level": "check"}):
        code, recap, verdicts = run(lab, "maintenance", **variables)
        assert code == 2, lab.output
        assert {recap[node]["changed"] for node in NODES} == {0}
        assert all("rm-1 waits to be destroyed" in verdicts[node][1] for node in NODES)
        assert all(path.exists() for path in left)
        assert lab.output.count("Only checked: it is") == 2 * ("maintenance_window" in variables), lab.output

    code, _, verdicts = run(lab, "maintenance", maintenance_window=window(-60, 60), maintenance_level="cleanup")
    assert code == 2, lab.output
    assert not any(path.exists() for path in left)
    unprotected = r"C:\\ProgramData\\wcow can be read by users who are not administrators"
    assert verdicts["node1"] == ("NOT HEALTHY", unprotected)

    code, _, verdicts = run(
        lab, "maintenance", maintenance_window=window(-60, -120), maintenance_minimum_free=str(60 * 1024**4)
    )
    assert code == 2, lab.output
    assert verdicts["node1"][1].count("65970697666560 are wanted") == 1
    assert [root.stat().st_mode & 0o777 for root in roots] == [0o700, 0o700]


BAD_INPUT = (
    ("store", {"store_adopt": "perhaps"}, "store_adopt"),
    ("store", {"store_rootfs_size": "large"}, "store_rootfs_size: 'large' is not a size"),
    ("store", {"store_minimum_free": "lots"}, "store_minimum_free: 'lots' is not a size"),
    ("base_layers", {"base_layers_layers": [{"name": "x", "src": "x.tar"}]}, "missing required arguments: digest"),
    ("base_layers", {"base_layers_images": [{"name": "x"}]}, "missing required arguments: src"),
    ("base_layers", {"base_layers_images": "image.tar"}, "base_layers_images"),
    ("rootfs_size", {}, "missing required arguments: rootfs_size_minimum"),
    ("rootfs_size", {"rootfs_size_minimum": "1.5GB"}, "rootfs_size_minimum is '1.5GB', which is not a size"),
    ("rootfs_size", {"rootfs_size_minimum": 120}, "rootfs_size_minimum is '120', which is not a size"),
    ("rootfs_size", {"rootfs_size_minimum": "0"}, "rootfs_size_minimum is '0', which is not a size"),
    ("rootfs_size", {"rootfs_size_minimum": "1GB", "rootfs_size_filters": ["kind=active"]}, 'unsupported operator "="'),
    ("maintenance", {"maintenance_level": "all"}, "value of maintenance_level must be one of"),
    ("maintenance", {"maintenance_window": "22:00"}, "maintenance_window is '22:00', which is not a time window"),
    ("maintenance", {"maintenance_window": "24:00-05:00"}, "which is not a time window"),
    ("maintenance", {"maintenance_window": "05:00-05:00"}, "which is not a time window"),
    ("maintenance", {"maintenance_minimum_free": "lots"}, "maintenance_minimum_free: 'lots' is not a size"),
    ("support", {"support_lines": "many"}, "support_lines"),
    ("support", {"support_lines": 10001}, "support_lines=10001: give a number from 0 to 10000"),
    ("support", {"support_replace": [{"text": "x"}]}, "missing required arguments: by"),
    ("decommission", {}, "set decommission_confirm to true"),
    ("decommission", {"decommission_confirm": "maybe"}, "decommission_confirm"),
)


def test_bad_input_is_refused_with_a_reason(lab):
    """One play runs all cases and prints the message of each case with its number."""
    tasks = []
    for number, (role, variables, _) in enumerate(BAD_INPUT):
        use = {"ansible.builtin.include_role": {"name": f"wcow.snapshotter.{role}"}, "vars": variables}
        said = f"REFUSED {number} {{{{ ansible_failed_result.msg | b64encode }}}}"
        tasks.append({"block": [use], "rescue": [{"ansible.builtin.debug": {"msg": said}}]})
    playbook = lab.controller() / "bad.yml"
    playbook.write_text(json.dumps([{"hosts": "node1", "gather_facts": False, "tasks": tasks}]))
    output = lab.ansible_playbook(playbook).communicate(timeout=120)[0]
    refused = {int(number): text for number, text in re.findall(r"REFUSED (\d+) ([A-Za-z0-9+/=]+)", output)}
    for number, (_, _, message) in enumerate(BAD_INPUT):
        assert message in base64.b64decode(refused[number]).decode(), (BAD_INPUT[number], output)
    assert not lab.file("node1", "ProgramData/wcow").exists()
