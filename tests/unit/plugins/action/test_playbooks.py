# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run tasks as users write them: with ansible-playbook, over connection local, with the real core."""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

from lab import sample

#: The directory that holds ansible_collections. The path is not resolved, because a checkout links to the collection.
COLLECTIONS = pathlib.Path(_action.__file__).parents[5]


SECRETIVE = """
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._action import SnapshotterAction, TaskFailure

class ActionModule(SnapshotterAction):
    module = "secretive"
    returned = ("shown",)
    options = {"password": {"type": "str", "no_log": True}, "refuse": {"type": "bool", "default": False}}

    def perform(self, options):
        if options["refuse"]:
            raise TaskFailure("internal", "refused " + options["password"])
        after = "with " + options["password"]
        return {"result": {"shown": {"password": options["password"]}, "diff": {"before": "", "after": after}}}
"""


class Control:
    """A controller with its own directory. It manages this machine as its node."""

    def __init__(self, directory):
        self.directory = directory
        self.root = directory / "root"
        self.variables = {
            "ansible_connection": "local",
            "wcow_python": sys.executable,
            "wcow_root": str(self.root),
            "wcow_layers": "emulated",
            "wcow_cache_dir": str(directory / "cache"),
        }

    def play(self, *tasks, options=(), **keywords):
        """Run tasks; return the output and the result of each task. A task that fails does not stop the play."""
        named = []
        for number, task in enumerate(tasks):
            named.append({"register": f"result_{number}", "ignore_errors": True, "ignore_unreachable": True, **task})
        results = "[" + ", ".join(f"result_{number}" for number in range(len(tasks))) + "]"
        shown = {"ansible.builtin.debug": {"msg": f"RESULTS {{{{ {results} | to_json | b64encode }}}}"}}
        play = {"hosts": "node", "gather_facts": False, "tasks": [*named, shown], **keywords}
        (self.directory / "play.yml").write_text(json.dumps([play]))
        inventory = {"all": {"hosts": {"node": self.variables}}}
        (self.directory / "inventory.yml").write_text(yaml.safe_dump(inventory))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            HOME=str(self.directory),
            LC_ALL="C.UTF-8",
            ANSIBLE_HOME=str(self.directory / "ansible"),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
            COLUMNS="10000",
        )
        done = subprocess.run(
            [sys.executable, "-m", "ansible.cli.playbook", "-i", "inventory.yml", *options, "play.yml"],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        found = re.search("RESULTS ([A-Za-z0-9+/=]+)", output)
        assert found, output
        return output, json.loads(base64.b64decode(found.group(1)))


@pytest.fixture
def control(tmp_path):
    return Control(tmp_path)


def snapshot(**options):
    return {"wcow.snapshotter.snapshot": options}


def snapshot_info(**options):
    return {"wcow.snapshotter.snapshot_info": options}


def test_check_mode_diff_mode_and_repetition(control):
    planned, made, again, listed = control.play(
        {**snapshot(key="one", labels={"team": "blue"}), "check_mode": True, "diff": True},
        {**snapshot(key="one", labels={"team": "blue"}), "diff": True},
        {**snapshot(key="one", labels={"team": "blue"}), "diff": False},
        snapshot_info(),
    )[1]
    for result in (planned, made):
        assert result["changed"] is True
        assert result["actions"] == ["prepare one"]
        assert result["diff"]["before"] == {}
        assert result["diff"]["after"]["one"]["labels"] == {"team": "blue"}
        assert result["snapshot"]["kind"] == "active"
    assert again["changed"] is False
    assert again["actions"] == []
    assert "diff" not in again
    assert again["snapshot"] == made["snapshot"]
    assert listed["changed"] is False
    assert [found["name"] for found in listed["snapshots"]] == ["one"]


def test_check_mode_of_the_whole_run_writes_nothing(control):
    _output, (made, listed, mounted) = control.play(
        snapshot(key="one", parent="image"),
        snapshot_info(),
        {"wcow.snapshotter.mount": {"key": "one", "target": str(control.directory / "mnt")}},
        options=["--check"],
    )
    assert made["changed"] is True
    assert listed["snapshots"] == []
    assert mounted["error"]["code"] == "not_found"
    assert mounted["msg"].endswith("if one of them would create it, the real run finds it")
    assert not (control.root / "snapshots").exists() or not os.listdir(control.root / "snapshots")


def test_wrong_options_name_the_module_and_touch_nothing(control):
    results = control.play(
        snapshot(key="one", bogus=1),
        snapshot(state="active"),
        snapshot(state="absent"),
        snapshot(key="one", state="gone"),
        snapshot(key="one", labels="x"),
        snapshot(key="one", labels={"version": 1.10}),
        snapshot(key="one", labels={"on": True}),
        snapshot(key="one", layers="other"),
        {"wcow.snapshotter.scratch": {"key": "one"}},
    )[1]
    said = [
        "Unsupported parameters for (wcow.snapshotter.snapshot) module: bogus. Supported parameters include: ",
        "wcow.snapshotter.snapshot: state is active but all of the following are missing: key",
        "wcow.snapshotter.snapshot: state is absent but any of the following are missing: key, name",
        "wcow.snapshotter.snapshot: value of state must be one of: active, view, committed, absent, got: gone",
        "wcow.snapshotter.snapshot: argument 'labels' is of type",
        "The label 'version' has the value 1.1, which YAML does not read as text: put the value in quotes",
        "The label 'on' has the value True, which YAML does not read as text",
        "wcow.snapshotter.snapshot: value of layers must be one of: auto, windows, emulated, got: other",
        "wcow.snapshotter.scratch: missing required arguments: rootfs_size",
    ]
    for result, text in zip(results, said):
        assert result["failed"] is True
        assert text in result["msg"]
        assert result["error"]["code"] == "invalid_argument"
    assert not control.root.exists()


def test_values_that_yaml_does_not_read_as_text_are_refused(control):
    """As YAML reads ``key: 1.10``, ``yes``, ``0o17``, ``12e3`` and ``2026-01-01``."""
    item = {"key": "a", "labels": {"b": "c"}}
    tasks = {
        "The option key has the value 1.1,": snapshot(key=1.10),
        "The option key has the value True,": snapshot(key=True),
        "The option parent has the value 15,": snapshot(key="a", parent=0o17),
        "The option name has the value 12000.0,": snapshot(name=12e3, state="committed"),
        "The option creates has the value False,": snapshot(key="a", creates=False),
        "The key of a label in labels has the value 1.1,": snapshot(key="a", labels="{{ {1.10: 'x'} }}"),
        "The option names[1] has the value 1.1,": snapshot_info(names=["a", 1.10]),
        "The option filters[0] has the value True,": snapshot_info(filters=True),
        "The option root has the value 5,": snapshot_info(root=5),
        "The option snapshots[1].parent has the value 1.1,": {
            "wcow.snapshotter.snapshot_set": {"snapshots": [item, {"key": "b", "parent": 1.10}]}
        },
        "snapshots[0]: The label 'b' has the value True,": {
            "wcow.snapshotter.snapshot_set": {"snapshots": [{"key": "a", "labels": {"b": True}}]}
        },
        "The option prune_filters[0] has the value 1.1,": {
            "wcow.snapshotter.snapshot_set": {"snapshots": [item], "prune": True, "prune_filters": [1.10]}
        },
        "The option reference has the value 1.1,": {"wcow.snapshotter.image": {"src": "image.tar", "reference": 1.10}},
        "The option os_version has the value 10.1,": {
            "wcow.snapshotter.image": {"src": "image.tar", "os_version": 10.10}
        },
        "The option chain_id has the value 123,": {"wcow.snapshotter.image": {"state": "absent", "chain_id": 123}},
        "The option digest has the value 123,": {"wcow.snapshotter.layer": {"name": "a", "src": "b", "digest": 123}},
        "The option target has the value 1,": {"wcow.snapshotter.mount": {"key": "a", "target": 1}},
        "The option keys[0] has the value 1.1,": {"wcow.snapshotter.scratch": {"keys": [1.10], "rootfs_size": "40GB"}},
        "The option only[0] has the value 1,": {"wcow.snapshotter.store_check": {"only": [1]}},
        "The option version has the value 3.12,": {"wcow.snapshotter.python_runtime": {"version": 3.12}},
        "The option hosts[0] has the value 1.1,": {"wcow.snapshotter.report": {"dest": "a", "hosts": [1.10]}},
    }
    for message, result in zip(tasks, control.play(*tasks.values())[1]):
        assert result["failed"] is True
        assert message in result["msg"]
        assert "which YAML does not read as text: put the value in quotes, or end the expression" in result["msg"]
    assert not control.root.exists()


def test_errors_of_the_core_are_passed_on(control):
    size, parent = control.play(snapshot(key="one", rootfs_size="40 quads"), snapshot(key="one", parent="none"))[1]
    assert size["error"]["code"] == "invalid_argument"
    assert "rootfs_size: '40 quads' is not a size" in size["msg"]
    assert parent["error"]["code"] == "not_found"
    assert parent["error"]["details"]["parent"] == "none"


def test_sentences_of_containerd_are_followed_by_what_to_do(control):
    tar = control.directory / "layer.tar"
    tar.write_bytes(b"not a tar" * 1000)
    said = {
        'missing parent "none" bucket: not found. Create or import the parent first': snapshot(key="b", parent="none"),
        'unsupported operator "=": invalid argument. The operators are ==': snapshot_info(filters=["kind=active"]),
        "invalid argument. The character between >| and |< is wrong there. Between dots, quote": snapshot_info(
            filters=["labels.containerd.io/gc.root==x"]
        ),
        "invalid argument. The character between >|": snapshot_info(filters=["labels.my-label==x"]),
        "dictionary requested, could not parse JSON or key=value. Write each entry as key and value": snapshot(
            key="b", labels="x"
        ),
        'strconv.ParseUint: parsing "40GB": invalid syntax. The value must be a whole number': snapshot(
            key="b", parent="base", labels={"containerd.io/snapshot/windows/rootfs.sizebytes": "40GB"}
        ),
        "greater than maximum size (4096 bytes), key: k: invalid argument. Shorten": snapshot(
            key="b", labels={"k": "x" * 5000}
        ),
        'snapshot "view" is not active: failed precondition. Only an active': snapshot(
            state="committed", name="b", key="view"
        ),
        f"{tar}: ": {"wcow.snapshotter.layer": {"name": "l", "src": str(tar)}},
        f"{tar}:": {"wcow.snapshotter.layer": {"name": "l", "src": str(tar), "remote_src": True}},
    }
    made = [snapshot(key="a"), snapshot(state="committed", name="base", key="a"), snapshot(state="view", key="view")]
    _output, results = control.play(*made, *said.values())
    for text, result in zip(said, results[len(made) :]):
        assert text in result["msg"]


def test_a_size_without_a_unit_is_refused_under_each_name_of_its_option(control):
    results = control.play(
        snapshot(key="one", parent="none", rootfs_size=40),
        {"wcow.snapshotter.scratch": {"key": "one", "rootfs_size": 40}},
        {"wcow.snapshotter.scratch": {"key": "one", "size": "40"}},
        {"wcow.snapshotter.store": {"rootfs_size": 40}},
        {"wcow.snapshotter.store_check": {"minimum_free": 40}},
    )[1]
    for result in results:
        assert result["error"]["code"] == "invalid_argument"
        assert "without a unit is a number of bytes, less than 1 GiB; add a unit, e.g. 40GiB" in result["msg"]
    assert not control.root.exists()


def test_options_go_before_variables_and_variables_before_defaults(control):
    other = str(control.directory / "other")
    del control.variables["wcow_python"]
    by_option, by_variable, by_default_of_play, no_python = control.play(
        snapshot(key="by option", root=other, python=sys.executable),
        {**snapshot(key="by variable"), "vars": {"wcow_python": "{{ ansible_playbook_python }}"}},
        snapshot_info(root=other, python=sys.executable),
        snapshot_info(),
    )[1]
    assert by_option["snapshot"]["mounts"][0]["source"].startswith(other)
    assert by_variable["snapshot"]["mounts"][0]["source"].startswith(str(control.root))
    assert [found["name"] for found in by_default_of_play["snapshots"]] == ["by option"]
    assert no_python["error"]["code"] == "invalid_argument"
    assert "but its Python is C:\\Program Files\\wcow\\python\\python.exe (option python" in no_python["msg"]


def test_module_defaults_reach_all_modules_through_the_group(control):
    other = str(control.directory / "other")
    made, listed = control.play(
        snapshot(key="one"),
        snapshot_info(),
        module_defaults={"group/wcow.snapshotter.all": {"root": other}},
    )[1]
    assert made["snapshot"]["mounts"][0]["source"].startswith(other)
    assert len(listed["snapshots"]) == 1


def test_delegation_takes_the_variables_of_the_node(control):
    other = {"name": "other", **control.variables}
    control.variables.update(wcow_root=str(control.directory / "wrong"), wcow_python="/wrong")
    _added, made = control.play(
        {"ansible.builtin.add_host": other},
        {**snapshot(key="one"), "delegate_to": "other"},
    )[1]
    assert made["snapshot"]["mounts"][0]["source"].startswith(str(control.root))


def test_become_is_refused(control):
    (result,) = control.play({**snapshot(key="one"), "become": True})[1]
    assert result["failed"] is True
    assert "does not support become" in result["msg"]
    assert not control.root.exists()


def test_async_is_refused(control):
    (result,) = control.play({**snapshot(key="one"), "async": 10, "poll": 1})[1]
    assert result["failed"] is True
    assert "does not support async" in result["msg"]
    assert not control.root.exists()


def test_environment_reaches_the_core(control):
    # This variable tells the emulated store where the node's drives are. A Windows path becomes a path below it.
    drives = control.directory / "drives"
    (drives / "C").mkdir(parents=True)
    made, other = control.play(
        {
            **snapshot(key="one", root="C:\\store"),
            "environment": [
                {"WCOW_EMULATED_DRIVES": "/nowhere"},
                {"WCOW_EMULATED_DRIVES": "{{ playbook_dir }}/drives"},
            ],
        },
        snapshot(key="one", root="C:\\store"),
        environment={"NUMBER": 1, "TRUE": True},
    )[1]
    assert made["changed"] is True
    assert made["snapshot"]["mounts"][0]["source"] == "C:\\store\\snapshots\\1"
    assert (drives / "C" / "store" / "snapshots" / "1").is_dir()
    assert other["failed"] is True


def test_no_log_hides_the_task(control):
    output, (result,) = control.play(
        {**snapshot(key="secret-key", labels={"a": "secret-label"}), "no_log": True, "diff": True},
        options=["-vvv", "--diff"],
    )
    assert result["changed"] is True
    shown = re.sub("RESULTS [A-Za-z0-9+/=]+", "", output)
    assert "secret-label" not in shown
    assert "secret-key" not in shown


def test_values_of_no_log_options_are_scrubbed(control):
    # No module of the collection has such an option yet. This module returns the value, or quotes it in an error.
    (control.directory / "library").mkdir()
    (control.directory / "library" / "secretive.py").write_text("")
    (control.directory / "action_plugins").mkdir()
    (control.directory / "action_plugins" / "secretive.py").write_text(SECRETIVE)
    output, results = control.play(
        {"secretive": {"password": "hunter2"}, "diff": True},
        {"secretive": {"password": "hunter2", "refuse": True}},
        options=["-vvv"],
    )
    assert results[0]["shown"] == {"password": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"}
    assert results[0]["diff"]["after"] == "with ********"
    assert results[1]["msg"] == "refused ********"
    assert "hunter2" not in output


def test_only_documented_keys_are_returned(control):
    (result,) = control.play({**snapshot(key="one"), "diff": True})[1]
    assert set(result) - {"failed", "changed", "diff", "warnings"} == {"snapshot", "actions"}


@pytest.fixture
def layer(tmp_path):
    """The tar of a small base layer, in the directory where Ansible looks for files."""
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "base.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("Files", "Files/Windows", "Files/Windows/System32", "Files/Windows/System32/config"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name in ("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT"):
            entry = tarfile.TarInfo(f"Files/Windows/System32/config/{name}")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"regf"))
    return path


