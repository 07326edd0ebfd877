# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what holds a snapshot. tests/peers/test_containerd_store.py compares it with containerd's garbage collector."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Sequence, Set, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import references as module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.databases import (
    NO_TIME,
    Blob,
    Container,
    Entry,
    Image,
    Ingest,
    Lease,
    Namespace,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.references import References, UsedBy
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000 * 10**9
BEFORE, AFTER = "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"
NOTHING = UsedBy((), (), (), (), (), (), (), (), False)


class Objects:
    """A namespace as values. Each method adds one object."""

    def __init__(self) -> None:
        self.namespace = Namespace({}, {}, {}, {}, {}, {}, {}, {})

    def snapshot(self, key: str, parent: str = "", snapshotter: str = "windows", **labels: str) -> Objects:
        entries = self.namespace.snapshots.setdefault(snapshotter, {})
        entries[key] = Entry(key, parent, spelled(labels), (), NO_TIME, NO_TIME)
        return self

    def chain(self, *keys: str) -> Objects:
        for parent, key in zip(("", *keys), keys):
            self.snapshot(key, parent)
        return self

    def image(self, name: str, digest: str, **labels: str) -> Objects:
        self.namespace.images[name] = Image(digest, "", 0, spelled(labels), NO_TIME, NO_TIME)
        return self

    def blob(self, digest: str, **labels: str) -> Objects:
        self.namespace.blobs[digest] = Blob(0, spelled(labels), NO_TIME, NO_TIME)
        return self

    def container(self, name: str, key: str, snapshotter: str = "windows", **labels: str) -> Objects:
        self.namespace.containers[name] = Container("", snapshotter, key, spelled(labels), NO_TIME, NO_TIME)
        return self

    def lease(self, name: str, *keys: str, content: Sequence[str] = (), **others: Any) -> Objects:
        images, ingests = others.pop("images", ()), others.pop("ingests", ())
        snapshots = tuple(("windows", key) for key in keys)
        self.namespace.leases[name] = Lease(spelled(others), NO_TIME, snapshots, tuple(content), images, ingests)
        return self

    def ingest(self, reference: str, expected: str, expires: str) -> Objects:
        self.namespace.ingests[reference] = Ingest(expected, expires)
        return self

    def sandbox(self, name: str, **labels: str) -> Objects:
        self.namespace.sandboxes[name] = spelled(labels)
        return self

    def used(self, key: str, version: int = 4) -> UsedBy:
        return References(self.namespace, NOW, version).used_by("windows", key)

    def freed(self, version: int = 4) -> List[str]:
        return list(References(self.namespace, NOW, version).freed("windows"))


def spelled(labels: Dict[str, str]) -> Dict[str, str]:
    """Return labels for keywords: ``ref__snapshot__windows`` is ``containerd.io/gc.ref.snapshot.windows``."""
    return {"containerd.io/gc." + key.replace("___", "/").replace("__", "."): value for key, value in labels.items()}


def pulled() -> Objects:
    """An image of three layers, and a second image of two of them. A container runs the first."""
    return (
        Objects()
        .chain("base", "middle", "top")
        .snapshot("scratch", "top")
        .image("b:1", "index")
        .image("a:1", "manifest")
        .image("small:1", "manifest2")
        .blob("index", ref__content__m__0="manifest")
        .blob("manifest", ref__content__config="config", ref__content__l__0="layer")
        .blob("manifest2", ref__content__config="config2")
        .blob("config", ref__snapshot__windows="top")
        .blob("config2", ref__snapshot__windows="middle")
        .blob("layer")
        .container("c1", "scratch")
    )


def test_images_containers_and_children_are_named() -> None:
    objects = pulled()
    both = NOTHING._replace(images=("a:1", "b:1"), containers=("c1",), is_kept=True)
    assert objects.used("scratch") == NOTHING._replace(containers=("c1",), is_kept=True)
    assert objects.used("top") == both._replace(children=("scratch",))
    assert objects.used("middle") == both._replace(images=("a:1", "b:1", "small:1"), children=("top",))
    assert objects.used("base") == both._replace(images=("a:1", "b:1", "small:1"), children=("middle",))
    assert objects.freed() == []


def test_without_image_and_container_everything_is_freed() -> None:
    objects = pulled()
    objects.namespace.images.clear()
    assert objects.freed() == []
    objects.namespace.containers.clear()
    assert objects.freed() == ["base", "middle", "top", "scratch"]
    assert objects.used("top") == NOTHING._replace(children=("scratch",))


