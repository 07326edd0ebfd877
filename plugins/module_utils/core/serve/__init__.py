# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy snapshotter: containerd keeps its snapshots in a store of the collection.

``service`` answers the calls, ``removals`` destroys layers after the answer, ``listener`` has the connections, and
``main`` is the program. containerd loads it as a proxy plugin (docs of containerd, PLUGINS.md).
"""
