# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Import or remove all layers of a Windows container image
version_added: 0.1.0
description:
  - Ensures that each layer of an image exists as a committed snapshot. The base layer comes first, and each other layer
    has the one below it as its parent. As in containerd, the chain id of a layer is the name of its snapshot, so images
    share the layers that they have in common.
  - With O(state=absent), removes the image's layers, except those that other snapshots are based on.
  - With O(store=containerd), the result is an image of containerd, as after a pull. The task writes the manifest, the
    configuration and the layers into containerd's content store, unpacks the layers, and creates the records of the
    image last. kubelet then finds the image on the node and does not pull it. With O(state=absent), the task removes
    the records, and containerd's garbage collection removes what no other image, container or lease needs.
  - Reads the image from a file or directory and pulls nothing from a registry. Suitable sources are C(docker save),
    C(ctr images export), C(skopeo copy), and C(docker buildx build) with the output types C(oci) and C(docker).
  - Verifies each layer against both of its digests before the snapshot exists.
  - Reads only the layers that are missing, one at a time. If the image is on the controller, only these layers are
    sent. If a task is interrupted, the next run continues with the first missing layer.
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
      - Selects the state of the image.
      - V(present) requires O(src).
      - V(absent) requires one of O(src) and O(chain_id), or with O(store=containerd) one of O(src) and O(names).
      - With O(store=containerd) and V(absent), the task refuses to remove an image that a container uses, and names the
        container.
      - If another image shares layers with the removed one, containerd's garbage collection leaves links to the layers
        that are gone. M(wcow.snapshotter.store_check) reports them as C(dangling_child), and repairs them.
    type: str
    choices:
      present: The layers of the image exist. The task imports those that are missing.
      absent: The task removes the layers, starting at the top. It stops at the first layer that another snapshot is
        based on, and keeps that layer and everything below it. On containerd's store, it removes records of images.
    default: present
  src:
    description:
      - Names the image.
      - It must be an OCI image layout, as a directory or as a tar, or a file that C(docker save) wrote.
      - The tar itself must not be compressed.
      - Layers inside it may be gzipped, or compressed with zstd.
      - To read zstd, the controller needs Python 3.14 or the Python package C(zstandard).
      - With O(remote_src=true), the node needs Python 3.14.
      - With O(store=containerd), containerd reads the layers, so neither needs it.
      - The task searches for a relative path on the controller as M(ansible.builtin.copy) does, first in C(files).
    type: str
  remote_src:
    description:
      - If V(true), O(src) is a path on the node, or on a file share such as V(\\\\files.example.com\\images\\all.tar).
      - If V(false), O(src) is a path on the controller.
      - The node opens a share as the user of the connection.
      - WinRM passes no credentials on unless they are delegated (Kerberos with delegation, or CredSSP).
    type: bool
    default: false
  platform:
    description:
      - Selects the platform of the image.
      - The value is V(windows/) followed by an architecture.
      - If an image supports several platforms, O(src) only has to contain the parts for this one.
    type: str
    default: windows/amd64
  reference:
    description:
      - Selects the image by its name, such as V(mcr.microsoft.com/windows/nanoserver:ltsc2022).
      - It is required if O(src) contains several images.
      - The name must be spelled as in O(src).
      - Only C(docker.io/library/) may be missing.
      - A tag alone selects an image if no other image in O(src) has that tag.
      - If several images could be meant, the task fails and lists them, those without a name of their own by a digest.
      - That digest is a valid value, too.
      - Several platforms or Windows versions of one image are not several images.
    type: str
  os_version:
    description:
      - Selects the image by its version of Windows.
      - V(10.0.20348) matches all revisions of that version; V(10.0.20348.2700) matches one revision.
      - If several revisions match, the task uses the latest.
      - If you do not set this option, the task uses the latest version that the node runs without Hyper-V isolation.
      - Hosts before Windows Server 2022 need an image of their own build.
      - Newer hosts also run older images, down to the latest long-term release before their own (Windows Server 2022 at
        the least).
      - If there is only one image, the task uses it, and issues a warning if the node cannot run it.
      - On a node that does not run Windows, such as a lab node, the environment variable C(WCOW_OS_VERSION) specifies
        the version of Windows that the node simulates.
    type: str
  labels:
    description:
      - Sets labels on the top snapshot, the one that containers are based on.
      - The value is a dictionary of strings.
      - Other labels of the snapshot stay as they are.
      - An empty value removes the label.
      - The task sets none of them on the layers below, because images share them.
      - Each layer that the task imports has the label C(containerd.io/snapshot.ref).
      - By it, a containerd that has the store as its snapshotter finds the layer, and does not unpack it again.
      - The task refuses values that YAML does not read as text, such as an unquoted C(1.10) or C(true), because YAML
        would turn them into a different text.
      - With O(store=containerd), the labels belong to the records of the image.
    type: dict
  chain_id:
    description:
      - Names the top snapshot of the image to remove with O(state=absent).
      - Use it when the image itself is no longer available.
      - The value is C(sha256:) followed by 64 hexadecimal digits.
      - Only the top snapshot leads to the snapshots below it.
      - If the removal is interrupted, give the name of the topmost snapshot that is left.
      - This option is not available with O(store=containerd), where O(names) names the image.
    type: str
  names:
    description:
      - Names the image, as the C(image) of a pod does.
      - Other tasks find its top layer by these names, with the option C(parent_image).
      - The task completes names as Kubernetes does.
      - For example, V(nanoserver) becomes V(docker.io/library/nanoserver:latest).
      - If a name has a tag and a digest, only the digest counts.
      - If you do not set this option, the task uses the names in O(src).
      - A tag alone is not a name.
      - If O(src) has no names, the image has none with O(store=own), and the task fails with O(store=containerd).
      - With O(store=own), each name is a label of the top snapshot, C(wcow.snapshotter/image/) followed by the name.
      - Its value is the platform of the image.
      - A name stands for one image of each build of Windows.
      - If another image had the name, that image loses it.
      - With O(store=containerd), the names are those of the records of the image.
      - With O(state=absent), this option requires O(store=containerd).
      - A name can then also be the id of an image, V(sha256:) followed by 64 hexadecimal digits.
      - It stands for all names of that image.
      - When the last tag of an image goes, the task also removes the records that kubelet created for the image.
    type: list
    elements: str
  pinned:
    description:
      - If V(true), protects the image from kubelet's garbage collection, by the label
        C(io.cri-containerd.pinned=pinned) of the records.
      - If V(false), removes this label.
      - If you do not set this option, the task does not change the label.
      - kubelet respects the label with containerd 1.6.29, 1.7.14, 2.0 and later versions.
      - This option requires O(store=containerd).
    type: bool
  unpack:
    description:
      - If V(false), the task does not unpack the layers.
      - containerd unpacks them when the first container needs them.
      - This saves space, but the first start takes longer.
      - If you do not set this option, the task unpacks the layers.
      - This option requires O(store=containerd).
    type: bool
