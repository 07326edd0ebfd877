# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_set
short_description: Manage many snapshots of Windows containers in one task
version_added: 0.1.0
description:
  - Does for a list of snapshots of one store what M(wcow.snapshotter.snapshot) does for a single one, in one round trip
    to the node. For hundreds of snapshots, this is many times faster than a loop.
  - Finds the right order by itself. It makes parents before their children and prepares a snapshot before it is
    committed. Removals come last, leaves first.
  - With O(prune), removes snapshots of the store that are not in the list.
  - Checks the whole list before it changes anything. The task fails if two items have the same key or name, if items
    depend on each other in a cycle, or if one item needs what another item removes.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)).
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  snapshots:
    description:
      - Lists the snapshots.
      - Each item has the options of M(wcow.snapshotter.snapshot), with the same meaning.
      - The list can contain both an active snapshot and the item that commits it.
      - In that case, O(snapshots[].creates) of the active snapshot must be O(snapshots[].name) of the committed one.
    type: list
    elements: dict
    required: true
    suboptions:
      state:
        description:
          - Selects the state of the snapshot.
          - V(active) and V(view) require O(snapshots[].key), and V(committed) requires O(snapshots[].name).
          - V(absent) requires exactly one of O(snapshots[].key) and O(snapshots[].name).
        type: str
        choices:
          active: A writable snapshot with this key exists, and has exactly this parent.
          view: A read-only snapshot with this key exists, and has exactly this parent.
          committed: A committed snapshot with this name exists. If it does not, the task commits the active snapshot
            with this key, which is gone afterwards.
          absent: A snapshot with this key or name does not exist.
        default: active
      key:
        description:
          - Names an active snapshot or view by its key.
          - With O(snapshots[].state=committed), it names the active snapshot to commit.
        type: str
      name:
        description:
          - Names a committed snapshot.
        type: str
      parent:
        description:
          - Names the committed snapshot that this snapshot is based on.
          - It can be another item of the list.
          - Mutually exclusive with O(snapshots[].parent_image).
        type: str
      parent_image:
        description:
          - Names the image whose top layer is the parent, such as V(mcr.microsoft.com/windows/nanoserver:ltsc2022).
          - An image that the store does not have is the failure of this item.
          - Mutually exclusive with O(snapshots[].parent).
        type: str
      labels:
        description:
          - Sets labels on the snapshot.
          - The value is a dictionary of strings.
          - An empty value removes the label.
        type: dict
      purge_labels:
        description:
          - If V(true), the task removes labels that O(snapshots[].labels) does not contain.
        type: bool
        default: false
      rootfs_size:
        description:
          - Sets the minimum size of the scratch disk, as a text such as V(40GB) or in bytes.
          - Valid only with O(snapshots[].state=active).
        type: str
      uvm_scratch:
        description:
          - If V(true), the snapshot also gets a scratch disk for the utility VM of Hyper-V isolated containers.
          - Valid only with O(snapshots[].state=active).
        type: bool
      creates:
        description:
          - Names the committed snapshot that is made from this active snapshot.
          - If it exists already, the task does nothing for this item.
          - Valid only with O(snapshots[].state=active).
        type: str
      recursive:
        description:
          - If V(true), the task also removes all snapshots that are based on this one.
          - Valid only with O(snapshots[].state=absent).
        type: bool
        default: false
  defaults:
    description:
      - Sets options that the items of the list have in common.
      - An option of an item takes precedence.
      - The labels of an item are merged into those of this option.
      - An item with O(snapshots[].parent) or O(snapshots[].parent_image) gets neither from here.
      - The scratch options apply to active snapshots alone.
    type: dict
    suboptions:
      state:
        description:
          - Selects the state of the snapshots.
          - Without it, items are V(active).
        type: str
        choices:
          active: Writable snapshots with these keys exist.
          view: Read-only snapshots with these keys exist.
          committed: Committed snapshots with these names exist.
          absent: Snapshots with these keys or names do not exist.
      parent:
        description:
          - Names the committed snapshot that items are based on.
          - Mutually exclusive with O(defaults.parent_image).
        type: str
      parent_image:
        description:
          - Names the image whose top layer is the parent.
          - Mutually exclusive with O(defaults.parent).
        type: str
      labels:
        description:
          - Sets labels.
          - The value is a dictionary of strings.
        type: dict
      purge_labels:
        description:
          - If V(true), the task removes labels that neither the item nor O(defaults.labels) contains.
        type: bool
      rootfs_size:
        description:
          - Sets the minimum size of the scratch disks.
        type: str
      uvm_scratch:
        description:
          - If V(true), active snapshots also get a scratch disk for the utility VM of Hyper-V isolated containers.
        type: bool
  on_error:
    description:
      - Selects what happens after an item fails.
      - The task fails in both cases.
      - RV(outcomes) contains the outcome of each item.
    type: str
    choices:
      stop: The task does nothing more.
      continue: The task processes all items that do not depend on the failed one.
    default: stop
  prune:
    description:
      - If V(true), the task removes the snapshots that match O(prune_filters) and are not in the list.
      - A snapshot stays if a listed snapshot or another snapshot that stays is based on it.
      - It also stays if an item names it as O(snapshots[].parent), O(snapshots[].creates) or O(snapshots[].key).
      - Try it in check mode first.
      - RV(pruned) contains the snapshots that the task would remove.
    type: bool
    default: false
  prune_filters:
    description:
      - Selects the snapshots that O(prune) may remove, by filters in containerd's filter language.
      - A snapshot must match at least one of them.
      - Required with O(prune=true).
      - To remove everything that is not listed, give V("") as a filter.
    type: list
    elements: str
