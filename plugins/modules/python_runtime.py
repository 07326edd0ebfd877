# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and plugin_utils/_powershell.py do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_runtime
short_description: Install a private Python on a Windows node, or remove it
version_added: 0.1.0
description:
  - Ensures that the Python that the collection's other modules use exists on the node at O(python), or that it does not
    exist.
  - Unpacks the embeddable package of python.org and installs nothing into Windows. C(PATH) and the registry do not
    change, and no other program finds or uses this Python.
  - Takes the package from O(url), which the node downloads, or from O(src), a file on the controller. The node verifies
    its SHA-256, unpacks it beside the old runtime, tries it, and renames it into place.
  - Makes Administrators the owner of the directory. Only they and SYSTEM have access. If other users had access to an
    existing runtime, the task does not run it and replaces it.
  - Works without a Python on the node, unlike all other modules. It needs Windows PowerShell 5.1 and .NET Framework
    4.7, which are part of Windows Server 2019 and newer. docs/powershell.md of the collection lists all its PowerShell.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - Selects the state of the runtime.
      - In both states, the task fails and leaves the directory alone if it contains anything that this module did not
        install.
      - In both states, the task fails and changes nothing while the runtime's C(python.exe) is running.
    type: str
    choices:
      present: The runtime is installed. The task replaces a runtime that has another version or digest, that is
        damaged, or that other users have access to. It removes what an interrupted run left behind.
      absent: The runtime does not exist. The collection's payload and stores stay.
    default: present
  version:
    description:
      - Specifies the version of Python in the package.
      - It must be 3.9.0 or newer, and C(python.exe) must report the same version.
    type: str
    default: 3.12.10
  checksum:
    description:
      - Specifies the SHA-256 of the package as 64 hexadecimal digits.
      - The prefix V(sha256:) is optional.
      - You can omit this option only for the default package, 3.12.10 for amd64, whose digest the collection knows.
      - It is required with O(url).
    type: str
  url:
    description:
      - Specifies an C(https) or C(http) URL of the package.
      - The node must be able to reach it, and uses its system proxy.
      - Mutually exclusive with O(src).
      - The default is the package of O(version) for amd64 on www.python.org.
      - For arm64, give the URL of that package.
    type: str
  src:
    description:
      - Names the package on the controller, for nodes that cannot reach a URL.
      - The task searches for it as M(ansible.builtin.copy) does.
      - The file can have at most 32 MiB.
    type: str
notes:
  - O(root), O(layers) and O(cache_dir) have no effect on this module. It accepts them so that C(module_defaults) can
    set them for all modules.
  - The runtime needs the directory of O(python) for itself. Only administrators may be able to write to the parent
    directory, as is the case below C(C:\Program Files).
seealso:
  - module: ansible.builtin.raw
"""

EXAMPLES = r"""
- name: Install a Python for the collection from python.org
  wcow.snapshotter.python_runtime:

- name: Install it from the controller, for nodes without internet access
  wcow.snapshotter.python_runtime:
    src: python-3.12.10-embed-amd64.zip

- name: Install another version from a mirror
  wcow.snapshotter.python_runtime:
    version: 3.13.0
    url: https://mirror.example.com/python-3.13.0-embed-arm64.zip
    checksum: sha256:0000000000000000000000000000000000000000000000000000000000000000

- name: Remove the runtime
  wcow.snapshotter.python_runtime:
    state: absent
"""

RETURN = r"""
runtime:
  description:
    - The runtime as it is now or, in check mode, as it would be after the task.
    - V(none) if there is none.
  returned: success
  type: dict
  contains:
    python:
      description: The path of its C(python.exe).
      type: str
      returned: success
      sample: C:\Program Files\wcow\python\python.exe
    version:
      description: The version of Python.
      type: str
      returned: success
      sample: 3.12.10
    sha256:
      description: The SHA-256 of the package.
      type: str
      returned: success
      sample: 4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3
  sample:
    python: C:\Program Files\wcow\python\python.exe
    version: 3.12.10
    sha256: 4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3
actions:
  description:
    - The changes that the task made, in order.
    - In check mode, the changes that it would make.
    - Empty if there is nothing to change.
  returned: success
  type: list
  elements: str
  sample: ["replace 3.11.9 by 3.12.10", "clean"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(failed_precondition), V(invalid_argument), V(unavailable) and V(internal).
    - C(details) contains the C(step) of the script that failed.
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"step": "verify"}}
"""