seealso:
  - module: wcow.snapshotter.layer
  - module: wcow.snapshotter.snapshot
  - name: OCI image layout
    description: The contents of the file or directory.
    link: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
  - name: Windows container version compatibility
    description: Which container versions each version of Windows can run.
    link: https://learn.microsoft.com/virtualization/windowscontainers/deploy-containers/version-compatibility
"""

EXAMPLES = r"""
- name: Import the layers of an image from an archive on the controller
  wcow.snapshotter.image:
    src: nanoserver-ltsc2022.tar
    names: [mcr.microsoft.com/windows/nanoserver:ltsc2022]

- name: Prepare a container's snapshot on top of them
  wcow.snapshotter.snapshot:
    key: web-1
    parent_image: mcr.microsoft.com/windows/nanoserver:ltsc2022

- name: Import one of several images in an archive on the node, for a given version of Windows
  wcow.snapshotter.image:
    src: C:\images\all.tar
    remote_src: true
    reference: registry.example.com/app:1.4
    os_version: 10.0.20348
    labels:
      team: blue

- name: Remove its layers, except those that other snapshots are based on
  wcow.snapshotter.image:
    src: C:\images\all.tar
    remote_src: true
    reference: registry.example.com/app:1.4
    os_version: 10.0.20348
    state: absent

