# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill the proxy snapshotter between any two changes that a call makes on disk.

A first run of the call records the failpoints that the server passes: in the call, and in the destruction of layers
after it. For each failpoint, the test restores the store and starts a server that dies there. Then a new server serves
the same root. It must answer, must show the state before or the state after the call, and after it if the call was
answered. The check must find nothing that the next calls do not repair, and nothing may be left on disk.
"""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store

from . import kit, served

pytestmark = pytest.mark.posix

#: What a killed call leaves besides: a recorded lock owner and a lock file. The next call takes them over.
REPAIRED_LATER = {"stale_locks", "stale_mark"}

#: How often the failpoints of a call are recorded. Two threads do some work together, or each its part, and then they
#: pass the same points more often. The shortest record has what each run passes.
RUNS = 3

#: How often a kill at a failpoint is tried until the server passes that point.
ATTEMPTS = 10


@pytest.fixture(scope="module")
def servers():
    with served.Servers() as running:
        yield running


class Place(kit.Workspace):
    """A store, and the socket and the log of its servers."""

    @property
    def address(self):
        return self.directory + ".sock"

    @property
    def log(self):
        return self.directory + ".log"

    def start(self, servers, **environment):
        return servers.start(self.address, self.root, self.log, **environment)


@pytest.fixture(scope="module")
def place(servers):
    # In memory if possible, and with a short path: that of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        place = Place(os.path.join(directory, "w"))
        server = place.start(servers)
        with server.client(place.address) as client:
            served.fill(client, place.root)
        assert server.stop() == 0
        place.keep("filled")
        yield place


def sound(place):
    """No server runs: records and layers agree, nothing waits for its destruction, and the check finds nothing."""
    store = open_store(place.root, "emulated", lambda _layer_id: None)
    try:
        infos = store.walk()
        assert sorted(os.listdir(os.path.join(place.root, "snapshots"))) == sorted(str(info.id) for info in infos)
        findings = check(store).findings
        assert {finding.code for finding in findings} <= REPAIRED_LATER, findings
        if findings:
            check(store, repair=True)
            assert not check(store).findings
    finally:
        store.close()
    transport = os.path.join(place.root, "transport")
    assert not os.path.isdir(transport) or os.listdir(transport) == []


def look(servers, place):
    """Return what a client sees."""
    server = place.start(servers)
    with server.client(place.address) as client:
        found = served.state(client)
    assert server.stop() == 0
    return found


@pytest.mark.parametrize("name", served.CALLS)
def test_killed_anywhere(name, servers, place, figures):
    def given():
        place.back("filled")
        if served.CALLS[name].given is not None:
            served.CALLS[name].given(place.root)

    points = place.directory + ".points"
    recorded = []
    for _run in range(RUNS):
        given()
        if os.path.exists(points):
            os.unlink(points)
        server = place.start(servers, WCOW_FAILPOINTS_LOG=points)
        with server.client(place.address) as client:
            assert served.call(client, name) == ""
        assert server.stop() == 0
        with open(points, encoding="utf-8") as file:
            recorded.append(file.read().splitlines())
    after = look(servers, place)
    sound(place)
    given()
    before = look(servers, place)
    chosen = kit.chosen(min(recorded, key=len))
    kills = 0
    for point in chosen:
        # Two threads pass some points in another order each time, and then one point less: try again.
        for _attempt in range(ATTEMPTS):
            given()
            server = place.start(servers, WCOW_FAILPOINT=point)
            problem = "killed"
            try:
                with server.client(place.address) as client:
                    problem = served.call(client, name)
            except (served.NotStarted, served.SnapshotterError):
                # It can die at its start, because it destroys then what waits for that.
                pass
            code = server.stop()
            assert code in (-signal.SIGKILL, 0), (point, code)
            server = place.start(servers)
            with server.client(place.address) as client:
                found = served.state(client)
                assert found in ([after] if problem == "" else [before, after]), (point, problem, found)
                if found != after:
                    served.call(client, name)
                    assert served.state(client) == after, point
            assert server.stop() == 0
            sound(place)
            if code:
                kills += 1
                break
    assert kills >= 0.9 * len(chosen)
    figures(failpoints=len({point.partition("#")[0] for point in chosen}), operations_killed=1, kills=kills, losses=0)
