# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the name of an image stands for its top layer."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer import ensure_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot_set import ensure_set
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import Archive, layer
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task

APP = "registry.example.com/team/app:1.4"
LABEL = "wcow.snapshotter/image/"


@pytest.fixture
def store(open_store: Callable[..., Snapshotter]) -> Snapshotter:
    """An empty store."""
    return open_store()


@pytest.fixture
def load(store: Snapshotter, tmp_path: Any, host: Any) -> Callable[..., str]:
    """Return a function that imports an image with one layer of its own, and returns the name of its top layer."""

    def imported(text: str, *names: str, version: str = "10.0.20348.1", **options: Any) -> str:
        archive = Archive()
        image = archive.image([layer("base"), layer(text)], version)
        archive.index(*({**image, "annotations": {"io.containerd.image.name": name}} for name in names or (APP,)))
        path = archive.write(tmp_path / f"{text}.tar")
        done = ensure_image(store, src=path, **options)
        assert not ensure_image(store, src=path, **options).changed
        return str(done.result["chain_id"])

    return imported


def image_labels(store: Snapshotter, name: str) -> Dict[str, str]:
    labels = store.stat(name).labels
    return {label[len(LABEL) :]: value for label, value in labels.items() if label.startswith(LABEL)}


def prepare(store: Snapshotter, image: str = APP, **options: Any) -> Any:
    return ensure_snapshot(store, **{"state": "active", "key": "web", "parent_image": image, **options})


def test_the_top_layer_has_the_names_of_the_image(store: Snapshotter, load: Any) -> None:
    top = load("one", APP, "docker.io/library/app:1")
    assert image_labels(store, top) == dict.fromkeys((APP, "docker.io/library/app:1"), "windows(10.0.20348.1)/amd64")
    assert not image_labels(store, store.stat(top).parent)


def test_names_of_the_task_are_completed(store: Snapshotter, load: Any) -> None:
    top = load("one", names=["app", "team/app:2"])
    assert set(image_labels(store, top)) == {"docker.io/library/app:latest", "docker.io/team/app:2"}


def test_an_image_that_states_no_version(store: Snapshotter, load: Any) -> None:
    top = load("one", version="")
    assert image_labels(store, top) == {APP: "windows/amd64"}
    assert prepare(store).result["snapshot"]["parent"] == top


@pytest.mark.parametrize("state", ["active", "view"])
def test_the_name_stands_for_the_top_layer(store: Snapshotter, task: Task, load: Any, state: str) -> None:
    top = load("one")
    done = task(ensure_snapshot, state=state, key="web", parent_image=APP)
    assert (done.result["snapshot"]["parent"], done.result["snapshot"]["parent_image"]) == (top, APP)
    # The chain id means the same.
    assert not ensure_snapshot(store, state, "web", parent=top).changed


def test_a_name_is_completed(store: Snapshotter, load: Any) -> None:
    top = load("one", "docker.io/library/app:latest")
    snapshot = prepare(store, "app").result["snapshot"]
    assert (snapshot["parent"], snapshot["parent_image"]) == (top, "docker.io/library/app:latest")


def test_a_committed_snapshot_must_have_the_parent(store: Snapshotter, task: Task, load: Any) -> None:
    load("one")
    prepare(store)
    task(ensure_snapshot, "committed", name="result", key="web", parent_image=APP)
    load("two")
    with pytest.raises(AlreadyExists, match='"result" has the parent "sha256:'):
        ensure_snapshot(store, "committed", name="result", parent_image=APP)


def test_a_name_that_moves(store: Snapshotter, task: Task, load: Any) -> None:
    old = load("one", APP, "docker.io/library/kept:1")
    prepare(store)
    new = load("two")
    assert (set(image_labels(store, old)), set(image_labels(store, new))) == ({"docker.io/library/kept:1"}, {APP})
    message = (
        f'"web" has the parent "{old}", and the top layer of the image "{APP}" is "{new}"; remove "web" first, use '
        "another key or name, or keep it: set parent instead of parent_image"
    )
    task.fails(AlreadyExists, message, ensure_snapshot, state="active", key="web", parent_image=APP)
    assert not ensure_snapshot(store, "active", "web", parent=old).changed
    assert prepare(store, key="other").result["snapshot"]["parent"] == new


