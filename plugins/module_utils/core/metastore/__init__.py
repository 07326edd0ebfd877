# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata of the snapshots, in SQLite.

``file`` opens, creates and locks the file, ``transaction`` reads and changes
what is in it, ``search`` turns filters into SQL, ``schema`` has the tables,
``errors`` says what SQLite's errors mean.
"""

from .file import Metastore, is_retired
from .transaction import ROOTFS_SIZE, Damage, Entry, Record, Transaction

__all__ = [
    "ROOTFS_SIZE",
    "Damage",
    "Entry",
    "Metastore",
    "Record",
    "Transaction",
    "is_retired",
]
