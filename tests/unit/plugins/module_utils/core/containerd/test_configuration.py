# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what a configuration says, by its version and the release of containerd.

tests/peers compares it with containerd 1.6. What newer releases do is in their sources, which the module names.
"""

from __future__ import annotations

from typing import Any, Dict

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import configuration
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.configuration import (
    ProxyPlugin,
    Scheduler,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, NotFound

MAIN = r"C:\config.toml"
PIPE = r"\\.\pipe\containerd-containerd"

#: The same settings in each version.
VERSIONS = {
    1: r"""
        [plugins.cri.containerd]
        snapshotter = "windows"
        discard_unpacked_layers = true
        disable_snapshot_annotations = true
        [plugins.cri.containerd.runtimes.hyper]
        snapshotter = "cimfs"
        [plugins.scheduler]
        pause_threshold = 0.5
        schedule_delay = "1m1.5s"
        startup_delay = "0s"
    """,
    2: r"""
        version = 2
        [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "windows"
        discard_unpacked_layers = true
        disable_snapshot_annotations = true
        runtimes.hyper.snapshotter = "cimfs"
    """,
    3: r"""
        version = 3
        [plugins."io.containerd.cri.v1.images"]
        snapshotter = "windows"
        discard_unpacked_layers = true
        disable_snapshot_annotations = true
        [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.hyper]
        snapshotter = "cimfs"
    """,
    4: r"""
        version = 4
        [plugins."io.containerd.cri.v1.images"]
        snapshotter = "windows"
        discard_unpacked_layers = true
        disable_snapshot_annotations = true
        runtime_platforms.hyper = {platform = "windows/amd64", snapshotter = "cimfs"}
        [plugins."io.containerd.server.v1.grpc"]
        address = '\\.\pipe\four'
    """,
}
GRPC = "\n[grpc]\naddress = '\\\\.\\pipe\\old'\n"


def read(node: Any, *texts: str, release: str = "") -> configuration.Configuration:
    """Return the configuration of a main file, and of files that it imports."""
    imports = ", ".join(rf"'C:\{number}.toml'" for number in range(1, len(texts)))
    node.write(MAIN, f"imports = [{imports}]\n{texts[0]}")
    for number, text in enumerate(texts[1:], 1):
        node.write(rf"C:\{number}.toml", text)
    return configuration.read(MAIN, release)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version(node: Any, version: int) -> None:
    found = read(node, "root = 'D:/root'\nstate = 'D:\\state'\n" + VERSIONS[version] + GRPC)
    assert found.version == version
    assert found.root == "D:/root"
    assert found.state == r"D:\state"
    assert found.address == (r"\\.\pipe\four" if version == 4 else r"\\.\pipe\old")
    assert found.snapshotter == "windows"
    assert found.runtime_snapshotters == {"hyper": "cimfs"}
    assert found.discard_unpacked_layers
    assert found.disable_snapshot_annotations
    assert found.files == (MAIN,)
    assert found.sources == dict.fromkeys(configuration.SOURCES, MAIN)
    if version == 1:
        assert found.scheduler == Scheduler(pause_threshold=0.5, schedule_delay=61.5, startup_delay=0.0)
    else:
        assert found.scheduler == Scheduler(0.02, 0, 100, 0.0, 0.1)


@pytest.mark.parametrize("text", ["", "version = 4", "[grpc]\n[plugins]\n[proxy_plugins]", "[debug]\nlevel = 'info'"])
def test_a_configuration_that_sets_nothing(node: Any, text: str) -> None:
    found = read(node, text)
    assert found._replace(version=0, files=()) == configuration.DEFAULT
    assert not found.notes


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_proxy_plugins(node: Any, version: int) -> None:
    proxies = """
        [proxy_plugins.wcow]
        type = "snapshot"
        address = '\\\\.\\pipe\\{}'
        [proxy_plugins.{}]
        type = "content"
    """
    found = read(
        node,
        f"version = {version}" + proxies.format("one", "other"),
        f"version = {version}" + proxies.format("two", "third"),
    )
    content = ProxyPlugin("content", "")
    assert found.proxy_plugins == {
        "wcow": ProxyPlugin("snapshot", "\\\\.\\pipe\\two"),
        "other": content,
        "third": content,
    }


# -- files -------------------------------------------------------------------------------------------------------------


def test_an_empty_value_does_not_override_outside_of_plugins(node: Any) -> None:
    found = read(node, r"root = 'C:\root'" + "\n" + GRPC, 'root = ""\n[grpc]\naddress = ""\nuid = 5', release="1.7.20")
    assert found.root == r"C:\root"
    assert found.address == r"\\.\pipe\old"


def test_the_last_file_counts(node: Any) -> None:
    found = read(node, r"root = 'C:\root'" + "\n" + GRPC, r"root = 'C:\1'", r"root = 'C:\2'")
    assert found.root == r"C:\2"
    assert found.sources == {"root": r"C:\2.toml", "address": MAIN}
    assert found.files == (MAIN, r"C:\1.toml", r"C:\2.toml")


CRI_2 = '[plugins."io.containerd.grpc.v1.cri".containerd]\n'


@pytest.mark.parametrize(
    ("release", "snapshotter", "discards"),
    [("1.6.20", "wcow", False), ("1.7.29", "wcow", False), ("2.0.4", "wcow", True), ("2.3.4", "windows", True)],
)
def test_releases_merge_plugins_differently(node: Any, release: str, snapshotter: str, discards: bool) -> None:
    runtimes = "runtimes.x.runtime_type = 'x'\n"
    main = f"version = 2\n{CRI_2}discard_unpacked_layers = true\nsnapshotter = 'windows'\n{runtimes}"
    found = read(node, main, f"version = 2\n{CRI_2}snapshotter = 'wcow'", release=release)
    # Release 2.3 migrates the second file by itself, and drops its snapshotter, because it has no runtimes.
    assert found.snapshotter == snapshotter
    assert found.discard_unpacked_layers is discards
    assert not found.notes


@pytest.mark.parametrize(("value", "release"), [("false", "2.1.6"), ("false", "2.3.4")])
def test_false_overrides_in_plugins_of_new_releases(node: Any, value: str, release: str) -> None:
    found = read(
        node,
        VERSIONS[3],
        f'version = 3\n[plugins."io.containerd.cri.v1.images"]\ndiscard_unpacked_layers = {value}\n',
        release=release,
    )
    assert not found.discard_unpacked_layers
    assert found.snapshotter == "windows"


@pytest.mark.parametrize(("release", "snapshotter"), [("2.1.6", "a"), ("2.3.4", "b")])
def test_release_2_3_also_migrates_version_3(node: Any, release: str, snapshotter: str) -> None:
    old = f"{CRI_2}snapshotter = 'b'\nruntimes.x.runtime_type = 'x'\n"
    text = f"version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'a'\n{old}"
    assert read(node, text, release=release).snapshotter == snapshotter


def test_old_releases_do_not_know_the_plugins_of_new_ones(node: Any) -> None:
    text = "version = 2\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'a'\n"
    assert [read(node, text, release=release).snapshotter for release in ("1.7.20", "2.1.6")] == ["", "a"]


def test_new_releases_drop_settings_of_version_2_without_runtimes(node: Any) -> None:
    text = f"version = 2\n{CRI_2}snapshotter = 'wcow'"
    assert read(node, text, release="1.7.20").snapshotter == "wcow"
    assert read(node, text, release="2.0.4").snapshotter == ""
    assert read(node, text, release="2.3.4").snapshotter == ""


def test_releases_2_0_to_2_2_do_not_migrate_cri_of_version_1(node: Any) -> None:
    assert read(node, VERSIONS[1], release="1.6.35").snapshotter == "windows"
    found = read(node, VERSIONS[1], release="2.1.6")
    assert found.snapshotter == ""
    assert found.scheduler.pause_threshold == 0.5
    assert read(node, VERSIONS[1], release="2.3.4").snapshotter == "windows"


def test_version_1_knows_no_long_names_before_2_0(node: Any) -> None:
    text = VERSIONS[2].replace("version = 2", "")
    assert read(node, text, release="1.7.20").snapshotter == ""
    assert read(node, text, release="2.3.4").snapshotter == "windows"


@pytest.mark.parametrize(
    ("main", "second", "release", "snapshotter"),
    [
        (2, "version = 3", "2.1.6", ""),  # The last version counts, so the section of version 2 is not migrated.
        (2, "", "2.1.6", "windows"),
        (3, "version = 2", "2.1.6", "windows"),
        (2, "version = 3", "2.3.4", "windows"),
        (4, "version = 2", "2.3.4", "windows"),
    ],
)
def test_mixed_versions(node: Any, main: int, second: str, release: str, snapshotter: str) -> None:
    assert read(node, VERSIONS[main], second, release=release).snapshotter == snapshotter


def test_a_second_file_of_version_3_adds_to_version_4(node: Any) -> None:
    found = read(node, VERSIONS[4], "version = 3" + GRPC, release="2.3.4")
    assert found.address == r"\\.\pipe\old"
    assert found.sources["address"] == r"C:\1.toml"


def test_the_server_plugin_counts_more_than_grpc(node: Any) -> None:
    text = "version = 3" + GRPC + "[plugins.'io.containerd.server.v1.grpc']\naddress = 'x'"
    assert read(node, text).address == "x"


# -- uncertainty and errors --------------------------------------------------------------------------------------------


def test_a_note_says_what_depends_on_the_release(node: Any) -> None:
    found = read(node, f"version = 2\n{CRI_2}snapshotter = 'wcow'")
    assert found.snapshotter == "wcow"
    (note,) = found.notes
    assert note == (
        r"What C:\config.toml means for plugins depends on the version of containerd, which is not known; it is read "
        "as containerd before 2.0 reads it"
    )
    assert not read(node, VERSIONS[3]).notes
    assert not read(node, "version = 2\nroot = 'C:/r'" + GRPC, "state = 'C:/s'").notes


@pytest.mark.parametrize(("version", "release"), [(3, "1.7.20"), (4, "2.2.1")])
def test_a_version_that_containerd_does_not_know(node: Any, version: int, release: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read(node, f"version = {version}", release=release)
    assert caught.value.message == (
        rf"C:\config.toml has version {version}, which containerd {release} does not know; correct the file"
    )


@pytest.mark.parametrize("version", ["5", "-1", "9223372036854775807"])
def test_an_unknown_version_is_named(node: Any, version: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read(node, "version = 2", f"version = {version}")
    assert caught.value.message == (
        rf"C:\1.toml has version {version}; the versions 1 to 4 of containerd's configuration are known here"
    )


@pytest.mark.parametrize("release", ["", "unknown", "2.3.4", "v2.3.4-k3s1.36", "2.4.0+azure", "99999999999999999999.1"])
def test_spellings_of_releases(node: Any, release: str) -> None:
    assert read(node, VERSIONS[4], release=release).address == r"\\.\pipe\four"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("version = 'x'", "version"),
        ("version = true", "version"),
        ("root = 1", "root"),
        ("root = 'C:/x'\nstate = true", "state"),
        ("plugins = []", "plugins"),
        ("grpc = 1", "grpc"),
        ("plugins = {cri = 1}", "io.containerd.grpc.v1.cri"),
        ("plugins.cri.containerd.runtimes = {a = 1}", "a"),
        ("plugins.cri.containerd.snapshotter = []", "snapshotter"),
        ("plugins.cri.containerd.discard_unpacked_layers = 1", "discard_unpacked_layers"),
        ("plugins.scheduler.deletion_threshold = 1.5", "deletion_threshold"),
        ("plugins.scheduler.mutation_threshold = true", "mutation_threshold"),
        ("proxy_plugins.x = 'y'", "x"),
    ],
)
def test_values_of_a_wrong_type(node: Any, text: str, key: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read(node, text)
    assert caught.value.message == rf"C:\config.toml: {key} has a value of the wrong type; correct the file"


def test_an_integer_is_a_float(node: Any) -> None:
    found = read(node, "plugins.scheduler.pause_threshold = 1", release="1.7.0")
    assert found.scheduler.pause_threshold == 1.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("1h2m3s", 3723), ("1.5ms", 0.0015), (".5s", 0.5), ("5.s", 5), ("1us2µs3ns", 3.003e-06)],
)
def test_durations(node: Any, text: str, seconds: float) -> None:
    found = read(node, f"plugins.scheduler.schedule_delay = '{text}'", release="1.7.0")
    assert found.scheduler.schedule_delay == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["1", "s", "1 s", "1s ", "-1s", "1x"])
def test_what_is_not_a_duration(node: Any, text: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"schedule_delay is '.*', which is not a duration such as 100ms"):
        read(node, f"plugins.scheduler.schedule_delay = '{text}'")


def test_a_missing_file(node: Any) -> None:
    with pytest.raises(NotFound, match=r"^cannot read C:\\config.toml: "):
        configuration.read(MAIN)


def test_the_files_are_not_changed_by_a_reading(node: Any) -> None:
    first: Dict[str, Any] = read(node, VERSIONS[2], VERSIONS[2])._asdict()
    assert configuration.read(MAIN)._asdict() == first
