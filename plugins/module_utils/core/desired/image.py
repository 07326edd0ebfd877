# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one image: its layers as committed snapshots, a chain from the base to the top.

The snapshots have the names that containerd gives them, chain ids
(core/unpack/unpacker.go). The names therefore follow from the image, and
images share the layers that they have in common.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, TypeVar, Union

from .. import labels as label_rules
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError, Unavailable
from ..files import os_error
from ..formats import imagenames, ociimage
from ..formats.digest import is_digest, parse_digest
from ..formats.ociimage import Image, Layer
from ..formats.tar.decompress import zstd_codec
from ..layers.base import LayerStore
from ..lineage import ancestors
from ..model import COMMITTED, Description, ImportResult, Info, TopLayer
from ..outcome import Outcome
from . import labels as label_changes
from .result import ABSENT, PRESENT
from .sources import find_source, unreadable

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore, Unpack

    _Image = TypeVar("_Image", Image, TopLayer)

#: The Windows version that a lab node stands for; Windows hosts know their own.
OS_VERSION = "WCOW_OS_VERSION"

#: Builds of the long-term releases with a stable ABI: Windows Server 2022 and 2025. Newer hosts run their containers.
_STABLE_RELEASES = (20348, 26100)

_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(\..*)?")


class Link(NamedTuple):
    """One snapshot of a chain. ``diff_id`` is ``""`` if only the store was asked."""

    name: str
    parent: str
    diff_id: str


def ensure_image(
    store: SnapshotStore,
    state: str = PRESENT,
    src: Union[str, Mapping[str, Any], None] = None,
    platform: str = "windows/amd64",
    reference: str = "",
    os_version: str = "",
    labels: Optional[Mapping[str, str]] = None,
    chain_id: str = "",
    names: Optional[Sequence[str]] = None,
    pinned: Optional[bool] = None,
    unpack: Optional[bool] = None,
) -> Outcome:
    """Import the layers of an image, or remove those that nothing else needs.

    ``src`` is a path on the node (``formats.ociimage`` lists the forms), or
    ``{"images": [...]}`` with what the controller read: for each image
    ``config``, ``os_version`` and ``diff_ids``. Such images can be planned and
    removed, and their labels set; ``ensure_layer`` imports their layers.
    ``labels`` belong to the top snapshot, because images share the others.
    ``names`` are those of the image, by default those in the archive. The top
    snapshot has a label for each. A name stands for one image of each build of
    Windows: the snapshot that had it before loses its label.
    ``absent`` takes ``chain_id``, the name of the top snapshot, instead of ``src``.
    ``pinned`` and ``unpack`` are about records of images, which only containerd
    has (``containerd_image``).

    An interrupted import resumes with the first layer that is missing.
    Raises InvalidArgument for options that exclude each other and for a
    damaged archive, FailedPrecondition if no image suits the node or a layer
    is not in the archive, AlreadyExists if a name belongs to something else.
    """
    check_state(state, None if chain_id else src)
    if pinned is not None or unpack is not None:
        raise InvalidArgument(
            "pinned and unpack are about records of images, which our own store does not have: leave them out, or set "
            "store: containerd"
        )
    if state == PRESENT and (not src or chain_id):
        raise InvalidArgument("state=present needs src and not chain_id, which follows from the image")
    if state == ABSENT and (bool(src) == bool(chain_id) or labels or names):
        raise InvalidArgument("state=absent needs exactly one of src and chain_id, and no labels or names")
    label_rules.validate(labels or {})
    if chain_id:
        return _absent(store, _chain_in_store(store, parse_digest(chain_id, "chain_id")), {})
    image = choose_image(store.warnings, find_images(store.layers, src, platform, reference), os_version)
    diff_ids = [layer.diff_id for layer in image.layers]
    ids = ociimage.chain_ids(diff_ids)
    chain = [Link(*link) for link in zip(ids, ["", *ids], diff_ids)]
    about = {"config": image.config, "os_version": image.os_version}
    if state == ABSENT:
        return _absent(store, chain, about)
    named = names_of(image, names)
    variant = platform.replace("/", f"({image.os_version})/" if image.os_version else "/", 1)
    naming = {label_rules.IMAGE + name: variant for name in named}
    done = _present(store, chain, image, naming, labels, about, f"{src}: " if isinstance(src, str) else "")
    done.result["names"] = named
    return done


