# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Test how the settings of a proxy plugin get into containerd's configuration, and out of it again.

Every node here is set up, its configuration is changed, changed again without effect, and brought back byte for byte.
"""

from __future__ import annotations

import pathlib
from typing import Any, Dict, Optional

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import (
    config_change,
    configuration,
    discovery,
    proxy_plugin,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.proxy_settings import Settings
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import drives

FOLDER = r"C:\Program Files\containerd"
CONFIG = rf"{FOLDER}\config.toml"
DROP_IN = rf"{FOLDER}\conf.d\90-snapshotter-wcow.toml"
SERVICE = rf'"{FOLDER}\containerd.exe" --run-service'
RKE2 = r"C:\var\lib\rancher\rke2\agent\etc\containerd"
SETTINGS = Settings("wcow", r"\\.\pipe\wcow-snapshotter", r"C:\ProgramData\wcow")
BESIDE = SETTINGS._replace(is_default=False)

IMPORTS = f"imports = ['{FOLDER}\\conf.d\\*.toml']\n"
CRI_1 = "[plugins.cri.containerd]\n"
CRI_2 = '[plugins."io.containerd.grpc.v1.cri".containerd]\n'
RUNTIMES_2 = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runhcs-wcow-process]\n'
CRI_3 = '[plugins."io.containerd.cri.v1.images"]\n'
RUNTIMES_3 = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runhcs-wcow-process]\n'
UNPACK = '[[plugins."io.containerd.transfer.v1.local".unpack_config]]\n'
WINDOWS = 'platform = "windows/amd64"\nsnapshotter = "windows"\ndiffer = "windows"\n'
OURS = 'platform = "windows/amd64"\nsnapshotter = "wcow"\ndiffer = "windows"\n'
DEFAULT = 'snapshotter = "wcow"\n'

PROXY = (
    "[proxy_plugins.wcow]\n"
    'type = "snapshot"\n'
    "address = '\\\\.\\pipe\\wcow-snapshotter'\n"
    'platform = "windows/amd64"\n'
    "[proxy_plugins.wcow.exports]\n"
    "root = 'C:\\ProgramData\\wcow'\n"
)
TRANSFER = UNPACK + WINDOWS + UNPACK + OURS


def block(*lines: str, kept: str = "") -> str:
    originals = "".join(f"#| {line}" for line in kept.splitlines(keepends=True))
    return f"# BEGIN wcow.snapshotter\n{originals}{''.join(lines)}# END wcow.snapshotter\n"


class Upstream:
    """A node on which the service containerd runs, and what its configuration becomes."""

    def __init__(self, node: Any) -> None:
        self.node = node
        node.add_service("containerd", SERVICE)

    def files(self) -> Dict[str, str]:
        """Return all files by their paths on the node."""
        top = pathlib.Path(drives.to_native("C:\\"))
        return {drives.display_path(str(path)): path.read_bytes().decode() for path in top.rglob("*") if path.is_file()}

    def plan(self, settings: Settings = SETTINGS, release: str = "", *, present: bool = True) -> config_change.Change:
        return proxy_plugin.plan(discovery.find(discovery.Options(), release), settings, release, present=present)

    def change(self, settings: Settings = SETTINGS, release: str = "") -> Dict[str, Optional[str]]:
        """Change the configuration and return the files that differ, without copies. Try the way back and forth."""
        original = self.files()
        change = self.plan(settings, release)
        config_change.apply(change)
        assert change.needs_restart == bool(change.files)
        changed = self.files()
        for file in change.files:
            if file.path.endswith(proxy_plugin.BACKUP):
                assert changed[file.path] == original[file.path[: -len(proxy_plugin.BACKUP)]]
        assert not self.plan(settings, release).files
        config_change.apply(self.plan(settings, release, present=False))
        assert self.files() == original
        assert not self.plan(settings, release, present=False).files
        config_change.apply(self.plan(settings, release))
        assert self.files() == changed
        return {
            path: text
            for path, text in changed.items()
            if original.get(path) != text and not path.endswith(proxy_plugin.BACKUP)
        }


@pytest.fixture
def upstream(node: Any) -> Upstream:
    return Upstream(node)


# -- without imports ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "text", "expected"),
    [
        # The usual ways in version 1 (AKS, GCE), 2, 3 and 4.
        ("1.6.20", CRI_1 + DEFAULT.replace("wcow", "windows"), None),
        ("1.7.20", "version = 2\n", "version = 2\n" + block(PROXY, CRI_2, DEFAULT)),
        ("1.7.20", "root = 'D:/x'", "root = 'D:/x'\n" + block(PROXY, CRI_1, DEFAULT).removesuffix("\n")),
        ("2.1.6", "version = 3\n", "version = 3\n" + block(PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.3.4", "version = 4\n", "version = 4\n" + block(PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.1.6", "version = 3\r\n", ("version = 3\n" + block(PROXY, CRI_3, DEFAULT, TRANSFER)).replace("\n", "\r\n")),
        # Version 2 without runtimes loses its settings when containerd 2 migrates it.
        ("2.0.4", "version = 2\n", "version = 2\n" + block(PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.3.4", "version = 2\n", "version = 2\n" + block(PROXY, CRI_3, DEFAULT, TRANSFER)),
        (
            "2.3.4",
            f"version = 2\n{RUNTIMES_2}x = 1\n",
            f"version = 2\n{RUNTIMES_2}x = 1\n" + block(PROXY, CRI_2, DEFAULT, TRANSFER),
        ),
        ("2.3.4", f"{CRI_1}", f"{CRI_1}" + block(PROXY, CRI_3, DEFAULT, TRANSFER)),
        # An unknown release gets what all of them read.
        ("", "version = 2\n", "version = 2\n" + block(PROXY, CRI_2, DEFAULT, CRI_3, DEFAULT, TRANSFER)),
    ],
)
def test_the_main_file_is_changed(upstream: Upstream, release: str, text: str, expected: Optional[str]) -> None:
    upstream.node.write(CONFIG, text)
    if expected is None:
        expected = CRI_1 + block(DEFAULT, kept=text.splitlines(keepends=True)[1]) + block(PROXY)
    assert upstream.change(release=release) == {CONFIG: expected}


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("1.7.20", block("version = 2\n", PROXY, CRI_2, DEFAULT)),
        ("2.1.6", block("version = 3\n", PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("", block("version = 2\n", PROXY, CRI_2, DEFAULT, CRI_3, DEFAULT, TRANSFER)),
    ],
)
def test_a_configuration_is_created(upstream: Upstream, release: str, expected: str) -> None:
    assert upstream.change(release=release) == {CONFIG: expected}


def test_an_empty_file_of_the_user_stays_one(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "")
    assert upstream.change(release="2.1.6") == {CONFIG: block(PROXY, CRI_3, DEFAULT, TRANSFER)}


def test_cri_can_keep_its_snapshotter(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, f"version = 3\n{CRI_3}snapshotter = 'windows'\n")
    config_change.apply(upstream.plan(SETTINGS, "2.1.6"))
    assert configuration.read(CONFIG, "2.1.6").snapshotter == "wcow"
    # What an earlier task changed goes back.
    config_change.apply(upstream.plan(BESIDE, "2.1.6"))
    found = configuration.read(CONFIG, "2.1.6")
    assert (found.snapshotter, set(found.proxy_plugins)) == ("windows", {"wcow"})


@pytest.mark.parametrize(("version", "release", "header"), [(2, "1.7.20", RUNTIMES_2), (3, "2.1.6", RUNTIMES_3)])
def test_runtimes_that_name_the_old_default_change(upstream: Upstream, version: int, release: str, header: str) -> None:
    other = header.replace("process", "other")
    text = f"version = {version}\n{header}  snapshotter = 'windows'\n{other}  snapshotter = 'windows-lcow'\n"
    upstream.node.write(CONFIG, text)
    changed = upstream.change(release=release)[CONFIG]
    assert changed is not None
    assert changed.startswith(
        f"version = {version}\n{header}"
        + block('  snapshotter = "wcow"\n', kept="  snapshotter = 'windows'\n")
        + f"{other}  snapshotter = 'windows-lcow'\n"
    )
    found = configuration.read(CONFIG, release)
    assert found.runtime_snapshotters == {"runhcs-wcow-process": "wcow", "runhcs-wcow-other": "windows-lcow"}


def test_the_platforms_of_runtimes_change(upstream: Upstream) -> None:
    header = '[plugins."io.containerd.cri.v1.images".runtime_platforms.x]\n'
    upstream.node.write(CONFIG, f"version = 3\n{header}snapshotter = 'windows'\n")
    changed = upstream.change(release="2.3.4")[CONFIG]
    assert changed is not None
    assert block('snapshotter = "wcow"\n', kept="snapshotter = 'windows'\n") in changed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (UNPACK + "snapshotter = 'x'\n", UNPACK + "snapshotter = 'x'\n" + block(PROXY, UNPACK, OURS)),
        (
            "[plugins.'io.containerd.transfer.v1.local']\nunpack_config = []\n",
            "[plugins.'io.containerd.transfer.v1.local']\n"
            + block(
                'unpack_config = [{ platform = "windows/amd64", snapshotter = "wcow", differ = "windows" }]\n',
                kept="unpack_config = []\n",
            )
            + block(PROXY),
        ),
        (UNPACK + OURS, UNPACK + OURS + block(PROXY)),
    ],
)
def test_entries_of_the_user_for_unpacking_stay(upstream: Upstream, before: str, after: str) -> None:
    upstream.node.write(CONFIG, f"version = 3\n{before}")
    assert upstream.change(BESIDE, "2.3.4") == {CONFIG: f"version = 3\n{after}"}


# -- imports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "settings", "text", "expected"),
    [
        ("2.3.2", SETTINGS, "version = 3\n", block("version = 3\n", PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.3.2", SETTINGS, "version = 4\n", block("version = 4\n", PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.1.6", SETTINGS, f"version = 3\n{CRI_3}x = 1\n", block("version = 3\n", PROXY, CRI_3, DEFAULT, TRANSFER)),
        ("2.3.2", SETTINGS, f"version = 2\n{CRI_2}x = 1\n", block("version = 2\n", PROXY, CRI_3, DEFAULT, TRANSFER)),
        # Without a section of CRI in the main file, nothing is lost.
        ("1.7.20", SETTINGS, "version = 2\n", block("version = 2\n", PROXY, CRI_2, DEFAULT)),
        ("1.7.20", SETTINGS, "", block(PROXY, CRI_1, DEFAULT)),
        # A plugin alone suits every release.
        ("1.7.20", BESIDE, f"version = 2\n{CRI_2}x = 1\n", block("version = 2\n", PROXY)),
        ("1.7.20", BESIDE, f"{CRI_1}x = 1\n", block(PROXY)),
        # The list of what unpacks is replaced as a whole.
        (
            "2.1.6",
            BESIDE,
            f"version = 3\n{UNPACK}snapshotter = 'x'\n",
            block("version = 3\n", PROXY, UNPACK, 'snapshotter = "x"\n', UNPACK, OURS),
        ),
    ],
)
def test_a_file_is_imported(upstream: Upstream, release: str, settings: Settings, text: str, expected: str) -> None:
    upstream.node.write(CONFIG, IMPORTS + text)
    upstream.node.write(rf"{FOLDER}\conf.d\10-user.toml", "root = 'D:/root'\n" + text.partition("\n")[0])
    assert upstream.change(settings, release) == {DROP_IN: expected}


@pytest.mark.parametrize("text", [f"version = 2\n{CRI_2}x = 1\n", f"{CRI_1}x = 1\n"])
def test_containerd_1_would_lose_a_section_of_the_main_file(upstream: Upstream, text: str) -> None:
    upstream.node.write(CONFIG, IMPORTS + text)
    assert upstream.change(release="1.7.20") == {CONFIG: IMPORTS + text + block(DEFAULT, PROXY)}


def test_a_later_file_decides(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, f"{IMPORTS}version = 3\n")
    later = upstream.node.write(rf"{FOLDER}\conf.d\99.toml", f"version = 3\n{CRI_3}snapshotter = 'windows'\n")
    changed = upstream.change(release="2.1.6")
    assert list(changed) == [CONFIG, later]
    assert changed[later] == f"version = 3\n{CRI_3}" + block(DEFAULT, kept="snapshotter = 'windows'\n")


def test_a_pattern_must_find_the_file(upstream: Upstream) -> None:
    for pattern in ("conf.d/user-*.toml", "conf.?/*.toml", "*/x.toml"):
        upstream.node.write(CONFIG, f"imports = ['{pattern}']\nversion = 3\n")
        assert list(upstream.change(release="2.1.6")) == [CONFIG]
        config_change.apply(upstream.plan(release="2.1.6", present=False))


def test_old_releases_look_elsewhere_for_relative_patterns(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "imports = ['conf.d/*.toml']\nversion = 2\n")
    assert list(upstream.change(BESIDE, "1.7.15")) == [CONFIG]
    config_change.apply(upstream.plan(BESIDE, "1.7.15", present=False))
    assert list(upstream.change(BESIDE, "1.7.16")) == [DROP_IN]


def test_a_file_of_the_user_with_our_name_stays(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, f"{IMPORTS}version = 3\n")
    upstream.node.write(DROP_IN, "version = 3\n")
    assert list(upstream.change(release="2.1.6")) == [CONFIG]


# -- what the user does in between -------------------------------------------------------------------------------------


def test_changes_of_the_user_stay(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, f"version = 3\n{CRI_3}snapshotter = 'windows'\n")
    config_change.apply(upstream.plan(release="2.1.6"))
    text = upstream.files()[CONFIG]
    upstream.node.write(CONFIG, text.replace("version = 3\n", "version = 3\nroot = 'D:/x'\n") + "[debug]\n")
    assert not upstream.plan(release="2.1.6").files
    change = upstream.plan(release="2.1.6", present=False)
    config_change.apply(change)
    assert upstream.files()[CONFIG] == f"version = 3\nroot = 'D:/x'\n{CRI_3}snapshotter = 'windows'\n[debug]\n"
    assert any(proxy_plugin.BACKUP in note for note in change.notes)


def test_another_address_changes_the_plugin(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "version = 3\n")
    config_change.apply(upstream.plan(release="2.1.6"))
    change = upstream.plan(SETTINGS._replace(address=r"\\.\pipe\other"), "2.1.6")
    assert [file.path for file in change.files] == [CONFIG]
    config_change.apply(change)
    assert configuration.read(CONFIG).proxy_plugins["wcow"].address == r"\\.\pipe\other"


def test_a_provisioning_tool_writes_the_file_anew(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "version = 3\n")
    config_change.apply(upstream.plan(release="2.1.6"))
    upstream.node.write(CONFIG, "version = 3\nroot = 'D:/x'\n")
    change = upstream.plan(release="2.1.6")
    config_change.apply(change)
    assert upstream.files()[CONFIG + proxy_plugin.BACKUP] == "version = 3\nroot = 'D:/x'\n"


def test_settings_of_the_user_are_enough(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, f"version = 3\n{PROXY}{CRI_3}{DEFAULT}{UNPACK}{OURS}")
    change = upstream.plan(release="2.1.6")
    assert (change.files, change.needs_restart) == ((), False)
    assert change.notes == (f"{CONFIG} has the proxy plugin wcow already; it stays as it is",)
    assert not upstream.plan(release="2.1.6", present=False).files


# -- RKE2 and k0s ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rke2(node: Any) -> Any:
    node.add_process(4242, rf"C:\var\lib\rancher\rke2\bin\containerd.exe -c {RKE2}\config.toml")
    return node


def test_rke2_imports_a_directory(rke2: Any) -> None:
    imports = f"imports = ['{RKE2}\\config-v3.toml.d\\*.toml']\n"
    rke2.write(rf"{RKE2}\config.toml", f"version = 3\n{imports}{CRI_3}snapshotter = 'windows'\n")
    change = plan_of(rke2, "2.3.4")
    assert [file.path for file in change.files] == [rf"{RKE2}\config-v3.toml.d\90-snapshotter-wcow.toml"]
    assert (change.manager, change.needs_restart) == ("rke2", True)


@pytest.mark.parametrize(
    ("version", "name", "release", "template"),
    [
        (2, "config.toml.tmpl", "1.7.20", None),
        (3, "config-v3.toml.tmpl", "2.1.6", None),
        (3, "config-v3.toml.tmpl", "2.1.6", '{{ template "base" . }}\n[plugins.x]\ny = {{ .Z }}\n'),
    ],
)
def test_rke2_has_templates(rke2: Any, version: int, name: str, release: str, template: Optional[str]) -> None:
    rendered = f"version = {version}\n[plugins.x]\n"
    rke2.write(rf"{RKE2}\config.toml", rendered)
    if template:
        rke2.write(rf"{RKE2}\{name}", template)
    change = plan_of(rke2, release)
    ours = (PROXY, CRI_2, DEFAULT) if version == 2 else (PROXY, CRI_3, DEFAULT, TRANSFER)
    expected = template + block(*ours) if template else block('{{ template "base" . }}\n\n', *ours)
    written = change.files[-1]
    assert (written.path, written.after) == (rf"{RKE2}\{name}", expected.encode())
    config_change.apply(change)
    # RKE2 did not start again yet.
    again = plan_of(rke2, release)
    assert (again.files, again.needs_restart) == ((), True)
    rke2.write(rf"{RKE2}\config.toml", rendered + block(*ours))
    again = plan_of(rke2, release)
    assert (again.files, again.needs_restart) == ((), False)
    config_change.apply(plan_of(rke2, release, present=False))
    assert config_change.read(rf"{RKE2}\{name}") == (template.encode() if template else None)
    assert plan_of(rke2, release, present=False).needs_restart
    rke2.write(rf"{RKE2}\config.toml", rendered)
    assert not plan_of(rke2, release, present=False).needs_restart


def test_a_template_cannot_change_what_rke2_writes(rke2: Any) -> None:
    rke2.write(rf"{RKE2}\config.toml", f"version = 2\n{CRI_2}snapshotter = 'windows'\n")
    with pytest.raises(FailedPrecondition, match="Upgrade RKE2 to a release that imports a directory"):
        plan_of(rke2, "1.7.20")
    assert [file.path for file in plan_of(rke2, "1.7.20", BESIDE).files] == [rf"{RKE2}\config.toml.tmpl"]


def test_k0s_imports_a_directory(node: Any) -> None:
    text = "# k0s_managed=true\nversion = 3\nimports = ['C:\\etc\\k0s\\containerd.d\\*.toml']\n" + CRI_3
    node.write(CONFIG, text)
    node.add_process(7, rf'C:\var\lib\k0s\bin\containerd.exe "--config={CONFIG}"')
    change = plan_of(node, "2.3.4")
    assert [file.path for file in change.files] == [r"C:\etc\k0s\containerd.d\90-snapshotter-wcow.toml"]
    assert (change.manager, change.needs_restart) == ("k0s", True)
    # k0s accepts version 3 alone.
    assert b"version = 3\n" in (change.files[0].after or b"")
    node.write(CONFIG, text.replace("imports", "others"))
    with pytest.raises(FailedPrecondition, match="imports no directory"):
        plan_of(node, "2.3.4")
    # A file that the user manages is changed.
    node.write(CONFIG, text.replace("# k0s_managed=true", "#").replace("imports", "others"))
    assert plan_of(node, "2.3.4").manager == "containerd"


def plan_of(_node: Any, release: str, settings: Settings = SETTINGS, *, present: bool = True) -> config_change.Change:
    return proxy_plugin.plan(discovery.find(discovery.Options(), release), settings, release, present=present)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version\n", "line 1: the end of the line is where '=' should be"),
        ("version = 9\n", "has version 9; the versions 1 to 4 .* are known here"),
        ("version = 3\n[proxy_plugins.wcow]\ntype = 'snapshot'\naddress = 'x'\n", "of another program .*another name"),
        ("version = 3\n[proxy_plugins.wcow]\ntype = 'content'\n", "of another program"),
        ("version = 3\ndisabled_plugins = ['io.containerd.snapshotter.v1.wcow']\n", "remove it from disabled_plugins"),
        ("version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images']\n", "remove it from disabled_plugins"),
        ("disabled_plugins = ['cri']\n", "disables the plugin cri"),
        ("version = 3\n[plugins.'io.containerd.transfer.v1.local']\nunpack_config = 1\n", "is not a list of tables"),
        ("version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 1\n", "wrong type"),
        ("version = 3\n# BEGIN wcow.snapshotter\n", "is not followed by"),
        ("version = 3\nimports = ['none.toml']\n", "imports a file: .*none.toml"),
    ],
)
def test_a_configuration_is_refused_by_its_name(upstream: Upstream, text: str, message: str) -> None:
    upstream.node.write(CONFIG, text)
    found = discovery.Containerd(
        *discovery.find(discovery.Options(r"\\.\pipe\x", r"C:\x"))[:8],
        config=CONFIG,
    )
    with pytest.raises(Exception, match=message) as error:
        proxy_plugin.plan(found, SETTINGS, "2.1.6")
    assert CONFIG in str(error.value) or "unpack_config" in str(error.value)
    assert not [path for path in upstream.files() if path != CONFIG]


def test_a_configuration_that_is_too_new_for_the_release(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "version = 3\n")
    with pytest.raises(FailedPrecondition, match=r"config.toml has version 3, which containerd 1.7.20 does not know"):
        upstream.plan(release="1.7.20")


def test_no_place_has_only_the_wanted_effect(upstream: Upstream) -> None:
    """Release 2.3 takes the old section, also in version 3, but keys of this version are written."""
    upstream.node.write(CONFIG, f"version = 3\n{CRI_2}snapshotter = 'windows'\n{RUNTIMES_2}x = 1\n")
    with pytest.raises(FailedPrecondition, match=r"Write the settings by hand .* would not read .*images.snapshotter"):
        upstream.plan(release="2.3.4")
    assert list(upstream.change(BESIDE, "2.3.4")) == [CONFIG]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 77, "windows", "overlayfs"])
def test_names_that_containerd_does_not_accept(upstream: Upstream, name: str) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        upstream.plan(SETTINGS._replace(name=name))


def test_a_read_only_file(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "version = 3\n")
    pathlib.Path(drives.to_native(CONFIG)).chmod(0o444)
    with pytest.raises(FailedPrecondition, match=r"config.toml is read-only; make it writable"):
        upstream.plan(release="2.1.6")


def test_a_node_without_containerd(node: Any) -> None:
    with pytest.raises(FailedPrecondition, match="no containerd was found on this node"):
        plan_of(node, "")


def test_dockers_containerd(node: Any) -> None:
    config = node.write(r"C:\ProgramData\docker\containerd\daemon\containerd.toml", "version = 2\n")
    node.add_process(9, rf"C:\docker\containerd.exe --config {config} --address \\.\pipe\docker-containerd")
    with pytest.raises(FailedPrecondition, match="Docker starts this containerd"):
        plan_of(node, "2.1.6")


def test_removal_is_refused_while_the_user_names_the_snapshotter(upstream: Upstream) -> None:
    upstream.node.write(CONFIG, "version = 3\n")
    config_change.apply(upstream.plan(release="2.1.6"))
    text = upstream.files()[CONFIG]
    upstream.node.write(CONFIG, f"{text}{RUNTIMES_3}snapshotter = 'wcow'\n")
    with pytest.raises(FailedPrecondition, match=r"config.toml sets .*runhcs-wcow-process.snapshotter to wcow"):
        upstream.plan(release="2.1.6", present=False)
