# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all lanes: the programs that tests need, and a report of what was skipped and what was tried.

``WCOW_REQUIRE_ALL=1`` turns every skip into a failure, whatever its reason.
``WCOW_REPORT=FILE`` appends the result of this run to a file. ``make test``
prints that file at its end, with the figures of all lanes added up. Generated
cases are the same in each run, so that a failure concerns the change at hand.
``WCOW_FUZZ=1`` tries different cases each time, and ``make fuzz`` repeats that.
``WCOW_REPEATED=1`` runs each test with its first parameters only, and tries fewer
generated cases: for a run on another system after a whole one.
"""

from __future__ import annotations

import collections
import os
import shutil

import hypothesis
import pytest

# Cases have no time limit, because a busy machine is not a fault of the code. Tests that need a limit measure the time.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("search", derandomize=False, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("search" if os.environ.get("WCOW_FUZZ") == "1" else "repeatable")


#: The path of a real PowerShell, or None.
POWERSHELL = shutil.which("pwsh") or shutil.which("powershell")


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "requires_tool(name, package): needs the program ``name``, which is in the Debian package ``package``",
    )
    config.addinivalue_line("markers", "long: takes so long that make test leaves it to make test-long")
    config.addinivalue_line("markers", "posix: about what Windows does not have, and not for it")


def pytest_report_header():
    return None if POWERSHELL else "not applicable: tests with a real PowerShell (no pwsh or powershell on PATH)"


def is_applicable(item):
    """Return False for a test that cannot apply to this machine. Such a test does not count as skipped."""
    if os.name == "nt" and (item.get_closest_marker("posix") or item.get_closest_marker("requires_tool")):
        return False
    return POWERSHELL is not None or "powershell" not in getattr(item, "fixturenames", ())


# After the option -m, because the first parameters of a test may be long.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    chosen, dropped, seen = [], [], set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        is_repeated = os.environ.get("WCOW_REPEATED") == "1" and test in seen
        if is_repeated or not is_applicable(item):
            dropped.append(item)
        else:
            chosen.append(item)
            seen.add(test)
    if dropped:
        items[:] = chosen
        config.hook.pytest_deselected(items=dropped)


def pytest_runtest_setup(item):
    for marker in item.iter_markers("requires_tool"):
        tool, package = marker.args
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH (Debian package {package})")


@pytest.fixture
def powershell():
    """Return the path of a real PowerShell: ``pwsh`` of any system, or ``powershell`` of Windows.

    Debian and PyPI do not have a package of it, so CI cannot install one. A test
    that uses this fixture is not collected if PATH has neither program, just as a
    test marked ``posix`` is not collected on Windows. It is not skipped, because
    with WCOW_REQUIRE_ALL=1 a skip fails.
    """
    return POWERSHELL


@pytest.fixture
def figures(record_property):
    """``figures(kills=3, losses=0)`` adds to the figures that the run prints at its end."""

    def add(**counts):
        for name, count in counts.items():
            record_property(f"figure {name.replace('_', ' ')}", count)

    return add


def all_figures(stats):
    """Add up the figures of all tests by name. Reports carry them from the workers of pytest-xdist to this process."""
    total = collections.Counter()
    # The report of the teardown also has what a fixture added at the end.
    for report in (report for outcome in ("", "error") for report in stats.get(outcome, ())):
        for name, count in report.user_properties if report.when == "teardown" else ():
            if name.startswith("figure "):
                total[name] += count
    return total


def refuse_skip(report):
    """Turn a skipped report into a failed one if WCOW_REQUIRE_ALL=1.

    Pytest also counts an expected failure as skipped, but that test has run.
    """
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("WCOW_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, but WCOW_REQUIRE_ALL=1 allows no skips: {report.longrepr[2]}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    outcome = yield
    refuse_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    outcome = yield
    refuse_skip(outcome.get_result())


def pytest_terminal_summary(terminalreporter, config):
    tried = all_figures(terminalreporter.stats)
    if tried:
        terminalreporter.section("figures")
        terminalreporter.write_line(", ".join(f"{name[7:]} {count:,}" for name, count in sorted(tried.items())))
    path = os.environ.get("WCOW_REPORT")
    if not path or hasattr(config, "workerinput"):  # The main process counts for pytest-xdist workers.
        return
    stats = terminalreporter.stats
    passed, failed, skipped = (
        sum(len(stats.get(outcome, ())) for outcome in outcomes)
        for outcomes in (("passed", "xfailed"), ("failed", "error", "xpassed"), ("skipped",))
    )
    reasons = collections.Counter(report.longrepr[2] for report in stats.get("skipped", ()))
    with open(path, "a", encoding="utf-8") as account:
        system = ["windows"] if os.name == "nt" else []
        lane = "-".join([*system, *(os.path.basename(os.path.normpath(arg)) for arg in config.args)])
        account.write(f"{lane}: {passed} passed, {failed} failed, {skipped} skipped\n")
        account.writelines(f"  {count} skipped: {reason}\n" for reason, count in sorted(reasons.items()))
        account.writelines(f"{name} {count}\n" for name, count in sorted(tried.items()))
