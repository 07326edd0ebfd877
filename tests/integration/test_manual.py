# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual is correct: each code block in it runs unchanged, or a table here says why it cannot.

Commands run in a shell. Plays are real ``ansible-playbook`` runs against lab nodes over psrp and winrm. The real output
must contain the output that a console block shows. Some text cannot be as in the manual: paths, amounts of free space,
and digests of images that must not be distributed. ``PLACES`` and each test list all replacements.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gzip
import hashlib
import http.server
import importlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
from typing import NamedTuple

import pypsrp
import pytest
import tree_sitter
import tree_sitter_powershell
import winrm
import yaml
from ansible.plugins.loader import shell_loader
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import (
    configuration,
    discovery,
    proxy_plugin,
    proxy_settings,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import ociimage, tomledit
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import errors
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _command, _powershell, _report_metrics
from ansible_collections.wcow.snapshotter.tests.builders import image_archives
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, COLLECTIONS, Lab
from ansible_collections.wcow.snapshotter.tests.peers import cri
from ansible_collections.wcow.snapshotter.tests.peers.containerd import Containerd
from ansible_collections.wcow.snapshotter.tests.peers.proxy import Service, eventually

from lab import package, sample

PYTHON = r"C:\Program Files\wcow\python\python.exe"
SERVER_2022 = "10.0.20348.2700"
#: The collection as users install it, made by `make build`.
ARTEFACT = CHECKOUT / ".cache/collections/ansible_collections/wcow/snapshotter"
ROLES = sorted(path.parent.name for path in CHECKOUT.glob("roles/*/README.md"))

#: The entry for a file and a language is the test for all such blocks. Or it is a table: the key is how a block begins,
#: the value is its test, or the reason why it cannot run. A block without an entry is an error, and so is an entry
#: without a block. Tests without a file are in this module.
BLOCKS = {
    "README.md": {
        "yaml": {"- name: Build nodes have": "test_lifecycle.py::test_the_playbook_of_the_readme"},
        "powershell": "test_powershell",
        "console": "test_the_readme",
    },
    "CONTRIBUTING.md": {"console": "test_release.py::test_a_release_in_a_clone"},
    "docs/adopt.md": {"console": "test_the_adoption", "yaml": "test_the_adoption", "powershell": "test_powershell"},
    "docs/architecture.md": {
        "mermaid": {"sequenceDiagram": "a picture"},
        "": {"<root>/metadata.sqlite3": "test_the_protocol"},
    },
    "docs/ci.md": {"yaml": "test_the_recipe_for_ci"},
    "docs/development.md": {"console": "test_the_readme"},
    "docs/fleet.md": {
        "ini": "test_the_report_and_the_settings_of_fleets",
        "yaml": {
            "version: 3": "test_runner.py::test_the_execution_environment_of_the_manual",
            "- name: One report of all slices": "test_runner.py::test_slices_by_run",
        },
        "console": {
            "$ ansible-builder build": "it needs a container engine; test_runner.py makes what it builds from",
            "$ ansible-runner run": "test_runner.py::test_slices_by_transmit_worker_and_process",
        },
        "text": {
            "62%, 0:41 left": "one moment of a line that changes; tests of the callback have it",
            "- import_playbook": "test_the_text_of_fleets",
            "wcow_report: \"{{ lookup('env'": "test_the_text_of_fleets",
            'wcow_report: "/srv/wcow': "test_the_text_of_fleets",
        },
    },
    "docs/getting-started.md": {
        "powershell": "test_powershell",
        "yaml": "test_the_inventories",
        "console": "test_getting_started",
    },
    "docs/connections.md": {"powershell": "test_powershell", "yaml": "test_the_inventories"},
    "docs/guides.md": {"yaml": "test_the_guides", "console": "test_the_guides"},
    "docs/lab.md": {
        "console": "test_the_lab",
        "yaml": "test_the_lab",
        "": {"[$input |] & 'program' words": "a grammar, which tests/unit/lab/test_powershell.py tries"},
    },
    "docs/powershell.md": {"powershell": "test_powershell"},
    "docs/protocol.md": {"console": "test_the_protocol", "json": "test_the_protocol"},
    "docs/proxy-snapshotter.md": {
        "yaml": "test_the_proxy_snapshotter",
        "console": "test_the_proxy_snapshotter",
        "toml": "test_the_settings_of_the_proxy_snapshotter",
    },
    "docs/recovery.md": {"yaml": "test_store.py::test_the_tasks_of_the_manual"},
    "docs/reliability.md": {"console": "tests/reliability runs it"},
    "docs/report.md": {
        "console": "test_the_report_and_the_settings_of_fleets",
        "yaml": {
            "- name: One report of all slices": "test_report.py::test_a_healthy_fleet_in_slices",
            "groups:": "test_the_alerts",
        },
        "": {'{"format": "wcow.snapshotter.report"': "test_the_report_and_the_settings_of_fleets"},
    },
    "docs/roles.md": {
        "console": "test_the_commands_of_the_roles",
        "": {"HEALTHY node1:": "two lines of an output; tests of the roles compare such lines"},
    },
    **{f"roles/{role}/README.md": {"yaml": "test_the_examples_of_the_roles"} for role in ROLES},
}

#: Replacements for paths on the controller and on nodes, and for amounts of space. HOME is the session's directory.
#: SESSION is its name.
PLACES = {
    "/srv/images/": "HOME/images/",
    "acceptance_layer=/images/": "acceptance_layer=HOME/images/",
    # A test machine may have less space.
    "minimum_free=50GB": "minimum_free=1MB",
    "minimum_free=20GB": "minimum_free=1MB",
    "minimum_free: 50GB": "minimum_free: 1MB",
    "minimum_free: 100GB": "minimum_free: 1MB",
}

#: Replacements for programs that must not run here. They check the parts of the command line that can be checked.
PROGRAMS = r"""
make() { for target; do grep -q "^$target:" "$CHECKOUT/Makefile" || return; done; }
molecule() { test -f "$CHECKOUT/extensions/molecule/$3/molecule.yml"; }
pip() { python -m pip --quiet "$@" --dry-run --no-index; }
ansible-galaxy() { command ansible-galaxy "$@" --offline --collections-path installed; }
docker() { :; }
skopeo() { :; }
"""


class Block(NamedTuple):
    """A fenced block. ``file`` is the name for its text, as given by the paragraph before it."""

    document: str
    section: str
    language: str
    text: str
    file: str


def blocks_of(document):
    """Return all fenced blocks of a document, in order."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    found, section, end = [], "", 0
    for match in re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        between = text[end : match.start()]
        section = (re.findall(r"^## (.*)$", between, re.MULTILINE) or [section])[-1]
        named = re.findall(r"`([\w./-]+\.yml)`", between.rstrip().split("\n\n")[-1])
        indent = match[1]
        lines = "\n".join(line.removeprefix(indent) for line in match[3].split("\n"))
        found.append(Block(document, section, match[2], lines, named[-1] if named else ""))
        end = match.end()
    return found


def documents():
    pages = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("roles/*/README.md")]
    return sorted(str(page.relative_to(CHECKOUT)) for page in pages)


def of_language(document, *languages):
    """Return the blocks of a document in these languages. There must be at least one."""
    found = [block for block in blocks_of(document) if block.language in languages]
    assert found
    return found


def begins(document, beginning):
    """Return the text of the one block that begins like this."""
    (block,) = [block for block in blocks_of(document) if block.text.startswith(beginning)]
    return block.text


def test_every_block_is_in_the_table():
    unknown, known = [], set()
    for document in documents():
        for block in blocks_of(document):
            entry = BLOCKS.get(document, {}).get(block.language, {})
            if isinstance(entry, dict):
                fitting = [beginning for beginning in entry if block.text.startswith(beginning)]
                known.update((document, block.language, beginning) for beginning in fitting)
                entry = fitting
            else:
                known.add((document, block.language))
            if not entry:
                unknown.append(f"{document}: {block.language} {block.text.splitlines()[0]}")
    assert unknown == [], "add them to BLOCKS, with the test that runs them"
    for document, languages in BLOCKS.items():
        for language, entry in languages.items():
            if isinstance(entry, dict):
                assert not [begin for begin in entry if (document, language, begin) not in known], (document, language)
            else:
                assert (document, language) in known


def test_every_test_in_the_table_is_there():
    named = set()
    for document, languages in BLOCKS.items():
        for entry in languages.values():
            named.update((document, who) for who in (entry.values() if isinstance(entry, dict) else [entry]))
    for document, who in named:
        file, _, test = who.rpartition("::")
        if file or who.startswith("test_"):
            text = (CHECKOUT / "tests/integration" / (file or "test_manual.py")).read_text()
            assert f"def {test}(" in text, who
            assert document.split("/")[-1] in text or document.startswith("roles/"), who


def heading_id(heading):
    """Return the id of a heading in links, by GitHub's rules."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_each_link_leads_somewhere():
    lost = []
    for document in documents():
        page = CHECKOUT / document
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, heading = target.partition("#")
            if re.match("https?:", target):
                continue
            there = page.parent / file if file else page
            headings = re.findall("^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE) if heading else ()
            if not there.exists() or (heading and heading not in map(heading_id, headings)):
                lost.append(f"{document}: {target}")
    assert lost == []


def test_each_link_of_the_artefact_leads_to_a_file_in_it():
    assert ARTEFACT.is_dir(), "run: make build"
    lost = []
    for page in ARTEFACT.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if not re.match("https?:", target) and not (page.parent / target).exists():
                lost.append(f"{page.relative_to(ARTEFACT)}: {target}")
    assert lost == []


# -- a controller in front of a lab ---------------------------------------------------------------------------------


class Session:
    """The controller's shell, in a directory with an inventory. It runs the blocks.

    ``replace`` adds to PLACES. Sessions share nodes, so each session has its own store there, with the session's name.
    """

    def __init__(self, directory, **replace):
        self.home = directory / "controller"
        self.name = directory.name
        self.replace = {**PLACES, **replace}
        self.output = ""
        self.home.mkdir()
        # `make venv build` creates these files.
        for link, target in ((".cache/collections", COLLECTIONS), ("plugins", CHECKOUT / "plugins")):
            (self.home / link).parent.mkdir(exist_ok=True)
            (self.home / link).symlink_to(target)
        (self.home / ".cache/venv/bin").mkdir(parents=True)
        (self.home / ".cache/venv/bin/activate").touch()
        (self.home / "requirements.txt").symlink_to(CHECKOUT / "requirements.txt")

    def inventory(self, lab, names, **variables):
        """Write the inventory: the nodes of the lab in order, with these names. Old nodes go to the group "retired"."""
        hosts = dict(zip(names, lab.hosts.values()))
        windows = {name: hosts.pop(name) for name in names if not name.startswith("old")}
        settings = {"wcow_root": rf"C:\stores\{self.name}", "wcow_minimum_free": "1B"}
        common = {**lab.inventory["windows"]["vars"], **settings, **variables}
        groups = {"windows": {"hosts": windows, "vars": common}, "retired": {"hosts": hosts, "vars": common}}
        (self.home / "inventory/group_vars").mkdir(parents=True, exist_ok=True)
        (self.home / "inventory/group_vars/windows.yml").unlink(missing_ok=True)
        (self.home / "inventory/hosts.yml").write_text(yaml.safe_dump(groups))

    def placed(self, text):
        for here, there in self.replace.items():
            text = text.replace(here, there.replace("HOME", str(self.home)).replace("SESSION", self.name))
        return text

    def write(self, block):
        (self.home / block.file).write_text(self.placed(block.text))

    def type(self, text, *codes):
        """Run the commands of a console block. The output must be as shown, and the exit codes must be these.

        Without codes, each command must end with 0. If ``echo $?`` comes next, its shown output is the expected code.
        """
        typed = [part.splitlines() for part in re.split(r"^\$ ", self.placed(text), flags=re.MULTILINE)[1:]]
        commands = [command for command, *_shown in typed]
        assert commands
        ending = "\ncode=$?; printf '\\nEXIT %s\\n' $code; (exit $code)\n"
        script = PROGRAMS + "".join(command + ending for command in commands)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            HOME=str(self.home),
            LC_ALL="C.UTF-8",
            PATH=f"{os.path.dirname(sys.executable)}:{environment['PATH']}",
            PYTHONPATH=str(CHECKOUT),
            CHECKOUT=str(CHECKOUT),
            ANSIBLE_HOME=str(self.home),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output = done.stdout
        ended = [int(code) for code in re.findall(r"^EXIT (\d+)$", done.stdout, re.MULTILINE)]
        told = [number for number, command in enumerate(commands[1:]) if command == "echo $?"]
        wanted = list(codes) or [ended[number] if number in told else 0 for number in range(len(commands))]
        assert ended == wanted, self.output
        for (command, *shown), said in zip(typed, re.split(r"^EXIT \d+$", done.stdout, flags=re.MULTILINE)):
            lines = [" ".join(line.split()) for line in said.splitlines()]
            for line in shown:
                pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
                assert any(re.fullmatch(pattern, one) for one in lines), (command, line, said)

    def play(self, *tasks, hosts="all"):
        """Run tasks that the manual assumes were run before."""
        play = {"hosts": hosts, "gather_facts": False, "tasks": list(tasks)}
        (self.home / "given.yml").write_text(json.dumps([play]))
        self.type("$ ansible-playbook -i inventory given.yml")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    started = Lab(tmp_path_factory.mktemp("lab") / "lab", "--containerd", nodes=3)
    yield started
    started.lab("down")


BUILD = ("build1.example.com", "build2.example.com")
OLD = "old1.example.com"


def prepare(key, parent="", **options):
    return {"wcow.snapshotter.snapshot": {"key": key, "parent": parent, **options}}


#: Tasks that create a committed snapshot.
BASE = (prepare("base-key"), {"wcow.snapshotter.snapshot": {"state": "committed", "key": "base-key", "name": "base"}})
#: These tasks use up one more id. A test can then create its directory, as a crash would leave it.
REMOVED = (prepare("gone"), {"wcow.snapshotter.snapshot": {"state": "absent", "key": "gone"}})


def bring_runtime(session):
    """Write the package on the controller. Return variables that the manual does not need for python.org's package."""
    digest = package.write_package(session.home / "images/python-3.12.10-embed-amd64.zip", "3.12.10")
    return {"python_runtime_checksum": digest, "wcow_python": rf"C:\fresh\{session.name}\python.exe"}


# -- the guides -----------------------------------------------------------------------------------------------------


def given_builds(session, lab):
    session.play(*BASE, prepare("build", "base"))


def given_teams(session, lab):
    teams = {"red-1": "red", "blue-1": "blue", "blue-2": "blue"}
    workspaces = [prepare(key, "base", labels={"example.com/team": team}) for key, team in teams.items()]
    session.play(*REMOVED, *BASE, *workspaces)
    for node in lab.nodes[:2]:
        lab.file(node, f"stores/{session.name}/snapshots/rm-1/Files").mkdir(parents=True)


def given_archives(session, lab):
    for month, version in (("10", "10.0.20348.2000"), ("11", SERVER_2022), ("12", "10.0.20348.2900")):
        sample.write_image(session.home / f"images/servercore-2026-{month}.tar", version)
    sample.write_layer(session.home / "images/base-2026-12.tar.gz")
    (image,) = ociimage.read_images(str(session.home / "images/servercore-2026-11.tar"), "windows/amd64")
    session.replace["sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"] = image.config


def given_provisioned(session, lab):
    given_archives(session, lab)
    session.play({"wcow.snapshotter.store": {}})


def given_october(session, lab):
    image = {"src": str(session.home / "images/servercore-2026-10.tar"), "labels": {"example.com/patch": "2026-10"}}
    session.play({"wcow.snapshotter.image": image})


def given_served(session, lab):
    given_archives(session, lab)
    session.play({"wcow.snapshotter.proxy_snapshotter": {}})


def pull(session, lab):
    """Let a real containerd pull an image onto the layers of the first node, and remove the image.

    The service on a lab node cannot mount what containerd on Linux unpacks. So another process serves its store.
    """
    session.play({"wcow.snapshotter.proxy_snapshotter": {"state": "absent"}})
    placed = plain_layers(session.home / "images/servercore-2026-11.tar")
    application = image_archives.layer("application")
    with contextlib.ExitStack() as running:
        directory = running.enter_context(tempfile.TemporaryDirectory())
        service = Service(directory, str(lab.file(lab.nodes[0], f"stores/{session.name}")))
        running.callback(service.stop)
        registry = cri.Registry(directory)
        running.callback(registry.stop)
        containerd = running.enter_context(Containerd(directory, collects=True, proxy=service.address, cri=True))
        kubelet = cri.Cri(containerd.address)
        running.callback(kubelet.close)

        before = service.layers()
        image = registry.push("application", *cri.image_of([*placed, application]))
        kubelet.pull(image)
        assert (len(before), len(service.layers())) == (len(placed), len(placed) + 1)
        blobs = [image_archives.digest_of(image_archives.packed(plain)) for plain in (*placed, application)]
        assert set(registry.fetched()).intersection(blobs) == set(blobs[-1:])
        kubelet.remove(image)
        eventually(lambda: service.layers() == before)


def plain_layers(path):
    """Return the layer tars in an image archive."""
    (image,) = ociimage.read_images(str(path), "windows/amd64")
    with tarfile.open(path) as archive:
        files = [archive.extractfile(image_archives.blob_name(layer.digest)) for layer in image.layers]
        return [gzip.decompress(file.read()) for file in files]


def given_healthy(session, lab):
    """Leave the nodes as they are: each has an image, a container and a lease."""


def given_damage(*kinds):
    """Return a function that damages the containerd of the first node."""

    def damage(session, lab):
        for kind in kinds:
            lab.lab("break", lab.nodes[0], kind)

    return damage


#: In this guide a real containerd pulls an image, which needs programs that the other guides do not need.
BEFORE_THE_PULL = "Base images before the first pull"
#: The guides, their nodes, and what exists before they begin, or before one of their files is written.
GUIDES = {
    "What fills this disk?": (BUILD, given_damage("leftover")),
    "rm- directories that never go away": (BUILD, given_damage("leftover")),
    "Cannot remove snapshot with child": (BUILD, given_damage("dangling-child")),
    "A larger C: for pods": (BUILD, given_healthy),
    "What is safe while kubelet runs": (BUILD, given_healthy),
    "A larger C: for build containers": (BUILD, given_builds),
    "Nodes that fill up": ((*BUILD, OLD), given_teams),
    "Base images without a network": (BUILD, given_archives),
    "Before patch night": (BUILD, given_provisioned),
    "Pin base images on nodes before patch night": (BUILD, given_archives),
    BEFORE_THE_PULL: (BUILD, given_served),
}
MEANWHILE = {"retire.yml": given_october, "remove-base.yml": pull}
#: These guides need nodes whose containerd has not been used.
WITH_CONTAINERD = tuple(GUIDES)[:5]


def test_there_is_no_other_guide():
    assert list(dict.fromkeys(block.section for block in blocks_of("docs/guides.md"))) == list(GUIDES)


@pytest.mark.long
@pytest.mark.parametrize(
    "guide", [pytest.param(guide, marks=cri.NEEDED if guide == BEFORE_THE_PULL else ()) for guide in GUIDES]
)
def test_the_guides(request, tmp_path, guide):
    lab = request.getfixturevalue("lab_with_containerd" if guide in WITH_CONTAINERD else "lab")
    names, given = GUIDES[guide]
    session = Session(tmp_path)
    variables = bring_runtime(session) if "without a network" in guide else {}
    session.inventory(lab, names, **variables)
    given(session, lab)
    for block in blocks_of("docs/guides.md"):
        if block.section == guide and block.language == "console":
            session.type(block.text)
        elif block.section == guide:
            if block.file in MEANWHILE:
                MEANWHILE[block.file](session, lab)
            session.write(block)


@pytest.mark.long
def test_the_proxy_snapshotter(lab_with_containerd, tmp_path):
    session = Session(tmp_path)
    session.inventory(lab_with_containerd, BUILD)
    for block in blocks_of("docs/proxy-snapshotter.md"):
        if block.language == "yaml":
            session.write(block)
        elif block.language == "console":
            session.type(block.text)


def test_the_settings_of_the_proxy_snapshotter(tmp_path):
    """Compare what docs/proxy-snapshotter.md shows with what is written."""
    settings = proxy_settings.Settings("wcow", r"\\.\pipe\wcow-snapshotter", r"C:\ProgramData\wcow")
    newer, older, example = (block.text for block in of_language("docs/proxy-snapshotter.md", "toml"))
    config = tmp_path / "config.toml"
    nowhere = discovery.Value("", "")
    found = discovery.Containerd(
        "service containerd", True, nowhere, nowhere, nowhere, nowhere, configuration.DEFAULT, (), str(config)
    )
    written = {}
    for release, original in {"2.1.6": None, "1.7.20": None, "2.2.0": tomledit.undo(example.encode())}.items():
        if original:
            config.write_bytes(b"version = 3\n" + original)
        change = proxy_plugin.plan(found, settings, release)
        written[release] = change.files[-1].after.decode()
    assert written["2.1.6"] == f"{tomledit.BEGIN}\n{newer}{tomledit.END}\n"
    assert written["1.7.20"] == f"{tomledit.BEGIN}\n{older}{tomledit.END}\n"
    assert example in written["2.2.0"]


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_getting_started(lab, tmp_path):
    session = Session(tmp_path)
    runtime = bring_runtime(session)
    sample.write_layer(session.home / "base-layer.tar")
    package_file = str(session.home / "images/python-3.12.10-embed-amd64.zip")
    session.inventory(lab, BUILD, python_runtime_src=package_file, **runtime)
    for block in of_language("docs/getting-started.md", "console"):
        session.type(block.text)


@pytest.mark.long
def test_the_adoption(lab_with_containerd, tmp_path):
    """docs/adopt.md from the first look at one node to the removal. At the end, no node has the Python any more."""
    session = Session(tmp_path)
    runtime = bring_runtime(session)
    installs = "-m wcow.snapshotter.python_runtime"
    options = f"src=HOME/images/python-3.12.10-embed-amd64.zip checksum={runtime['python_runtime_checksum']}"
    newer = session.home / "images/python-3.13.9-embed-amd64.zip"
    newer.with_name(newer.name + ".sha256").write_text(f"{package.write_package(newer, '3.13.9')}  {newer.name}\n")
    session.replace.update({f"{installs} -a": f"{installs}  -a", f"{installs} -f": f"{installs} -a '{options}' -f"})
    session.replace[f"{installs}\n"] = f"{installs} -a '{options}'\n"
    session.inventory(lab_with_containerd, BUILD, wcow_python=runtime["wcow_python"])
    given_damage("leftover")(session, lab_with_containerd)
    runtimes = [lab_with_containerd.file(node, f"fresh/{session.name}") for node in lab_with_containerd.nodes]
    for block in blocks_of("docs/adopt.md"):
        if block.language == "console":
            session.type(block.text)
        elif block.language == "yaml":
            assert all(path.exists() for path in runtimes)
            session.write(block)
    assert not any(path.exists() for path in runtimes)


@pytest.mark.long
def test_the_commands_of_the_roles(lab, tmp_path):
    session = Session(tmp_path, node1=BUILD[0])
    session.inventory(lab, BUILD)
    sample.write_layer(session.home / "images/base.tar.gz")
    for block in of_language("docs/roles.md", "console"):
        session.type(block.text)


def test_the_readme(lab, tmp_path):
    session = Session(tmp_path, node1=BUILD[0])
    session.inventory(lab, BUILD)
    (session.home / "your-playbook.yml").write_text(json.dumps([{"hosts": "windows", **OF_YOURS}]))
    subprocess.run(
        ["ansible-galaxy", "collection", "build", "--output-path", session.home], cwd=CHECKOUT, check=True, timeout=60
    )
    for block in (*of_language("README.md", "console"), *of_language("docs/development.md", "console")):
        session.type(block.text)


#: A user's play for a test in the lab.
OF_YOURS = {"gather_facts": False, "tasks": [prepare("yours")]}


@pytest.mark.long
def test_the_lab(tmp_path_factory):
    # The path of the socket of a containerd is limited.
    directory = tmp_path_factory.mktemp("l")
    said = {"/home/me/wcow.snapshotter/": "...", "127.0.0.1:40501": "...", "127.0.0.1:43757": "..."}
    session = Session(directory, **said, **{"127.0.0.1:33941": "..."})
    (session.home / "my-playbook.yml").write_text(json.dumps([{"hosts": "windows", **OF_YOURS}]))
    whole, containerd, faulty, counted = of_language("docs/lab.md", "console")
    session.type(whole.text)
    assert "\n42\n" in session.output.replace("\r", "")
    session.type(containerd.text)
    session.type("$ python -m lab up --nodes 2")
    try:
        session.type(faulty.text, 0, 4, 0)
        session.type(counted.text)
        assert re.search(r"^[1-9][0-9]* [1-9][0-9]{3,}$", session.output, re.MULTILINE)
        for block in of_language("docs/lab.md", "yaml"):
            session.write(block)
            session.type(f"$ ansible-playbook -i .lab/inventory.yml {block.file}")
    finally:
        session.type("$ python -m lab down --purge")


def test_the_recipe_for_ci(tmp_path_factory):
    # The collection is installed already, as it is on Galaxy. The lab is the one in it. Its sockets have paths below
    # the session's directory, which can have 107 bytes.
    session = Session(tmp_path_factory.mktemp("ci"))
    (session.home / "collections").symlink_to(CHECKOUT / ".cache/collections")
    (block,) = of_language("docs/ci.md", "yaml")
    recipe = yaml.safe_load(block.text)
    (job,) = recipe["jobs"].values()
    settings = "".join(f"$ export {name}={value}\n" for name, value in recipe["env"].items())
    (session.home / "site.yml").write_text(json.dumps([{"hosts": "windows", **OF_YOURS}]))
    steps = [f"$ {line}\n" for step in job["steps"] if "run" in step for line in step["run"].splitlines()]
    install, steps = [step for step in steps if "galaxy" in step], [step for step in steps if "galaxy" not in step]
    assert install == ["$ ansible-galaxy collection install wcow.snapshotter --collections-path collections\n"]
    session.type(settings + "".join(steps))
    assert "The lab is up: 2 nodes" in session.output


def test_the_report_and_the_settings_of_fleets(lab, tmp_path):
    session = Session(tmp_path, **{"/var/lib/node_exporter/textfile": "HOME"})
    session.inventory(lab, BUILD)
    (settings,) = of_language("docs/fleet.md", "ini")
    (session.home / "ansible.cfg").write_text(settings.text)
    # A node without a store fails the audit.
    session.play({"wcow.snapshotter.store": {}})
    for block in of_language("docs/report.md", "console"):
        session.type(block.text)
    assert "progress: " in session.output
    assert (session.home / "wcow.prom").read_text().endswith("# EOF\n")
    said = json.loads(begins("docs/report.md", '{"format"').replace("[...]", "[]"))
    written = json.loads((session.home / "wcow-report/report.json").read_text())
    assert list(written) == list(said)
    assert (written["format"], written["version"]) == (said["format"], said["version"])


def test_the_alerts():
    """Their expressions name metrics that the audit writes."""
    alerts = yaml.safe_load(begins("docs/report.md", "groups:"))
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    report = {"generated": "2026-11-24T08:36:01Z", "nodes": []}
    written = set(re.findall(r"^# TYPE (\w+) ", "".join(_report_metrics.metrics(report)), re.MULTILINE))
    named = {name for expression in expressions for name in re.findall(r"\bwcow_\w+", expression)}
    assert named
    assert named <= written


# -- messages -------------------------------------------------------------------------------------------------------

#: Texts of docs/troubleshooting.md that are not in a source installed with the tests, and where they come from.
ELSEWHERE = {
    "Connection refused": "the operating system",
    "Permission denied (": "ssh",
    "Host key verification failed": "ssh",
    "certificate verify failed": "OpenSSL",
    "Server not found in Kerberos database": "the Kerberos library",
    "Clock skew too great": "the Kerberos library",
    "(0x1)": "Windows, with a driver in the way",
}


def messages(document):
    """Yield the texts in the first column of a document's tables of messages, each with its heading."""
    manual = (CHECKOUT / "docs" / document).read_text(encoding="utf-8")
    for section in manual.split("\n## ")[1:]:
        tables = re.findall(r"^\| (?:text|what you see) \|.*\n((?:\|.*\n)+)", section, re.MULTILINE)
        for row in re.findall(r"^\| (`.*?) \| ", "".join(tables), re.MULTILINE):
            for text in re.findall("`([^`]+)`", row):
                yield section.split("\n")[0], text.replace("\\|", "|")


@functools.cache
def texts(*directories):
    """Return all text in the Python files (except docstrings) and YAML files. A NUL replaces each inserted value."""
    files = (path for directory in directories for path in directory.glob("**/*.yml"))
    found = [re.sub("{{.*?}}", "\0", path.read_text(encoding="utf-8")) for path in files]
    for path in sorted(path for directory in directories for path in directory.glob("**/*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found.append(node.value)
    return found


def is_said(heading, text):
    if text.strip("(").startswith("0x"):
        advised = {code[1] if isinstance(code, tuple) else code for code in (*errors._ADVICE, *errors._LAYER_ADVICE)}
        return int(text.strip("()"), 16) in advised | set(errors._CLASSES)
    sources = [CHECKOUT / "plugins", CHECKOUT / "lab", CHECKOUT / "roles"]
    if heading == "Reaching the node":
        site = pathlib.Path(pypsrp.__file__).parents[1]
        ansible = [site / "ansible" / name for name in ("plugins/connection", "errors", "parsing")]
        sources = [*ansible, site / "pypsrp", site / "winrm", site / "urllib3"]
    pattern = re.compile(".*".join(re.escape(part) for part in text.split("...")), re.DOTALL)
    return any(pattern.search(said) for said in texts(*sources))


def test_each_message_is_what_is_said():
    found = [*messages("troubleshooting.md"), *messages("guides.md")]
    assert len({heading for heading, _ in found}) == 5 + len(GUIDES)
    assert [text for heading, text in found if not is_said(heading, text) and text not in ELSEWHERE] == []
    assert set(ELSEWHERE) <= {text for _, text in found}


# -- plays, inventories and the rest --------------------------------------------------------------------------------


@pytest.fixture
def package_server(tmp_path):
    """Serve a Python package for lab nodes. Return its URL."""
    package.write_package(tmp_path / "served/python.zip", "3.12.10")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/python.zip"
        server.shutdown()


def test_the_examples_of_the_roles(lab, tmp_path, package_server):
    """Run the examples in the order in which a node would see them."""
    session = Session(tmp_path)
    images = session.home / "images"
    runtime = bring_runtime(session)
    (session.home / "files").symlink_to(images)
    sample.write_image(images / "servercore-ltsc2022.tar", SERVER_2022)
    sample.write_layer(images / "tools.tar.gz")
    digest = hashlib.sha256(gzip.decompress((images / "tools.tar.gz").read_bytes())).hexdigest()
    session.replace["44c26163a1a2da5ec7ee6bc1b5ac8c1dfa1d8e2e5ab10d9ddfb87be0bcd0a8b3"] = digest
    for node in lab.nodes:
        sample.write_image(lab.directory / node / "UNC/files/images/nanoserver.tar", SERVER_2022, "10.0.26100.1742")
    order = (
        *("python_runtime", "store", "base_layers", "proxy_snapshotter", "rootfs_size", "maintenance", "support"),
        "decommission",
    )
    assert sorted(order) == ROLES
    examples = [block for role in order for block in of_language(f"roles/{role}/README.md", "yaml")]
    for number, block in enumerate(examples):
        variables = dict(runtime) if "python_runtime" in block.text else {}
        if variables and "python_runtime_src" not in block.text:
            # The URL replaces python.org's. The different path leaves something to install for the next example.
            variables.update(wcow_python=r"C:\other\python\python.exe", python_runtime_url=package_server)
        session.inventory(lab, (*BUILD, OLD), **variables)
        if "rootfs_size_minimum" in block.text:
            session.play(prepare("build-1", "tools", labels={"team": "build"}), hosts="windows")
            session.play(prepare("unused"), hosts="retired")
        session.write(block._replace(file=f"example-{number}.yml"))
        session.type(f"$ ansible-playbook -i inventory example-{number}.yml")
        changed = [int(count) for count in re.findall(r"changed=(\d+)", session.output)]
        # These stores have no problems, so maintenance has nothing to do.
        assert (set(changed) == {0}) == any(role in block.text for role in ("maintenance", "support")), session.output


#: The plugins of ansible-core.
CONNECTIONS = {name: importlib.import_module(f"ansible.plugins.connection.{name}") for name in ("psrp", "winrm", "ssh")}


def variables_of(connection):
    """Return the variables of a connection plugin, each with its option."""
    options = yaml.safe_load(CONNECTIONS[connection].DOCUMENTATION)["options"]
    found = {variable["name"]: option for option in options.values() for variable in option.get("vars", ())}
    if connection == "winrm":  # It passes other variables on to pywinrm, as arguments with their names.
        arguments = inspect.signature(winrm.protocol.Protocol).parameters
        found.update({f"ansible_winrm_{name}": {} for name in arguments if f"ansible_winrm_{name}" not in found})
    return found


@pytest.mark.parametrize("document", ["docs/getting-started.md", "docs/connections.md"])
def test_the_inventories(tmp_path, document):
    """Ansible reads each inventory, its connection plugin knows each variable, and the option has each value."""
    for block in of_language(document, "yaml"):
        (tmp_path / "inventory.yml").write_text(block.text)
        done = subprocess.run(
            ["ansible-inventory", "-i", "inventory.yml", "--list"],
            cwd=tmp_path,
            check=True,
            stdout=subprocess.PIPE,
            timeout=60,
        )
        hosts = json.loads(done.stdout)["_meta"]["hostvars"]
        assert set(hosts) <= set(BUILD)
        for variables in hosts.values():
            known = variables_of(variables.pop("ansible_connection"))
            shell = variables.pop("ansible_shell_type", "")
            assert bool(shell) is ("ansible_ssh_private_key_file" in variables)
            assert not shell or shell_loader.get(shell)._IS_WINDOWS
            variables.pop("wcow_root", None)
            assert set(variables) <= set(known)
            for name, value in variables.items():
                assert value in known[name].get("choices", [value])


def test_the_variables_in_the_text_of_connections():
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / "docs/connections.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    known = set().union(*map(variables_of, CONNECTIONS))
    named = set(re.findall(r"\bansible_\w+", text))
    assert named - known == {"ansible_shell_type", "ansible_python_interpreter"}
    heading, *methods = re.findall(r"\| `(\w+)` \| `(\w+)` \|$", text, re.MULTILINE)
    assert heading == ("ansible_psrp_auth", "ansible_winrm_transport")
    assert {of_psrp for of_psrp, _ in methods} <= set(variables_of("psrp")["ansible_psrp_auth"]["choices"])
    assert {of_winrm for _, of_winrm in methods} <= set(winrm.FEATURE_SUPPORTED_AUTHTYPES)


def test_the_versions_of_pypsrp():
    """They are those of Ansible's connection plugin."""
    (needed,) = [
        line for line in yaml.safe_load(CONNECTIONS["psrp"].DOCUMENTATION)["requirements"] if line.startswith("pypsrp")
    ]
    wanted = needed.split(" (")[0].replace(" ", "")
    listed = (CHECKOUT / "requirements.txt").read_text().splitlines()
    assert wanted in listed
    lower, upper = re.findall(r"[\d.]+", wanted)
    assert f"{lower} to below {upper}" in (CHECKOUT / "docs/connections.md").read_text()


def problems(script):
    """Return the parts of a script that PowerShell's grammar does not accept."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    waiting, found = [parser.parse(script.encode()).root_node], []
    while waiting:
        node = waiting.pop()
        waiting += node.children
        found += [node.text] * (node.is_error or node.is_missing)
    return found


def test_powershell():
    """Each block is sent to nodes, or at least PowerShell's grammar accepts it."""
    sent = (_command.exiting(PYTHON), _powershell.LOOK, _powershell.INSTALL, _powershell.CLEAN)
    for document in documents():
        for block in blocks_of(document):
            if block.language == "powershell" and not any(block.text.strip("\n") in script for script in sent):
                assert document in ("docs/getting-started.md", "docs/connections.md", "docs/adopt.md")
                assert problems(block.text) == []


def test_the_protocol(tmp_path):
    (command,) = of_language("docs/protocol.md", "console")
    request, reply, failure = (json.loads(block.text) for block in of_language("docs/protocol.md", "json"))
    session = Session(tmp_path)
    drives = f"export WCOW_EMULATED_DRIVES={tmp_path}"

    def ask(*operations):
        named = [{"operation": name, "arguments": arguments} for name, arguments in operations]
        said = {**request, "operations": named or request["operations"]}
        (session.home / "request.json").write_text(json.dumps(said))
        session.type(f"$ {drives}\n{command.text}")
        return json.loads(re.search(r'^\{"protocol".*$', session.output, re.MULTILINE)[0])

    ask(("prepare", {"key": "base-key"}), ("commit", {"key": "base-key", "name": "base"}))
    answer = ask()
    (mount,) = answer["results"][0]["result"]
    assert set(mount) == {"type", "source", "options"}
    assert {**answer, "results": [{**answer["results"][0], "result": []}]} == reply
    (mounts, stat) = ask(("mounts", {"key": "work"}), ("stat", {"key": "x"}))["results"]
    assert (mounts["ok"], stat) == (True, failure)
    named = re.findall(r"^<root>/([\w.]+)", begins("docs/architecture.md", "<root>/"), re.MULTILINE)
    there = {path.name for path in (tmp_path / "C/ProgramData/wcow").iterdir()}
    assert {name for name in there if not name.startswith("metadata.sqlite3-")} <= set(named)


def test_the_text_of_fleets(tmp_path):
    """test_runner.py writes the first two texts into its project. The third one must give the path that it shows."""
    runner = (CHECKOUT / "tests/integration/test_runner.py").read_text()
    assert json.dumps(begins("docs/fleet.md", "- import_playbook"))[1:-1] in runner
    (report,) = yaml.safe_load(begins("docs/fleet.md", "wcow_report: \"{{ lookup('env'")).values()
    assert report in runner
    (tmp_path / "variables.yml").write_text(begins("docs/fleet.md", 'wcow_report: "/srv/wcow'))
    command = ["ansible", "localhost", "-e", "@variables.yml", "-e", "awx_job_id=7", "-m", "debug", "-a"]
    done = subprocess.run(
        [*command, "var=wcow_report"], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert re.search(r"/srv/wcow/20\d\d-\d\d-\d\d/7\b", done.stdout), done.stdout
