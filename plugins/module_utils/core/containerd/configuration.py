# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd's configuration says about its store, its address and its snapshotters.

A configuration has a version, 1 if it names none. Versions name the same settings differently, and releases of
containerd merge files differently:

* Releases before 2.0 know the versions 1 and 2. A later file replaces the whole section of a plugin.
* The releases 2.0 to 2.2 know version 3 as well. The sections of plugins are merged setting by setting. Then the result
  is migrated from the version of the last file that has one. A file of version 1 is renamed to the names of version 2,
  but counts as version 3, so its settings of CRI are not migrated.
* Release 2.3 knows version 4 as well, and migrates each file before it is merged.

A file of version 2 without a table of runtimes loses CRI's image settings when containerd migrates it.

The sources are cmd/containerd/server/config/config.go, cmd/containerd/server/server.go and plugins/cri/images/plugin.go
of containerd, and services/server/config/config.go of containerd 1.7.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar

from ..errors import FailedPrecondition
from .imports import Changes, ConfigFile, read_files

#: The plugins of CRI: until version 2, and from version 3 on.
CRI = "io.containerd.grpc.v1.cri"
CRI_IMAGES = "io.containerd.cri.v1.images"
CRI_RUNTIME = "io.containerd.cri.v1.runtime"
#: The plugin that pulls and unpacks images, from containerd 2.0 on.
TRANSFER = "io.containerd.transfer.v1.local"
_SCHEDULER = "io.containerd.gc.v1.scheduler"
_GRPC_SERVER = "io.containerd.server.v1.grpc"

# The names of plugins in version 1.
_NAMES_OF_VERSION_1 = {"cri": CRI, "scheduler": _SCHEDULER}
# CRI's settings of images, which version 2 has next to the runtimes.
_IMAGE_SETTINGS = ("snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers")

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_Value = TypeVar("_Value")


class ProxyPlugin(NamedTuple):
    """A plugin that another process serves: what it is (``snapshot``, ``content``, ...) and its pipe or socket."""

    type: str
    address: str


class Scheduler(NamedTuple):
    """When containerd collects garbage (plugins/gc/scheduler.go); the delays are in seconds."""

    pause_threshold: float = 0.02
    deletion_threshold: int = 0
    mutation_threshold: int = 100
    schedule_delay: float = 0.0
    startup_delay: float = 0.1


class Configuration(NamedTuple):
    """The settings that matter here. A text is empty if no file sets it. Other values are then containerd's defaults.

    ``snapshotter`` is CRI's. ``runtime_snapshotters`` has those of CRI's runtimes that name one. ``files`` are in the
    order in which they are merged. ``sources`` names the last file that sets each of ``SOURCES``. ``notes`` are
    sentences about what is uncertain. ``is_ambiguous``: releases of containerd that know the files read them in
    different ways, and the release was not given.
    """

    version: int
    root: str
    state: str
    address: str
    snapshotter: str
    runtime_snapshotters: Dict[str, str]
    discard_unpacked_layers: bool
    disable_snapshot_annotations: bool
    proxy_plugins: Dict[str, ProxyPlugin]
    scheduler: Scheduler
    files: Tuple[str, ...]
    sources: Dict[str, str]
    notes: Tuple[str, ...]
    is_ambiguous: bool = False


class _Rules(NamedTuple):
    """How releases of containerd read a configuration."""

    releases: str
    #: The first release that does not belong to them.
    end: Tuple[int, ...]
    newest_version: int
    merges_plugins: bool
    migrates_each_file: bool


_RULES = (
    _Rules("before 2.0", (2, 0), 2, merges_plugins=False, migrates_each_file=False),
    _Rules("2.0 to 2.2", (2, 3), 3, merges_plugins=True, migrates_each_file=False),
    _Rules("2.3 and newer", (), 4, merges_plugins=True, migrates_each_file=True),
)
_NEWEST_VERSION = _RULES[-1].newest_version

#: The settings whose file ``sources`` names.
SOURCES = ("root", "state", "address", "snapshotter")

#: The configuration of a containerd without a configuration file.
DEFAULT = Configuration(0, "", "", "", "", {}, False, False, {}, Scheduler(), (), {}, ())


def read(path: str, release: str = "") -> Configuration:
    """Return what a configuration file and its imports say.

    ``release`` is containerd's version, for example ``1.7.20``; empty if it is not known. Then the oldest release that
    knows the version of the files decides how they are read, and a note says if a newer one reads them differently.

    Raises NotFound and FailedPrecondition, naming the file, if containerd would not start with the files, and
    FailedPrecondition for a version that is not known here.
    """
    files = read_files(path, release_numbers(release))
    version = max(version_of(file) or 1 for file in files)
    possible = _possible_rules(path, version, release)
    readings = [_read(files, rules) for rules in possible]
    notes: List[str] = []
    is_ambiguous = any(reading != readings[0] for reading in readings)
    if is_ambiguous:
        notes.append(
            f"What {path} means for plugins depends on the version of containerd, which is not known; it is read as "
            f"containerd {possible[0].releases} reads it"
        )
    return readings[0]._replace(version=version, notes=tuple(notes), is_ambiguous=is_ambiguous)