seealso:
  - module: wcow.snapshotter.snapshot
  - module: wcow.snapshotter.snapshot_info
"""

EXAMPLES = r"""
- name: Keep a workspace for each of three jobs and remove those of other jobs
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

- name: Keep the workspaces of a list variable. An item takes precedence over the defaults
  wcow.snapshotter.snapshot_set:
    snapshots: "{{ workspaces }}"
    defaults:
      parent: servercore
      rootfs_size: 40GB
  vars:
    workspaces:
      - key: build
      - key: test
        rootfs_size: 60GB

- name: Ensure an application layer and a snapshot that is based on it
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

- name: Remove snapshots, and continue if one cannot be removed
  wcow.snapshotter.snapshot_set:
    snapshots:
      - {key: job-1, state: absent}
      - {key: job-2, state: absent}
      - {name: app, state: absent, recursive: true}
    on_error: continue
"""

RETURN = r"""
outcomes:
  description: The outcome of each item, in the order of the list.
  returned: if the list was processed
  type: list
  elements: dict
  contains:
    name:
      description: The key or name of the item's snapshot.
      type: str
      returned: always
      sample: job-1
    changed:
      description: Whether the item changed anything or, in check mode, would change anything.
      type: bool
      returned: always
      sample: true
    actions:
      description:
        - The changes that were made for the item, in order.
        - In check mode, the changes that would be made.
      type: list
      elements: str
      returned: always
      sample: ["prepare job-1"]
    snapshot:
      description:
        - The snapshot as it is now or, in check mode, as it would be after the task.
        - V(none) if it does not exist.
        - It has the form that M(wcow.snapshotter.snapshot) returns, without C(mounts).
        - M(wcow.snapshotter.snapshot_info) returns those.
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
      description: The reason for the failure, with C(code), C(message) and C(details).
      type: dict
      returned: if the item failed
      sample: {"code": "not_found", "message": "snapshot does not exist: not found", "details": {"key": "job-1"}}
    skipped:
      description: The reason why the item was not run.
      type: str
      returned: if the item was not run
      sample: not run, because "app" failed
    warnings:
      description: Warnings about an item that did not fail.
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
  description:
    - The outcome of each snapshot that O(prune) removed or, in check mode, would remove.
    - The order is that of the removals, and the form is that of RV(outcomes).
  returned: if the list was processed
  type: list
  elements: dict
  sample:
    - name: job-0
      changed: true
      actions: ["remove job-0"]
      snapshot: null
kept:
  description: The snapshots that match O(prune_filters) and are not listed, but stay because a snapshot that stays
    needs them.
  returned: if the list was processed
  type: list
  elements: dict
  contains:
    name:
      description: The name of the snapshot.
      type: str
      returned: always
      sample: servercore
    needed_by:
      description:
        - The snapshots that need it, in the order of their names.
        - These are its children that stay and the listed snapshots that name it.
      type: list
      elements: str
      returned: always
      sample: ["job-1"]
  sample: [{"name": "servercore", "needed_by": ["job-1"]}]
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
  returned: if the list was processed
  type: list
  elements: str
  sample: ["prepare job-1", "remove job-0"]
error:
  description:
    - The first failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
    - If items failed, C(details) contains the C(name) of the first one and how many items C(failed) and were
      C(skipped).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"name": "job-1", "place": "snapshots[0]", "failed": 1, "skipped": 2}}
"""
