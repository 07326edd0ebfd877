# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/scratch.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scratch
short_description: Grow the rootfs disks of active snapshots
version_added: 0.1.0
description:
  - States that the scratch disk of an active snapshot, which a container sees as C(C:), has at least this size. A
    larger disk is left as it is; a disk never shrinks.
  - Many disks of a node take no longer to reach than one, with O(keys).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  key:
    description: The key of the active snapshot. One of O(key) and O(keys) is required.
    type: str
  keys:
    description:
      - The keys of active snapshots whose disks all have at least this size, in one round trip. If one cannot grow, the
        others do, and the task fails in the end. An empty list is nothing to do.
    type: list
    elements: str
  size:
    description:
      - The least size of the disk, in bytes or as a text such as V(60GB) or V(60GiB), at most 64 TB. Both units count
        1024 x 1024 x 1024 bytes.
    type: str
    required: true
seealso:
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Grow the disk to 60 GB
  wcow.snapshotter.scratch:
    key: build-42
    size: 60GB

- name: Grow several in one round trip
  wcow.snapshotter.scratch:
    keys: [build-42, build-43]
    size: 80GB
"""

RETURN = r"""
scratch:
  description:
    - The scratch disk as it is now, or would be in check mode. Sizes are in bytes. C(volume_size), the size of the
      NTFS volume inside, is V(none) where it cannot be told.
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
  description: What became of each disk, in the order of O(keys).
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
      description: Whether the disk grew, or would in check mode.
      type: bool
      returned: always
      sample: true
    scratch:
      description: The disk, as RV(scratch).
      type: dict
      returned: if it did not fail
      sample:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 64424509440
        file_size: 88080384
        attached: false
        volume_size: null
    previous_size:
      description: As RV(previous_size).
      type: int
      returned: if it did not fail
      sample: 42949672960
    error:
      description: Why it failed, with C(code), C(message) and C(details).
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
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: if the node answered
  type: list
  elements: str
  sample: ["grow build-42"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal). With O(keys), it is the first failure, and
    C(details) has its C(key) and how many C(failed).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"operation": "ensure_scratch"}}
"""
