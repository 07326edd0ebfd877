# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/store_check.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_check
short_description: Check a store of Windows container snapshots, and repair it
version_added: 0.1.0
description:
  - Compares the metadata of a store with what is on disk, and reports each problem with a stable code, a sentence and a
    remedy. Nothing has to be stopped for that, and nothing is changed unless O(repair=true).
  - Repairing destroys what no snapshot needs and what the store can prove to be its own, finishes what an interruption
    left half done, and corrects records that differ from the disk. Nothing that a snapshot needs is ever removed.
  - A store with problems does not fail the task; test RV(healthy) for that.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  repair:
    description:
      - Whether to mend what can be mended safely. Each of the RV(findings) says what was done, would be done (in check
        mode), or why not.
      - A layer that was in use once, but whose record was lost (V(unknown_directory)), is destroyed only if O(only)
        names that code.
    type: bool
    default: false
  only:
    description:
      - Codes of findings. If given, others are neither reported nor repaired. For example, V(leftover_removal) and
        V(orphan_directory) free disk space and touch nothing else.
    type: list
    elements: str
  quick:
    description: Whether to leave out what has to visit every file of every layer, namely V(usage_drift) and
      V(links_near_limit).
    type: bool
    default: false
  minimum_free:
    description: How much space there shall be on the volume of the store, in bytes or as a text such as V(20GB). Less
      is a finding. If not given, free space is only returned.
    type: str
  at_restart:
    description:
      - With O(repair=true), whether a layer that cannot be destroyed because something holds its files is scheduled to
        be deleted when the node starts next. Only Windows can do that.
    type: bool
    default: false
  inventory:
    description: Whether to return all snapshots, too, as the store has them after the check. It spares a round trip for
      M(wcow.snapshotter.snapshot_info), and is what M(wcow.snapshotter.report) needs.
    type: bool
    default: false
notes:
  - The codes of findings are listed, with what they mean and what to do, in docs/recovery.md of the collection.
seealso:
  - module: wcow.snapshotter.store
  - module: wcow.snapshotter.snapshot_info
"""

EXAMPLES = r"""
- name: Look, and change nothing
  wcow.snapshotter.store_check:
    minimum_free: 1GB
  register: check
  failed_when: not check.healthy

- name: Free the space of what removals and crashes left
  wcow.snapshotter.store_check:
    repair: true
    only: [leftover_removal, orphan_directory, abandoned_import, abandoned_upload]
    quick: true

- name: Mend everything that can be mended
  wcow.snapshotter.store_check:
    repair: true
  register: repaired

- name: Look at a node as a whole in one round trip
  wcow.snapshotter.store_check:
    inventory: true
  register: wcow_check

- name: Say what was found
  ansible.builtin.debug:
    msg: "{{ repaired.summary }}"
"""

RETURN = r"""
healthy:
  description: Whether there are no problems, or none that are left after repairing. Notices do not count.
  returned: success
  type: bool
  sample: false
exists:
  description: Whether there is a store at all, be it without its metadata. Without one there are no findings.
  returned: success
  type: bool
  sample: true
summary:
  description: One sentence for people.
  returned: success
  type: str
  sample: 12 snapshots, no problems
findings:
  description: What is wrong, or was before it was repaired.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is. The meaning of a code never changes.
      type: str
      returned: success
      sample: leftover_removal
    severity:
      description: V(error) if something is lost or cannot be used, V(warning) if space is wasted or trouble is near,
        V(notice) otherwise.
      type: str
      returned: success
      sample: warning
    snapshot:
      description: The key or name of the snapshot that it is about, V("") if about none.
      type: str
      returned: success
      sample: ""
    id:
      description: The number of the layer that it is about, V(none) if about none.
      type: int
      returned: success
      sample: 7
    path:
      description: The file or directory that it is about.
      type: str
      returned: success
      sample: C:\ProgramData\wcow\snapshots\rm-7
    message:
      description: What is wrong, a sentence.
      type: str
      returned: success
      sample: C:\ProgramData\wcow\snapshots\rm-7 waits to be destroyed
    remedy:
      description: What to do about it.
      type: str
      returned: success
      sample: "Run store_check with repair=true: it is destroyed"
    reclaimable:
      description: How many bytes a repair frees.
      type: int
      returned: success
      sample: 1073741824
    repairable:
      description: Whether O(repair=true) can mend it.
      type: bool
      returned: success
      sample: true
    repaired:
      description: Whether it was mended.
      type: bool
      returned: success
      sample: false
    action:
      description: What was done, would be done in check mode, or why it was not. V("") without O(repair=true).
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
  description: How many findings of each severity are left.
  returned: success
  type: dict
  sample: {"error": 0, "warning": 1, "notice": 0}
snapshots:
  description: How many snapshots the store has.
  returned: success
  type: int
  sample: 12
reclaimable:
  description: How many bytes repairing frees, or could not free yet.
  returned: success
  type: int
  sample: 1073741824
reclaimed:
  description: How many bytes were freed.
  returned: success
  type: int
  sample: 0
free:
  description: Free bytes on the volume of the store.
  returned: success
  type: int
  sample: 53687091200
total:
  description: The size of that volume in bytes.
  returned: success
  type: int
  sample: 137438953472
inventory:
  description: All snapshots, as M(wcow.snapshotter.snapshot_info) returns them with C(scratch) and, unless
    O(quick=true), C(usage). What cannot be read of a snapshot is V(none), and one of the RV(findings) says why.
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
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "unavailable", "details": {"operation": "check"}}
"""
