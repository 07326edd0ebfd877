# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/snapshot.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Prepare, view, commit and remove the snapshots of Windows containers
version_added: 0.1.0
description:
  - States that one snapshot of the store is active, a view, committed or absent, with its parent, labels and disk size.
  - Snapshots have the meaning that containerd gives them. An active snapshot is writable, a view is read-only, and
    both are known by their O(key). A committed snapshot is known by its O(name) and may be the parent of others.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - With V(active) and V(view), the snapshot O(key) exists with exactly this O(parent); if it does not exist, it
        is made. One that exists with another kind or another parent is an error, never replaced.
      - With V(committed), the committed snapshot O(name) exists; if it does not, the active snapshot O(key) is
        committed under this name, and is gone afterwards.
      - With V(absent), the snapshot O(key) or O(name) does not exist.
    type: str
    choices: [active, view, committed, absent]
    default: active
  key:
    description:
      - The key of an active snapshot or view, at most 4096 bytes.
      - Required with O(state=active) and O(state=view). With O(state=committed), the active snapshot to commit.
    type: str
  name:
    description:
      - The name of a committed snapshot, at most 4096 bytes. Required with O(state=committed).
      - With O(state=absent), exactly one of O(key) and O(name) is required.
    type: str
  parent:
    description:
      - The name of the committed snapshot that this one builds on. Without it, the snapshot has no parent.
      - With O(state=committed), an existing snapshot must have this parent; without O(parent) any will do.
    type: str
  labels:
    description:
      - Labels that the snapshot has, as a dictionary of strings. Key and value together have at most 4096 bytes.
      - An empty value removes the label.
      - Values that YAML does not read as text, such as an unquoted C(1.10) or C(true), are refused, since they would
        become another text than was written.
    type: dict
  purge_labels:
    description: Whether labels that O(labels) does not name are removed.
    type: bool
    default: false
  rootfs_size:
    description:
      - The least size of the scratch disk, which a container sees as C(C:), in bytes or as a text such as V(40GB) or
        V(40GiB). Both units count 1024 x 1024 x 1024 bytes.
      - A larger disk is left as it is; a disk never shrinks. Only with O(state=active).
    type: str
  uvm_scratch:
    description: Whether a scratch disk for the utility VM of Hyper-V isolated containers is made. Only with
      O(state=active).
    type: bool
  creates:
    description:
      - If a committed snapshot of this name exists, nothing is done. A playbook that prepares, works and commits can
        so be run again. Only with O(state=active).
    type: str
  recursive:
    description:
      - Whether all snapshots that build on this one are removed too, leaves first. Without it, a snapshot with
        children is not removed. Only with O(state=absent).
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.snapshot_info
  - module: wcow.snapshotter.scratch
  - module: wcow.snapshotter.layer
  - name: Snapshots in containerd
    description: Meaning and life cycle of the three kinds.
    link: https://github.com/containerd/containerd/blob/main/docs/snapshotters/README.md
"""

EXAMPLES = r"""
- name: Prepare a writable snapshot with a disk of 40 GB
  wcow.snapshotter.snapshot:
    key: build-42
    parent: servercore
    rootfs_size: 40GB
    labels:
      team: blue
    creates: app-42

- name: Look at the base without being able to change it
  wcow.snapshotter.snapshot:
    key: look
    parent: servercore
    state: view

- name: Commit the work
  wcow.snapshotter.snapshot:
    key: build-42
    name: app-42
    state: committed

- name: Remove the view
  wcow.snapshotter.snapshot:
    key: look
    state: absent

- name: Remove a committed snapshot and all that builds on it
  wcow.snapshotter.snapshot:
    name: app-42
    state: absent
    recursive: true
"""

RETURN = r"""
snapshot:
  description: The snapshot as it is now, or would be in check mode. V(none) if it does not exist.
  returned: success
  type: dict
  contains:
    kind:
      description: V(active), V(view) or V(committed).
      type: str
      returned: success
      sample: active
    name:
      description: The key or name.
      type: str
      returned: success
      sample: build-42
    parent:
      description: The name of the parent, V("") if there is none.
      type: str
      returned: success
      sample: servercore
    labels:
      description: All labels.
      type: dict
      returned: success
      sample: {"team": "blue"}
    created:
      description: When it was made, RFC 3339 in UTC.
      type: str
      returned: success
      sample: "2026-11-24T08:36:01.123456789Z"
    updated:
      description: When its metadata changed last, RFC 3339 in UTC.
      type: str
      returned: success
      sample: "2026-11-24T08:36:01.123456789Z"
    id:
      description: The number that names the layer directory.
      type: int
      returned: success
      sample: 7
    rootfs_size:
      description: The size of the scratch disk in bytes, V(none) if there is none.
      type: int
      returned: success
      sample: 42949672960
    mounts:
      description: How to mount it, in the form of containerd. Empty for a committed snapshot.
      type: list
      elements: dict
      returned: success
      sample:
        - type: windows-layer
          source: C:\ProgramData\wcow\snapshots\7
          options: ["rw", 'parentLayerPaths=["C:\\ProgramData\\wcow\\snapshots\\1"]']
  sample:
    kind: active
    name: build-42
    parent: servercore
    labels: {"team": "blue"}
    created: "2026-11-24T08:36:01.123456789Z"
    updated: "2026-11-24T08:36:01.123456789Z"
    id: 7
    rootfs_size: 42949672960
    mounts:
      - type: windows-layer
        source: C:\ProgramData\wcow\snapshots\7
        options: ["rw", 'parentLayerPaths=["C:\\ProgramData\\wcow\\snapshots\\1"]']
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["prepare build-42"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"operation": "ensure_snapshot"}}
"""
