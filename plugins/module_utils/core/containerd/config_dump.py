# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask containerd what a change means.

``containerd config dump`` prints what containerd makes of its files. It is asked about copies of the files, before and
after a change, so the node's own files stay as they are.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import FailedPrecondition
from ..files import EMULATED_DRIVES, translating_os_errors
from ..formats import toml, tomledit
from . import configuration, discovery, imports
from .config_change import RKE2, Change
from .configuration import CRI, CRI_IMAGES, CRI_RUNTIME
from .proxy_settings import UNPACK, Settings

# A dump takes a tenth of a second; a virus scanner may read the program first.
_SECONDS = 60

_Flat = Dict[Tuple[str, ...], Any]


def verify(
    change: Change, found: discovery.Containerd, settings: Settings, release: str = "", *, present: bool = True
) -> bool:
    """Verify a change that is not applied yet. Return False if containerd cannot be asked.

    It cannot be asked if its program file is not known, if there is no configuration file yet or no longer, and about
    templates of RKE2. A change without files is about the files as they are.

    Raises FailedPrecondition with containerd's own words if it refuses the files as they are or as they become, and if
    its dump has other changes than the wanted ones.
    """
    program = found.executable
    # On a lab node, the files of Windows are not programs.
    if change.manager == RKE2 or EMULATED_DRIVES in os.environ or not os.path.isabs(program):
        return False
    changes = {file.path: file.after for file in change.files}
    exists_before = imports.exists(found.config)
    exists_after = changes[found.config] is not None if found.config in changes else exists_before
    if not os.path.isfile(program) or not exists_after:
        return False
    after = _dump(program, found.config, release, changes)
    if exists_before and change.files:
        _refuse_other_changes(found.config, _dump(program, found.config, release, {}), after, settings)
    if present:
        _refuse_missing(found.config, after, settings)
    return True


def read_release(program: str) -> str:
    """Return the release of a containerd by its program file; empty if it cannot be asked."""
    if EMULATED_DRIVES in os.environ or not os.path.isabs(program) or not os.path.isfile(program):
        return ""
    try:
        # containerd <repository> <version> <revision>
        words = _run([program, "--version"]).split()
    except FailedPrecondition:
        return ""
    return words[2].decode("ascii", "replace") if len(words) > 2 else ""


def _dump(program: str, main: str, release: str, changes: Dict[str, Optional[bytes]]) -> _Flat:
    """Return the settings of containerd with changed files, by their keys."""
    files = configuration.merge(main, release, changes)[0]
    with tempfile.TemporaryDirectory(prefix="wcow-") as directory:
        copies = [os.path.join(directory, f"{number}.toml") for number in range(len(files))]
        for file, copy in zip(files, copies):
            document = tomledit.Document(imports.read_file(file.path, changes))
            # The order is the same if the main file imports all the others.
            if "imports" in document.table or len(copies) > 1:
                document.set(("imports",), copies[1:] if copy == copies[0] else [])
            with open(copy, "wb") as target:
                target.write(document.result())
        try:
            text = _run([program, "--config", copies[0], "config", "dump"])
        except FailedPrecondition as error:
            message = error.message
            for file, copy in zip(files, copies):
                message = message.replace(copy, file.path)
            raise FailedPrecondition(f"containerd does not accept its configuration {main}: {message}") from None
    return configuration.flatten(toml.parse(text))


def _run(command: Sequence[str]) -> bytes:
    with translating_os_errors("cannot run", command[0]):
        try:
            # The core has no AnsibleModule, whose run_command this rule wants.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise FailedPrecondition(f"{command[0]} did not end within {_SECONDS} s; run the task again") from None
    if done.returncode:
        lines: List[str] = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise FailedPrecondition(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout


def _refuse_other_changes(main: str, before: _Flat, after: _Flat, settings: Settings) -> None:
    for key in {**before, **after}:
        if before.get(key) != after.get(key) and not _is_ours(key, before.get(key), after.get(key), settings.name):
            raise FailedPrecondition(
                f"{main}: containerd would read {'.'.join(key)} as {after.get(key)!r} instead of {before.get(key)!r}; "
                f"write the settings by hand, and report this",
                path=main,
            )


def _is_ours(key: Tuple[str, ...], before: Any, after: Any, name: str) -> bool:
    if key in {("imports",), ("version",), UNPACK}:
        return True
    if key[:2] == ("proxy_plugins", name):
        return True
    is_cri = len(key) > 2 and key[0] == "plugins" and key[1] in {CRI, CRI_IMAGES, CRI_RUNTIME}
    return is_cri and key[-1] == "snapshotter" and name in {before, after}


def _refuse_missing(main: str, after: _Flat, settings: Settings) -> None:
    expected: _Flat = {
        ("proxy_plugins", settings.name, "type"): "snapshot",
        ("proxy_plugins", settings.name, "address"): settings.address,
    }
    # Releases before 1.7 do not know these two.
    optional: _Flat = {
        ("proxy_plugins", settings.name, "platform"): settings.platform,
        ("proxy_plugins", settings.name, "exports", "root"): settings.root,
    }
    if settings.is_default:
        optional[("plugins", CRI, "containerd", "snapshotter")] = settings.name
        optional[("plugins", CRI_IMAGES, "snapshotter")] = settings.name
    expected.update((key, value) for key, value in optional.items() if key in after)
    for key, value in expected.items():
        if after.get(key) != value:
            raise FailedPrecondition(
                f"{main}: containerd would read {'.'.join(key)} as {after.get(key)!r}, not as {value!r}; write the "
                f"settings by hand, and report this",
                path=main,
            )
    unpack = after.get(UNPACK)
    if unpack is not None and not any(each.get("snapshotter") == settings.name for each in unpack):
        raise FailedPrecondition(
            f"{main}: containerd would not unpack images for {settings.name}; write the settings by hand, and report "
            f"this",
            path=main,
        )