def test_a_layer_of_the_controller_is_sent_if_it_is_needed(control, layer):
    planned, made, again, labelled, missing, elsewhere = control.play(
        {"wcow.snapshotter.layer": {"name": "base", "src": "base.tar.gz"}, "check_mode": True},
        {"wcow.snapshotter.layer": {"name": "base", "src": "base.tar.gz"}},
        {"wcow.snapshotter.layer": {"name": "base", "src": "gone.tar.gz"}},
        {"wcow.snapshotter.layer": {"name": "base", "src": "gone.tar.gz", "labels": {"team": "blue"}}},
        {"wcow.snapshotter.layer": {"name": "other", "src": "gone.tar.gz"}},
        {"wcow.snapshotter.layer": {"name": "other", "src": str(layer), "remote_src": True}},
    )[1]
    assert (planned["changed"], planned["actions"], planned["layer"]) == (True, ["import base"], None)
    assert (made["changed"], made["actions"]) == (True, ["import base"])
    assert re.fullmatch("sha256:[0-9a-f]{64}", made["layer"]["digest"])
    assert (again["changed"], again["layer"]) == (False, None)
    labels = {"containerd.io/snapshot.ref": made["layer"]["digest"], "team": "blue"}
    assert (labelled["changed"], labelled["snapshot"]["labels"]) == (True, labels)
    assert "Could not find or access 'gone.tar.gz'" in missing["msg"]
    assert elsewhere["actions"] == ["import other"]
    assert not any(path.is_file() for path in (control.root / "incoming").glob("*"))


