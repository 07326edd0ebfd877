# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/image.py and the core on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Import and remove all layers of a Windows container image
version_added: 0.1.0
description:
  - States that each layer of an image is a committed snapshot, the base layer first and each other one on top of the
    one before. They are named by their chain ids, as containerd names them, so that images share the layers that they
    have in common.
  - Or states that the image's layers are gone, as far as nothing else is based on them.
  - Nothing is pulled from a registry. The image is in a file or directory, as C(docker save), C(ctr images export),
    C(skopeo copy) and C(docker buildx build) with the outputs C(oci) and C(docker) write it.
  - Each layer is verified against both of its digests before its snapshot exists.
  - Only layers that are missing are read, and sent from the controller, one at a time. A task that was interrupted is
    continued by the next run, with the first layer that is missing.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - With V(present), the layers of the image exist; O(src) is required.
      - With V(absent), they are removed, the top layer first, up to one on which another snapshot is based. That one
        stays, and what it is based on. One of O(src) and O(chain_id) is required.
    type: str
    choices: [present, absent]
    default: present
  src:
    description:
      - An OCI image layout, as a directory or as a tar, or a file that C(docker save) wrote. The tar itself must not be
        compressed; layers in it may be gzipped. Layers that are compressed with zstd are refused.
      - A relative path on the controller is looked for as M(ansible.builtin.copy) does, first in C(files).
    type: str
  remote_src:
    description:
      - Whether O(src) is a path on the node rather than on the controller, or on a file share, such as
        V(\\\\files.example.com\\images\\all.tar).
      - The node opens a share as the user of the connection. WinRM passes no credentials on unless they are delegated
        (Kerberos with delegation, or CredSSP).
    type: bool
    default: false
  platform:
    description:
      - For which platform the image is, V(windows/) and an architecture. Of an image for many platforms, only the parts
        for this one must be in O(src).
    type: str
    default: windows/amd64
  reference:
    description:
      - The name of the image, such as V(mcr.microsoft.com/windows/nanoserver:ltsc2022). Needed if O(src) holds several
        images. It must be written as it stands in O(src); if it is not there, the error lists the names that are.
    type: str
  os_version:
    description:
      - The version of Windows that the image must be for, such as V(10.0.20348), which stands for all of its revisions,
        or V(10.0.20348.2700). If several revisions fit, the latest is taken.
      - Without it, the version of the node decides if there is a choice. If there is only one image, it is taken, with
        a warning if it is for another version than the node's.
      - On a node that is no Windows, such as one of the lab, the environment variable C(WCOW_OS_VERSION) says which
        version it stands for.
    type: str
  labels:
    description:
      - Labels that the top snapshot has, the one that containers are based on, as a dictionary of strings. Others that
        it has are left as they are; an empty value removes the label. Layers below have none, since images share them.
      - Values that YAML does not read as text, such as an unquoted C(1.10) or C(true), are refused, since they would
        become another text than was written.
    type: dict
  chain_id:
    description:
      - With O(state=absent), the name of the top snapshot, C(sha256:) and 64 hexadecimal digits, when the image itself
        is no longer at hand.
      - What is below the top snapshot is known only as long as that exists. If the removal is interrupted, give the
        name of the topmost snapshot that is left.
    type: str
seealso:
  - module: wcow.snapshotter.layer
  - module: wcow.snapshotter.snapshot
  - name: OCI image layout
    description: What the file or directory holds.
    link: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
  - name: Windows container version compatibility
    description: Which versions of Windows run containers of which.
    link: https://learn.microsoft.com/virtualization/windowscontainers/deploy-containers/version-compatibility
"""

EXAMPLES = r"""
- name: Have the layers of an image whose archive lies on the controller
  wcow.snapshotter.image:
    src: nanoserver-ltsc2022.tar
  register: nanoserver

- name: Prepare a container's snapshot on top of them
  wcow.snapshotter.snapshot:
    key: web-1
    parent: "{{ nanoserver.chain_id }}"
  when: not ansible_check_mode

- name: Have an image of several in an archive on the node, for a given Windows
  wcow.snapshotter.image:
    src: C:\images\all.tar
    remote_src: true
    reference: registry.example.com/app:1.4
    os_version: 10.0.20348
    labels:
      team: blue

- name: Remove its layers but for those that others need
  wcow.snapshotter.image:
    src: C:\images\all.tar
    remote_src: true
    reference: registry.example.com/app:1.4
    os_version: 10.0.20348
    state: absent
"""

RETURN = r"""
chain_id:
  description: The name of the top snapshot, which is the parent for containers of the image.
  returned: success
  type: str
  sample: sha256:2d3f0a1c5b0e3b8c1ab0a1f0c6d5c2a44a1f3b0c9c8d7e6f5a4b3c2d1e0f9a8b
chain:
  description: The snapshots of the image, the base first. C(imported) says whether this task made it, or would in check
    mode. C(diff_id) is the digest of the layer's plain tar, empty if only O(chain_id) was given.
  returned: success
  type: list
  elements: dict
  sample:
    - name: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      parent: ""
      diff_id: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      imported: true
config:
  description: The digest of the image's configuration, which is what Docker calls the image's ID.
  returned: if O(src) was given
  type: str
  sample: sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
os_version:
  description: The version of Windows that the image is for, empty if it does not say.
  returned: if O(src) was given
  type: str
  sample: 10.0.20348.2700
kept:
  description: The snapshots of the chain that stay, since others are based on them.
  returned: O(state=absent)
  type: list
  elements: str
  sample: []
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["import sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
error:
  description: The failure for programs, C(code) being one of V(not_found), V(already_exists), V(failed_precondition),
    V(invalid_argument), V(unavailable), V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "invalid_argument", "details": {"operation": "ensure_image"}}
"""
