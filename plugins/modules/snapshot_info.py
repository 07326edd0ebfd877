# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/snapshot_info.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: List the snapshots of Windows containers
version_added: 0.1.0
description:
  - Returns snapshots by name, by filters or all of them, with disk usage, mounts and scratch disks on request.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes_info
options:
  names:
    description:
      - Keys and names of the snapshots to return. Those that do not exist are left out.
      - Together with O(filters), a snapshot must be named and match.
    type: list
    elements: str
  filters:
    description:
      - Filters in the language of containerd, such as C(kind==active), C(parent==servercore) or C(labels.team==blue).
        In one filter, conditions that commas separate must all hold; of several filters, one must match.
    type: list
    elements: str
  usage:
    description: Whether to return disk usage. All files of each layer are visited.
    type: bool
    default: false
  mounts:
    description: Whether to return mounts.
    type: bool
    default: false
  scratch:
    description: Whether to return what is known of scratch disks.
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.snapshot
  - name: Filters of containerd
    description: The grammar of filters.
    link: https://pkg.go.dev/github.com/containerd/containerd/v2/pkg/filters
"""

EXAMPLES = r"""
- name: List all snapshots
  wcow.snapshotter.snapshot_info:
  register: all

- name: Find what a team has prepared, and how large it is
  wcow.snapshotter.snapshot_info:
    filters:
      - kind==active,labels.team==blue
    usage: true
    scratch: true
  register: active

- name: Ask for two snapshots by name
  wcow.snapshotter.snapshot_info:
    names: [servercore, app-42]
    mounts: true
"""

RETURN = r"""
snapshots:
  description: The snapshots, ordered by name (bytewise).
  returned: success
  type: list
  elements: dict
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
    usage:
      description: Bytes (C(size)) and files and directories (C(inodes)) on disk, without the parents.
      type: dict
      returned: O(usage=true)
      sample: {"size": 88080384, "inodes": 2}
    mounts:
      description: How to mount it, in the form of containerd. Empty for a committed snapshot.
      type: list
      elements: dict
      returned: O(mounts=true)
      sample:
        - type: windows-layer
          source: C:\ProgramData\wcow\snapshots\7
          options: ["rw", 'parentLayerPaths=["C:\\ProgramData\\wcow\\snapshots\\1"]']
    scratch:
      description:
        - The scratch disk, V(none) if there is none. Sizes are in bytes. C(volume_size), the size of the NTFS volume
          inside, is V(none) where it cannot be told.
      type: dict
      returned: O(scratch=true)
      sample:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 42949672960
        file_size: 88080384
        attached: false
        volume_size: null
  sample:
    - kind: active
      name: build-42
      parent: servercore
      labels: {"team": "blue"}
      created: "2026-11-24T08:36:01.123456789Z"
      updated: "2026-11-24T08:36:01.123456789Z"
      id: 7
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "invalid_argument", "details": {"operation": "list"}}
"""
