# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd reads what we plan for its configuration: the wanted settings, and nothing else, in its own dump."""

from __future__ import annotations

import pathlib
import random
import subprocess
from typing import Any, Dict, List

import pytest
import tomllib
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import (
    config_change,
    config_dump,
    configuration,
    discovery,
    proxy_plugin,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.proxy_settings import Settings
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.tests.peers.test_configuration import write_files

pytestmark = pytest.mark.requires_tool("containerd", "containerd")

PROGRAM = "/usr/bin/containerd"
CRI = "io.containerd.grpc.v1.cri"

#: Main files, and files that they import.
LAYOUTS: Dict[str, List[str]] = {
    "none": [],
    "empty": [""],
    "version 1": ["root = '/a'\n[plugins.cri.containerd]\nsnapshotter = 'native' # why\n"],
    "version 2": [f'version = 2\r\n[plugins."{CRI}".containerd]\r\n  snapshotter = "native"\r\n'],
    "inline": [f'version = 2\nplugins = {{ "{CRI}" = {{ containerd = {{}} }} }}\n'],
    "dotted": [f"version = 2\nplugins.'{CRI}'.containerd.snapshotter = 'native'\nplugins.'{CRI}'.sandbox_image = 'x'"],
    "runtimes": [f'version = 2\n[plugins."{CRI}".containerd.runtimes.a]\nruntime_type = "x"\n[debug]\n'],
    "drop-in": ["version = 2\nimports = ['CONF/*.toml']\n"],
    "drop-in of version 1": ["imports = ['CONF/*.toml']\n"],
    "a section would be lost": [f"version = 2\nimports = ['CONF/*.toml']\n[plugins.'{CRI}']\nsandbox_image = 'x'\n"],
    "a later file": [
        "version = 2\nimports = ['CONF/*.toml']\n",
        f"version = 2\n[plugins.'{CRI}'.containerd]\nsnapshotter = 'native'\n",
    ],
}


class Node:
    """A host whose containerd has a configuration of one or more files."""

    def __init__(self, directory: pathlib.Path, texts: List[str]) -> None:
        self.main = directory / "etc" / "config.toml"
        conf = directory / "etc" / "conf.d"
        conf.mkdir(parents=True)
        for number, text in enumerate(texts):
            path = conf / f"9{number}.toml" if number else self.main
            path.write_bytes(text.replace("CONF", str(conf)).encode())
        self._directory = directory
        self.found = discovery.Containerd(
            "service containerd",
            True,
            discovery.Value("/a", ""),
            discovery.Value("/b", ""),
            discovery.Value("/c", ""),
            discovery.Value("overlayfs", ""),
            configuration.DEFAULT,
            (),
            str(self.main),
            PROGRAM,
        )
        self.release = config_dump.read_release(PROGRAM)

    def plan(self, settings: Settings, *, present: bool = True) -> config_change.Change:
        return proxy_plugin.plan(self.found, settings, self.release, present=present)

    def verify(self, change: config_change.Change, settings: Settings, *, present: bool = True) -> bool:
        return config_dump.verify(change, self.found, settings, self.release, present=present)

    def files(self) -> Dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self._directory.rglob("*") if path.is_file()}

    def dump(self) -> Dict[str, Any]:
        command = [PROGRAM, "--config", str(self.main), "config", "dump"]
        table = tomllib.loads(subprocess.run(command, capture_output=True, check=True).stdout.decode())
        del table["imports"]
        return table


@pytest.mark.parametrize("is_default", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_containerd_reads_the_wanted_settings(tmp_path: pathlib.Path, layout: str, is_default: bool) -> None:
    settings = Settings("wcow", str(tmp_path / "sock"), str(tmp_path), "linux/amd64", is_default)
    node = Node(tmp_path, LAYOUTS[layout])
    original = node.files()
    before = node.dump() if layout != "none" else Node(tmp_path / "other", [""]).dump()
    change = node.plan(settings)
    assert node.verify(change, settings)
    assert node.files() == original or layout == "none"
    config_change.apply(change)
    after = node.dump()
    assert after["proxy_plugins"].pop("wcow") == {"type": "snapshot", "address": settings.address} | {
        key: value for key, value in after["proxy_plugins"].get("wcow", {}).items() if key not in {"type", "address"}
    }
    cri = after["plugins"].get("cri") or after["plugins"][CRI]
    if is_default:
        assert cri["containerd"]["snapshotter"] == "wcow"
        cri["containerd"]["snapshotter"] = (before["plugins"].get("cri") or before["plugins"][CRI])["containerd"][
            "snapshotter"
        ]
    after["version"] = before["version"]
    assert after == before
    assert node.verify(node.plan(settings), settings)
    back = node.plan(settings, present=False)
    node.verify(back, settings, present=False)
    config_change.apply(back)
    restored = node.files()
    assert {path: data for path, data in restored.items() if "/other/" not in path} == original


@pytest.mark.parametrize("seed", range(40))
def test_random_configurations(tmp_path: pathlib.Path, seed: int, figures: Any) -> None:
    """Plans suit random files with imports, and the way back restores them."""
    generator = random.Random(seed)
    node = Node(tmp_path, [])
    (tmp_path / "random").mkdir()
    main = write_files(tmp_path / "random", generator)
    node.found = node.found._replace(config=str(main))
    settings = Settings("wcow", "/sock", "/root", "linux/amd64", generator.random() < 0.5)
    original = node.files()
    change = node.plan(settings)
    assert node.verify(change, settings)
    config_change.apply(change)
    again = node.plan(settings)
    assert (again.files, again.needs_restart) == ((), False)
    assert node.verify(again, settings)
    config_change.apply(node.plan(settings, present=False))
    assert node.files() == original
    figures(configurations_changed=1)


def test_a_configuration_that_containerd_refuses_is_reported(tmp_path: pathlib.Path) -> None:
    settings = Settings("wcow", "/sock", "/root", "linux/amd64")
    node = Node(tmp_path, ["version = 2\noom_score = 'x'\n"])
    with pytest.raises(FailedPrecondition, match=r"does not accept its configuration .*config.toml: "):
        node.verify(node.plan(settings), settings)


def test_other_differences_are_reported(tmp_path: pathlib.Path) -> None:
    settings = Settings("wcow", "/sock", "/root", "linux/amd64")
    node = Node(tmp_path, ["version = 2\n"])
    change = node.plan(settings)
    *rest, last = change.files
    wrong = last._replace(after=(last.after or b"").replace(b"version = 2\n", b"version = 2\noom_score = 7\n"))
    with pytest.raises(FailedPrecondition, match="would read oom_score as 7 instead of 0"):
        node.verify(change._replace(files=(*rest, wrong)), settings)
    wrong = last._replace(after=b"version = 2\n")
    with pytest.raises(FailedPrecondition, match="would read proxy_plugins.wcow.type as None, not as 'snapshot'"):
        node.verify(change._replace(files=(wrong,)), settings)


def test_what_cannot_be_asked_is_not_verified(tmp_path: pathlib.Path) -> None:
    settings = Settings("wcow", "/sock", "/root", "linux/amd64")
    node = Node(tmp_path, ["version = 2\n"])
    change = node.plan(settings)
    for program in ("", "containerd", "/none/containerd"):
        node.found = node.found._replace(executable=program)
        assert not node.verify(change, settings)
        assert config_dump.read_release(program) == ""
