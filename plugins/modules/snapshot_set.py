# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/snapshot_set.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_set
short_description: State what many snapshots of Windows containers are, in one task
version_added: 0.1.0
description:
  - States of a list of snapshots of one store what M(wcow.snapshotter.snapshot) states of one, in one round trip to
    the node. For hundreds of snapshots that is many times faster than a loop.
  - The order of the list does not matter. Parents are made before their children, and what is to be committed is
    prepared before; removals come last, leaves first.
  - With O(prune), snapshots of the store that are not in the list are removed.
  - Before anything is touched, the list is checked as a whole. Two items about one key or name, items that wait for
    each other, and an item that needs what another one removes are errors.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  snapshots:
    description:
      - The snapshots. Each item has the options of M(wcow.snapshotter.snapshot), with the same meaning.
      - An active snapshot and the item that commits it can stand in one list if O(snapshots[].creates) of the former is
        O(snapshots[].name) of the latter.
    type: list
    elements: dict
    required: true
    suboptions:
      state:
        description: What the snapshot is.
        type: str
        choices: [active, view, committed, absent]
        default: active
      key:
        description: The key of an active snapshot or view. With O(snapshots[].state=committed), what to commit.
        type: str
      name:
        description: The name of a committed snapshot.
        type: str
      parent:
        description: The name of the committed snapshot that this one builds on. It may be another item of the list.
        type: str
      labels:
        description: Labels that the snapshot has, as a dictionary of strings. An empty value removes the label.
        type: dict
      purge_labels:
        description: Whether labels that O(snapshots[].labels) does not name are removed.
        type: bool
        default: false
      rootfs_size:
        description: The least size of the scratch disk, in bytes or as a text such as V(40GB). Only with
          O(snapshots[].state=active).
        type: str
      uvm_scratch:
        description: Whether a scratch disk for the utility VM of Hyper-V isolated containers is made. Only with
          O(snapshots[].state=active).
        type: bool
      creates:
        description: If a committed snapshot of this name exists, nothing is done. Only with
          O(snapshots[].state=active).
        type: str
      recursive:
        description: Whether all snapshots that build on this one are removed too. Only with
          O(snapshots[].state=absent).
        type: bool
        default: false
  on_error:
    description:
      - What happens after an item has failed. With V(stop), nothing more is done. With V(continue), all that does not
        depend on what failed is done.
      - The task fails in both cases, and RV(outcomes) says what became of each item.
    type: str
    choices: [stop, continue]
    default: stop
  prune:
    description:
      - Whether to remove the snapshots that match O(prune_filters) and are not in the list.
      - One that a listed snapshot needs, or one that stays because it does not match, is never removed. So is none that
        an item names as O(snapshots[].parent), O(snapshots[].creates) or O(snapshots[].key).
      - Try it in check mode first, RV(pruned) says what would go.
    type: bool
    default: false
  prune_filters:
    description:
      - Which snapshots O(prune) may remove, in containerd's filter language. A snapshot has to match one of them.
      - Required with O(prune=true). All that is not listed goes only if you say so, with V("") as a filter.
    type: list
    elements: str
seealso:
  - module: wcow.snapshotter.snapshot
  - module: wcow.snapshotter.snapshot_info
"""

EXAMPLES = r"""
- name: A workspace for each of three jobs, and none for jobs that are over
  wcow.snapshotter.snapshot_set:
    snapshots:
      - key: job-1
        parent: servercore
        rootfs_size: 40GB
        labels: {example.com/job: "1"}
      - key: job-2
        parent: servercore
        labels: {example.com/job: "2"}
      - key: look-1
        parent: servercore
        state: view
        labels: {example.com/job: "1"}
    prune: true
    prune_filters: ['labels."example.com/job"']

- name: An application layer and what is built on it
  wcow.snapshotter.snapshot_set:
    snapshots:
      - key: app-work
        parent: servercore
        creates: app
      - name: app
        key: app-work
        state: committed
      - key: app-test
        parent: app

- name: Go on with the others if one cannot be removed
  wcow.snapshotter.snapshot_set:
    snapshots:
      - {key: job-1, state: absent}
      - {key: job-2, state: absent}
      - {name: app, state: absent, recursive: true}
    on_error: continue
"""

RETURN = r"""
outcomes:
  description: What became of each item, in the order of the list.
  returned: if the list was carried out
  type: list
  elements: dict
  contains:
    name:
      description: The key or name that the item is about.
      type: str
      returned: always
      sample: job-1
    changed:
      description: Whether anything was done, or would be in check mode.
      type: bool
      returned: always
      sample: true
    actions:
      description: What was done, or would be in check mode, in order.
      type: list
      elements: str
      returned: always
      sample: ["prepare job-1"]
    snapshot:
      description: The snapshot as it is now, or would be in check mode, as M(wcow.snapshotter.snapshot) returns it but
        for its C(mounts), which M(wcow.snapshotter.snapshot_info) has. V(none) if it does not exist.
      type: dict
      returned: if the item did not fail and was not skipped
      sample:
        kind: active
        name: job-1
        parent: servercore
        labels: {"example.com/job": "1"}
        created: "2026-11-24T08:36:01.123456789Z"
        updated: "2026-11-24T08:36:01.123456789Z"
        id: 7
        rootfs_size: 42949672960
    error:
      description: Why the item failed, with C(code), C(message) and C(details).
      type: dict
      returned: if the item failed
      sample: {"code": "not_found", "message": "snapshot does not exist: not found", "details": {"key": "job-1"}}
    skipped:
      description: Why the item was not run.
      type: str
      returned: if the item was not run
      sample: not run, because "app" failed
    warnings:
      description: What the user should know although the item did not fail.
      type: list
      elements: str
      returned: if there are any
      sample: []
  sample:
    - name: job-1
      changed: true
      actions: ["prepare job-1"]
      snapshot:
        kind: active
        name: job-1
        parent: servercore
        labels: {"example.com/job": "1"}
        created: "2026-11-24T08:36:01.123456789Z"
        updated: "2026-11-24T08:36:01.123456789Z"
        id: 7
        rootfs_size: 42949672960
pruned:
  description: What became of each snapshot that O(prune) removed, or would remove in check mode, in that order and in
    the form of RV(outcomes).
  returned: if the list was carried out
  type: list
  elements: dict
  sample:
    - name: job-0
      changed: true
      actions: ["remove job-0"]
      snapshot: null
kept:
  description: What matches O(prune_filters) and is not listed, but stays because something that stays needs it.
  returned: if the list was carried out
  type: list
  elements: dict
  contains:
    name:
      description: The name of the snapshot.
      type: str
      returned: always
      sample: servercore
    needed_by:
      description: Who needs it, its children that stay and the listed snapshots that name it, in order of their names.
      type: list
      elements: str
      returned: always
      sample: ["job-1"]
  sample: [{"name": "servercore", "needed_by": ["job-1"]}]
actions:
  description: All that was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: if the list was carried out
  type: list
  elements: str
  sample: ["prepare job-1", "remove job-0"]
error:
  description: The first failure for programs, C(code) being one of V(not_found), V(already_exists),
    V(failed_precondition), V(invalid_argument), V(unavailable), V(not_implemented) and V(internal). If items failed,
    C(details) has the C(name) of the first and how many C(failed) and were C(skipped).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"name": "job-1", "place": "snapshots[0]", "failed": 1, "skipped": 2}}
"""
