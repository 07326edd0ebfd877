# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service manager of this host."""

from __future__ import annotations

import os

from .manager import NAME, ServiceManager


def open_manager(home: str) -> ServiceManager:
    """Return the manager of this host; ``home`` is the directory of the service's files."""
    if os.name == "nt":
        from .windows import WindowsManager

        return WindowsManager()
    from .emulated import EmulatedManager

    return EmulatedManager(NAME, home)
