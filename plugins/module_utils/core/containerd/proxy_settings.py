# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd needs to use our snapshotter, and whether it has it.

The tables are those of ``configuration.merge``, with the names of version 4.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Sequence, Set, Tuple

from ..errors import FailedPrecondition
from .configuration import CRI, CRI_IMAGES, CRI_RUNTIME, TRANSFER, Merged, flatten

#: The snapshotter and the differ that containerd unpacks with if nothing is set, by operating system.
DEFAULT_UNPACKER = {"windows": ("windows", "windows"), "linux": ("overlayfs", "walking")}

_RUNTIMES = ("plugins", CRI_RUNTIME, "containerd", "runtimes")
_PLATFORMS = ("plugins", CRI_IMAGES, "runtime_platforms")
#: The key of the list of what containerd unpacks images with, in all versions.
UNPACK = ("plugins", TRANSFER, "unpack_config")

_Tree = Dict[str, Any]
_Key = Tuple[str, ...]


class Settings(NamedTuple):
    r"""The snapshotter as containerd shall know it.

    ``name`` is the snapshotter's. ``address`` is its pipe such as ``\\.\pipe\wcow-snapshotter``, or its socket.
    ``root`` is the directory of the store, which exists when containerd starts. ``platform`` is what the containers run
    on, for example ``windows/amd64``; Linux is for tests.
    ``is_default``: it becomes CRI's default snapshotter, and that of runtimes that name the default of before.
    """

    name: str
    address: str
    root: str
    platform: str = "windows/amd64"
    is_default: bool = True


class Wanted(NamedTuple):
    """The settings that are missing.

    ``proxy`` is the table of the plugin. ``cri``: CRI's default changes. ``runtimes`` and ``platforms`` name the
    runtimes whose snapshotter changes, for containers and for images. ``unpack`` has all elements of ``unpack_config``,
    ours last.
    """

    proxy: _Tree
    cri: bool
    runtimes: Tuple[str, ...]
    platforms: Tuple[str, ...]
    unpack: Tuple[_Tree, ...]


def find_wanted(merged: Merged, settings: Settings) -> Wanted:
    """Return which settings releases of containerd lack.

    Raises FailedPrecondition for an ``unpack_config`` that is not a list of tables.
    """
    proxy = {
        "type": "snapshot",
        "address": settings.address,
        "platform": settings.platform,
        "exports": {"root": settings.root},
    }
    snapshotter, differ = DEFAULT_UNPACKER[settings.platform.partition("/")[0]]
    default = table_at(merged.table, "plugins", CRI_IMAGES).get("snapshotter") or snapshotter
    changes_default = settings.is_default and default != settings.name
    runtimes, platforms = (
        tuple(
            name
            for name, each in table_at(merged.table, *key).items()
            if changes_default and table_at(each).get("snapshotter") == default
        )
        for key in (_RUNTIMES, _PLATFORMS)
    )
    built_in = {"platform": settings.platform, "snapshotter": snapshotter, "differ": differ}
    return Wanted(
        {} if settings.name in table_at(merged.table, "proxy_plugins") else proxy,
        changes_default,
        runtimes,
        platforms,
        _find_unpack(merged, built_in, settings.name),
    )


def _find_unpack(merged: Merged, built_in: _Tree, name: str) -> Tuple[_Tree, ...]:
    if not merged.knows_transfer:
        return ()
    found = value_at(merged.table, UNPACK)
    if found is None:
        # containerd then has this one. A list has to name it, too.
        found = [built_in]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise FailedPrecondition(f"{'.'.join(UNPACK)} is not a list of tables; correct the file")
    if any(each.get("snapshotter") == name for each in found):
        return ()
    return (*found, {**built_in, "snapshotter": name})


def unite(all_wanted: Sequence[Wanted]) -> Wanted:
    """Return everything that any releases lack."""
    united = all_wanted[0]
    for each in all_wanted[1:]:
        united = Wanted(
            united.proxy or each.proxy,
            united.cri or each.cri,
            tuple(dict.fromkeys((*united.runtimes, *each.runtimes))),
            tuple(dict.fromkeys((*united.platforms, *each.platforms))),
            united.unpack or each.unpack,
        )
    return united


def compare(wanted: Wanted, name: str, before: Merged, after: Merged) -> str:
    """Return what is not as wanted after a change, as a sentence; empty if everything is.

    ``wanted`` is what the releases lacked ``before``, and ``name`` the snapshotter's. Everything else shall be equal.
    """
    expected, found = flatten(before.table), flatten(after.table)
    expected.update(flatten({"proxy_plugins": {name: wanted.proxy}}))
    if wanted.cri:
        expected["plugins", CRI_IMAGES, "snapshotter"] = name
    if wanted.unpack:
        expected[UNPACK] = list(wanted.unpack)
    for keys, names in ((_RUNTIMES, wanted.runtimes), (_PLATFORMS, wanted.platforms)):
        expected.update({(*keys, each, "snapshotter"): name for each in names})
    ignored: Set[_Key] = {("version",), ("imports",)}
    if wanted.cri:
        # The names of older versions stay beside the new ones, and nothing reads them.
        ignored |= {("plugins", CRI, "containerd", "snapshotter"), (*_RUNTIMES[:-1], "snapshotter")}
    ignored |= {("plugins", CRI, "containerd", "runtimes", each, "snapshotter") for each in wanted.runtimes}
    if not after.knows_transfer:
        ignored.add(UNPACK)
    for key in {**expected, **found}:
        if key not in ignored and expected.get(key) != found.get(key):
            return f"containerd {after.releases} would not read {'.'.join(key)} as it should"
    return ""


def meanings(all_merged: Sequence[Merged]) -> Dict[str, Dict[_Key, Any]]:
    """Return the settings by the releases that read them, without the version and the imports of the files."""
    found = {each.releases: flatten(each.table) for each in all_merged}
    for flat in found.values():
        for key in (("version",), ("imports",)):
            flat.pop(key, None)
    return found


def table_at(table: Any, *key: str) -> _Tree:
    """Return the table at a key; an empty one if there is none."""
    found = value_at(table, key)
    return found if isinstance(found, dict) else {}


def value_at(table: Any, key: Sequence[str]) -> Any:
    """Return the value at a key; None if there is none."""
    for part in key:
        if not isinstance(table, dict):
            return None
        table = table.get(part)
    return table
