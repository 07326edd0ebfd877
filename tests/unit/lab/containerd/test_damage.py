# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the damage to a simulated containerd: what it leaves, and that containerd still works."""

from __future__ import annotations

import pytest

from lab.containerd import records, sample
from lab.containerd.damage import NothingToDamage, damage
from lab.containerd.node import DAMAGES
from lab.containerd.simulation import Simulation

ROOT = {"containerd.io/gc.root": "1"}


@pytest.fixture
def damaged(host, filled):
    """Damage the containerd while it does not run. Return a client of the next process."""

    def do(*kinds):
        host.server.stop()
        simulation = Simulation(host.node.root)
        sentences = [damage(simulation, kind) for kind in kinds]
        simulation.store.close()
        host.start()
        return host.client(), sentences

    return do


def entries(host):
    """Return the name of the record of each entry of meta.db."""
    found = records.find(host.simulation.store.meta.root, "v1", sample.NAMESPACE, "snapshots", "windows")
    return {key: records.text(entry, "name") for key, entry in records.buckets(found)}


def state(host):
    """Return the directories, the ids of the records, the records without entry, and the entries without record."""
    snapshotter = host.simulation.store.snapshotter
    ids = {record.key: record.id for record in snapshotter.records()}
    names = entries(host)
    return (
        {path.name for path in snapshotter.directories.iterdir()},
        {str(layer_id) for layer_id in ids.values()},
        set(ids) - set(names.values()),
        [key for key, name in names.items() if name not in ids],
    )


def test_the_sample_is_not_damaged(host, filled):
    directories, ids, orphans, lost = state(host)
    assert directories == ids == {"1", "2", "3"}
    assert not orphans
    assert not lost


def test_next_directory(host, damaged):
    client, sentences = damaged("next-directory")
    directories, ids, _, _ = state(host)
    assert directories - ids == {"4"}
    assert host.simulation.store.snapshotter.last_id() == 3
    assert sentences == [r"The layer directory snapshots\4 exists, and the next snapshot gets the id 4."]
    # A throw-away snapshot takes the directory with it.
    client.prepare("any", labels=ROOT)
    client.remove("any")
    client.collect()
    assert "4" not in state(host)[0]


def test_dangling_child(host, damaged, refusal):
    client, sentences = damaged("dangling-child")
    assert sentences[0].startswith("The snapshot dangling-child-4 has a link to the child child-of-dangling-child-4,")
    assert refusal(client.remove, "dangling-child-4")[1] == "cannot remove snapshot with child: failed precondition"
    client("Snapshots", "Update", snapshotter="windows", info={"name": "dangling-child-4"})
    client.collect()
    assert "dangling-child-4" not in client.names()
    assert state(host)[0] == {"1", "2", "3"}


def test_lost_backend(host, damaged, refusal):
    client, _ = damaged("lost-backend")
    directories, ids, orphans, lost = state(host)
    assert (directories, orphans, lost) == (ids, set(), ["lost-backend-4"])
    assert "lost-backend-4" not in client.names()
    name = entries(host)["lost-backend-4"]
    assert refusal(client.prepare, "x", "lost-backend-4")[1] == (
        f'failed to create snapshot: missing parent "{name}" bucket: not found'
    )
    client.remove("lost-backend-4")
    assert state(host)[3] == []


def test_leftover(host, damaged):
    client, _ = damaged("leftover")
    directories, ids, _, _ = state(host)
    assert directories - ids == {"rm-4"}
    client.prepare("x", labels=ROOT)
    assert state(host)[0] - state(host)[1] == {"rm-4"}


def test_orphan(host, damaged):
    client, _ = damaged("orphan")
    client.collect()
    directories, ids, orphans, _ = state(host)
    assert directories == ids
    assert orphans == {"k8s.io/5/orphan-5"}


def test_all_at_once_and_twice(host, damaged, base):
    kinds = list(DAMAGES)
    client, sentences = damaged(*kinds, *kinds)
    # A directory with the next id is made once, and moves on with the next id.
    assert len(set(sentences)) == 2 * len(kinds)
    directories, ids, orphans, lost = state(host)
    following = str(host.simulation.store.snapshotter.last_id() + 1)
    assert {name for name in directories - ids if not name.startswith("rm-")} == {following}
    assert len([name for name in directories if name.startswith("rm-")]) == 2
    assert len(orphans) == len(lost) == 2
    assert len([name for name in client.names() if name.startswith("dangling")]) == 2
    client.prepare("x", base, labels=ROOT)
    client.commit("y", "x", labels=ROOT)


def test_an_empty_containerd_cannot_be_damaged(host):
    with pytest.raises(NothingToDamage):
        damage(host.simulation, "orphan")