# -- which image ---------------------------------------------------------------


def check_state(state: str, src: Union[str, Mapping[str, Any], None]) -> None:
    """Raise InvalidArgument for an unknown state, and for an empty path."""
    if state not in (PRESENT, ABSENT):
        raise InvalidArgument(f"state {state!r} is not one of {PRESENT}, {ABSENT}")
    if isinstance(src, str) and not src.strip():
        raise InvalidArgument("src is empty: it must name the image")


def find_images(
    layers: LayerStore, src: Union[str, Mapping[str, Any], None], platform: str, reference: str
) -> List[Image]:
    """Return the images in ``src``, as ``ensure_image`` takes it. Raises as ``ociimage.read_images``."""
    if not isinstance(src, str):
        return [_image_in_request(image) for image in src["images"]] if src else []
    path = find_source(layers, src)
    try:
        return ociimage.read_images(path, platform, reference)
    except SnapshotterError as error:
        raise error.with_context(src) from None
    except OSError as error:
        raise unreadable(layers.display_path(path), error) from error


def names_of(image: Image, names: Optional[Sequence[str]]) -> List[str]:
    """Return ``names``, by default those in the archive, as CRI looks for them. Raises InvalidArgument."""
    given = names or [name for name in image.names if imagenames.names_image(name)]
    return list(dict.fromkeys(imagenames.canonical_name(name) for name in given))


def _image_in_request(image: Mapping[str, Any]) -> Image:
    """Return an image that the controller read. Raises InvalidArgument for any other object."""
    config, version, diff_ids = (image.get(key) for key in ("config", "os_version", "diff_ids"))
    digests = [config, *diff_ids] if isinstance(diff_ids, list) and diff_ids else [None]
    if not isinstance(version, str) or not all(isinstance(text, str) and is_digest(text) for text in digests):
        raise InvalidArgument(
            "an image in src must have config (a digest), os_version (a string) and diff_ids (a list of digests)"
        )
    names = image.get("names")
    return Image(
        str(config),
        version,
        tuple(Layer(str(diff_id), "", -1, None, ()) for diff_id in digests[1:]),
        tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else (),
    )


def host_version() -> str:
    """Return the Windows version of this host without its revision, such as ``10.0.20348``.

    On another host, the value of ``OS_VERSION``; empty if that is not set.
    """
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        return f"{version.major}.{version.minor}.{version.build}"
    return ".".join(os.environ.get(OS_VERSION, "").split(".")[:3])


def choose_image(
    warnings: List[str], images: Sequence[_Image], os_version: str, remedy: str = "choose one with os_version"
) -> _Image:
    """Return the image for the Windows version that is asked for, or the one that the node runs best.

    Of several that fit, the latest version wins. ``warnings`` gets a sentence if
    the node may not run it. Raises FailedPrecondition with the ``remedy`` if none fits.
    """
    host = host_version()
    if not os_version and len(images) == 1:
        (image,) = images
        if host and not can_run(host, image.os_version):
            warnings.append(
                f"the image is for Windows {image.os_version}, and the node is Windows {host}: its containers may "
                "need Hyper-V isolation, or not start at all"
            )
        return image
    wanted = os_version or host
    if os_version:
        fitting = [image for image in images if f"{image.os_version}.".startswith(f"{os_version}.")]
    else:
        fitting = [image for image in images if host and can_run(host, image.os_version)]
    if fitting:
        return max(fitting, key=lambda image: [int(number) for number in re.findall("[0-9]+", image.os_version)])
    if os_version:
        problem = f"there is no image for Windows {wanted}, the version in os_version"
    elif wanted:
        problem = f"there is no image for Windows {wanted}, the version of the node"
    else:
        problem = "cannot choose an image: the node's Windows version is unknown"
    versions = ", ".join(sorted({image.os_version or "(none given)" for image in images}))
    raise FailedPrecondition(
        f"{problem}; there are images for {versions}: {remedy}",
        versions=sorted({image.os_version for image in images}),
    )


