# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_check
short_description: Check and repair a store of Windows container snapshots
version_added: 0.1.0
description:
  - Compares the metadata of a store with the disk. Reports each problem with a stable code, a message and a remedy. You
    do not have to stop anything for a check. Without O(repair=true), the task changes nothing.
  - A repair destroys leftovers that no snapshot needs and that provably belong to the store. It finishes interrupted
    work, and corrects records that differ from the disk. It never removes anything that a snapshot needs.
  - A repair gives the store back to the administrators (V(unprotected_root), V(unprotected_entry)) before it changes
    anything else. It never follows a link (V(linked_directory)).
  - With O(store=containerd), the task compares the two databases of containerd with its directories. It reports what is
    still there two seconds later. You do not have to stop containerd. A repair never writes to a database. Records
    change through the API of containerd while it runs. While it is stopped, a repair changes only directories, and a
    containerd that starts meanwhile waits for ten seconds at most. RV(findings[].repairable) says what is possible now.
  - Problems in the store do not fail the task. Test RV(healthy) for that.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)).
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  repair:
    description:
      - If V(true), the task repairs what it can repair safely.
      - Each of the RV(findings) tells what the task did, why it did not repair the problem or, in check mode, what it
        would do.
      - The finding V(unknown_directory) is a layer that was in use and whose record is lost.
      - The task destroys such a layer only if O(only) contains that code.
    type: bool
    default: false
  only:
    description:
      - Limits the check and the repair to these finding codes.
      - For example, V(leftover_removal) and V(orphan_directory) free disk space and change nothing else.
      - The default is all codes.
      - An unknown code is an error.
    type: list
    elements: str
  quick:
    description:
      - If V(true), the task skips the checks that visit every file of every layer.
      - These checks report V(usage_drift) and V(links_near_limit).
    type: bool
    default: false
  minimum_free:
    description:
      - Sets the minimum free space on the volume of the store, in bytes or as a text such as V(20GB).
      - A number below 1 GiB needs a unit.
      - If less is free, the task reports V(low_free_space).
      - If you do not set this option, the task only returns the free space.
    type: str
  at_restart:
    description:
      - With O(repair=true), V(true) handles layers that cannot be destroyed because a process has their files open.
      - The task schedules them for deletion at the next start of the node.
      - Only Windows supports this.
    type: bool
    default: false
  inventory:
    description:
      - If V(true), the task also returns all snapshots of the store, in the state after the check.
      - This saves a separate M(wcow.snapshotter.snapshot_info) task.
      - M(wcow.snapshotter.report) needs it.
    type: bool
    default: false
notes:
  - docs/recovery.md of the collection lists all finding codes, with their meaning and what to do.
seealso:
  - module: wcow.snapshotter.store
  - module: wcow.snapshotter.snapshot_info
"""

EXAMPLES = r"""
- name: Check the store without changing anything
  wcow.snapshotter.store_check:
    minimum_free: 1GB
  register: check
  failed_when: not check.healthy

- name: Free the space of leftovers
  wcow.snapshotter.store_check:
    repair: true
    only: [leftover_removal, orphan_directory, abandoned_import, abandoned_upload]
    quick: true

- name: Repair everything that can be repaired
  wcow.snapshotter.store_check:
    repair: true
  register: repaired

- name: Check the store and list its snapshots in one round trip
  wcow.snapshotter.store_check:
    inventory: true
  register: wcow_check

- name: Delete the rm- directories that containerd has left
  wcow.snapshotter.store_check:
    store: containerd
    repair: true
    only: [leftover_removal]

- name: Show the result
  ansible.builtin.debug:
    msg: "{{ repaired.summary }}"
"""

RETURN = r"""
healthy:
  description:
    - Whether the store has no problems or, after a repair, no remaining problems.
    - Notices do not count.
  returned: success
  type: bool
  sample: false
exists:
  description:
    - Whether a store exists, even if its metadata is missing.
    - Without a store, the list of findings is empty.
  returned: success
  type: bool
  sample: true
summary:
  description: The result in one sentence.
  returned: success
  type: str
  sample: 12 snapshots, no problems
