# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: plugins/action does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Write a report about the snapshot stores of a fleet
version_added: 0.1.0
description:
  - Writes a self-contained HTML page on the controller, the same data as JSON and CSV, and metrics for Prometheus. The
    page needs no network and no other file. It shows each node with its free space, sizes and findings, and its layers
    as a tree.
  - For a containerd store, it also shows how many bytes each image and container uses, what needs each snapshot, and
    what can be freed.
  - Uses the results that M(wcow.snapshotter.store_check) with C(inventory) returned for each host earlier in the play.
    The playbook C(wcow.snapshotter.audit) does all of this.
  - Run it once for all hosts, with C(run_once), and with C(delegate_to) set to localhost.
  - The report includes hosts that failed or were unreachable if the task that checked them set C(ignore_errors) and
    C(ignore_unreachable).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return its result without writing files.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode.
    support: none
options:
  dest:
    description:
      - Names the directory on the controller for report.html, report.json, nodes.csv, snapshots.csv, findings.csv,
        users.csv and metrics.prom.
      - The task creates the directory if it does not exist, and replaces files with these names.
      - A relative path starts in the directory in which you run C(ansible-playbook).
    type: str
    required: true
  hosts:
    description:
      - Lists the hosts that the report covers.
      - The default is all hosts of the play.
      - If the list is empty, the report covers only the nodes of O(merge).
    type: list
    elements: str
  check:
    description:
      - Names the variable in which each host registered its result of M(wcow.snapshotter.store_check) with
        C(inventory).
    type: str
    default: wcow_check
  merge:
    description:
      - Lists report.json files of other runs, for example of other slices of the inventory.
      - The report includes their nodes.
      - If several files contain the same node, the latest audit counts.
    type: list
    elements: str
    default: []
  metrics:
    description:
      - Names the file on the controller for the metrics.
      - The default is metrics.prom in O(dest).
      - For the textfile collector of Prometheus' node_exporter, name a file C(*.prom) in its directory.
      - The directory must exist.
      - A relative path starts in the directory in which you run C(ansible-playbook).
    type: str
notes:
  - The files contain names, labels and sizes of snapshots. They contain no passwords. They have the usual permissions
    of files that the user creates.
seealso:
  - module: wcow.snapshotter.store_check
"""

EXAMPLES = r"""
- name: Check the store
  wcow.snapshotter.store_check:
    minimum_free: 1GB
    inventory: true
  register: wcow_check
  ignore_errors: true
  ignore_unreachable: true

- name: Write the report
  wcow.snapshotter.report:
    dest: wcow-report
  run_once: true
  delegate_to: localhost

- name: Merge the reports of two slices
  wcow.snapshotter.report:
    dest: wcow-report-all
    hosts: []
    merge:
      - wcow-report/report.json
      - wcow-report/report.json
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
files:
  description:
    - The files that the task wrote, the HTML page last.
    - Empty in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - /home/me/wcow-report/report.json
    - /home/me/wcow-report/nodes.csv
    - /home/me/wcow-report/snapshots.csv
    - /home/me/wcow-report/findings.csv
    - /home/me/wcow-report/users.csv
    - /home/me/wcow-report/metrics.prom
    - /home/me/wcow-report/report.html
nodes:
  description: What the report shows for each node.
  returned: success
  type: dict
  contains:
    state:
      description:
        - The state of the node.
        - V(unhealthy) means that the store has errors or warnings.
        - V(failed) means that the node was reached but not audited.
        - The other states are V(healthy), V(no_store) and V(unreachable).
      type: str
      returned: success
      sample: unhealthy
    bad:
      description: Whether the state is V(no_store), V(unhealthy), V(failed) or V(unreachable).
      type: bool
      returned: success
      sample: true
    message:
      description: The summary of the check, or the reason why there is none.
      type: str
      returned: success
      sample: "12 snapshots, 1 problem; first: /srv/rm-7 waits to be destroyed"
  sample:
    node1: {"state": "healthy", "bad": false, "message": "12 snapshots, no problems"}
states:
  description:
    - The number of nodes in each state.
    - States without nodes are left out.
  returned: success
  type: dict
  sample: {"healthy": 498, "unreachable": 2}
"""