class Merged(NamedTuple):
    """What releases of containerd make of the files of a configuration: one table with the names of version 4.

    ``releases`` says which, for example ``2.0 to 2.2``. ``knows_transfer``: they pull images with the transfer service.
    """

    releases: str
    table: Dict[str, Any]
    knows_transfer: bool


def merge(path: str, release: str = "", changes: Optional[Changes] = None) -> Tuple[List[ConfigFile], List[Merged]]:
    """Return the files of a configuration, and what they mean to each of the releases that may read them.

    ``changes`` are read instead of what is on disk. Raises as ``read``.
    """
    files = read_files(path, release_numbers(release), changes)
    version = max(version_of(file) or 1 for file in files)
    merged: List[Merged] = []
    for rules in _possible_rules(path, version, release):
        try:
            table = _merge(files, rules)
            _settings(table)
        except FailedPrecondition as error:
            raise error.with_context(path) from None
        merged.append(Merged(rules.releases, table, rules.merges_plugins))
    return files, merged


def flatten(table: Dict[str, Any], above: Tuple[str, ...] = ()) -> Dict[Tuple[str, ...], Any]:
    """Return the values of a table and of the tables in it by their keys. An array is a value."""
    flat: Dict[Tuple[str, ...], Any] = {}
    for name, value in table.items():
        key = (*above, name)
        if isinstance(value, dict):
            flat.update(flatten(value, key))
        else:
            flat[key] = value
    return flat


def _possible_rules(path: str, version: int, release: str) -> List[_Rules]:
    """Return the rules of the releases that may read a configuration of a version. Raises FailedPrecondition."""
    possible = [rules for rules in _RULES if version <= rules.newest_version]
    numbers = release_numbers(release)
    if not numbers:
        return possible
    running = next(rules for rules in _RULES if not rules.end or numbers < rules.end)
    if running not in possible:
        raise FailedPrecondition(
            f"{path} has version {version}, which containerd {release} does not know; correct the file"
        )
    return [running]


def release_numbers(release: str) -> Tuple[int, ...]:
    """Return the numbers of a release such as ``v1.7.20+azure``; none for another text."""
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", release, re.ASCII)
    return tuple(int(number or 0) for number in found.groups()) if found else ()


def version_of(file: ConfigFile) -> int:
    """Return the version that a file names, 0 if it names none."""
    try:
        version = _get(file.table, "version", int, 0)
    except FailedPrecondition as error:
        raise error.with_context(file.path) from None
    if not 0 <= version <= _NEWEST_VERSION:
        raise FailedPrecondition(
            f"{file.path} has version {version}; the versions 1 to {_NEWEST_VERSION} of containerd's configuration are "
            f"known here"
        )
    return version


def _read(files: Sequence[ConfigFile], rules: _Rules) -> Configuration:
    """Return the settings as the releases with these rules read them."""
    try:
        configuration = _settings(_merge(files, rules))
    except FailedPrecondition as error:
        raise error.with_context(files[0].path) from None
    sources: Dict[str, str] = {}
    for file in files:
        alone = _settings(_merge([file], rules))
        sources.update((name, file.path) for name in SOURCES if getattr(alone, name))
    return configuration._replace(files=tuple(file.path for file in files), sources=sources)


# -- merging -----------------------------------------------------------------------------------------------------------


def _merge(files: Sequence[ConfigFile], rules: _Rules) -> Dict[str, Any]:
    """Return one table with the names of version 4."""
    migrates = rules.merges_plugins
    merged: Dict[str, Any] = {}
    # A release before 2.0 begins with version 1, any other with its newest.
    version = rules.newest_version if migrates else 1
    for file in files:
        own, table = version_of(file), file.table
        if rules.migrates_each_file:
            table = _upgrade(table, own or 1, rules)
        elif migrates and own < 2:
            table = _rename_plugins(table, keeps_others=True)
        else:
            version = own or version
        merged = _merge_file(merged, table, rules)
    return merged if rules.migrates_each_file else _upgrade(merged, version, rules)


def _merge_file(first: Dict[str, Any], second: Dict[str, Any], rules: _Rules) -> Dict[str, Any]:
    """Return what a table becomes when a later one is merged into it."""
    merged = dict(first)
    for key, value in second.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if key == "plugins" and rules.merges_plugins:
                merged[key] = _merge_deeply(before, value)
            elif key in {"plugins", "proxy_plugins"}:
                merged[key] = {**before, **value}
            else:
                merged[key] = {**before, **{name: inner for name, inner in value.items() if inner}}
        elif value:
            # Outside of plugins, an empty text, 0 or false does not override.
            merged[key] = value
    return merged


def _merge_deeply(first: Dict[str, Any], second: Dict[str, Any]) -> Dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        before = merged.get(key)
        merged[key] = value
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = _merge_deeply(before, value)
    return merged