def test_the_root_label_holds_a_snapshot_and_its_parents() -> None:
    objects = Objects().chain("base", "top").snapshot("mine", "top", root="any value").snapshot("other", "top")
    for key, children in (("mine", ()), ("top", ("mine", "other")), ("base", ("top",))):
        assert objects.used(key) == NOTHING._replace(labelled=(("windows", "mine"),), children=children, is_kept=True)
    assert objects.freed() == ["other"]


def test_content_with_the_root_label_holds_its_snapshot() -> None:
    objects = Objects().chain("base").blob("config", root="1", ref__snapshot__windows="base")
    assert objects.used("base") == NOTHING._replace(content=("config",), is_kept=True)


@pytest.mark.parametrize(
    ("labels", "is_kept"),
    [
        ({}, True),
        ({"expire": AFTER}, True),
        ({"expire": BEFORE}, False),
        ({"expire": "tomorrow"}, True),
        ({"flat": "1"}, True),
        ({"flat": "1", "expire": BEFORE}, False),
    ],
)
def test_a_lease_holds_until_it_expires(labels: Dict[str, str], is_kept: bool) -> None:
    objects = Objects().chain("base", "top", "other").lease("l", "top", **labels)
    leases = ("l",) if is_kept else ()
    for key, child in (("base", "top"), ("top", "other")):
        assert objects.used(key) == NOTHING._replace(leases=leases, children=(child,), is_kept=is_kept)
    assert objects.freed() == (["other"] if is_kept else ["base", "top", "other"])


def test_a_flat_lease_does_not_follow_labels() -> None:
    objects = (
        Objects()
        .chain("base", "named", "image")
        .snapshot("top", "base", ref__snapshot__windows="named")
        .image("i", "manifest", expire=BEFORE)
        .blob("manifest", ref__snapshot__windows="image")
    )
    assert objects.lease("l", "top", content=["manifest"], images=("i",), flat="1").freed() == ["named", "image"]
    assert objects.lease("m", "top", content=["manifest"], images=("i",)).freed() == []
    assert objects.used("base").leases == ("l", "m")
    assert objects.used("image") == NOTHING._replace(images=(), leases=("m",), is_kept=True)


def test_two_flat_leases_share_parents() -> None:
    objects = Objects().chain("base", "left").snapshot("right", "base").snapshot("free", "right")
    objects.lease("l", "left", "gone", flat="1").lease("r", "right", flat="1").lease("b", "base", flat="1")
    assert objects.used("base").leases == ("b", "l", "r")
    assert objects.used("left").leases == ("l",)
    assert objects.freed() == ["free"]


@pytest.mark.parametrize(("version", "is_kept"), [(3, True), (4, False)])
def test_images_expire_since_version_4(version: int, is_kept: bool) -> None:
    objects = Objects().chain("base").image("i", "config", expire=BEFORE).blob("config", ref__snapshot__windows="base")
    assert objects.used("base", version) == NOTHING._replace(images=("i",) * is_kept, is_kept=is_kept)


def test_an_expired_image_in_a_lease_is_held_by_the_lease() -> None:
    objects = Objects().chain("base").image("i", "config", expire=BEFORE).blob("config", ref__snapshot__windows="base")
    assert objects.lease("l", images=("i",)).used("base").leases == ("l",)


@pytest.mark.parametrize(("expires", "is_kept"), [(AFTER, True), (BEFORE, False), ("", False)])
def test_content_that_is_being_written_holds_what_it_replaces(expires: str, is_kept: bool) -> None:
    objects = Objects().chain("base").blob("config", ref__snapshot__windows="base").ingest("ref", "config", expires)
    assert objects.used("base") == NOTHING._replace(ingests=("ref",) * is_kept, is_kept=is_kept)
    assert objects.lease("l", ingests=("ref",)).used("base").leases == ("l",)


@pytest.mark.parametrize(
    "label",
    ["ref__snapshot__windows", "ref__snapshot__windows___name", "cond__snapshot__windows", "cond__snapshot___windows"],
)
def test_labels_name_snapshots(label: str) -> None:
    value = "usedat<24h|base" if label.startswith("cond") else "base"
    assert Objects().chain("base").image("i", "none", **{label: value}).used("base").images == ("i",)


