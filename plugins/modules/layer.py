# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: layer
short_description: Import and export layers of Windows container images
version_added: 0.1.0
description:
  - Ensures that a committed snapshot exists. If it does not exist, the task imports it from a layer tar of an OCI
    image, plain or gzipped.
  - With O(state=exported), ensures that the layer of a committed snapshot exists as a tar on the node. Exporting the
    same layer again gives the same bytes.
  - Refuses the whole archive if one of its entries leads out of the layer, by name or by link, or has a type that a
    Windows layer cannot contain. Nothing is left behind in that case.
  - Sends a file from the controller only if the snapshot does not exist yet. If an upload is interrupted, the next run
    continues it.
  - Gives the snapshot the label C(containerd.io/snapshot.ref) with the chain id of the layer. By it, a containerd that
    has the store as its snapshotter finds the layer and does not unpack it again. The chain id follows from the tar and
    from the label of the parent, so all layers below must have been imported by this module or by
    M(wcow.snapshotter.image). A layer above a snapshot that was committed from an active snapshot does not get the
    label.
  - The tar must be the one that the image lists in C(diff_ids), which the option O(digest) verifies. The tar that an
    export wrote has the same contents and another digest, so containerd does not find a layer that was imported from
    it.
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
      - Selects what the task ensures.
      - V(imported) requires O(src), and V(exported) requires O(dest).
    type: str
    choices:
      imported: The layer is a committed snapshot of the store.
      exported: The layer is a tar on the node.
    default: imported
  name:
    description:
      - Names the committed snapshot.
      - A name has at most 4096 bytes.
    type: str
    required: true
  src:
    description:
      - Names the layer tar to import.
      - It may be compressed with gzip or zstd.
      - To read zstd, the controller needs Python 3.14 or the Python package C(zstandard).
      - With O(remote_src=true), the node needs Python 3.14.
      - The task searches for a relative path on the controller as M(ansible.builtin.copy) does, first in C(files).
    type: str
  remote_src:
    description:
      - If V(true), O(src) is a path on the node, or on a file share such as V(\\\\files.example.com\\images\\app.tar).
      - If V(false), O(src) is a path on the controller.
      - The node opens a share as the user of the connection.
      - WinRM passes no credentials on unless they are delegated (Kerberos with delegation, or CredSSP).
    type: bool
    default: false
  parent:
    description:
      - Names the committed snapshot that is the layer below.
      - Without this option and O(parent_image), the layer is a base layer.
      - Mutually exclusive with O(parent_image).
    type: str
  parent_image:
    description:
      - Names the image whose top layer is the layer below, such as V(mcr.microsoft.com/windows/nanoserver:ltsc2022), as
        in M(wcow.snapshotter.snapshot).
      - Mutually exclusive with O(parent).
    type: str
  labels:
    description:
      - Sets labels on the snapshot.
      - The value is a dictionary of strings.
      - Other labels of the snapshot stay as they are.
      - An empty value removes the label.
      - The task refuses values that YAML does not read as text, such as an unquoted C(1.10) or C(true), because YAML
        would turn them into a different text.
      - A label C(containerd.io/snapshot.ref) in this option outranks the one that the task sets.
      - An empty value keeps containerd from adopting the layer.
    type: dict
  digest:
    description:
      - Specifies the digest that the uncompressed tar must have.
      - The value is C(sha256:) followed by 64 hexadecimal digits.
      - The prefix may be missing and the digits may be upper case, as C(Get-FileHash) prints them.
      - In the image's configuration, the digest is the layer's entry in C(diff_ids).
      - The task verifies the digest during the import, before the snapshot exists.
      - A snapshot that exists gets the label C(containerd.io/snapshot.ref) later only if O(name) is the chain id that
        follows from this option.
      - The layer is not compared with the tar, and only such a name says what it contains.
      - To give the label to another snapshot, remove it and import the layer again.
      - In check mode, the tar is not read.
      - The result shows the label only if this option is set.
      - A layer with the right digest is imported even if it looks damaged.
      - Its end mark may be missing, its names may begin with C(./), and it may be compressed to less than 1/250 of its
        size.
    type: str
  dest:
    description:
      - Names the file on the node to export to with O(state=exported).
      - It must be an absolute path, and its directory must exist.
      - If the name ends in C(.gz), the task compresses the tar with gzip.
    type: str
  force:
    description:
      - If V(true), the export overwrites a file that exists at O(dest).
      - If V(false), that file stays as it is.
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.snapshot
  - name: Image Layer Filesystem Changeset
    description: The contents of a layer tar.
    link: https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

EXAMPLES = r"""
- name: Import a base layer from the controller
  wcow.snapshotter.layer:
    name: servercore
    src: servercore-ltsc2022.tar.gz

- name: Import a layer from the node, on top of the base layer
  wcow.snapshotter.layer:
    name: app
    parent: servercore
    src: C:\images\app.tar
    remote_src: true
    labels:
      team: blue

- name: Export the layer to a file on the node
  wcow.snapshotter.layer:
    name: app
    state: exported
    dest: C:\images\app-copy.tar.gz
"""

RETURN = r"""
snapshot:
  description:
    - The committed snapshot as it is now or, in check mode, as it would be after the task.
    - It has the form that M(wcow.snapshotter.snapshot) returns.
  returned: O(state=imported)
  type: dict
  sample:
    kind: committed
    name: servercore
    parent: ""
    labels:
      containerd.io/snapshot.ref: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    created: "2026-11-24T08:36:01.123456789Z"
    updated: "2026-11-24T08:36:01.123456789Z"
    id: 1
    rootfs_size: null
    mounts: []
layer:
  description:
    - The import or export.
    - V(none) if the task did not import or export anything.
    - C(size) is the size of the uncompressed tar in bytes, and C(digest) is its SHA-256.
    - C(entries) is the number of its entries, for an import only.
  returned: success
  type: dict
  sample:
    size: 10485760
    digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    entries: 1234
dest:
  description: The file that the task was asked to write.
  returned: O(state=exported)
  type: str
  sample: C:\images\app-copy.tar.gz
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
  sample: ["import servercore"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "invalid_argument", "details": {"operation": "ensure_layer"}}
"""
