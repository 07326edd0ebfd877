# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/python_runtime.py and plugin_utils/_powershell.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_runtime
short_description: Put a private Python on a Windows node that has none, or remove it
version_added: 0.1.0
description:
  - States that the Python which the collection's other modules use is on the node, at O(python), or that it is not.
  - It is the embeddable package of python.org, unpacked. Nothing is installed into Windows, C(PATH) and the registry
    stay as they are, and no other program finds or uses it.
  - The package comes from O(url), which the node downloads, or from O(src), a file on the controller. Its SHA-256 is
    verified on the node before it is unpacked. It is unpacked beside the old one, tried, and renamed into place.
  - The directory belongs to Administrators; they and SYSTEM are the only ones with access. A runtime to which others
    had access is not run, and is replaced.
  - This is the one module that works without a Python on the node. It needs Windows PowerShell 5.1 and .NET Framework
    4.7, which are part of Windows Server 2019 and newer. All its PowerShell is in docs/powershell.md of the collection.
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
extends_documentation_fragment:
  - wcow.snapshotter.node
  - wcow.snapshotter.node.attributes
options:
  state:
    description:
      - V(present) installs the runtime, replaces one of another version or digest, and one that is damaged or open to
        others. What an interrupted run has left is removed.
      - V(absent) removes it. The payload and the stores of the collection stay.
      - In both states, a directory with something in it that this module did not install is left alone, and the task
        fails. While its C(python.exe) runs, the runtime stays as it is, and the task fails too.
    type: str
    choices: [present, absent]
    default: present
  version:
    description:
      - The version of Python that the package has, 3.9.0 or newer, which C(python.exe) must answer.
    type: str
    default: 3.12.10
  checksum:
    description:
      - The SHA-256 of the package, 64 hexadecimal digits, after V(sha256:) or not.
      - May be left out only for the default package, 3.12.10 for amd64, whose digest the collection knows.
    type: str
  url:
    description:
      - An C(https) or C(http) URL that the node can reach, with its system proxy. Mutually exclusive with O(src).
      - The default is the package of O(version) for amd64 on www.python.org. For arm64, give the URL of that package.
    type: str
  src:
    description:
      - The package on the controller, where M(ansible.builtin.copy) looks for files too. For nodes that reach no URL.
        At most 32 MiB.
    type: str
notes:
  - O(root), O(layers) and O(cache_dir) are for the other modules; this one takes them so that C(module_defaults) can
    set them for all.
  - The directory is that of O(python), and may be the runtime's alone. Its parent must be one in which only
    administrators can write, as they are below C(C:\Program Files).
seealso:
  - module: ansible.builtin.raw
"""

EXAMPLES = r"""
- name: Have a Python for the collection, from python.org
  wcow.snapshotter.python_runtime:

- name: Have it on nodes without a way to the internet, from the controller
  wcow.snapshotter.python_runtime:
    src: python-3.12.10-embed-amd64.zip

- name: Have another version, from a mirror
  wcow.snapshotter.python_runtime:
    version: 3.13.0
    url: https://mirror.example.com/python-3.13.0-embed-arm64.zip
    checksum: sha256:0000000000000000000000000000000000000000000000000000000000000000

- name: Remove it
  wcow.snapshotter.python_runtime:
    state: absent
"""

RETURN = r"""
runtime:
  description: The runtime as it is now, or would be in check mode. V(none) if there is none.
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
      description: The digest of the package that was unpacked.
      type: str
      returned: success
      sample: 4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3
  sample:
    python: C:\Program Files\wcow\python\python.exe
    version: 3.12.10
    sha256: 4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3
actions:
  description: What was done, or would be in check mode, in order. Empty if nothing was to do.
  returned: success
  type: list
  elements: str
  sample: ["replace 3.11.9 by 3.12.10", "clean"]
error:
  description: The failure for programs, C(code) being one of V(failed_precondition), V(invalid_argument),
    V(unavailable) and V(internal), and the C(step) of the script at which it failed in C(details).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"step": "verify"}}
"""
