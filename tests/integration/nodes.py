# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab nodes for tests, and a controller that runs playbooks against them."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import yaml
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

#: The directory that holds ansible_collections. The path is not resolved: in a checkout the collection is a link.
COLLECTIONS = pathlib.Path(_action.__file__).parents[5]
CHECKOUT = pathlib.Path(__file__).parents[2]
#: The directory of containerd's Windows snapshotter on a node.
CONTAINERD_LAYERS = r"C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows"


class Lab:
    """Nodes, alternately with psrp (node1, ...) and winrm (node2, ...), and the playbooks that use them."""

    def __init__(self, directory, *options, nodes=2):
        self.directory = directory
        self.lab("up", "--nodes", str(nodes), "--connection", "psrp,winrm", *options)
        self.inventory = yaml.safe_load((directory / "inventory.yml").read_text())
        self.nodes = list(self.hosts)
        self.output = ""

    @property
    def hosts(self):
        """The variables of each node in the inventory. A test can add to them, and its next playbook uses that."""
        return self.inventory["windows"]["hosts"]

    def lab(self, *arguments):
        """Run a command of the lab. Return its output."""
        command = [sys.executable, "-m", "lab", *arguments, "--directory", str(self.directory)]
        done = subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
        return done.stdout

    def damage_containerd(self, node, kind):
        """Damage the containerd of a node, or stop or start it. Return the Windows path in the output, if any."""
        found = re.search(r"snapshots\\\S+", self.lab("break", node, kind))
        return f"{CONTAINERD_LAYERS}\\{found[0]}" if found else ""

    def file(self, node, path):
        """Return the path of a file on a node's drive C:."""
        return self.directory / node / "C" / path

    def program(self, node, text):
        """Put a program for /bin/sh on a node. Return its Windows path."""
        path = self.file(node, "stand-in/python.exe")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return r"C:\stand-in\python.exe"

    def payload(self, node):
        """Return the payload that a node received last."""
        return max(self.file(node, "Program Files/wcow/payload").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def requests(self):
        """Return the access log so far: a list of requests for each node."""
        found = {node: [] for node in self.nodes}
        for line in (self.directory / "access.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if "received" in entry:
                found[entry["node"]].append(entry)
        return found

    def start(self, *tasks, variables=None, name="play", nodes=None):
        """Start a playbook of these tasks on all nodes or some. Failing tasks do not stop it."""
        named = []
        for number, task in enumerate(tasks):
            named.append({"register": f"result_{number}", "ignore_errors": True, "ignore_unreachable": True, **task})
        results = "[" + ", ".join(f"result_{number}" for number in range(len(tasks))) + "]"
        shown = f"RESULTS {{{{ inventory_hostname }}}} {{{{ {results} | to_json | b64encode }}}}"
        play = {"hosts": nodes or self.nodes, "gather_facts": False, "vars": variables or {}}
        play["tasks"] = [*named, {"ansible.builtin.debug": {"msg": shown}}]
        home = self.controller()
        (home / f"{name}.yml").write_text(json.dumps([play]))
        return self.ansible_playbook(home / f"{name}.yml")

    def controller(self):
        """Return the home directory of the controller, with the inventory in it."""
        home = self.directory / "controller"
        home.mkdir(exist_ok=True)
        (home / "inventory.yml").write_text(yaml.safe_dump(self.inventory))
        return home

    def ansible_playbook(self, playbook, *options):
        """Start ansible-playbook with an existing playbook."""
        home = self.controller()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            HOME=str(home),
            LC_ALL="C.UTF-8",
            ANSIBLE_HOME=str(home),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_FORKS="10",
        )
        return subprocess.Popen(
            [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.yml", *options, str(playbook)],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def results(self, process):
        """Wait for a playbook. Return the results of each node's tasks."""
        self.output = process.communicate(timeout=600)[0]
        found = re.findall(r"RESULTS (\w+) ([A-Za-z0-9+/=]+)", self.output)
        assert found, self.output
        return {node: json.loads(base64.b64decode(text)) for node, text in found}

    def play(self, *tasks, nodes=None, **keywords):
        results = self.results(self.start(*tasks, nodes=nodes, **keywords))
        assert set(results) == set(nodes or self.nodes), self.output
        return results
