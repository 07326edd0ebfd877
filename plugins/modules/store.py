# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/store.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store
short_description: Make, adopt or remove a store of Windows container snapshots
version_added: 0.1.0
description:
  - States that there is a store at O(root) which only administrators can get at, with the settings that other tasks
    inherit; or that there is none.
  - Other modules make a store that is missing by themselves, protected in the same way. This one also adopts a
    directory that was made by other means, says at once whether the node has all that a store needs, and keeps
    settings.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - V(present) makes the store, or adopts an empty directory or a store. On Windows, Administrators become the owner
        of O(root), and they and SYSTEM the only ones with access; what exists inside keeps the rights that it has.
        Elsewhere O(root) gets the mode 0700. A directory that holds anything else is refused.
      - V(absent) removes a store that has no snapshots. Files that are not the store's stay, and O(root) with them.
    type: str
    choices: [present, absent]
    default: present
  rootfs_size:
    description:
      - The size of the scratch disks of snapshots that are prepared, from now on, by tasks which give none, in bytes or
        as a text such as V(40GB) or V(40GiB), at most 64 TB. Both units count 1024 x 1024 x 1024 bytes.
      - V(0) takes the setting away, so that disks are as large as the template of their base layer. If the option is
        not given, the setting stays what it is.
    type: str
  force:
    description:
      - With O(state=absent), whether snapshots are removed too, all of them. Mounts that the collection made are undone
        first, then snapshots are removed leaf-first. If one cannot be removed, the task fails there and can be
        repeated.
      - With O(state=present), whether layers without metadata are adopted. They stay on disk, unused, for the list of
        snapshots begins empty; M(wcow.snapshotter.store_check) reports them.
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.store_check
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Have a store in which containers get 40 GB
  wcow.snapshotter.store:
    rootfs_size: 40GB

- name: Remove another store if it is empty
  wcow.snapshotter.store:
    root: D:\old-snapshots
    state: absent

- name: Remove a store with everything in it
  wcow.snapshotter.store:
    root: D:\scratch-snapshots
    state: absent
    force: true
"""

RETURN = r"""
store:
  description: The store as it is now, or would be in check mode. V(none) if there is none.
  returned: success
  type: dict
  contains:
    root:
      description: The directory of the store.
      type: str
      returned: success
      sample: C:\ProgramData\wcow
    layers:
      description: How layers are kept, V(windows) or V(emulated).
      type: str
      returned: success
      sample: windows
    snapshots:
      description: How many snapshots there are.
      type: int
      returned: success
      sample: 12
    rootfs_size:
      description: The size in bytes that new scratch disks get by default, V(none) if that of their template.
      type: int
      returned: success
      sample: 42949672960
    protected:
      description: Whether only administrators can get at the store.
      type: bool
      returned: success
      sample: true
  sample:
    root: C:\ProgramData\wcow
    layers: windows
    snapshots: 12
    rootfs_size: 42949672960
    protected: true
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["create", "protect", "configure"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"operation": "ensure_store"}}
"""
