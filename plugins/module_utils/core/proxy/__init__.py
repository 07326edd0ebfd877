# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy snapshotter on a node, as tasks see it.

``versions`` has its files, ``manager`` the interface of what runs it (``windows``, ``emulated``; ``host``
chooses), ``health`` asks it
how it does, and ``messages`` has its own methods. ``serve`` is the program itself.
"""
