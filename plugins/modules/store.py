# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store
short_description: Create, adopt or remove a store of Windows container snapshots
version_added: 0.1.0
description:
  - Ensures that a store exists at O(root), that only administrators have access to it, and that it has the settings
    that other tasks inherit. With O(state=absent), ensures that no store exists.
  - Other modules create a missing store by themselves and protect it in the same way. Use this module to adopt a
    directory that already exists, to verify early that the node meets all requirements of a store, and to keep
    settings.
  - With O(store=containerd), V(present) verifies that tasks can work with containerd's own store, and changes nothing.
    containerd must run and its snapshotter must be loaded, and this collection must know the schema of its databases.
    The task names everything that is missing. It refuses V(absent).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)).
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - Selects the state of the store.
      - On Windows, V(present) makes Administrators the owner of O(root) and of the directories and metadata of the
        store in it, and gives access only to them and to SYSTEM. Layers keep their permissions.
      - Elsewhere, the owner is the user of the connection and the mode is 0700 or 0600.
      - The task refuses a root that is a link or a junction, and one in which a directory of the store is a link. Name
        the directory that the link leads to instead.
    type: str
    choices:
      present: The store exists. The task creates it, or adopts an existing store or an empty directory. It refuses a
        directory that contains anything else.
      absent: The store does not exist. The task removes a store that has no snapshots. Files that do not belong to the
        store stay, and so does the root in that case.
    default: present
  rootfs_size:
    description:
      - Sets the default size of new scratch disks.
      - It applies to snapshots that are prepared from now on by tasks that give no size.
      - The value is in bytes or a text such as V(40GB) or V(40GiB).
      - Both units count 1024 x 1024 x 1024 bytes.
      - The maximum is 64 TB.
      - A number below 1 GiB needs a unit.
      - V(0) removes the setting.
      - New disks then have the size of the template of their base layer.
      - If you do not set this option, the setting stays as it is.
    type: str
  force:
    description:
      - With O(state=absent), V(true) removes all snapshots together with the store.
      - The task does not remove a store that a service serves to containerd, also with V(true).
      - The task first undoes the mounts that the collection made, and then removes the snapshots, leaves first.
      - If a snapshot cannot be removed, the task fails at that point.
      - You can run it again.
      - With O(state=present), V(true) adopts layers that have no metadata.
      - The list of snapshots starts empty, so these layers stay on disk unused.
      - M(wcow.snapshotter.store_check) reports them.
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.store_check
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Ensure that a store exists in which containers get 40 GB
  wcow.snapshotter.store:
    rootfs_size: 40GB

- name: Remove another store if it is empty
  wcow.snapshotter.store:
    root: D:\old-snapshots
    state: absent

- name: Remove a store with all its snapshots
  wcow.snapshotter.store:
    root: D:\scratch-snapshots
    state: absent
    force: true

- name: Verify that tasks can work with the store of containerd
  wcow.snapshotter.store:
    store: containerd
"""

RETURN = r"""
store:
  description:
    - The store as it is now or, in check mode, as it would be after the task.
    - V(none) if there is none.
  returned: success
  type: dict
  contains:
    root:
      description: The directory of the store.
      type: str
      returned: success
      sample: C:\ProgramData\wcow
    layers:
      description: How the store keeps layers, V(windows) or V(emulated).
      type: str
      returned: success
      sample: windows
    snapshots:
      description: The number of snapshots.
      type: int
      returned: success
      sample: 12
    rootfs_size:
      description:
        - The default size of new scratch disks in bytes.
        - V(none) if they have the size of their template.
      type: int
      returned: success
      sample: 42949672960
    protected:
      description: Whether only administrators have access to the store.
      type: bool
      returned: success
      sample: true
  sample:
    root: C:\ProgramData\wcow
    layers: windows
    snapshots: 12
    rootfs_size: 42949672960
    protected: true
preflight:
  description:
    - What containerd and its databases say about themselves.
    - If something is missing, the task fails, and RV(error) has the same under C(details.preflight).
  returned: success, with O(store=containerd)
  type: dict
  contains:
    version:
      description: The version of containerd.
      type: str
      returned: success
      sample: v1.7.20+azure
    revision:
      description: The revision of its sources.
      type: str
      returned: success
      sample: 8fc6bcff51318944179630522a095cc9dbf9f353
    schema:
      description: The version of the schema of meta.db.
      type: int
      returned: success
      sample: 3
    schema_known:
      description: Whether this collection knows everything in both databases.
      type: bool
      returned: success
      sample: true
    snapshotters:
      description: The snapshotters that are loaded.
      type: list
      elements: str
      returned: success
      sample: [cimfs, windows, windows-lcow]
    running:
      description: Whether a process has the databases open.
      type: bool
      returned: success
      sample: true
    free:
      description: The free space on the volume of the store, in bytes.
      type: int
      returned: success
      sample: 53687091200
    total:
      description: The size of that volume, in bytes.
      type: int
      returned: success
      sample: 137438953472
  sample:
    version: v1.7.20+azure
    revision: 8fc6bcff51318944179630522a095cc9dbf9f353
    schema: 3
    schema_known: true
    snapshotters: [cimfs, windows, windows-lcow]
    running: true
    free: 53687091200
    total: 137438953472
containerd:
  description: The store of containerd, as M(wcow.snapshotter.snapshot_info) returns it, and the namespace that was
    asked.
  returned: success, with O(store=containerd)
  type: dict
  sample:
    root: C:\ProgramData\containerd\root
    address: \\.\pipe\containerd-containerd
    snapshotter: windows
    namespace: k8s.io
    namespaces: [k8s.io]
    sources:
      root: containerd's default
      address: containerd's default
      snapshotter: containerd's default
    running: true
    program: service containerd
proxy_snapshotter:
  description:
    - The proxy snapshotter of the store, which M(wcow.snapshotter.proxy_snapshotter) installed.
    - V(none) if there is none.
    - C(health) is what it answers, with times in milliseconds and with C(pending_removals), the number of removed
      layers that wait to be destroyed.
    - If it does not answer within a second, C(health) is V(none) and C(problem) says why.
  returned: success, with O(store=own) and O(state=present)
  type: dict
  sample:
    address: \\.\pipe\wcow-snapshotter
    snapshotter: ""
    health:
      version: 0.1.0
      uptime: 86400000
      calls: 4711
      errors: 0
      last_error: ""
      slowest_method: Commit
      slowest_time: 2100
      running: 0
      pending_removals: 0
      process: 1234
      root: C:\ProgramData\wcow
    problem: ""
actions:
  description:
    - The changes that the task made, in order.
    - In check mode, the changes that it would make.
    - Empty if there is nothing to change.
  returned: success
  type: list
  elements: str
  sample: ["create", "protect", "configure"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"operation": "ensure_store"}}
"""
