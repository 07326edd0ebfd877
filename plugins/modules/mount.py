# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/mount.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mount
short_description: Mount a snapshot of Windows containers at a directory of the node
version_added: 0.1.0
description:
  - States that an active snapshot or a view is a directory tree at a place of the node, all its layers in one, or that
    it is not.
  - An active snapshot is mounted writable, and what is written is part of it. A view is mounted read-only; it gets its
    scratch disk with its first mount.
  - A mount does not outlive a restart of the node. The task mounts it again.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - With V(mounted), the snapshot O(key) is mounted at O(target).
      - With V(unmounted), nothing is mounted at O(target), or O(key) is mounted nowhere; exactly one of both is
        required. A snapshot that does not exist is mounted nowhere.
    type: str
    choices: [mounted, unmounted]
    default: mounted
  key:
    description: The key of the active snapshot or view.
    type: str
  target:
    description:
      - The directory, an absolute path on the node. It is made if it does not exist, and must be empty otherwise.
      - It stays, empty, when the snapshot is unmounted.
    type: str
seealso:
  - module: wcow.snapshotter.snapshot
"""

EXAMPLES = r"""
- name: Prepare a snapshot to put files into
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
  description: The mount as it is now, or would be in check mode. V(none) with O(state=unmounted).
  returned: success
  type: dict
  sample:
    key: patched
    target: C:\mnt\patched
    read_only: false
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["mount patched"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"operation": "ensure_mount"}}
"""
