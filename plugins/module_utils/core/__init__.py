# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshotter core: what runs on the Windows host.

INTERNAL TO THE COLLECTION. The package may change at any release; the
request that its door takes (``dispatch``) is versioned by ``protocol``.

It needs CPython 3.9 or newer and the standard library, and knows nothing of
Ansible. Imports go downward only: door (``dispatch``, ``__main__``) -> upper
(``ensure``, ``snapshotter``) -> middle (``metastore``, ``layers``) -> ground
(``model``, ``errors``, ``labels``, ``filters``, ``formats``).
"""