def can_run(host: str, image: str) -> bool:
    """Return whether a host runs containers of an image without Hyper-V isolation; both are Windows versions.

    This is the rule of containerd (platforms, platform_windows_compat.go). A
    host before Windows Server 2022 needs its own build. A newer one also runs
    older builds, down to the latest long-term release before its own. An image
    that states no version fits any host.
    """
    if not image:
        return True
    ours, theirs = _VERSION.fullmatch(host), _VERSION.fullmatch(image)
    if not ours or not theirs or [int(part) for part in ours.group(1, 2)] != [int(part) for part in theirs.group(1, 2)]:
        return False
    build, wanted = int(ours.group(3)), int(theirs.group(3))
    if build < _STABLE_RELEASES[0]:
        return build == wanted
    oldest = max((release for release in _STABLE_RELEASES if release < build), default=_STABLE_RELEASES[0])
    return oldest <= wanted <= build


# -- present -------------------------------------------------------------------


def _present(
    store: SnapshotStore,
    chain: List[Link],
    image: Image,
    naming: Mapping[str, str],
    labels: Optional[Mapping[str, str]],
    about: Dict[str, Any],
    source: str,
) -> Outcome:
    before = _describe(store, chain, layers=True)
    top = chain[-1]
    labels = {**naming, **(labels or {})}
    names = [f"{source}layer {number} of {len(chain)} ({link.diff_id})" for number, link in enumerate(chain, 1)]
    existing = _count_existing(chain, before)
    missing = list(zip(chain, image.layers, names))[existing:]
    if missing and not source and not store.dry_run:
        raise Unavailable(f"{missing[0][2]} was removed by another task; run the task again")
    if source:
        # Before the first import: a layer that cannot be imported would waste those below it.
        for _link, layer, name in missing:
            _blob(layer, name)
    actions: List[str] = []
    imported: Set[str] = set()
    for link, layer, name in missing:
        try:
            _import(store, link, layer, _labels(link, top, labels), name)
        except AlreadyExists:
            # Another task was faster. Its snapshot is what this task found.
            before = {**before, **_describe(store, [link])}
            _count_existing([link], before)
        else:
            imported.add(link.name)
            actions.append(f"import {link.name}")
    for link in chain:
        found = before.get(link.name)
        if found is None or link.name in imported:
            continue
        changed = label_changes.changes(found.info.labels, _labels(link, top, labels), False, [])
        if changed:
            label_changes.write(store, link.name, changed)
            actions.append(f"update {link.name}")
    for name, changed in _find_renamed(store, top.name, naming).items():
        before = {**before, **store.describe(name, scratch=False)}
        label_changes.write(store, name, changed)
        actions.append(f"update {name}")
    return _outcome(store, chain, before, actions, imported, about)


def _find_renamed(store: SnapshotStore, top: str, naming: Mapping[str, str]) -> Dict[str, Dict[str, str]]:
    """Return the labels that other snapshots lose: a name stands for one image of each build of Windows."""
    found: Dict[str, Dict[str, str]] = {}
    for info in store.walk(*(f'labels."{label}"' for label in naming)) if naming else ():
        if info.name != top:
            same = [label for label in naming if _build(info.labels.get(label, "")) == _build(naming[label])]
            if same:
                found[info.name] = dict.fromkeys(same, "")
    return found


def _build(variant: str) -> str:
    """Return a platform as the label of an image has it, without the revision of Windows."""
    return re.sub(r"(\d+\.\d+\.\d+)\.[^)]*", r"\1", variant)


def _labels(link: Link, top: Link, labels: Mapping[str, str]) -> Dict[str, str]:
    """Return the labels of a layer: the label by which containerd adopts it, and on the top layer those of the task."""
    found_by = {label_rules.SNAPSHOT_REF: link.name}
    return {**found_by, **labels} if link is top else found_by


def _describe(store: SnapshotStore, chain: Sequence[Link], *, layers: bool = False) -> Dict[str, Description]:
    """Describe what exists of a chain. With ``layers``, a missing layer raises FailedPrecondition."""
    return store.describe(*(link.name for link in chain), scratch=layers)


