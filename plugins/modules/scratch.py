# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scratch
short_description: Grow the scratch disks of active snapshots
version_added: 0.1.0
description:
  - Ensures that the scratch disk of an active snapshot has at least a given size. A container sees this disk as C(C:).
    A larger disk stays as it is; a disk never shrinks.
  - Can grow many disks of a node in one round trip, with O(keys).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)).
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  key:
    description:
      - Names the active snapshot by its key.
      - Exactly one of O(key) and O(keys) is required.
    type: str
  keys:
    description:
      - Names several active snapshots by their keys.
      - The task grows their disks in one round trip.
      - If one disk cannot grow, the task grows the others and then fails.
      - If the list is empty, there is nothing to do.
      - Mutually exclusive with O(key).
    type: list
    elements: str
  rootfs_size:
    description:
      - Sets the minimum size of the disk, as a text such as V(60GB) or V(60GiB) or in bytes.
      - Both units count 1024 x 1024 x 1024 bytes.
      - The maximum is 64 TB.
      - A number below 1 GiB needs a unit.
    type: str
    required: true
    aliases: [size]
seealso:
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Grow the disk to 60 GB
  wcow.snapshotter.scratch:
    key: build-42
    rootfs_size: 60GB

- name: Grow several disks in one round trip
  wcow.snapshotter.scratch:
    keys: [build-42, build-43]
    rootfs_size: 80GB
"""

RETURN = r"""
scratch:
  description:
    - The scratch disk as it is now or, in check mode, as it would be after the task.
    - Sizes are in bytes.
    - C(volume_size) is the size of the NTFS volume on the disk.
    - It is V(none) if it cannot be determined.
  returned: success, with O(key)
  type: dict
  sample:
    path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
    virtual_size: 64424509440
    file_size: 88080384
    attached: false
    volume_size: null
previous_size:
  description: The size of the disk before the task, in bytes.
  returned: success, with O(key)
  type: int
  sample: 42949672960
outcomes:
  description: The outcome for each disk, in the order of O(keys).
  returned: with O(keys), if the node answered
  type: list
  elements: dict
  contains:
    key:
      description: The key of the snapshot.
      type: str
      returned: always
      sample: build-42
    changed:
      description: Whether the disk grew or, in check mode, would grow.
      type: bool
      returned: always
      sample: true
    scratch:
      description: The disk, in the form of RV(scratch).
      type: dict
      returned: if it did not fail
      sample:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 64424509440
        file_size: 88080384
        attached: false
        volume_size: null
    previous_size:
      description: The size of the disk before the task, in bytes.
      type: int
      returned: if it did not fail
      sample: 42949672960
    error:
      description: The reason for the failure, with C(code), C(message) and C(details).
      type: dict
      returned: if it failed
      sample: {"code": "not_found", "message": "\"build-42\": snapshot does not exist: not found", "details": {}}
  sample:
    - key: build-42
      changed: true
      scratch:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 64424509440
        file_size: 88080384
        attached: false
        volume_size: null
      previous_size: 42949672960
containerd:
  description: The store of containerd, as M(wcow.snapshotter.snapshot_info) returns it, and the namespace of the task.
  returned: O(store=containerd)
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
actions:
  description:
    - The changes that the task made, in order.
    - In check mode, the changes that it would make.
    - Empty if there is nothing to change.
  returned: if the node answered
  type: list
  elements: str
  sample: ["grow build-42"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
    - With O(keys), it describes the first failure, and C(details) contains its C(key) and the number of disks that
      C(failed).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"operation": "ensure_scratch"}}
"""