@pytest.mark.parametrize(
    ("label", "is_kept"),
    [
        ("ref__content", True),
        ("ref__content__config", True),
        ("ref__content___config", True),
        ("ref__contents", False),
        ("ref__other", False),
    ],
)
def test_labels_name_content(label: str, is_kept: bool) -> None:
    objects = Objects().chain("base").blob("config", ref__snapshot__windows="base")
    assert objects.container("c", "", "", **{label: "config"}).used("base").is_kept == is_kept


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("bref__container", "c"),
        ("bref__image__x", "i"),
        ("bref__content", "b"),
        ("bref__snapshot__windows", "labelled"),
    ],
)
def test_labels_name_what_a_snapshot_depends_on(label: str, value: str) -> None:
    objects = Objects().snapshot("base", **{label: value}).snapshot("labelled", root="1")
    objects.container("c", "", "").image("i", "").blob("b", root="1")
    assert objects.used("base").is_kept
    assert objects.freed() == []


def test_sandboxes_hold_by_labels() -> None:
    objects = Objects().chain("base").sandbox("s", ref__snapshot__windows="base")
    assert objects.used("base") == NOTHING._replace(sandboxes=("s",), is_kept=True)


def test_snapshotters_are_apart() -> None:
    objects = Objects().chain("base").snapshot("base", snapshotter="native").container("c", "base", "native")
    assert objects.used("base") == NOTHING
    assert References(objects.namespace, NOW, 4).used_by("native", "base").containers == ("c",)
    assert list(References(objects.namespace, NOW, 4).freed("none")) == []


def test_a_snapshot_that_is_missing_is_needed_in_vain() -> None:
    assert Objects().container("c", "gone").lease("l", "gone").used("gone") == NOTHING._replace(
        containers=("c",), leases=("l",), is_kept=True
    )


def test_many_containers_share_a_base() -> None:
    objects = Objects().chain("base", "top")
    names = [f"c{number:02}" for number in range(50)]
    for name in names:
        objects.snapshot(name, "top").container(name, name)
    assert objects.used("top") == NOTHING._replace(containers=tuple(names), children=tuple(names), is_kept=True)
    assert objects.used("base") == NOTHING._replace(containers=tuple(names), children=("top",), is_kept=True)
    assert objects.used("c07") == NOTHING._replace(containers=("c07",), is_kept=True)


def test_circles_end() -> None:
    objects = Objects().snapshot("a", "b").snapshot("b", "a").snapshot("c", "c")
    objects.lease("l", "a", flat="1").container("k", "b").blob("x", ref__content="y").blob("y", ref__content="x")
    assert objects.used("a") == objects.used("b")._replace(children=("b",))
    assert objects.used("a").leases == ("l",)
    assert objects.freed() == ["c"]


# -- any graph ----------------------------------------------------------------------

KEYS = [f"s{number}" for number in range(6)]
DIGESTS = [f"d{number}" for number in range(4)]
NAMES = ["n1", "n2"]


@st.composite
def graphs(draw: Any) -> Objects:
    def labels() -> Dict[str, str]:
        return draw(
            st.dictionaries(
                st.sampled_from(["root", "ref__content", "ref__content__1", "ref__snapshot__windows", "ref__image"]),
                st.sampled_from([*KEYS, *DIGESTS, *NAMES]),
                max_size=2,
            )
        )

    objects = Objects()
    for key in draw(st.sets(st.sampled_from(KEYS))):
        objects.snapshot(key, draw(st.sampled_from(["", *KEYS])), **labels())
    for digest in draw(st.sets(st.sampled_from(DIGESTS))):
        objects.blob(digest, **labels())
    for name in draw(st.sets(st.sampled_from(NAMES))):
        objects.image(
            name, draw(st.sampled_from(DIGESTS)), **labels(), **draw(st.sampled_from([{}, {"expire": BEFORE}]))
        )
    for name in draw(st.sets(st.sampled_from(NAMES))):
        objects.container(name, draw(st.sampled_from(KEYS)), **labels())
    for name in draw(st.sets(st.sampled_from(NAMES))):
        keys = draw(st.sets(st.sampled_from(KEYS), max_size=2))
        flat = draw(st.sampled_from([{}, {"flat": "1"}]))
        objects.lease(name, *keys, content=draw(st.sets(st.sampled_from(DIGESTS), max_size=1)), **flat)
    return objects


