# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: support
short_description: Write what a bug report needs to know about a node into a file
version_added: 0.1.0
description:
  - Writes one JSON file for the node on the controller. It has the versions of the collection, of ansible-core and of
    its connection libraries, of Windows, of the node's Python and of containerd. It has the settings of the
    collection, the findings of a check, how the proxy snapshotter does, the end of its logs, and a trace of native
    calls.
  - Changes nothing on the node, except that the node keeps the code of the collection as after each task.
  - Works on a node whose store is damaged or does not exist. What cannot be found out has an error in its place in the
    file. That does not fail the task, also not if the node is unreachable or has no Python.
  - Reads no variables of connections and no files but its logs. It removes labels and what looks like a secret from
    messages and logs. It cannot recognize each secret, so read the file before you send it.
  - Only the user who runs Ansible can read the file (mode 0600).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
requirements:
  - Python 3.9 or newer on the node (see O(python)). Without it, the file has what the controller knows.
extends_documentation_fragment:
  - wcow.snapshotter.node
attributes:
  check_mode:
    description: Can run in C(check_mode) and return its result without writing the file.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode.
    support: none
  idempotent:
    description: Changes nothing when it runs again with the same options.
    support: none
    details: Each run writes the file again.
  async:
    description: Supports the C(async) keyword.
    support: none
  platform:
    description: The systems that can be the target.
    platforms: windows
    support: full
  action_group:
    description: Use C(group/wcow.snapshotter.all) in C(module_defaults) to set options for all modules of the
      collection.
    membership: [wcow.snapshotter.all]
    support: full
options:
  dest:
    description:
      - Names the directory on the controller for the file. The task creates the directory if it does not exist.
      - The file has the name of the node in the inventory, such as node1.json, and the task replaces it.
      - A relative path starts in the directory in which you run C(ansible-playbook).
    type: str
    required: true
  lines:
    description:
      - Limits how many lines at the end of each log of the proxy snapshotter are in the file, 10000 at most.
    type: int
    default: 200
  replace:
    description:
      - Lists texts that the file must not contain, such as names of hosts, customers or directories.
      - Each text is replaced everywhere, also in the name of the file, in upper and lower case.
    type: list
    elements: dict
    default: []
    suboptions:
      text:
        description:
          - Specifies the text that is replaced.
        type: str
        required: true
      by:
        description:
          - Specifies what stands in its place.
        type: str
        required: true
seealso:
  - module: wcow.snapshotter.store_check
  - module: wcow.snapshotter.report
"""

EXAMPLES = r"""
- name: Collect what a bug report needs
  wcow.snapshotter.support:
    dest: wcow-support

- name: Collect it without the names of the company
  wcow.snapshotter.support:
    dest: wcow-support
    replace:
      - text: corp.example.com
        by: example.com
"""

RETURN = r"""
file:
  description:
    - The file on the controller.
    - In check mode, the file that the task would write.
  returned: success
  type: str
  sample: /home/me/wcow-support/node1.json
problems:
  description:
    - Why parts of the file have an error instead of an answer of the node.
    - Empty if the node has answered everything.
  returned: success
  type: list
  elements: str
  sample: ["check: cannot read the metadata"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {}}
"""