def test_the_difference_of_a_name_that_moves(store: Snapshotter, open_store: Any, load: Any, tmp_path: Any) -> None:
    one, two = load("one"), load("two")
    for trial in (open_store(dry_run=True), store):
        done = ensure_image(trial, src=str(tmp_path / "one.tar"))
        assert done.result["actions"] == [f"update {one}", f"update {two}"]
        assert done.result["names"] == [APP]
        before, after = done.result["diff"]["before"], done.result["diff"]["after"]
        assert [LABEL + APP in side[one]["labels"] for side in (before, after)] == [False, True]
        assert [LABEL + APP in side[two]["labels"] for side in (before, after)] == [True, False]


def test_an_interrupted_move(store: Snapshotter, load: Any) -> None:
    """The new top layer has the name before the old one loses it. The next run finishes that."""
    old = load("one")
    store.update(old, {LABEL + APP: "windows(10.0.20348.9)/amd64"}, [f"labels.{LABEL}{APP}"])
    new = load("two")
    store.update(old, {LABEL + APP: "windows(10.0.20348.9)/amd64"}, [f"labels.{LABEL}{APP}"])
    assert load("two") == new
    assert not image_labels(store, old)


def test_each_build_of_windows_has_its_image(store: Snapshotter, host: Any, load: Any) -> None:
    """A name stands for several images, as in an index. The node chooses, as it does in an archive."""
    tops = {version: load(version, version=version) for version in ("10.0.17763.5", "10.0.20348.7", "10.0.26100.1")}
    for version, wanted in (("10.0.17763", "10.0.17763.5"), ("10.0.20348", "10.0.20348.7")):
        host(version)
        snapshot = prepare(store, key=version).result["snapshot"]
        assert snapshot["parent"] == tops[wanted]
    host("10.0.14393")
    with pytest.raises(
        FailedPrecondition,
        match="no image for Windows 10.0.14393.*set parent to the chain id of one instead of parent_i",
    ):
        prepare(store, key="other")
    # The next revision of a build replaces the one before.
    new = load("next", version="10.0.20348.8")
    host("10.0.20348")
    assert prepare(store, key="next").result["snapshot"]["parent"] == new
    assert not image_labels(store, tops["10.0.20348.7"])


def test_an_image_that_the_node_may_not_run(store: Snapshotter, host: Any, load: Any) -> None:
    load("one", version="10.0.26100.1")
    host("10.0.20348")
    prepare(store)
    assert "its containers may need Hyper-V isolation" in store.warnings[-1]


def test_an_unknown_image(store: Snapshotter, load: Any) -> None:
    with pytest.raises(
        NotFound, match='no image has the name "docker.io/library/app:1"; there are no names. Import it'
    ):
        prepare(store, "app:1")
    load("one", *(f"registry.example.com/team/app:1.{number}" for number in range(9)), "docker.io/library/other:1")
    with pytest.raises(NotFound) as caught:
        prepare(store, "registry.example.com/team/app:1.44")
    assert "the nearest names are registry.example.com/team/app:1.4, registry.example.com/" in str(caught.value)
    assert str(caught.value).count("team/app:1.") == 6
    assert "other:1" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "sha256:" + "a" * 64,
            "parent_image is sha256:a*, which is not the name of an image: for a chain id, set parent",
        ),
        ("App:1", "'App:1' does not name an image: it must be in lower case"),
    ],
)
def test_what_is_not_the_name_of_an_image(store: Snapshotter, task: Task, image: str, message: str) -> None:
    task.fails(InvalidArgument, message, ensure_snapshot, state="active", key="web", parent_image=image)
    task.fails(InvalidArgument, message, ensure_set, [{"state": "view", "key": "web", "parent_image": image}])


