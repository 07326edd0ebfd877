# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Prepare, view, commit and remove snapshots of Windows containers
version_added: 0.1.0
description:
  - Ensures that one snapshot of the store is active, a view, committed or absent, with a given parent, labels and disk
    size.
  - Uses the terms of containerd. An active snapshot is writable and a view is read-only. Both are identified by their
    O(key). A committed snapshot is identified by its O(name) and can be the parent of other snapshots.
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
      - Selects the state of the snapshot.
      - V(active) and V(view) require O(key), and V(committed) requires O(name).
      - V(absent) requires exactly one of O(key) and O(name).
      - If a snapshot with this key or name has another kind or another parent, the task fails and does not replace it.
    type: str
    choices:
      active: A writable snapshot with this key exists, and has exactly this parent.
      view: A read-only snapshot with this key exists, and has exactly this parent.
      committed: A committed snapshot with this name exists. If it does not, the task commits the active snapshot with
        this key, which is gone afterwards.
      absent: A snapshot with this key or name does not exist.
    default: active
  key:
    description:
      - Names an active snapshot or view by its key.
      - A key has at most 4096 bytes.
      - Required with O(state=active) and O(state=view).
      - With O(state=committed), it names the active snapshot to commit.
    type: str
  name:
    description:
      - Names a committed snapshot.
      - A name has at most 4096 bytes.
      - Required with O(state=committed).
      - With O(state=absent), exactly one of O(key) and O(name) is required.
    type: str
  parent:
    description:
      - Names the committed snapshot that this snapshot is based on.
      - Without this option and O(parent_image), an active snapshot or view has no parent.
      - With O(state=committed), an existing snapshot must have this parent. Without the two options, it can have any.
      - Mutually exclusive with O(parent_image).
    type: str
  parent_image:
    description:
      - Names the image that this snapshot is based on, such as V(mcr.microsoft.com/windows/nanoserver:ltsc2022).
      - The parent is the top layer of that image.
      - The task completes the name as Kubernetes does.
      - For example, V(nanoserver) becomes V(docker.io/library/nanoserver:latest).
      - M(wcow.snapshotter.image) records the names of an image.
      - With O(store=containerd), an image that containerd pulled has its name, too.
      - If the name stands for images for several versions of Windows, the task uses the one that
        M(wcow.snapshotter.image) would choose for the node.
      - If the image has another top layer than before, the task fails for a snapshot that exists.
      - It names both layers, and says what to do.
      - In check mode, the task assumes that an earlier task imports an image that is unknown, and issues a warning.
      - Mutually exclusive with O(parent).
    type: str
  labels:
    description:
      - Sets labels on the snapshot.
      - The value is a dictionary of strings.
      - The key and the value of a label have at most 4096 bytes together.
      - An empty value removes the label.
      - Other labels stay as they are, unless O(purge_labels) is V(true).
      - The task refuses values that YAML does not read as text, such as an unquoted C(1.10) or C(true), because YAML
        would turn them into a different text.
    type: dict
  purge_labels:
    description:
      - If V(true), the task removes labels that O(labels) does not contain.
    type: bool
    default: false
  rootfs_size:
    description:
      - Sets the minimum size of the scratch disk, in bytes or as a text such as V(40GB) or V(40GiB).
      - Both units count 1024 x 1024 x 1024 bytes.
      - A number below 1 GiB needs a unit.
      - A container sees this disk as C(C:).
      - A larger disk stays as it is; a disk never shrinks.
      - Valid only with O(state=active).
    type: str
  uvm_scratch:
    description:
      - If V(true), the snapshot also gets a scratch disk for the utility VM of Hyper-V isolated containers.
      - Valid only with O(state=active).
    type: bool
  creates:
    description:
      - Names the committed snapshot that the playbook makes from this active snapshot.
      - If it exists already, the task does nothing.
      - A playbook that prepares a snapshot, changes it and commits it can therefore run again.
      - Valid only with O(state=active).
    type: str
  recursive:
    description:
      - If V(true), the task also removes all snapshots that are based on this one, leaves first.
      - If V(false), the task fails if the snapshot has children.
      - Valid only with O(state=absent).
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.snapshot_info
  - module: wcow.snapshotter.scratch
  - module: wcow.snapshotter.layer
  - name: Snapshots in containerd
    description: The meaning and life cycle of the three kinds.
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

- name: Prepare a container's snapshot on top of an image
  wcow.snapshotter.snapshot:
    key: web-1
    parent_image: mcr.microsoft.com/windows/nanoserver:ltsc2022

- name: View the base layer read-only
  wcow.snapshotter.snapshot:
    key: look
    parent: servercore
    state: view

- name: Commit the active snapshot
  wcow.snapshotter.snapshot:
    key: build-42
    name: app-42
    state: committed

- name: Remove the view
  wcow.snapshotter.snapshot:
    key: look
    state: absent

- name: Remove a committed snapshot and everything that is based on it
  wcow.snapshotter.snapshot:
    name: app-42
    state: absent
    recursive: true
"""

RETURN = r"""
snapshot:
  description:
    - The snapshot as it is now or, in check mode, as it would be after the task.
    - V(none) if it does not exist.
  returned: success
  type: dict
  contains:
    kind:
      description: V(active), V(view) or V(committed).
      type: str
      returned: success
      sample: active
    name:
      description: The key of an active snapshot or view, or the name of a committed snapshot.
      type: str
      returned: success
      sample: build-42
    parent:
      description:
        - The name of the parent.
        - V("") if there is none.
      type: str
      returned: success
      sample: servercore
    labels:
      description: The labels of the snapshot.
      type: dict
      returned: success
      sample: {"team": "blue"}
    created:
      description: The time at which the snapshot was created, in RFC 3339 format and UTC.
      type: str
      returned: success
      sample: "2026-11-24T08:36:01.123456789Z"
    updated:
      description: The time at which its metadata last changed, in RFC 3339 format and UTC.
      type: str
      returned: success
      sample: "2026-11-24T08:36:01.123456789Z"
    id:
      description: The id, which names the layer directory.
      type: int
      returned: success
      sample: 7
    parent_image:
      description: The name of the image that the parent is the top layer of, in its complete form.
      type: str
      returned: if O(parent_image) was given, unless O(creates) exists
      sample: mcr.microsoft.com/windows/nanoserver:ltsc2022
    rootfs_size:
      description:
        - The size of the scratch disk in bytes.
        - V(none) if there is none.
      type: int
      returned: success
      sample: 42949672960
    mounts:
      description:
        - The mounts, in containerd's format.
        - Empty for a committed snapshot.
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
  returned: success
  type: list
  elements: str
  sample: ["prepare build-42"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "not_found", "details": {"operation": "ensure_snapshot"}}
"""