def reached(namespace: Namespace, kind: str, name: str) -> Set[Tuple[str, str]]:
    """Return everything that one object leads to, itself included. This is written for clarity, not for speed."""
    found = {(kind, name)}
    while True:
        new = {target for node in found for target in targets(namespace, *node)} - found
        if not new:
            return found
        found |= new


def targets(namespace: Namespace, kind: str, name: str) -> Set[Tuple[str, str]]:
    found: Set[Tuple[str, str]] = set()
    labels: Dict[str, str] = {}
    if kind in ("snapshot", "flat") and name in namespace.snapshots.get("windows", {}):
        entry = namespace.snapshots["windows"][name]
        found.add((kind, entry.parent))
        labels = entry.labels if kind == "snapshot" else {}
    elif kind == "content" and name in namespace.blobs:
        labels = namespace.blobs[name].labels
    elif kind == "image" and name in namespace.images:
        labels = namespace.images[name].labels
        found.add(("content", namespace.images[name].digest))
    elif kind == "container":
        labels = namespace.containers[name].labels
        found.add(("snapshot", namespace.containers[name].snapshot_key))
    elif kind == "lease":
        lease = namespace.leases[name]
        is_flat = "containerd.io/gc.flat" in lease.labels
        found.update(("flat" if is_flat else "snapshot", key) for _snapshotter, key in lease.snapshots)
        found.update(("content", digest) for digest in lease.content if not is_flat)
    for label, value in labels.items():
        for prefix in ("snapshot", "content", "image"):
            if label.startswith(f"containerd.io/gc.ref.{prefix}"):
                found.add((prefix, value))
    return found


@given(graphs())
def test_any_graph_has_the_answers_of_a_plain_search(objects: Objects) -> None:
    namespace = objects.namespace
    snapshots = namespace.snapshots.get("windows", {})
    roots = [("container", name) for name in namespace.containers]
    roots += [("lease", name) for name in namespace.leases]
    roots += [("snapshot", key) for key, entry in snapshots.items() if "containerd.io/gc.root" in entry.labels]
    roots += [("content", digest) for digest, blob in namespace.blobs.items() if "containerd.io/gc.root" in blob.labels]
    roots += [("image", name) for name, one in namespace.images.items() if "containerd.io/gc.expire" not in one.labels]
    led = {root: reached(namespace, *root) for root in roots}
    # Few roots are remembered, and more of them are found by a walk.
    for few in (0, 1, 2, 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FEW", few)
            references = References(namespace, NOW, 4)
        for key in KEYS:
            found = sorted(root for root in roots if led[root] & {("snapshot", key), ("flat", key)})
            use = references.used_by("windows", key)
            answers = {"container": use.containers, "content": use.content, "image": use.images, "lease": use.leases}
            answers["snapshot"] = tuple(name for _snapshotter, name in use.labelled)
            assert found == sorted((kind, name) for kind, names in answers.items() for name in names)
            assert use.is_kept == bool(found) == references.is_kept("windows", key)
        assert list(references.freed("windows")) == [key for key in snapshots if not references.is_kept("windows", key)]


# -- the time it takes ---------------------------------------------------------------


def cpu_time(objects: Objects, keys: Sequence[str]) -> float:
    start = time.process_time()
    references = References(objects.namespace, NOW, 4)
    for key in keys:
        assert references.used_by("windows", key).is_kept
    return time.process_time() - start


def long_chain(length: int) -> Tuple[Objects, List[str]]:
    keys = [str(number) for number in range(length)]
    return Objects().chain(*keys).container("c", keys[-1]), keys


def flat_leases(length: int) -> Tuple[Objects, List[str]]:
    objects, keys = long_chain(length)
    objects.namespace.containers.clear()
    objects.lease("l", *keys[-length // 2 :], flat="1")
    return objects, keys


@pytest.mark.parametrize("build", [long_chain, flat_leases])
def test_the_time_for_a_chain_is_linear(build: Any) -> None:
    """If each answer walked to the end of the chain, ten times the length would take a hundred times as long."""
    small = min(cpu_time(*build(1000)) for _attempt in range(3))
    large = min(cpu_time(*build(10_000)) for _attempt in range(2))
    # The clock of Windows has steps of 16 ms.
    assert large < 40 * max(small, 0.02)
