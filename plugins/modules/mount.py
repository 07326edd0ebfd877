# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mount
short_description: Mount a snapshot of a Windows container at a directory of the node
version_added: 0.1.0
description:
  - Ensures that an active snapshot or a view is mounted at a directory of the node, or that it is not. The directory
    shows all layers of the snapshot as one tree.
  - Mounts an active snapshot writable. What is written there becomes part of the snapshot.
  - Mounts a view read-only. A view gets its scratch disk when it is mounted for the first time.
  - A mount does not survive a restart of the node. Run the task again to restore it.
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
      - Selects the state of the mount.
      - V(mounted) requires O(key) and O(target).
      - V(unmounted) requires exactly one of O(key) and O(target).
      - A snapshot that does not exist counts as unmounted.
    type: str
    choices:
      mounted: The snapshot is mounted at the target.
      unmounted: Nothing is mounted at the target, or the snapshot is not mounted anywhere.
    default: mounted
  key:
    description:
      - Names the active snapshot or view by its key.
    type: str
  target:
    description:
      - Names the directory on the node.
      - It must be an absolute path.
      - The task creates the directory if it does not exist.
      - An existing directory must be empty.
      - The empty directory stays when the snapshot is unmounted.
    type: str
seealso:
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Prepare a snapshot to write files to
  wcow.snapshotter.snapshot:
    key: patched
    parent: servercore
    creates: servercore-patched
  register: patched

- name: Mount it
  wcow.snapshotter.mount:
    key: patched
    target: C:\mnt\patched
  when: patched.snapshot.kind == "active"

- name: Unmount it before it is committed
  wcow.snapshotter.mount:
    target: C:\mnt\patched
    state: unmounted
"""

RETURN = r"""
mount:
  description:
    - The mount as it is now or, in check mode, as it would be after the task.
    - V(none) with O(state=unmounted).
  returned: success
  type: dict
  sample:
    key: patched
    target: C:\mnt\patched
    read_only: false
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
  sample: ["mount patched"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"operation": "ensure_mount"}}
"""
