# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test values of messages, and leases. tests/peers/test_containerd_client.py uses a real containerd."""

from __future__ import annotations

import datetime as dt

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import client as clients
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Info, Mount
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.containerd.fake import Failure, Fake
from hypothesis import given
from hypothesis import strategies as st


@given(st.datetimes(), st.integers(0, 999_999_999))
def test_times(moment: dt.datetime, nanos: int) -> None:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    seconds = (moment.replace(tzinfo=dt.timezone.utc) - epoch) // dt.timedelta(seconds=1)
    text = clients._time({"seconds": seconds, "nanos": nanos})
    assert text == f"{moment.replace(microsecond=0).isoformat()}.{nanos:09}Z"


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_times_of_a_damaged_answer(seconds: int, nanos: int) -> None:
    text = clients._time({"seconds": seconds, "nanos": nanos})
    assert len(text) in (0, 30)


def test_no_time() -> None:
    assert clients._time(None) == ""


def test_infos() -> None:
    info = {"name": "a", "parent": "p", "kind": 3, "labels": {"l": "v"}, "created": {"seconds": 0}}
    fake = Fake({"Snapshots/Stat": {"info": info}, "Snapshots/Mounts": {"mounts": [{"type": "t", "options": ["ro"]}]}})
    with fake.client() as client:
        assert client.stat("w", "a") == Info("committed", "a", "p", {"l": "v"}, "1970-01-01T00:00:00.000000000Z", "", 0)
        assert client.mounts("w", "a") == [Mount("t", "", ["ro"])]
        fake.answers["Snapshots/Stat"] = {"info": {"kind": 4}}
        assert client.stat("w", "a").kind == "unknown kind 4"
        # A message that is absent has the defaults of its fields.
        fake.answers["Snapshots/Stat"] = {}
        assert client.stat("w", "a") == Info("unknown kind 0", "", "", {}, "", "", 0)
        assert client.image("x").target == clients.Descriptor("", "", 0, {})
        assert client.container("x").runtime == ""
        assert client.ingest("x").offset == 0


def test_a_lease_goes_into_the_headers() -> None:
    fake = Fake({"Leases/Create": lambda message: {"lease": message}})
    with fake.client() as client:
        with client.lease({"l": "v"}) as lease:
            client.stat("w", "a")
        client.stat("w", "a")
    assert [asked.lease for asked in fake.asked] == [None, lease, None, None]
    assert fake.methods() == ["Leases/Create", "Snapshots/Stat", "Leases/Delete", "Snapshots/Stat"]
    created = fake.asked[0].message
    assert created["id"] == lease
    assert created["labels"]["l"] == "v"
    end = dt.datetime.strptime(created["labels"]["containerd.io/gc.expire"], "%Y-%m-%dT%H:%M:%S%z")
    assert abs((end - dt.datetime.now(dt.timezone.utc)).total_seconds() - clients.LEASE_SECONDS) < 60


@pytest.mark.parametrize(("failure", "warnings"), [(Failure(5, "not found"), 0), (Failure(14, "is stopping"), 1)])
def test_a_lease_that_cannot_be_deleted(failure: Failure, warnings: int) -> None:
    """It ends by itself, so this does not hide the error of the work."""
    fake = Fake({"Leases/Create": lambda message: {"lease": message}, "Leases/Delete": failure})
    with fake.client() as client:
        with pytest.raises(errors.NotFound, match="the error of the work"), client.lease():
            raise errors.NotFound("the error of the work")
        assert len(client.warnings) == warnings
        assert all("which ends by itself in 24 hours: is stopping" in warning for warning in client.warnings)


def test_a_collection_is_the_deletion_of_an_empty_lease() -> None:
    fake = Fake({"Leases/Create": lambda message: {"lease": message}})
    with fake.client() as client:
        client.collect_garbage()
    create, delete = fake.asked
    assert delete.message == {"id": create.message["id"], "sync": True}


def test_writing_that_ends_without_an_answer() -> None:
    client = Fake({"Content/Write": []}).client()
    with client, pytest.raises(errors.Internal, match="containerd at x ended Content/Write without an answer"):
        client.write_blob("ref", 1, "sha256:x")
