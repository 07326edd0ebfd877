# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running Windows for all tests of a session."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import pytest
from ansible_collections.wcow.snapshotter.tests.wine import kit


class Folder(NamedTuple):
    """A folder on drive C:, as the path for a Windows program and as the path on this machine."""

    windows: str
    path: pathlib.Path


def pytest_collection_modifyitems(items):
    # A suite is one test that takes minutes. Each of the two workers begins with one half of the tests: with a suite.
    suites = [item for item in items if item.path.name == "test_suites.py"]
    others = [item for item in items if item not in suites]
    half = len(others) // 2
    items[:] = [*suites[::2], *others[:half], *suites[1::2], *others[half:]]


@pytest.fixture(scope="session")
def windows():
    with kit.temporary_windows() as started:
        yield started


@pytest.fixture
def winpython(windows):
    """Run Windows Python, see ``kit.Windows.python``; the output is text, and a failure shows it."""

    def run(*arguments, check=True, **options):
        done = windows.python(*arguments, capture_output=True, encoding="utf-8", **options)
        if check and done.returncode:
            pytest.fail(f"Windows Python ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture
def folder(windows, tmp_path):
    """An empty folder for this test."""
    path = windows.drive / "tests" / tmp_path.name
    path.mkdir(parents=True)
    return Folder(rf"C:\tests\{path.name}", path)
