# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/layer.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: layer
short_description: Import and export layers of Windows container images
version_added: 0.1.0
description:
  - States that a committed snapshot exists; if it does not, it is made from a layer tar of an OCI image, plain or
    gzipped.
  - Or states that the layer of a committed snapshot exists as a tar on the node. The same layer gives the same bytes.
  - An archive whose entries leave the layer, by name or by link, or are of a type that no Windows layer has is
    refused as a whole, and nothing is left behind.
  - A file of the controller is sent only if the snapshot does not exist yet. An upload that broke off is continued by
    the next run.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - With V(imported), the layer is a committed snapshot of the store; O(src) is required.
      - With V(exported), the layer tar O(dest) exists on the node; it is written if it does not.
    type: str
    choices: [imported, exported]
    default: imported
  name:
    description: The name of the committed snapshot, at most 4096 bytes.
    type: str
    required: true
  src:
    description:
      - The layer tar. A relative path on the controller is looked for as M(ansible.builtin.copy) does, first in
        C(files).
    type: str
  remote_src:
    description:
      - Whether O(src) is a path on the node rather than on the controller, or on a file share, such as
        V(\\\\files.example.com\\images\\app.tar).
      - The node opens a share as the user of the connection. WinRM passes no credentials on unless they are delegated
        (Kerberos with delegation, or CredSSP).
    type: bool
    default: false
  parent:
    description: The name of the committed snapshot that is the layer below. Without it, the layer is a base layer.
    type: str
  labels:
    description:
      - Labels that the snapshot has, as a dictionary of strings. Others that it has are left as they are; an empty
        value removes the label.
      - Values that YAML does not read as text, such as an unquoted C(1.10) or C(true), are refused, since they would
        become another text than was written.
    type: dict
  digest:
    description:
      - The digest that the uncompressed tar must have, C(sha256:) and 64 hexadecimal digits. In the image's
        configuration it is the layer's entry in C(diff_ids).
      - It is verified when the layer is imported, before the snapshot exists.
    type: str
  dest:
    description:
      - The file on the node that O(state=exported) wants, an absolute path. Its directory must exist. If it ends in
        C(.gz), it is gzipped.
    type: str
  force:
    description: Whether a file that exists at O(dest) is written anew.
    type: bool
    default: false
seealso:
  - module: wcow.snapshotter.snapshot
  - name: Image Layer Filesystem Changeset
    description: What a layer tar holds.
    link: https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

EXAMPLES = r"""
- name: Import a base layer that lies on the controller
  wcow.snapshotter.layer:
    name: servercore
    src: servercore-ltsc2022.tar.gz

- name: Import a layer that lies on the node, on top of it
  wcow.snapshotter.layer:
    name: app
    parent: servercore
    src: C:\images\app.tar
    remote_src: true
    labels:
      team: blue

- name: Export it on the node
  wcow.snapshotter.layer:
    name: app
    state: exported
    dest: C:\images\app-copy.tar.gz
"""

RETURN = r"""
snapshot:
  description: The committed snapshot as it is now, or would be in check mode, as M(wcow.snapshotter.snapshot) returns
    it.
  returned: O(state=imported)
  type: dict
  sample:
    kind: committed
    name: servercore
    parent: ""
    labels: {}
    created: "2026-11-24T08:36:01.123456789Z"
    updated: "2026-11-24T08:36:01.123456789Z"
    id: 1
    rootfs_size: null
    mounts: []
layer:
  description: The import or export, V(none) if none was made. C(size) counts the bytes of the uncompressed tar, and
    C(digest) is its SHA-256; C(entries) counts its entries, on import only.
  returned: success
  type: dict
  sample:
    size: 10485760
    digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    entries: 1234
dest:
  description: The file that was asked for.
  returned: O(state=exported)
  type: str
  sample: C:\images\app-copy.tar.gz
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["import servercore"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "invalid_argument", "details": {"operation": "ensure_layer"}}
"""
