# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules have in common. The options mirror ``NODE_OPTIONS`` of plugin_utils/_action.py."""

from __future__ import annotations


class ModuleDocFragment:
    """``wcow.snapshotter.node`` (options), ``.attributes`` and ``.attributes_info``."""

    DOCUMENTATION = r"""
options:
  root:
    description:
      - The directory of the snapshot store on the node, an absolute path.
      - If not given, the host variable C(wcow_root) counts, then the default.
    type: str
    default: C:\ProgramData\wcow
  layers:
    description:
      - How layers are kept on the node's disk.
      - V(windows) uses the Host Compute Service of Windows. V(emulated) keeps the same directories and VHDX files on
        any file system, for labs and tests. V(auto) is V(windows) on Windows, and V(emulated) elsewhere.
      - If not given, the host variable C(wcow_layers) counts, then the default.
    type: str
    choices: [auto, windows, emulated]
    default: auto
  python:
    description:
      - The Python on the node that does the work, 3.9 or newer. It needs no packages.
      - C(ansible_python_interpreter) is not used.
      - If not given, the host variable C(wcow_python) counts, then the default.
    type: str
    default: C:\Program Files\wcow\python\python.exe
  cache_dir:
    description:
      - The directory on the node that keeps the collection's code between tasks. C(~) and C($NAME) are expanded there.
      - The code is sent once for each version, and its SHA-256 is verified each time before it runs. If the directory
        cannot be written, each task sends the code again, with a warning.
      - If not given, the host variable C(wcow_cache_dir) counts. Without one it is C($ProgramFiles/wcow/payload) on
        Windows, where only administrators can write, and C(~/.cache/wcow/payload) elsewhere.
    type: str
requirements:
  - Python 3.9 or newer on the node (see O(python)).
notes:
  - The connection must be C(psrp), C(winrm) or C(ssh) with PowerShell, as a user who is an administrator of the node.
    C(become) is refused, since these connections would ignore it.
  - C(environment) applies, C(async) is not supported.
  - All operations are safe to repeat, whatever interrupted them.
"""

    ATTRIBUTES = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changes that it would make, without making them.
    support: full
  diff_mode:
    description: Returns what changed, or would change in check mode, when in diff mode.
    support: full
  idempotent:
    description: Running it again with the same options changes nothing.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
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
"""

    ATTRIBUTES_INFO = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode), since it changes nothing.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode.
    support: N/A
    details: It changes nothing.
  idempotent:
    description: Running it again with the same options changes nothing.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
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
"""
