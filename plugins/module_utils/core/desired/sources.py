# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that tasks read on the node or on a file share."""

from __future__ import annotations

import os

from ..errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ..files import file_problem, os_error
from ..formats.ntfsnames import check_escapes
from ..layers.base import LayerStore

# How the path of a file share begins.
_SHARE = "\\\\"


def find_source(layers: LayerStore, src: str) -> str:
    """Return the native path of ``src``. Raises InvalidArgument, and as ``unreadable`` for a file share."""
    check_escapes("src", src)
    path = layers.native_source(src)
    shown = layers.display_path(path)
    if shown.startswith(_SHARE):
        # Later checks could only say that nothing is there.
        try:
            os.stat(path)
        except OSError as error:
            raise unreadable(shown, error) from error
    return path


def require_file(layers: LayerStore, path: str) -> None:
    """Raise NotFound if there is nothing at a native path, InvalidArgument unless it is a file that is not empty."""
    shown = layers.display_path(path)
    try:
        problem = file_problem(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise NotFound(f"src {shown} does not exist on the node", src=shown) from None
    except OSError as error:
        raise unreadable(shown, error) from error
    if problem:
        raise InvalidArgument(f"{shown} on the node {problem}: src must be a layer tar", src=shown)


def unreadable(path: str, error: OSError) -> SnapshotterError:
    """Return the error for a path, as replies show it, that cannot be read on the node."""
    what = f"cannot read {path} on the node"
    if not path.startswith(_SHARE):
        return os_error(error, what)
    return (NotFound if isinstance(error, FileNotFoundError) else FailedPrecondition)(
        f"{what}: {error.strerror}; the node opens a share as the user of the connection, and WinRM passes no "
        "credentials on unless they are delegated (Kerberos with delegation, or CredSSP): check the name, and whether "
        "that user may read there, or copy the file to the node"
    )
