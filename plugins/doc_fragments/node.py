# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules share. The options mirror ``NODE_OPTIONS`` in plugin_utils/_action.py."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments ``wcow.snapshotter.node`` (options), ``.attributes`` and ``.attributes_info``."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - Selects the store on the node.
      - If you do not set this option, the task uses the host variable C(wcow_store).
      - Without that variable, the default applies.
    type: str
    choices:
      own: A store of this collection in the root.
      containerd: containerd's own store, which a node with containerd has. Tasks read its databases and never write to
        them. Changes go through containerd's API, so containerd must run for them.
    default: own
  root:
    description:
      - Names the directory of the snapshot store on the node.
      - It must be an absolute path.
      - If you do not set this option, the task uses the host variable C(wcow_root).
      - Without that variable, the default applies.
      - With O(store=containerd), it is containerd's root directory.
      - With O(store=containerd), neither the variable nor the default applies. If you do not set this option, the node
        is asked. The command line of the service or process containerd comes first, then its configuration file, then
        containerd's default.
    type: str
    default: C:\ProgramData\wcow
  layers:
    description:
      - Selects how layers are kept on the node's disk.
      - If you do not set this option, the task uses the host variable C(wcow_layers).
      - Without that variable, the default applies.
    type: str
    choices:
      auto: On Windows the layers of Windows, elsewhere emulated layers.
      windows: The Host Compute Service of Windows keeps them.
      emulated: The same directories and VHDX files on any file system, for labs and tests.
    default: auto
  python:
    description:
      - Names the Python on the node that does the work.
      - It must be Python 3.9 or newer.
      - It needs no additional packages.
      - The task does not use C(ansible_python_interpreter).
      - If you do not set this option, the task uses the host variable C(wcow_python).
      - Without that variable, the default applies.
    type: str
    default: C:\Program Files\wcow\python\python.exe
  cache_dir:
    description:
      - Names the directory on the node that keeps the collection's code between tasks.
      - The node expands C(~) and C($NAME) in it.
      - The code is sent once per version.
      - The node verifies its SHA-256 every time before it runs.
      - If the directory is not writable, each task sends the code again and issues a warning.
      - If you do not set this option, the task uses the host variable C(wcow_cache_dir).
      - Without that variable, the directory is C($ProgramFiles/wcow/payload) on Windows, where only administrators can
        write, and C(~/.cache/wcow/payload) elsewhere.
    type: str
  address:
    description:
      - With O(store=containerd), names the pipe of containerd, such as V(\\\\.\\pipe\\containerd-containerd).
      - It selects one of several containerds on a node.
      - If you do not set this option, the task uses the host variable C(wcow_address).
      - Without that variable, the node is asked, as for O(root).
    type: str
  namespace:
    description:
      - With O(store=containerd), selects one namespace of containerd.
      - Kubernetes uses V(k8s.io).
      - If you do not set this option, the task uses the host variable C(wcow_namespace).
      - Without that variable, the modules M(wcow.snapshotter.snapshot_info) and M(wcow.snapshotter.store_check) work on
        all namespaces.
      - The other modules work on V(k8s.io) if it exists, else on the only namespace.
    type: str
  snapshotter:
    description:
      - With O(store=containerd), selects the snapshotter.
      - If you do not set this option, the task uses the host variable C(wcow_snapshotter).
      - Without that variable, the node is asked for the snapshotter of CRI.
      - containerd's default is V(windows).
    type: str
notes:
  - The connection must be C(psrp), C(winrm), or C(ssh) with the variable C(ansible_shell_type). Its user must be an
    administrator of the node.
  - The task refuses C(become), because these connections would ignore it.
  - The task applies C(environment). It does not support C(async).
  - Every operation is safe to repeat, even after an interruption.
"""

    ATTRIBUTES = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changes that it would make, without making them.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode. In check mode, returns what would change.
    support: full
  idempotent:
    description: Changes nothing when it runs again with the same options.
    support: full
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
"""

    ATTRIBUTES_INFO = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode), because it changes nothing.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode.
    support: N/A
    details: It changes nothing.
  idempotent:
    description: Changes nothing when it runs again with the same options.
    support: full
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
"""
