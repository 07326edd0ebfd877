# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: List snapshots of Windows containers
version_added: 0.1.0
description:
  - Returns all snapshots of a store, or those that match names or filters. On request, it returns their disk usage,
    mounts and scratch disks too.
  - A snapshot whose disk is damaged or whose layer is missing does not fail the task. Its entry has an C(error), and a
    warning has the same text.
  - With O(store=containerd), the task also returns what needs each snapshot, and its directory. containerd may run or
    be stopped.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)).
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes_info
options:
  names:
    description:
      - Selects snapshots by their keys and names.
      - Keys and names that do not exist are left out of the result.
      - If you also set O(filters), a snapshot must be named here and match a filter.
    type: list
    elements: str
  filters:
    description:
      - Selects snapshots by filters in containerd's filter language, such as C(kind==active), C(parent==servercore) or
        C(labels.team==blue).
      - A filter can contain several conditions, separated by commas.
      - A snapshot matches the filter if it meets all of them.
      - With several filters, a snapshot must match at least one.
    type: list
    elements: str
  usage:
    description:
      - If V(true), the task returns disk usage.
      - It visits all files of each layer to measure it.
    type: bool
    default: false
  mounts:
    description:
      - If V(true), the task returns mounts.
    type: bool
    default: false
  scratch:
    description:
      - If V(true), the task returns information about scratch disks.
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

- name: List what a team has prepared, with its size
  wcow.snapshotter.snapshot_info:
    filters:
      - kind==active,labels.team==blue
    usage: true
    scratch: true
  register: active

- name: Find out which images and containers fill the disk of a Kubernetes node
  wcow.snapshotter.snapshot_info:
    store: containerd
    usage: true
  register: kubernetes

- name: List two snapshots by name
  wcow.snapshotter.snapshot_info:
    names: [servercore, app-42]
    mounts: true
"""

RETURN = r"""
snapshots:
  description: The snapshots, in the order of their names (bytewise).
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
    usage:
      description:
        - The disk usage of the layer without its parents.
        - C(size) is in bytes, and C(inodes) is the number of files and directories.
      type: dict
      returned: O(usage=true)
      sample: {"size": 88080384, "inodes": 2}
    mounts:
      description:
        - The mounts, in containerd's format.
        - Empty for a committed snapshot.
      type: list
      elements: dict
      returned: O(mounts=true)
      sample:
        - type: windows-layer
          source: C:\ProgramData\wcow\snapshots\7
          options: ["rw", 'parentLayerPaths=["C:\\ProgramData\\wcow\\snapshots\\1"]']
    scratch:
      description:
        - The scratch disk.
        - V(none) if there is none.
        - Sizes are in bytes.
        - C(volume_size) is the size of the NTFS volume on the disk.
        - It is V(none) if it cannot be determined.
      type: dict
      returned: O(scratch=true)
      sample:
        path: C:\ProgramData\wcow\snapshots\7\sandbox.vhdx
        virtual_size: 42949672960
        file_size: 88080384
        attached: false
        volume_size: null
    namespace:
      description: The namespace of containerd.
      type: str
      returned: O(store=containerd)
      sample: k8s.io
    directory:
      description: The layer directory.
      type: str
      returned: O(store=containerd)
      sample: C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows\snapshots\7
    used_by:
      description:
        - What needs the snapshot.
        - C(images) are names of images.
        - C(containers), C(sandboxes), C(leases) and C(ingests) are ids.
        - C(content) are digests of content with the label C(containerd.io/gc.root).
        - C(roots) are the keys of snapshots with that label, which can be the snapshot itself.
        - C(children) are the keys of the snapshots that have this one as their parent.
      type: dict
      returned: O(store=containerd)
      sample:
        images: [mcr.microsoft.com/windows/nanoserver:ltsc2022]
        containers: []
        sandboxes: []
        leases: []
        roots: []
        content: []
        ingests: []
        children: [build-42]
    collectable:
      description: Whether nothing needs the snapshot, so that containerd's next garbage collection removes it.
      type: bool
      returned: O(store=containerd)
      sample: false
    error:
      description:
        - Why the disk usage or the scratch disk of this snapshot cannot be read, as C(code), C(message) and
          C(details).
        - The value that cannot be read is V(none).
      type: dict
      returned: if something cannot be read
      sample:
        code: failed_precondition
        message: 'the layer of snapshot "build-42" is missing: C:\ProgramData\wcow\snapshots\7 does not exist; restore
          it from a backup, or remove the snapshot and create it again'
        details: {"key": "build-42"}
  sample:
    - kind: active
      name: build-42
      parent: servercore
      labels: {"team": "blue"}
      created: "2026-11-24T08:36:01.123456789Z"
      updated: "2026-11-24T08:36:01.123456789Z"
      id: 7
exists:
  description:
    - Whether a store exists.
    - Without a store, the list of snapshots is empty.
  returned: success
  type: bool
  sample: true
mistakes:
  description:
    - Problems of O(filters), one sentence each, which are also warnings.
    - A filter with a field or a kind that does not exist is valid for containerd, but matches nothing or everything.
  returned: success
  type: list
  elements: str
  sample: []
containerd:
  description:
    - Where containerd's store is.
    - C(sources) says where the root, the address and the snapshotter were found.
    - C(running) says whether a process has the databases open.
    - C(program) is the service or process that was found.
    - It is V("") if there is none.
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
  sample: {"code": "invalid_argument", "details": {"operation": "list"}}
"""
