# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Plan how containerd's configuration names our snapshotter.

These settings make a snapshotter of ours one of containerd's::

    [proxy_plugins.wcow]
    type = "snapshot"
    address = '\\.\pipe\wcow-snapshotter'
    platform = "windows/amd64"
    [proxy_plugins.wcow.exports]
    root = 'C:\ProgramData\wcow'        # kubelet asks for the space of this volume

    [plugins."io.containerd.cri.v1.images"]
    snapshotter = "wcow"                  # pods use it

    [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "windows/amd64"            # containerd 2.x unpacks images for it
    snapshotter = "wcow"
    differ = "windows"

Where they belong depends on the version of the files and on the release of containerd (``configuration``). So each
candidate is tried: a file of ours in a directory that the configuration imports, then a change of the files that exist.
A candidate counts only if all releases that may read the files see all wanted settings, and no other difference.

What we write is in blocks (``tomledit``). The plan starts from the files without them, so the same plan again changes
nothing, and without the settings the files are as they were. A file that is changed the first time is copied to
``<file>.wcow.bak`` before.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError
from ..formats import tomledit
from . import configuration, discovery, imports
from .config_change import CONTAINERD, K0S, RKE2, Change, FileChange, read, refuse_read_only
from .configuration import CRI, CRI_IMAGES, CRI_RUNTIME
from .imports import ConfigFile
from .proxy_settings import (
    DEFAULT_UNPACKER,
    UNPACK,
    Settings,
    Wanted,
    compare,
    find_wanted,
    meanings,
    table_at,
    unite,
    value_at,
)

#: The copy of a file before it is changed the first time has its name and this.
BACKUP = ".wcow.bak"

_SNAPSHOTTER = "io.containerd.snapshotter.v1"

# identifiers/validate.go of containerd.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_LONGEST_NAME = 76
_BUILT_IN = frozenset(
    [
        "aufs",
        "blockcim",
        "btrfs",
        "cimfs",
        "devmapper",
        "erofs",
        "native",
        "overlayfs",
        "windows",
        "windows-lcow",
        "zfs",
    ]
)

# RKE2's text of its own configuration, in a template.
_RKE2_BASE = '{{ template "base" . }}'

_Key = Tuple[str, ...]
_Tree = Dict[str, Any]
#: Returns the document in which a key belongs.
_Place = Callable[[_Key], tomledit.Document]

# Selects the file for a key.
_Rule = Callable[[Sequence[ConfigFile], _Key], ConfigFile]


def plan(found: discovery.Containerd, settings: Settings, release: str = "", *, present: bool = True) -> Change:
    """Return how the configuration of this node's containerd gets the settings, or loses what earlier plans added.

    ``release`` is containerd's, for example ``2.1.6``; empty if it is not known. Then the result suits all releases
    that may read the files. Of the settings, only the name counts if ``present`` is False.

    Raises InvalidArgument for a name that containerd refuses or has itself, and FailedPrecondition, with the file and
    what to do, if containerd would not start with the files as they are, if another program's plugin has the name, if
    a plugin is disabled, if a file is read-only, and if no change has only the wanted effects.
    """
    _check_name(settings.name)
    if settings.platform.partition("/")[0] not in DEFAULT_UNPACKER:
        raise InvalidArgument(f"the platform {settings.platform!r} is not one of Windows, such as windows/amd64")
    return _Plan(found, settings, release).make(present)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise InvalidArgument(
            f"{name!r} is not a name of a snapshotter: it has letters and digits, with single '.', '_' or '-' between "
            f"them, up to {_LONGEST_NAME} characters"
        )
    if name in _BUILT_IN:
        raise InvalidArgument(f"containerd has a snapshotter {name} of its own; choose another name")


class _Candidate(NamedTuple):
    """New contents of files, and what the change is, for users. ``rendered`` has files that are not written by us."""

    files: Dict[str, Optional[bytes]]
    rendered: Dict[str, Optional[bytes]]
    title: str


class _Plan:
    """A plan in the making.

    ``_base`` has the contents of the files that have blocks of ours, without these.
    """

    def __init__(self, found: discovery.Containerd, settings: Settings, release: str) -> None:
        self._settings = settings
        self._release = release
        self._main = found.config
        self._exists = imports.exists(self._main)
        self._manager = _find_manager(found)
        if not found.program and not self._exists:
            raise FailedPrecondition(
                f"no containerd was found on this node: there is no service containerd, no process containerd.exe, and "
                f"no {self._main}; install containerd first",
                path=self._main,
            )
        self._name = settings.name
        self._notes: List[str] = []
        self._template = ""
        self._current: List[ConfigFile] = []
        if self._exists:
            self._current = imports.read_files(self._main, configuration.release_numbers(release))
        version = configuration.version_of(self._current[0]) if self._current else 0
        if self._manager == RKE2:
            name = "config-v3.toml.tmpl" if version >= 3 else "config.toml.tmpl"
            paths = imports.path_rules()
            self._template = paths.join(paths.dirname(self._main), name)
        self._base = self._undo_blocks()
        # The main file is ours, or is to be.
        self._is_new = not self._exists or self._base.get(self._main, b"") is None
        self._files, self._before = self._merge(self._base)

    def make(self, present: bool) -> Change:
        """Return the change."""
        candidate = self._choose() if present else self._remove()
        files = dict(self._base)
        if self._manager == RKE2:
            # RKE2 writes it when it starts.
            files.pop(self._main, None)
        files.update(candidate.files)
        merged_files = {**self._base, **candidate.files, **candidate.rendered}
        is_read = meanings(self._merge({})[1]) == meanings(self._merge(merged_files)[1])
        if is_read and not self._template:
            files = {}
        changes = tuple(self._list_changes(files))
        if changes and candidate.title:
            self._notes.append(candidate.title)
        return Change(changes, bool(changes) or not is_read, self._manager, tuple(self._notes))

    # -- the files without us ------------------------------------------------------------------------------------------

    def _undo_blocks(self) -> Dict[str, Optional[bytes]]:
        undone: Dict[str, Optional[bytes]] = {}
        for path in (*(file.path for file in self._current), *filter(None, [self._template])):
            data = read(path)
            if data is None:
                continue
            try:
                base = tomledit.undo(data)
            except FailedPrecondition as error:
                raise error.with_context(path) from None
            if base != data:
                # A file that consists of our block is ours, unless it was there before as an empty one.
                undone[path] = None if not base and read(path + BACKUP) is None else base
        return undone

    def _merge(self, changes: Dict[str, Optional[bytes]]) -> Tuple[List[ConfigFile], List[configuration.Merged]]:
        """Return the files and what they mean, with ``changes``; without a main file, what no file means."""
        content = changes.get(self._main, b"" if self._exists else None)
        if content is None:
            # To containerd, a main file that does not exist is an empty one.
            changes = {**changes, self._main: b""}
        return configuration.merge(self._main, self._release, changes)

    def _remove(self) -> _Candidate:
        user = next(filter(None, map(self._find_user, self._files)), "")
        if user and not any(self._name in table_at(merged.table, "proxy_plugins") for merged in self._before):
            raise FailedPrecondition(
                f"{user}, and no task of this collection wrote that. containerd's CRI does not start without this "
                f"snapshotter: correct the file first",
            )
        return _Candidate({}, {}, f"the settings of the snapshotter {self._name} are removed")

    def _find_user(self, file: ConfigFile) -> str:
        """Return what in a file uses our snapshotter, as a sentence; empty if nothing does."""
        for key, value in configuration.flatten(table_at(file.table, "plugins")).items():
            if key[-1] == "snapshotter" and value == self._name:
                return f"{file.path} sets {'.'.join(key)} to {self._name}"
        return ""

    # -- candidates ----------------------------------------------------------------------------------------------------

    def _choose(self) -> _Candidate:
        self._refuse_other_plugin()
        self._refuse_disabled()
        wanted = {merged.releases: find_wanted(merged, self._settings) for merged in self._before}
        everything = unite(list(wanted.values()))
        if not any(everything):
            return _Candidate({}, {}, "")
        reasons: List[str] = []
        for candidate in self._candidates(everything):
            try:
                after = self._merge({**self._base, **candidate.files, **candidate.rendered})[1]
            except SnapshotterError as error:
                reasons.append(f"{candidate.title}: {error.message}")
                continue
            found = next(filter(None, (self._compare(wanted, merged) for merged in after)), "")
            if not found:
                return candidate
            reasons.append(f"{candidate.title}: {found}")
        details = "; ".join(dict.fromkeys(reasons)) or f"{self._main} imports no directory of other files"
        raise FailedPrecondition(
            f"{self._main}: the settings of the snapshotter {self._name} cannot be added without other effects. "
            f"{self._remedy()}. Tried: {details}",
            path=self._main,
            reasons=reasons,
        )

    def _remedy(self) -> str:
        if self._manager == RKE2:
            return (
                f"Upgrade RKE2 to a release that imports a directory of other files, or write the settings into a "
                f"template of your own, {self._template}"
            )
        if self._manager == K0S:
            return "Remove settings of the same names from the files that k0s's configuration imports"
        return "Write the settings by hand as docs/proxy-snapshotter.md shows them, and run the task again"

    def _candidates(self, wanted: Wanted) -> Iterator[_Candidate]:
        main_version = configuration.version_of(self._files[0])
        for path in self._drop_ins():
            for cri_keys in self._cri_keys(main_version, wanted):
                document = tomledit.Document(b"")
                if main_version:
                    document.set(("version",), main_version)
                self._fill(_always(document), wanted, main_version, cri_keys)
                yield _Candidate({path: document.result()}, {}, f"{path} is written")
        if self._manager == RKE2:
            yield from self._template_candidates(wanted, main_version)
        elif self._manager != K0S:
            yield from self._edits(wanted)

    def _template_candidates(self, wanted: Wanted, version: int) -> Iterator[_Candidate]:
        template = self._content(self._template)
        for cri_keys in self._cri_keys(version, wanted):
            document = tomledit.Document(b"")
            self._fill(_always(document), wanted, version, cri_keys)
            lines = document.new_sections()
            yield _Candidate(
                {self._template: tomledit.append(template, lines if template else [_RKE2_BASE, "", *lines])},
                {self._main: tomledit.append(self._content(self._main), lines)},
                f"{self._template} is written, from which RKE2 makes {self._main} when it starts",
            )

    def _edits(self, wanted: Wanted) -> Iterator[_Candidate]:
        """Yield changes of the files that decide about each setting, then of the main file alone."""
        new_version = 0
        if self._is_new:
            # Every release that may be installed reads version 2.
            new_version = 3 if configuration.release_numbers(self._release) >= (2, 0) else 2
        for version in dict.fromkeys(new_version or configuration.version_of(file) for file in self._files):
            for cri_keys in self._cri_keys(version, wanted):
                for place in (_last_with_key, _last_with_section, _first):
                    documents: Dict[str, tomledit.Document] = {}
                    document_for = functools.partial(self._document, documents, place)
                    if new_version:
                        document_for(("version",)).set(("version",), new_version)
                    self._fill(document_for, wanted, version, cri_keys)
                    files = {path: document.result() for path, document in documents.items()}
                    yield _Candidate({**files}, {}, f"{' and '.join(files) or self._main} is changed")

    def _document(self, documents: Dict[str, tomledit.Document], place: _Rule, key: _Key) -> tomledit.Document:
        """Return the document of the file that ``place`` selects for a key, opened once."""
        path = place(self._files, key).path
        if path not in documents:
            documents[path] = tomledit.Document(self._content(path))
        return documents[path]

    def _drop_ins(self) -> Iterator[str]:
        """Iterate over the paths of files of ours that the configuration would import."""
        paths = imports.path_rules()
        ours = f"90-snapshotter-{self._name}.toml"
        release = configuration.release_numbers(self._release)
        for file in self._files:
            for pattern in imports.import_patterns(file.path, file.table, release):
                directory, name = paths.split(pattern)
                path = paths.join(directory, ours)
                if re.search(r"[*?[]", directory) or not fnmatch.fnmatchcase(ours, name.replace("[^", "[!")):
                    continue
                if path in self._base or read(path) is None:
                    yield path

    def _cri_keys(self, version: int, wanted: Wanted) -> List[Tuple[_Key, ...]]:
        """Return the possible keys of CRI's default snapshotter in a file of a version, the usual ones first."""
        if not wanted.cri:
            return [()]
        new = ("plugins", CRI_IMAGES, "snapshotter")
        if version > 2:
            return [(new,)]
        old = (*_runtime_section(version), "snapshotter")
        # A file of version 2 without runtimes loses the old key when it is migrated, and keeps the new one.
        return [(old,), (new,), (old, new)]

    def _fill(self, document_for: _Place, wanted: Wanted, version: int, cri_keys: Tuple[_Key, ...]) -> None:
        """Write settings into the documents in which they belong."""
        if wanted.proxy:
            plugin: _Key = ("proxy_plugins", self._name)
            document = document_for(plugin)
            for name, value in wanted.proxy.items():
                if name == "exports":
                    document.set((*plugin, "exports", "root"), value["root"])
                else:
                    document.set((*plugin, name), value)
        for key in cri_keys:
            document_for(key).set(key, self._name)
        for runtime in wanted.runtimes:
            key = (*_runtime_section(version), "runtimes", runtime, "snapshotter")
            document_for(key).set(key, self._name)
        for runtime in wanted.platforms:
            key = ("plugins", CRI_IMAGES, "runtime_platforms", runtime, "snapshotter")
            document_for(key).set(key, self._name)
        if wanted.unpack:
            document = document_for(UNPACK)
            has_list = value_at(document.table, UNPACK) is not None
            for element in wanted.unpack[-1:] if has_list else wanted.unpack:
                document.append(UNPACK, element)

    def _content(self, path: str) -> bytes:
        return (self._base[path] if path in self._base else read(path)) or b""

    def _compare(self, wanted: Dict[str, Wanted], after: configuration.Merged) -> str:
        before = next(merged for merged in self._before if merged.releases == after.releases)
        return compare(wanted[after.releases], self._name, before, after)

    def _refuse_other_plugin(self) -> None:
        for file in self._files:
            if self._name not in table_at(file.table, "proxy_plugins"):
                continue
            plugin = table_at(file.table, "proxy_plugins", self._name)
            kind, address = plugin.get("type"), plugin.get("address")
            if kind in ("snapshot", _SNAPSHOTTER) and address == self._settings.address:
                self._notes.append(f"{file.path} has the proxy plugin {self._name} already; it stays as it is")
                continue
            raise FailedPrecondition(
                f"{file.path} has a proxy plugin {self._name} of another program (type {kind!r}, address {address!r}); "
                f"choose another name for the snapshotter, or remove that plugin",
                path=file.path,
            )

    def _refuse_disabled(self) -> None:
        needed = {f"{_SNAPSHOTTER}.{self._name}"}
        if self._settings.is_default:
            needed |= {"cri", CRI, CRI_IMAGES, CRI_RUNTIME}
        for file in self._files:
            listed = file.table.get("disabled_plugins")
            disabled = sorted(needed.intersection(map(str, listed if isinstance(listed, list) else [])))
            if disabled:
                raise FailedPrecondition(
                    f"{file.path} disables the plugin {disabled[0]}; remove it from disabled_plugins, or leave CRI's "
                    f"default snapshotter as it is",
                    path=file.path,
                )

    # -- the result ----------------------------------------------------------------------------------------------------

    def _list_changes(self, files: Dict[str, Optional[bytes]]) -> Iterator[FileChange]:
        """Iterate over the changes of files: copies of originals first, the main file and removed copies last."""
        copies: List[FileChange] = []
        writes: List[FileChange] = []
        obsolete: List[FileChange] = []
        for path, after in files.items():
            before = read(path)
            if before == after:
                continue
            refuse_read_only(path)
            writes.append(FileChange(path, before, after, self._main))
            base = self._base.get(path, before)
            backup = path + BACKUP
            copy = read(backup)
            if after == base:
                if copy == base and copy is not None:
                    obsolete.append(FileChange(backup, copy, None))
                elif copy is not None:
                    self._notes.append(
                        f"{backup} has the file as it was before the first change; delete it when you like"
                    )
            elif base is not None and copy != base and (copy is None or path not in self._base):
                copies.append(FileChange(backup, copy, base, path))
        writes.sort(key=lambda change: change.path == self._main)
        return iter([*copies, *writes, *obsolete])


# -- places ------------------------------------------------------------------------------------------------------------


def _find_manager(found: discovery.Containerd) -> str:
    """Return what starts containerd and writes its configuration. Raises FailedPrecondition for Docker."""
    if found.address.value.lower().endswith("docker-containerd"):
        raise FailedPrecondition(
            f"Docker starts this containerd and writes {found.config} each time; use a containerd of its own"
        )
    parts = found.config.replace("\\", "/").lower().split("/")
    if parts[-4:] == ["agent", "etc", "containerd", "config.toml"]:
        return RKE2
    return K0S if discovery.is_of_k0s(found.config) else CONTAINERD


def _always(document: tomledit.Document) -> _Place:
    return lambda _key: document


def _last_with_key(files: Sequence[ConfigFile], key: _Key) -> ConfigFile:
    return next((file for file in reversed(files) if value_at(file.table, key) is not None), files[0])


def _last_with_section(files: Sequence[ConfigFile], key: _Key) -> ConfigFile:
    return _last_with_key(files, key[:2])


def _first(files: Sequence[ConfigFile], _key: _Key) -> ConfigFile:
    return files[0]


def _runtime_section(version: int) -> _Key:
    """Return the section of CRI's runtimes in a file of a version."""
    return ("plugins", {0: "cri", 1: "cri", 2: CRI}.get(version, CRI_RUNTIME), "containerd")