def test_a_damaged_cache_is_reported_in_the_result(control):
    control.play(snapshot_info())
    (file,) = (control.directory / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    output, (result, again) = control.play(snapshot_info(), snapshot_info())
    said = f"{file} was damaged or tampered with: it was not executed, and is replaced"
    # Ansible wraps warnings. Ansible 2.17 removes them from the registered result.
    assert "".join(output.split()).count("".join(said.split())) == 1
    assert result.get("warnings", [said]) == [said]
    assert "warnings" not in again


@pytest.mark.requires_tool("ssh", "openssh-client")
def test_a_node_that_cannot_be_reached(control):
    control.variables.update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    (result,) = control.play(snapshot(key="one"))[1]
    assert result["unreachable"] is True
    assert "wcow.snapshotter.snapshot: the connection failed during 'ensure_snapshot'" in result["msg"]
    assert result["msg"].endswith(_action.UNTOUCHED)


def test_layers_of_an_image_that_lack_a_label(control):
    """Those that are sent get it with the import, and those that are there without one."""
    sample.write_image(control.directory / "files" / "image.tar", "10.0.20348.1")
    image = {"wcow.snapshotter.image": {"src": "image.tar"}}
    (made,) = control.play(image)[1]
    base, top = (link["name"] for link in made["chain"])
    _removed, _changed, planned, done, again = control.play(
        {"wcow.snapshotter.snapshot": {"state": "absent", "name": top}},
        snapshot(state="committed", name=base, labels={SNAPSHOT_REF: ""}),
        {**image, "check_mode": True, "diff": True},
        {**image, "diff": True},
        image,
    )[1]
    assert planned["actions"] == done["actions"] == [f"import {top}", f"update {base}"]
    assert planned["diff"] == done["diff"]
    assert (done["changed"], again["changed"]) == (True, False)
    (found,) = control.play({"wcow.snapshotter.snapshot_info": {"names": [base, top]}})[1]
    assert {info["name"]: info["labels"] for info in found["snapshots"]} == {
        base: {SNAPSHOT_REF: base},
        top: {SNAPSHOT_REF: top},
    }


@pytest.mark.parametrize("root", ["C:\\store", "C:\\other"])
def test_a_store_with_a_service_needs_the_larger_payload(control, root):
    """The small one finds out that a service serves this store. The controller then sends the one that can ask it."""
    services = control.directory / "drives" / "services"
    services.mkdir(parents=True)
    (control.directory / "drives" / "C").mkdir()
    options = ["--address", "\\\\.\\pipe\\wcow-snapshotter", "--root", root]
    arguments = {"arguments": ["python", "-I", "-X", "utf8", "start.py", *options]}
    (services / "wcow-snapshotter.json").write_text(json.dumps(arguments))
    environment = {"WCOW_EMULATED_DRIVES": str(control.directory / "drives")}
    place = {"root": "C:\\store", "layers": "emulated"}
    stored, checked = control.play(
        {"wcow.snapshotter.store": {**place, "rootfs_size": "40GB"}},
        {"wcow.snapshotter.store_check": place},
        environment=environment,
    )[1]
    assert (stored["changed"], stored["store"]["rootfs_size"]) == (True, 40 * 1024**3)
    assert checked["rootfs_size"] == 40 * 1024**3
    payloads = list((control.directory / "cache").glob("*.zip"))
    if root == "C:\\other":
        assert (checked["healthy"], checked["proxy_snapshotter"], len(payloads)) == (True, None, 1)
        return
    assert [finding["code"] for finding in checked["findings"]] == ["proxy_not_answering"]
    assert stored["proxy_snapshotter"] == checked["proxy_snapshotter"]
    assert checked["proxy_snapshotter"]["health"] is None
    assert len(payloads) == 2