def test_parent_and_parent_image_exclude_each_other(store: Snapshotter, task: Task, archive: str) -> None:
    message = "parent and parent_image exclude each other: set one of them"
    both = {"parent": "base", "parent_image": "app"}
    task.fails(InvalidArgument, message, ensure_snapshot, state="active", key="web", **both)
    task.fails(InvalidArgument, r"snapshots\[0\]: " + message, ensure_set, [{"state": "active", "key": "web", **both}])
    task.fails(InvalidArgument, message, ensure_layer, name="layer", src=archive, **both)


def test_an_image_that_is_not_needed_is_not_looked_up(store: Snapshotter, load: Any) -> None:
    """The result exists, or the snapshot is to go."""
    load("one")
    prepare(store)
    ensure_snapshot(store, "committed", name="result", key="web")
    done = prepare(store, "gone:1", creates="result")
    assert not done.changed
    assert "parent_image" not in done.result["snapshot"]
    assert ensure_snapshot(store, "absent", name="result", parent_image="gone:1").changed


def test_check_mode_assumes_an_earlier_import(store: Snapshotter, open_store: Any, load: Any) -> None:
    trial = open_store(dry_run=True)
    done = prepare(trial)
    assert done.result["actions"] == ["prepare web"]
    assert done.result["snapshot"]["parent"] == APP
    assert len(trial.warnings) == 1
    assert f'The parent "{APP}" does not exist. Check mode assumes that an earlier task' in trial.warnings[0]
    load("one")
    prepare(store)
    trial = open_store(dry_run=True)
    assert not prepare(trial, "gone:1").changed
    assert 'no image has the name "docker.io/library/gone:1"' in trial.warnings[0]


def test_a_layer_on_top_of_an_image(store: Snapshotter, open_store: Any, task: Task, load: Any, archive: str) -> None:
    with pytest.raises(NotFound, match="no image has the name"):
        ensure_layer(open_store(dry_run=True), "patch", archive, parent_image=APP)
    assert ensure_layer(open_store(dry_run=True), "patch", archive, parent_image=APP, assume=True).changed
    top = load("one")
    done = ensure_layer(store, "patch", archive, parent_image=APP)
    assert (done.result["snapshot"]["parent"], done.result["snapshot"]["parent_image"]) == (top, APP)
    assert not ensure_layer(store, "patch", archive, parent_image=APP).changed
    load("two")
    task.fails(AlreadyExists, '"patch" has the parent', ensure_layer, name="patch", src=archive, parent_image=APP)


def test_a_set_keeps_the_images_that_it_names(store: Snapshotter, task: Task, load: Any) -> None:
    top = load("one")
    unused = load("two", "docker.io/library/other:1")
    items: List[Dict[str, Any]] = [
        {"state": "active", "key": "web", "parent_image": APP},
        {"state": "view", "key": "look", "parent_image": APP},
    ]
    done = task(ensure_set, items, prune=True, prune_filters=[""])
    assert [entry["snapshot"]["parent"] for entry in done.result["outcomes"]] == [top, top]
    assert {entry["snapshot"]["parent_image"] for entry in done.result["outcomes"]} == {APP}
    assert [entry["name"] for entry in done.result["pruned"]] == [unused]
    # A run that shall remove the top layer contradicts itself.
    items.append({"state": "absent", "name": top})
    task.fails(InvalidArgument, r'snapshots\[0\] needs "sha256:\w+", which snapshots\[2\] removes', ensure_set, items)


def test_an_unknown_image_is_the_failure_of_its_items(store: Snapshotter, load: Any) -> None:
    load("one")
    items = [
        {"state": "active", "key": "bad", "parent_image": "gone:1"},
        {"state": "active", "key": "good", "parent_image": APP},
    ]
    done = ensure_set(store, items, on_error="continue")
    bad, good = done.result["outcomes"]
    assert bad["error"]["code"] == "not_found"
    assert "the nearest names are registry.example.com/team/app:1.4" in bad["error"]["message"]
    assert good["actions"] == ["prepare good"]