def _rename_plugins(table: Dict[str, Any], *, keeps_others: bool) -> Dict[str, Any]:
    """Return a table of version 1 with the names of version 2 for its plugins."""
    plugins = _get(table, "plugins", dict, {})
    renamed = {
        _NAMES_OF_VERSION_1.get(name, name): section
        for name, section in plugins.items()
        if keeps_others or name in _NAMES_OF_VERSION_1
    }
    return {**table, "plugins": renamed}


def _upgrade(table: Dict[str, Any], version: int, rules: _Rules) -> Dict[str, Any]:
    """Return a table of a version with the names of version 4.

    Releases that merge plugins upgrade themselves, and lose what they lose. Others use the old names.
    """
    migrates = rules.merges_plugins
    if version < 2:
        table = _rename_plugins(table, keeps_others=migrates)
    plugins = dict(_get(table, "plugins", dict, {}))
    if not migrates:
        # Plugins of newer releases.
        plugins.pop(CRI_IMAGES, None)
        plugins.pop(CRI_RUNTIME, None)
    # The plugins of CRI migrate with each step to a newer version, also with that from 3 to 4.
    if version < max(rules.newest_version, 3) and CRI in plugins:
        cri = _get(_get(plugins, CRI, dict, {}), "containerd", dict, {})
        if not migrates or "runtimes" in cri:
            images = {name: cri[name] for name in _IMAGE_SETTINGS if name in cri}
            plugins[CRI_IMAGES] = {**_get(plugins, CRI_IMAGES, dict, {}), **images}
        runtime = _get(plugins, CRI_RUNTIME, dict, {})
        inner = {**cri, **_get(runtime, "containerd", dict, {})}
        plugins[CRI_RUNTIME] = {**runtime, "containerd": inner}
    if version < 4 and "grpc" in table:
        plugins.setdefault(_GRPC_SERVER, _get(table, "grpc", dict, {}))
    return {**table, "plugins": plugins}


# -- settings ----------------------------------------------------------------------------------------------------------


def _settings(table: Dict[str, Any]) -> Configuration:
    """Return the settings of a table that has the names of version 4."""
    plugins = _get(table, "plugins", dict, {})
    images = _get(plugins, CRI_IMAGES, dict, {})
    proxies = _get(table, "proxy_plugins", dict, {})
    return DEFAULT._replace(
        root=_get(table, "root", str, ""),
        state=_get(table, "state", str, ""),
        address=_get(_get(plugins, _GRPC_SERVER, dict, {}), "address", str, ""),
        snapshotter=_get(images, "snapshotter", str, ""),
        runtime_snapshotters=_runtime_snapshotters(plugins, images),
        discard_unpacked_layers=_get(images, "discard_unpacked_layers", bool, False),
        disable_snapshot_annotations=_get(images, "disable_snapshot_annotations", bool, False),
        proxy_plugins={name: _proxy_plugin(_get(proxies, name, dict, {})) for name in proxies},
        scheduler=_scheduler(_get(plugins, _SCHEDULER, dict, {})),
    )


def _runtime_snapshotters(plugins: Dict[str, Any], images: Dict[str, Any]) -> Dict[str, str]:
    """Return the snapshotter of each runtime that names one: for its containers, else for the images it pulls."""
    cri = _get(_get(plugins, CRI_RUNTIME, dict, {}), "containerd", dict, {})
    found: Dict[str, str] = {}
    for runtimes in (_get(images, "runtime_platforms", dict, {}), _get(cri, "runtimes", dict, {})):
        for name in runtimes:
            snapshotter = _get(_get(runtimes, name, dict, {}), "snapshotter", str, "")
            if snapshotter:
                found[name] = snapshotter
    return found


def _proxy_plugin(table: Dict[str, Any]) -> ProxyPlugin:
    return ProxyPlugin(_get(table, "type", str, ""), _get(table, "address", str, ""))


def _scheduler(table: Dict[str, Any]) -> Scheduler:
    default = Scheduler()
    return Scheduler(
        _get(table, "pause_threshold", float, default.pause_threshold),
        _get(table, "deletion_threshold", int, default.deletion_threshold),
        _get(table, "mutation_threshold", int, default.mutation_threshold),
        _get_seconds(table, "schedule_delay", default.schedule_delay),
        _get_seconds(table, "startup_delay", default.startup_delay),
    )


def _get_seconds(table: Dict[str, Any], key: str, default: float) -> float:
    """Return a duration as Go writes it, for example ``1m30s``, in seconds."""
    text = _get(table, key, str, "")
    if not text:
        return default
    parts = _DURATION.findall(text)
    if text != "0" and "".join(number + unit for number, unit in parts) != text:
        raise FailedPrecondition(f"{key} is {text!r}, which is not a duration such as 100ms; correct the file")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _get(table: Dict[str, Any], key: str, kind: Type[_Value], default: _Value) -> _Value:
    """Return the value of a key. Raises FailedPrecondition if it has another type."""
    value: Any = table.get(key, default)
    # Go accepts an integer for a float. In Python, True is an integer.
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FailedPrecondition(f"{key} has a value of the wrong type; correct the file")
    return value
