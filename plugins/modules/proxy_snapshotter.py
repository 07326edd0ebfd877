# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action and the core on the node do the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: proxy_snapshotter
short_description: Serve a store to containerd as a Windows service
version_added: 0.1.0
description:
  - Ensures that the proxy snapshotter runs on the node. It is a Windows service that serves the store of the collection
    to containerd, which loads it as a proxy plugin. Containers then run from layers in this store.
  - The service runs the code of the collection that installed it, from a protected directory of its own, with the
    Python of O(python). A newer version of the collection upgrades it. The new version is written beside the old one,
    the service is changed and restarted, and the task waits until it is healthy. If it does not become healthy, the
    task runs the old version again and fails.
  - Running containers do not need the service. While it is stopped, containerd starts no new containers from this
    store. containerd connects again within three seconds.
  - The task also creates and protects the store at O(root), as M(wcow.snapshotter.store) does.
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
      - Selects the state of the service.
      - The task refuses V(absent) while containerd has snapshots or containers of the snapshotter O(name), or of
        another name that containerd's configuration gives to the service.
      - It also refuses V(absent) while that configuration makes the service the snapshotter of new pods, unless
        O(manage_configuration=true) removes the settings.
    type: str
    choices:
      present: The service is installed, starts with Windows, runs and is healthy.
      restarted: The same. A service that exists is restarted.
      absent: The service and its files do not exist. The store stays.
    default: present
  pipe:
    description:
      - Names the pipe on which the service listens.
      - Only administrators and SYSTEM can open it.
    type: str
    default: \\.\pipe\wcow-snapshotter
  directory:
    description:
      - Names the directory of the files of the service on the node.
      - It contains one directory for each version, and the log.
      - Only administrators and SYSTEM have access to it.
      - The task refuses a directory that contains anything else.
    type: str
    default: C:\Program Files\wcow\snapshotter
  name:
    description:
      - The name of the snapshotter in the configuration of containerd.
      - V(absent) looks for records of this snapshotter.
    type: str
    default: wcow
  log_level:
    description:
      - Selects what the service writes to its log.
      - The log is rotated at 10 MiB, and five older files are kept.
    type: str
    choices:
      error: Failures of the service.
      warning: Also what went wrong without a failure.
      info: Also starts, stops and connections that end.
      debug: All messages.
    default: info
  manage_configuration:
    description:
      - If V(true), the configuration of containerd names the snapshotter O(name) with O(pipe), or does not with
        O(state=absent).
      - The task writes a file of its own where the configuration imports other files and merges them correctly.
      - Otherwise, it changes the existing files, in marked blocks, and keeps a copy.
      - For RKE2, it uses the template of the configuration, for k0s its directory for other files.
      - The task verifies the change with C(containerd config dump) where that is possible, before it writes anything.
    type: bool
    default: false
  default_snapshotter:
    description:
      - With O(manage_configuration=true), V(true) makes the snapshotter the default of CRI, so that pods run from it.
      - Images that are on the node stay with the snapshotter of before, and are pulled again when they are needed.
    type: bool
    default: false
  restart_containerd:
    description:
      - With O(manage_configuration=true), V(true) restarts the service C(containerd), and the services that depend on
        it such as kubelet, if containerd does not know its configuration yet.
      - Running containers go on.
      - containerd that another program starts, such as RKE2, is not restarted.
      - RV(restart_needed) tells about it.
    type: bool
    default: false
  containerd_root:
    description:
      - Names containerd's root directory, in which O(state=absent) looks for records.
      - If you do not set this option, the node is asked, as with O(store=containerd).
    type: str
  containerd_address:
    description:
      - Names the pipe of containerd.
      - It selects one of several containerds on a node, as with O(store=containerd).
    type: str
seealso:
  - module: wcow.snapshotter.store
  - module: wcow.snapshotter.store_check
"""

EXAMPLES = r"""
- name: Ensure that the proxy snapshotter serves the store
  wcow.snapshotter.proxy_snapshotter:

- name: Let containerd know it, too
  wcow.snapshotter.proxy_snapshotter:
    manage_configuration: true

- name: Restart it, with more in its log
  wcow.snapshotter.proxy_snapshotter:
    state: restarted
    log_level: debug

- name: Remove it
  wcow.snapshotter.proxy_snapshotter:
    state: absent
    manage_configuration: true