- name: Give kubelet an image before the first pod needs it, and protect it from kubelet's garbage collection
  wcow.snapshotter.image:
    store: containerd
    src: C:\images\all.tar
    remote_src: true
    reference: registry.example.com/app:1.4
    os_version: 10.0.20348
    names: [registry.example.com/app:1.4]
    pinned: true

- name: Remove it from containerd
  wcow.snapshotter.image:
    store: containerd
    names: [registry.example.com/app:1.4]
    state: absent
"""

RETURN = r"""
chain_id:
  description:
    - The name of the top snapshot, which is the parent of the image's containers.
    - RV(names) stand for it.
  returned: success, except O(store=containerd) with O(state=absent)
  type: str
  sample: sha256:2d3f0a1c5b0e3b8c1ab0a1f0c6d5c2a44a1f3b0c9c8d7e6f5a4b3c2d1e0f9a8b
chain:
  description:
    - The snapshots of the image, starting with the base.
    - C(imported) tells whether this task imported the layer or, in check mode, would import it.
    - C(diff_id) is the digest of the uncompressed layer tar.
    - It is empty if only O(chain_id) was given.
  returned: success, except O(store=containerd) with O(state=absent)
  type: list
  elements: dict
  sample:
    - name: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      parent: ""
      diff_id: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      imported: true
config:
  description:
    - The digest of the image's configuration.
    - Docker calls it the image ID.
  returned: if O(src) was given
  type: str
  sample: sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
os_version:
  description:
    - The version of Windows that the image is for.
    - Empty if the image does not specify it.
  returned: if O(src) was given
  type: str
  sample: 10.0.20348.2700
names:
  description:
    - The names of the image, in their complete form.
    - Each can be the C(parent_image) of a snapshot.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["mcr.microsoft.com/windows/nanoserver:ltsc2022"]
kept:
  description: The snapshots of the chain that stay, because other snapshots are based on them.
  returned: O(state=absent), except O(store=containerd)
  type: list
  elements: str
  sample: []
manifest:
  description:
    - The digest that the records of the image name.
    - That is the image's manifest, or an index that contains it if containerd already had one.
  returned: O(store=containerd) and O(state=present)
  type: str
  sample: sha256:f29cbb6dabff28ebb7ee5a7d8e8e1b3b2a21a4e2b8e0a4d6b34ad6b21cb5a7a1
images:
  description:
    - The records of the image after the task, with their labels.
    - C(target) is the digest that a record names.
  returned: O(store=containerd) and O(state=present)
  type: list
  elements: dict
  sample:
    - name: registry.example.com/app:1.4
      target: sha256:f29cbb6dabff28ebb7ee5a7d8e8e1b3b2a21a4e2b8e0a4d6b34ad6b21cb5a7a1
      labels: {"io.cri-containerd.pinned": "pinned"}
      pinned: true
freed:
  description:
    - What containerd's garbage collection freed because the records are gone or, in check mode, what it would free.
    - C(bytes) counts the layers as the snapshotter measured them, and the content that no other namespace has.
  returned: O(store=containerd) and O(state=absent)
  type: dict
  sample:
    bytes: 1288490188
    snapshots: ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    content: ["sha256:f29cbb6dabff28ebb7ee5a7d8e8e1b3b2a21a4e2b8e0a4d6b34ad6b21cb5a7a1"]
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
  sample: ["import sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "invalid_argument", "details": {"operation": "ensure_image"}}
"""
