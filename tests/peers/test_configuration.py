# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random configurations with imports mean the same to containerd and to us.

``containerd config dump`` prints the merged configuration with all defaults. What our reader says about the dump and
about the files themselves must be equal.
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
from typing import Any, Dict, List

import pytest
import tomllib
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import configuration
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import toml

pytestmark = pytest.mark.requires_tool("containerd", "containerd")

SEEDS = range(100)

#: The plugins by their names in version 1 and 2.
PLUGINS = {
    1: ("cri", "scheduler"),
    2: ("io.containerd.grpc.v1.cri", "io.containerd.gc.v1.scheduler"),
}

#: What releases before 1.7 do not know, so they do not print it.
UNKNOWN = ("runtime_snapshotters",)


def containerd(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["containerd", *arguments], capture_output=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def release() -> str:
    return containerd("--version").stdout.split()[2].decode()


@pytest.fixture(scope="module")
def default(release: str, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    """Return the settings of a containerd without a configuration."""
    return settings(write_dump(tmp_path_factory.mktemp("default") / "config.toml", "config", "default"), release)


def test_the_default_configuration_is_read_like_tomllib_reads_it() -> None:
    text = containerd("config", "default").stdout
    assert toml.parse(text) == tomllib.loads(text.decode())


def random_file(generator: random.Random, version: int, imports: List[str]) -> str:
    """Return a configuration file of version 1 or 2 with random settings."""
    chance = generator.random
    cri, scheduler = PLUGINS[version]
    lines = [f"version = {version}"] if version == 2 or chance() < 0.3 else []
    lines.append(f"imports = {json.dumps(imports)}")
    for key in ("root", "state"):
        if chance() < 0.5:
            lines.append(f"{key} = {generator.choice(['', '/a', '/b'])!r}")
    if chance() < 0.5:
        lines += ["[grpc]", f"address = {generator.choice(['', '/c', '/d'])!r}", "uid = 0"]
    if chance() < 0.6:
        lines.append(f'[plugins."{cri}".containerd]')
        for key, values in (
            ("snapshotter", ["'native'", "'x'"]),
            ("discard_unpacked_layers", ["true", "false"]),
            ("disable_snapshot_annotations", ["true", "false"]),
            ("runtimes.r.snapshotter", ["'native'", "''"]),
        ):
            if chance() < 0.5:
                lines.append(f"{key} = {generator.choice(values)}")
    if chance() < 0.5:
        lines.append(f'[plugins."{scheduler}"]')
        for key, values in (
            ("pause_threshold", ["0.02", "0.5"]),
            ("deletion_threshold", ["0", "7"]),
            ("mutation_threshold", ["0", "100"]),
            ("schedule_delay", ["'0s'", "'1h2m3.5s'", "'250us'"]),
            ("startup_delay", ["'100ms'", "'1m'"]),
        ):
            if chance() < 0.5:
                lines.append(f"{key} = {generator.choice(values)}")
    for name in ("p", "q"):
        if chance() < 0.4:
            lines.append(f"[proxy_plugins.{name}]")
            lines.append(f"type = '{generator.choice(['snapshot', 'content'])}'")
            lines += [f"address = '{generator.choice(['/e', '/f'])}'"] if chance() < 0.7 else []
    return "\n".join(lines) + "\n"


def write_files(directory: pathlib.Path, generator: random.Random) -> pathlib.Path:
    """Write a main file, files that it imports by path and by pattern, and one that an import imports."""
    version = generator.choice([1, 2])
    folder = directory / "conf.d"
    folder.mkdir()
    choices = ["conf.d/b.toml", str(folder / "a.toml"), f"{directory}/c?nf.d/[^c-z]*.toml", "conf.d/*.toml"]
    imports = generator.sample(choices, generator.randrange(5))
    main = directory / "config.toml"
    main.write_text(random_file(generator, version, imports))
    (folder / "a.toml").write_text(
        random_file(generator, version, generator.choice([[], ["../last.toml"], [choices[2]]]))
    )
    (folder / "b.toml").write_text(random_file(generator, version, generator.choice([[], [str(main)]])))
    (directory / "last.toml").write_text(random_file(generator, version, []))
    return main


@pytest.mark.parametrize("seed", SEEDS)
def test_random_configurations_mean_the_same(
    seed: int, release: str, default: Dict[str, Any], tmp_path: pathlib.Path, figures: Any
) -> None:
    main = str(write_files(tmp_path, random.Random(seed)))
    ours = settings(main, release)
    dump = write_dump(tmp_path / "dump.toml", "--config", main, "config", "dump")
    theirs = settings(dump, release)
    # What no file sets has containerd's default in the dump. On Windows, annotations are not disabled by default.
    expected = {name: value or default[name] for name, value in ours.items()}
    expected["disable_snapshot_annotations"] = theirs["disable_snapshot_annotations"]
    assert theirs == expected
    assert theirs["disable_snapshot_annotations"] or not ours["disable_snapshot_annotations"]
    figures(configurations_compared=1)


def write_dump(path: pathlib.Path, *arguments: str) -> str:
    """Write a configuration that containerd prints, without the list of the files that it consists of."""
    lines = containerd(*arguments).stdout.splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(b"imports = ")))
    return str(path)


def settings(path: str, release: str) -> Dict[str, Any]:
    found = configuration.read(path, release)._asdict()
    return {
        name: value for name, value in found.items() if name not in {"version", "files", "sources", "notes", *UNKNOWN}
    }


@pytest.mark.parametrize(
    "text",
    [
        "root =",
        "imports = ['none.toml']",
        "imports = 'none.toml'",
        "root = 1",
        "proxy_plugins = 1",
        'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\ncontainerd = 1',
    ],
)
def test_both_refuse(release: str, tmp_path: pathlib.Path, text: str) -> None:
    main = tmp_path / "config.toml"
    main.write_text(text)
    with pytest.raises(subprocess.CalledProcessError):
        containerd("--config", str(main), "config", "dump")
    with pytest.raises(SnapshotterError, match=str(main)):
        configuration.read(str(main), release)
