# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about the service that serves the store: the proxy snapshotter."""

from __future__ import annotations

from typing import Iterator

from .findings import Case
from .state import StoreState


def check_service(state: StoreState) -> Iterator[Case]:
    """Report a proxy snapshotter that does not answer."""
    if state.served is not None and state.served.problem:
        yield state.report("proxy_not_answering", state.served.sentence())
