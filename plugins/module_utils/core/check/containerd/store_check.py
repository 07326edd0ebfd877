# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check containerd's own store: compare its two databases with the directories, and repair what differs.

A store is read twice, two seconds apart, and a finding counts if it is in both
readings: while containerd works, passing differences are common, and none of
them is a fault.

A repair never writes to a database, and repairs nothing in a store of an
unknown schema. Records change through containerd's API, while it runs
(``through_api``). Directories change after a third reading, which has the same
finding, and under the locks of the databases while containerd is stopped
(``on_disk``).
"""

from __future__ import annotations

import time
from typing import Sequence, Union

from ...containerd.listing import listing
from ...containerd.node import ContainerdNode
from ...errors import SnapshotterError
from ...outcome import Outcome
from ...proxy.served import find_of_plugins
from ..findings import CODES, Finding, Report, refuse_unknown
from ..reply import make_reply
from ..volume import measure_space, parse_minimum_free
from . import repairs
from .problems import Problem, find_problems

#: Seconds between the two readings.
PAUSE = 2.0


def check_store(
    node: ContainerdNode,
    repair: bool = False,
    quick: bool = False,
    minimum_free: Union[int, str] = 0,
    at_restart: bool = False,
    only: Sequence[str] = (),
    inventory: bool = False,
) -> Outcome:
    """Check containerd's store, as ``check.store_check`` does with our own; all namespaces are checked.

    ``quick`` leaves out the sizes of the directories that can be freed. The
    result also has ``containerd``: where the store is, and
    ``proxy_snapshotter``: ours of the proxy plugins that the configuration
    names. ``inventory`` lists the namespace of the node, or all. Raises as
    ``ContainerdNode.read``, and InvalidArgument for an unknown code.
    """
    refuse_unknown(only)
    wanted = parse_minimum_free(minimum_free)
    picture = node.read()
    # The records of a proxy plugin are elsewhere. Compared with no records, each snapshot would be a problem.
    problems = {} if node.proxy else find_problems(node, picture)
    if problems:
        time.sleep(PAUSE)
        picture = node.read()
        again = find_problems(node, picture)
        problems = {identity: again[identity] for identity in problems if identity in again}
    found = [problem for problem in problems.values() if not only or problem.code in only]
    plan = repairs.Plan(node, picture, found, only)
    findings = [_finding(node, problem, quick, is_repairable=plan.is_repairable(problem)) for problem in found]
    if repair:
        outcomes = plan.preview() if node.dry_run else plan.carry_out(at_restart)
        findings = [finding._replace(**outcome) for finding, outcome in zip(findings, outcomes)]
    free, total = measure_space(node.root)
    if free < wanted and (not only or "low_free_space" in only):
        message = f"{free} of {total} bytes are free on the volume of the store; {wanted} are wanted"
        low = Problem("low_free_space", (), message, path=node.root)
        findings.append(_finding(node, low, quick, is_repairable=False))
    served = find_of_plugins(node.found.configuration.proxy_plugins, node.snapshotter, node.warnings)
    if served is not None and served.problem and (not only or "proxy_not_answering" in only):
        down = Problem("proxy_not_answering", (), served.sentence())
        findings.append(_finding(node, down, quick, is_repairable=False))
    listed = None
    if inventory:
        listed = listing(node, picture, usage=not quick, scratch=True, quiet=True)["snapshots"]
    report = Report(True, len(picture.snapshots), findings, free, total, served)
    return make_reply(report, node.layers.display_path(node.root), listed, containerd=node.describe(picture))


def _finding(node: ContainerdNode, problem: Problem, quick: bool, *, is_repairable: bool) -> Finding:
    severity, remedy = CODES[problem.code]
    return Finding(
        code=problem.code,
        severity=severity,
        snapshot=problem.snapshot,
        id=problem.layer_id,
        path=node.layers.display_path(problem.path) if problem.path else "",
        message=problem.message,
        remedy=remedy,
        reclaimable=_size(node, problem.path) if problem.is_layer and not quick else 0,
        repairable=is_repairable,
        repaired=False,
        action="",
    )


def _size(node: ContainerdNode, path: str) -> int:
    try:
        return node.layers.disk_usage(path).size
    except (OSError, SnapshotterError):
        return 0