"""

RETURN = r"""
service:
  description:
    - The service as it is now or, in check mode, as it would be after the task.
    - V(none) if there is none.
  returned: success
  type: dict
  contains:
    name:
      description: The name of the service.
      type: str
      returned: success
      sample: wcow-snapshotter
    running:
      description: Whether it runs.
      type: bool
      returned: success
      sample: true
    version:
      description: The version of the collection that it runs.
      type: str
      returned: success
      sample: 0.1.0
    directory:
      description: The directory of this version.
      type: str
      returned: success
      sample: C:\Program Files\wcow\snapshotter\0.1.0-5f1d7a84d093
    pipe:
      description: The pipe on which it listens, for the configuration of containerd.
      type: str
      returned: success
      sample: \\.\pipe\wcow-snapshotter
    root:
      description: The directory of the store.
      type: str
      returned: success
      sample: C:\ProgramData\wcow
    log:
      description: Its log file.
      type: str
      returned: success
      sample: C:\Program Files\wcow\snapshotter\logs\service.log
    log_level:
      description: What it writes to its log.
      type: str
      returned: success
      sample: info
  sample:
    name: wcow-snapshotter
    running: true
    version: 0.1.0
    directory: C:\Program Files\wcow\snapshotter\0.1.0-5f1d7a84d093
    pipe: \\.\pipe\wcow-snapshotter
    root: C:\ProgramData\wcow
    log: C:\Program Files\wcow\snapshotter\logs\service.log
    log_level: info
health:
  description:
    - What the service answered when it was asked how it does.
    - V(none) if it is absent, and in check mode if it would start.
  returned: success
  type: dict
  contains:
    version:
      description: The version of the collection that it runs.
      type: str
      returned: success
      sample: 0.1.0
    uptime:
      description: For how long it has served, in milliseconds.
      type: int
      returned: success
      sample: 86400000
    calls:
      description: The number of calls of containerd that have ended.
      type: int
      returned: success
      sample: 1024
    errors:
      description: How many of them ended by a fault of the store or the node.
      type: int
      returned: success
      sample: 0
    last_error:
      description: The message of the last of these faults.
      type: str
      returned: success
      sample: ""
    slowest_method:
      description: The method of the call that took longest.
      type: str
      returned: success
      sample: Prepare
    slowest_time:
      description: How long it took, in milliseconds.
      type: int
      returned: success
      sample: 310
    running:
      description: The number of calls that run now.
      type: int
      returned: success
      sample: 0
    pending_removals:
      description: The number of removed layers that wait for their destruction.
      type: int
      returned: success
      sample: 0
    process:
      description: The id of its process.
      type: int
      returned: success
      sample: 4242
    root:
      description: The directory of the store.
      type: str
      returned: success
      sample: C:\ProgramData\wcow
  sample:
    version: 0.1.0
    uptime: 86400000
    calls: 1024
    errors: 0
    last_error: ""
    slowest_method: Prepare
    slowest_time: 310
    running: 0
    pending_removals: 0
    process: 4242
    root: C:\ProgramData\wcow
previous_version:
  description:
    - The version of the service before the task.
    - V(none) if there was no service.
  returned: success
  type: str
  sample: 0.1.0
downtime:
  description:
    - How long the service did not answer because of the task, in milliseconds.
    - V(none) if it was not interrupted.
  returned: success
  type: int
  sample: 740
configuration:
  description:
    - What the task did with the configuration of containerd.
    - V(none) without O(manage_configuration=true).
  returned: success
  type: dict
  contains:
    files:
      description: The files that changed, in the order in which they were written.
      type: list
      elements: dict
      returned: success
      contains:
        path:
          description: The file.
          type: str
          returned: success
          sample: C:\Program Files\containerd\config.toml
        action:
          description: V(create), V(change) or V(remove).
          type: str
          returned: success
          sample: change
      sample:
        - path: C:\Program Files\containerd\config.toml
          action: change
    manager:
      description:
        - What starts containerd and may write its configuration.
        - V(containerd), V(rke2) or V(k0s).
      type: str
      returned: success
      sample: containerd
    notes:
      description: What else there is to know.
      type: list
      elements: str
      returned: success
      sample: []
    verified:
      description: Whether C(containerd config dump) has confirmed the change.
      type: bool
      returned: success
      sample: true
  sample:
    files:
      - path: C:\Program Files\containerd\config.toml
        action: change
    manager: containerd
    notes: []
    verified: true
restart_needed:
  description:
    - Whether containerd has to start again before it knows its configuration.
    - In check mode, whether it would have to.
  returned: success
  type: bool
  sample: true
actions:
  description:
    - The changes that the task made, in order.
    - In check mode, the changes that it would make.
    - Empty if there is nothing to change.
  returned: success
  type: list
  elements: str
  sample: ["write version 0.1.0-5f1d7a84d093", "create the service", "start the service"]
error:
  description:
    - The failure in machine-readable form.
    - C(code) is one of V(not_found), V(already_exists), V(failed_precondition), V(invalid_argument), V(unavailable),
      V(not_implemented) and V(internal).
  returned: failure
  type: dict
  sample: {"code": "failed_precondition", "details": {"operation": "ensure_proxy_snapshotter"}}
"""
