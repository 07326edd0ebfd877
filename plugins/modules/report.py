# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation only: the work is done by plugins/action/report.py on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Write a report about the snapshot stores of a fleet
version_added: 0.1.0
description:
  - Writes one HTML page that needs nothing else (no network, no other file), and the same as JSON and CSV, on the
    controller. It shows each node with its free space, sizes and findings, and its layers as a tree.
  - It takes what M(wcow.snapshotter.store_check) with C(inventory) has returned for each host before. The playbook
    C(wcow.snapshotter.audit) does all of it.
  - Run it once for all hosts, with C(run_once), and with C(delegate_to) set to localhost.
  - Hosts whose task failed or that were unreachable are in the report, too, if the task had C(ignore_errors) and
    C(ignore_unreachable).
author:
  - wcow.snapshotter maintainers (!UNKNOWN)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what it would, without writing files.
    support: full
  diff_mode:
    description: Returns what changed when in diff mode.
    support: none
options:
  dest:
    description:
      - The directory on the controller for report.html, report.json, nodes.csv, snapshots.csv and findings.csv. It is
        made if it does not exist; files of these names are replaced.
      - A relative path starts where C(ansible-playbook) was started.
    type: str
    required: true
  hosts:
    description: The hosts that the report is about. If not given, all hosts of the play. An empty list makes a report
      of O(merge) alone.
    type: list
    elements: str
  check:
    description: The name of the variable in which each host has registered its result of
      M(wcow.snapshotter.store_check) with C(inventory).
    type: str
    default: wcow_check
  merge:
    description: Files report.json of other runs, for example of other slices of the inventory. Their nodes are in the
      report, too. Of a node that is in several, the latest audit counts.
    type: list
    elements: str
    default: []
notes:
  - The files hold names, labels and sizes of snapshots, and no passwords. They are as readable as other files that the
    user writes.
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

- name: Put the reports of two slices together
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
  description: What was written, the page last. Empty in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - /home/me/wcow-report/report.json
    - /home/me/wcow-report/nodes.csv
    - /home/me/wcow-report/snapshots.csv
    - /home/me/wcow-report/findings.csv
    - /home/me/wcow-report/report.html
nodes:
  description: What the report says of each node.
  returned: success
  type: dict
  contains:
    state:
      description: V(healthy), V(unhealthy) (errors or warnings in the store), V(no_store), V(failed) (reached, but not
        audited) or V(unreachable).
      type: str
      returned: success
      sample: unhealthy
    bad:
      description: Whether that is one of V(unhealthy), V(failed) and V(unreachable).
      type: bool
      returned: success
      sample: true
    message:
      description: A sentence, the summary of the check or why there is none.
      type: str
      returned: success
      sample: "12 snapshots, 1 problem; first: /srv/rm-7 waits to be destroyed"
  sample:
    node1: {"state": "healthy", "bad": false, "message": "12 snapshots, no problems"}
states:
  description: How many nodes are in each state. States without nodes are left out.
  returned: success
  type: dict
  sample: {"healthy": 498, "unreachable": 2}
"""
