# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles and the playbooks of fleets, against lab nodes over psrp and winrm."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import json
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
def test_what_a_role_says_of_its_variables(role):
    """The same in argument_specs, in defaults and in the README."""
    options = options_of(role)
    defaults = yaml.safe_load((CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text())
    assert {name: option["default"] for name, option in options.items() if "default" in option} == (defaults or {})
    readme = (CHECKOUT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert [name for name in options if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_what_a_playbook_says_of_its_variables(playbook):
    text = (CHECKOUT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    options = [name for role in PLAYBOOKS[playbook] for name in options_of(role)]
    for name in (*options, "wcow_hosts", "wcow_serial", "wcow_max_fail_percentage"):
        assert re.search(rf"^#   {name} +\w", text, re.MULTILINE), name


#: After these, one more number was given out, and nobody has it: its directory is what a crash may leave.
REMOVED = (
    {"wcow.snapshotter.snapshot": {"key": "gone"}},
    {"wcow.snapshotter.snapshot": {"key": "gone", "state": "absent"}},
)


def write_layer(lab):
    """A layer tar on the controller as an entry of base_layers_layers."""
    path = lab.directory / "base.tar.gz"
    sample.write_layer(path)
    digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    return {"name": "base", "src": str(path), "digest": f"sha256:{digest}"}


def run(lab, playbook, *options, **variables):
    """The exit code, each node's line of the recap and each node's verdict."""
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
    """Both runs end well, and the second changes nothing; the verdicts of the first."""
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

    code, recap, _ = run(lab, "resize", "--check", rootfs_size_minimum="60GiB")
    assert (code, recap["node1"]["changed"]) == (0, 1), lab.output
    assert "blue had 40.00 GB and would have 60.00 GB" in lab.output
    verdicts = run_twice(lab, "resize", 1, rootfs_size_minimum="60GiB")
    assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "disks grown: 2; 3 snapshots, no problems"))

    lost = [lab.file(node, "ProgramData/wcow/snapshots/rm-4") for node in NODES]
    for path in lost:
        path.mkdir()
    verdicts = run_twice(lab, "maintenance", 1, maintenance_minimum_free="1MB")
    assert verdicts == dict.fromkeys(NODES, ("HEALTHY", "3 snapshots, no problems"))
    assert not any(path.exists() for path in lost)

    code, _, verdicts = run(lab, "decommission")
    assert code == 2, lab.output
    assert "set decommission_confirm to true" in verdicts["node1"][1]
    assert all(lab.file(node, "ProgramData/wcow").exists() for node in NODES)
    verdicts = run_twice(lab, "decommission", 1, decommission_confirm=True)
    assert verdicts == dict.fromkeys(NODES, ("REMOVED", "there is no store any more"))
    assert not any(lab.file(node, "ProgramData/wcow").exists() for node in NODES)


@pytest.mark.long
def test_bare_nodes(tmp_path):
    """From nothing to a store, and back to nothing."""
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
def test_broken_nodes(lab):
    """The exit code says that there is one, its verdict what is wrong, and the others go on."""
    lab.hosts["node2"]["wcow_python"] = r"C:\nowhere\python.exe"
    code, _, verdicts = run(lab, "provision")
    assert code == 2, lab.output
    assert verdicts["node1"][0] == "HEALTHY"
    assert verdicts["node2"][0] == "NOT HEALTHY"
    assert verdicts["node2"][1].count("No Python can be started") == 1
    del lab.hosts["node2"]["wcow_python"]

    # All that is missing is said at once.
    lab.file("node1", "ProgramData/other").mkdir()
    lab.file("node1", "ProgramData/other/notes.txt").touch()
    lab.hosts["node1"]["wcow_root"] = r"C:\ProgramData\other"
    code, _, verdicts = run(lab, "provision", store_minimum_free="60TB")
    assert code == 2, lab.output
    assert "is no store, and not empty: it has notes.txt" in verdicts["node1"][1]
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

    # A rolling run stops at the first node that fails, and a node out of reach is named.
    code, recap, _ = run(lab, "resize", rootfs_size_minimum="60GB", wcow_serial=1, wcow_max_fail_percentage=0)
    assert code == 2, lab.output
    assert set(recap) == {"node1"}
    lab.lab("fault", "node2", "--kind", "down", "--seconds", "20")
    code, recap, _ = run(lab, "maintenance")
    assert code == 4, lab.output
    assert recap["node2"]["unreachable"] == 1, lab.output


def window(start, end):
    """A window that begins and ends so many minutes from now. If it ends before it begins, it lasts all but that."""
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
    assert verdicts["node1"] == ("NOT HEALTHY", "Users who are not administrators may get at the store")

    code, _, verdicts = run(
        lab, "maintenance", maintenance_window=window(-60, -120), maintenance_minimum_free=str(60 * 1024**4)
    )
    assert code == 2, lab.output
    assert verdicts["node1"][1].count("65970697666560 are wanted") == 1
    assert [root.stat().st_mode & 0o777 for root in roots] == [0o700, 0o700]


BAD_INPUT = (
    ("store", {"store_adopt": "perhaps"}, "store_adopt"),
    ("store", {"store_rootfs_size": "large"}, "rootfs_size: 'large' is not a size"),
    ("store", {"store_minimum_free": "lots"}, "minimum_free: 'lots' is not a size"),
    ("base_layers", {"base_layers_layers": [{"name": "x", "src": "x.tar"}]}, "missing required arguments: digest"),
    ("base_layers", {"base_layers_images": [{"name": "x"}]}, "missing required arguments: src"),
    ("base_layers", {"base_layers_images": "image.tar"}, "base_layers_images"),
    ("rootfs_size", {}, "missing required arguments: rootfs_size_minimum"),
    ("rootfs_size", {"rootfs_size_minimum": "1.5GB"}, "rootfs_size_minimum is '1.5GB', which is not a size"),
    ("rootfs_size", {"rootfs_size_minimum": "0"}, "rootfs_size_minimum is '0', which is not a size"),
    ("rootfs_size", {"rootfs_size_minimum": "1GB", "rootfs_size_filters": ["kind=active"]}, 'unsupported operator "="'),
    ("maintenance", {"maintenance_level": "all"}, "value of maintenance_level must be one of"),
    ("maintenance", {"maintenance_window": "22:00"}, "maintenance_window is '22:00', which is no window"),
    ("maintenance", {"maintenance_window": "24:00-05:00"}, "which is no window"),
    ("maintenance", {"maintenance_window": "05:00-05:00"}, "which is no window"),
    ("maintenance", {"maintenance_minimum_free": "lots"}, "minimum_free: 'lots' is not a size"),
    ("decommission", {}, "set decommission_confirm to true"),
    ("decommission", {"decommission_confirm": "maybe"}, "decommission_confirm"),
)


def test_bad_input_is_refused_with_a_reason(lab):
    """All cases in one play; each role's message comes out by number."""
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