findings:
  description: The problems that the check found, including those that were repaired.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description:
        - The kind of the problem.
        - The meaning of a code never changes.
      type: str
      returned: success
      sample: leftover_removal
    severity:
      description: V(error) if something is lost or unusable, V(warning) if space is wasted or trouble is near, and
        V(notice) otherwise.
      type: str
      returned: success
      sample: warning
    snapshot:
      description:
        - The key or name of the affected snapshot.
        - V("") if the finding does not concern a snapshot.
      type: str
      returned: success
      sample: ""
    id:
      description:
        - The id of the affected layer.
        - V(none) if the finding does not concern a layer.
      type: int
      returned: success
      sample: 7
    path:
      description: The affected file or directory.
      type: str
      returned: success
      sample: C:\ProgramData\wcow\snapshots\rm-7
    message:
      description: The problem in one sentence.
      type: str
      returned: success
      sample: C:\ProgramData\wcow\snapshots\rm-7 waits to be destroyed
    remedy:
      description: What to do about the problem.
      type: str
      returned: success
      sample: "Run store_check with repair=true: it is destroyed"
    reclaimable:
      description: The number of bytes that a repair frees.
      type: int
      returned: success
      sample: 1073741824
    repairable:
      description: Whether O(repair=true) can repair the problem.
      type: bool
      returned: success
      sample: true
    repaired:
      description: Whether the task repaired the problem.
      type: bool
      returned: success
      sample: false
    action:
      description:
        - What the task did, why it did not repair the problem or, in check mode, what it would do.
        - V("") without O(repair=true).
      type: str
      returned: success
      sample: ""
  sample:
    - code: leftover_removal
      severity: warning
      snapshot: ""
      id: 7
      path: C:\ProgramData\wcow\snapshots\rm-7
      message: C:\ProgramData\wcow\snapshots\rm-7 waits to be destroyed
      remedy: "Run store_check with repair=true: it is destroyed"
      reclaimable: 1073741824
      repairable: true
      repaired: false
      action: ""
counts:
  description: The number of remaining findings of each severity.
  returned: success
  type: dict
  sample: {"error": 0, "warning": 1, "notice": 0}
snapshots:
  description: The number of snapshots in the store.
  returned: success
  type: int
  sample: 12
reclaimable:
  description: The number of bytes that a repair frees, or that this repair could not free yet.
  returned: success
  type: int
  sample: 1073741824
reclaimed:
  description: The number of bytes that this task freed.
  returned: success
  type: int
  sample: 0
free:
  description: The free space on the volume of the store, in bytes.
  returned: success
  type: int
  sample: 53687091200
total:
  description: The size of that volume, in bytes.
  returned: success
  type: int
  sample: 137438953472
rootfs_size:
  description:
    - The default size of new scratch disks in bytes, which the module M(wcow.snapshotter.store) sets.
    - V(none) if new disks have the size of the template.
    - Containers that containerd runs from the store get disks of this size, too.
  returned: success, with O(store=own)
  type: int
  sample: 42949672960
proxy_snapshotter:
  description:
    - The proxy snapshotter of the store, which M(wcow.snapshotter.proxy_snapshotter) installed.
    - V(none) if there is none.
    - C(health) is what it answers, with times in milliseconds and with C(pending_removals), the number of removed
      layers that wait to be destroyed.
    - If it does not answer within a second, C(health) is V(none) and C(problem) says why.
    - With O(store=containerd), it is the one of the collection that containerd's configuration names, and
      C(snapshotter) is its name there.
  returned: success
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
inventory:
  description:
    - All snapshots, in the form that M(wcow.snapshotter.snapshot_info) returns with C(scratch) and, unless
      O(quick=true), C(usage).
    - A value that cannot be read is V(none), and one of the RV(findings) gives the reason.
  returned: success, with O(inventory=true)
  type: list
  elements: dict
  sample:
    - kind: active
      name: build-42
      parent: servercore
      labels: {"example.com/team": "build"}
      created: "2026-11-24T08:36:01.123456789Z"
      updated: "2026-11-24T08:36:01.123456789Z"
      id: 7
      usage: {"size": 88080384, "inodes": 12}
      scratch:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 42949672960
        file_size: 88080384
        attached: false
        volume_size: null
containerd:
  description: Where containerd's store is, in the form that M(wcow.snapshotter.snapshot_info) returns.
  returned: success, with O(store=containerd)
  type: dict
  sample:
    root: C:\ProgramData\containerd\root
    address: \\.\pipe\containerd-containerd
    snapshotter: windows
    namespaces: [default, k8s.io]
    sources:
      root: C:\Program Files\containerd\config.toml
      address: containerd's default
      snapshotter: containerd's default
    running: true
    program: service containerd
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "unavailable", "details": {"operation": "check"}}
"""
