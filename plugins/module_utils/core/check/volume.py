# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about the volume: free space."""

from __future__ import annotations

import os
from typing import Iterator, Tuple, Union

from ..sizes import parse_size
from .findings import Case
from .state import StoreState


def check_volume(state: StoreState) -> Iterator[Case]:
    """Report a volume with less free space than wanted."""
    root = state.root
    free, total = measure_space(root)
    if free < state.minimum_free:
        yield state.report(
            "low_free_space",
            f"{free} of {total} bytes are free on the volume of the store; {state.minimum_free} are wanted",
            path=root,
        )


def measure_space(path: str) -> Tuple[int, int]:
    """Free and total bytes of the volume of ``path``, or of its nearest ancestor that exists."""
    import shutil

    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def parse_minimum_free(value: Union[int, str]) -> int:
    """Return the wanted free space in bytes; 0 for ``0`` and ``""``, which ask for none. Raises InvalidArgument."""
    return 0 if str(value).strip() in ("", "0") else parse_size(value, "minimum_free")