def _count_existing(chain: Sequence[Link], found: Mapping[str, Description]) -> int:
    """Return how many links of a chain exist, from the base up. Raises AlreadyExists if a name is something else."""
    for number, link in enumerate(chain):
        if link.name not in found:
            return number
        info = found[link.name].info
        if info.kind != COMMITTED or info.parent != link.parent:
            raise AlreadyExists(
                f'"{link.name}" is not a layer of this image: it is {info.kind} with parent "{info.parent}", not '
                f'committed with parent "{link.parent}"; remove it first',
                **info._asdict(),
            )
    return len(chain)


def _blob(layer: Layer, name: str) -> ociimage.Extent:
    try:
        return ociimage.blob_of(layer, name, zstd_codec() is not None)
    except OSError as error:
        raise os_error(error, f"cannot read {name}") from error


def _import(store: SnapshotStore, link: Link, layer: Layer, labels: Mapping[str, str], name: str) -> None:
    """Make one layer a snapshot. It is committed if both of its digests are right."""

    def fill(unpack: Unpack) -> ImportResult:
        from ..formats.tar import layertar

        extent = _blob(layer, name)
        try:
            with (
                ociimage.BlobReader(extent) as blob,
                layertar.open_layer(
                    blob,  # type: ignore[arg-type]  # what it reads is enough
                    digest=link.diff_id,
                ) as plain,
            ):
                try:
                    result = unpack(plain, link.diff_id)
                except layertar.WrongDigest as error:
                    raise InvalidArgument(
                        f"{name} has the diff id {error.details['digest']}: the archive is damaged, get it again"
                    ) from None
                except SnapshotterError as error:
                    raise error.with_context(name) from error
                blob.finish(layer, name)
        except OSError as error:
            raise os_error(error, f"cannot read {name}") from error
        return result

    store.import_layer(link.name, link.parent, labels, fill)


# -- absent --------------------------------------------------------------------


def _chain_in_store(store: SnapshotStore, name: str) -> List[Link]:
    """Return the chain that ends with a snapshot. Below it, only names that are digests belong to an image."""
    parents: Dict[str, str] = {}

    def find_parent(name: str) -> str:
        found = store.describe(name, scratch=False).get(name)
        parents[name] = found.info.parent if found else ""
        return parents[name] if is_digest(parents[name]) else ""

    chain = [Link(ancestor, parents[ancestor], "") for ancestor in ancestors(name, find_parent)]
    return chain[::-1]


def _absent(store: SnapshotStore, chain: List[Link], about: Dict[str, Any]) -> Outcome:
    before = _describe(store, chain)
    actions: List[str] = []
    _count_existing(chain, before)
    for link in reversed(chain):
        if link.name not in before:
            continue
        if store.children(link.name):
            break
        try:
            store.remove(link.name)
        except NotFound:
            # Another task was faster.
            continue
        except FailedPrecondition:
            if store.children(link.name):
                # It got a child after the check.
                break
            raise
        actions.append(f"remove {link.name}")
    left = _describe(store, chain) if actions else before
    kept = [link.name for link in chain if link.name in left]
    return _outcome(store, chain, before, actions, set(), {**about, "kept": kept})


# -- the result ----------------------------------------------------------------


def _as_diff(found: Mapping[str, Description]) -> Dict[str, Any]:
    infos: List[Info] = [description.info for description in found.values()]
    return {info.name: {"kind": info.kind, "parent": info.parent, "labels": info.labels} for info in infos}


def _outcome(
    store: SnapshotStore,
    chain: List[Link],
    before: Mapping[str, Description],
    actions: List[str],
    imported: Set[str],
    about: Dict[str, Any],
) -> Outcome:
    names = dict.fromkeys([*(link.name for link in chain), *before])
    after = store.describe(*names, scratch=False) if actions else before
    result = {
        **about,
        "chain_id": chain[-1].name,
        "chain": [{**link._asdict(), "imported": link.name in imported} for link in chain],
        "actions": actions,
        "diff": {"before": _as_diff(before), "after": _as_diff(after)},
    }
    return Outcome(bool(actions), result)
