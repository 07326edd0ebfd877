# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshotter core: what runs on the Windows host.

INTERNAL TO THE COLLECTION. The package may change at any release; the request
that ``door`` answers is versioned by ``protocol``.

It needs CPython 3.9 or newer and the standard library, and does not know
Ansible. docs/architecture.md shows where each piece of code belongs. Imports
go downward only: entry (``door``) -> desired states (``desired``, ``check``)
-> operations (``snapshotter``) -> store -> interface (``snapshots``) ->
``metastore``, ``layers``, ``formats`` -> values and rules.
"""
