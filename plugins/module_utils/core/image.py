# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of an image as committed snapshots, a chain from the base to the top.

They have the names that containerd gives them (core/unpack/unpacker.go), chain
ids: whoever knows the image knows the names, and images share what they have
in common.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Union

from . import labels as label_rules
from .ensure import ABSENT, Outcome, ensure_snapshot, find, find_source, unreadable
from .errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
    os_error,
)
from .formats import ociimage
from .formats.ociimage import Image, Layer
from .layers.base import ImportResult
from .metastore import damaged
from .model import COMMITTED
from .snapshotter import Snapshotter

PRESENT = "present"

#: Says for a host that is no Windows which one it stands for.
OS_VERSION = "WCOW_OS_VERSION"


class Link(NamedTuple):
    """One snapshot of a chain. ``diff_id`` is ``""`` where only the store was asked."""

    name: str
    parent: str
    diff_id: str


def ensure_image(
    snapshotter: Snapshotter,
    state: str = PRESENT,
    src: Union[str, Mapping[str, Any], None] = None,
    platform: str = "windows/amd64",
    reference: str = "",
    os_version: str = "",
    labels: Optional[Mapping[str, str]] = None,
    chain_id: str = "",
) -> Outcome:
    """The layers of an image are committed snapshots, or are removed as far as nothing else needs them.

    ``src`` is a path on the node (``formats.ociimage`` says to what), or
    ``{"images": [...]}``, what somebody else read there: for each image
    ``config``, ``os_version`` and ``diff_ids``. Such images can be planned and
    removed, and labels be set; their layers come by ``ensure_layer``.
    ``labels`` are those of the top snapshot, since images share the others.
    ``absent`` takes ``chain_id``, the name of the top snapshot, instead of ``src``.

    An import that was interrupted goes on with the first layer that is missing.
    Raises InvalidArgument for options that do not go together and for a
    damaged archive, FailedPrecondition where no image suits the node or a
    layer is not in the archive, AlreadyExists where something else has a name.
    """
    if state not in (PRESENT, ABSENT):
        raise InvalidArgument(f"state {state!r} is none of {PRESENT}, {ABSENT}")
    if state == PRESENT and (not src or chain_id):
        raise InvalidArgument("state=present needs src and no chain_id, which follows from the image")
    if state == ABSENT and (bool(src) == bool(chain_id) or labels):
        raise InvalidArgument("state=absent needs exactly one of src and chain_id, and no labels")
    label_rules.validate(labels or {})
    if chain_id:
        return _absent(snapshotter, _chain_in_store(snapshotter, chain_id), {})
    image = _choose(snapshotter, _images(snapshotter, src, platform, reference), os_version)
    diff_ids = [layer.diff_id for layer in image.layers]
    names = ociimage.chain_ids(diff_ids)
    chain = [Link(*link) for link in zip(names, ["", *names], diff_ids)]
    about = {"config": image.config, "os_version": image.os_version}
    if state == ABSENT:
        return _absent(snapshotter, chain, about)
    return _present(snapshotter, chain, image, labels, about, f"{src}: " if isinstance(src, str) else "")


# -- which image ---------------------------------------------------------------


def _images(
    snapshotter: Snapshotter, src: Union[str, Mapping[str, Any], None], platform: str, reference: str
) -> List[Image]:
    if not isinstance(src, str):
        return [_image_in_request(image) for image in src["images"]] if src else []
    path = find_source(snapshotter, src)
    try:
        return ociimage.read_images(path, platform, reference)
    except SnapshotterError as error:
        raise error.prefixed(src) from None
    except OSError as error:
        raise unreadable(snapshotter.layers.presented(path), error) from error


def _image_in_request(image: Mapping[str, Any]) -> Image:
    """An image that the controller read. Raises InvalidArgument for what is none."""
    config, version, diff_ids = (image.get(key) for key in ("config", "os_version", "diff_ids"))
    digests = [config, *diff_ids] if isinstance(diff_ids, list) and diff_ids else [None]
    if not isinstance(version, str) or not all(isinstance(text, str) and ociimage.is_digest(text) for text in digests):
        raise InvalidArgument("an image in src must have config, os_version and diff_ids, digests but for os_version")
    return Image(str(config), version, tuple(Layer(str(diff_id), "", -1, None, ()) for diff_id in digests[1:]))


def host_version() -> str:
    """The Windows of this host without its revision, such as ``10.0.20348``; elsewhere what ``OS_VERSION`` says."""
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        return f"{version.major}.{version.minor}.{version.build}"
    return ".".join(os.environ.get(OS_VERSION, "").split(".")[:3])


def _choose(snapshotter: Snapshotter, images: Sequence[Image], os_version: str) -> Image:
    """The image for the Windows that is asked for, that of the node if none is.

    Containers run on the build that they were made for, and any revision of it
    (containerd platforms: the comparer of Windows); of several, the latest.
    """
    host = host_version()
    if not os_version and len(images) == 1:
        (image,) = images
        if host and image.os_version and not _is_version(image, host):
            snapshotter.warnings.append(
                f"the image is for Windows {image.os_version}, and the node is Windows {host}: containers of it may "
                "need Hyper-V isolation, or not start at all"
            )
        return image
    wanted = os_version or host
    fitting = [image for image in images if wanted and _is_version(image, wanted)]
    if fitting:
        return max(fitting, key=lambda image: [int(number) for number in re.findall("[0-9]+", image.os_version)])
    versions = ", ".join(sorted({image.os_version or "(none given)" for image in images}))
    asked = f"for Windows {wanted}, which is {'asked for' if os_version else 'what the node is'}" if wanted else ""
    raise FailedPrecondition(
        f"there is no image {asked or 'that must be meant, since the version of the node is not known'}; "
        f"there are images for {versions}: choose one with os_version",
        versions=sorted({image.os_version for image in images}),
    )


def _is_version(image: Image, wanted: str) -> bool:
    return f"{image.os_version}.".startswith(f"{wanted}.")


# -- present -------------------------------------------------------------------


def _present(
    snapshotter: Snapshotter,
    chain: List[Link],
    image: Image,
    labels: Optional[Mapping[str, str]],
    about: Dict[str, Any],
    source: str,
) -> Outcome:
    before, actions, imported = _state(snapshotter, chain), [], set()
    top = chain[-1]
    names = [f"{source}layer {number} of {len(chain)} ({link.diff_id})" for number, link in enumerate(chain, 1)]
    present = len(_existing(snapshotter, chain))
    missing = list(zip(chain, image.layers, names))[present:]
    if missing and not source and not snapshotter.rehearsing:
        raise Unavailable(f"{missing[0][2]} was removed by another task meanwhile; run the task again")
    if source:
        # Before anything is done: one that cannot be imported would waste those below it.
        for _link, layer, name in missing:
            _blob(layer, name)
    for link, layer, name in missing:
        try:
            _import(snapshotter, link, layer, labels if link is top and labels else {}, name)
        except AlreadyExists:
            # Another task was quicker.
            _existing(snapshotter, [link])
        else:
            imported.add(link.name)
            actions.append(f"import {link.name}")
    if labels:
        ensured = ensure_snapshot(snapshotter, COMMITTED, name=top.name, parent=top.parent, labels=labels)
        actions += ensured.result["actions"]
    return _outcome(snapshotter, chain, before, actions, imported, about)


def _existing(snapshotter: Snapshotter, chain: Sequence[Link]) -> List[Link]:
    """The links of a chain that exist, from the base on. Raises AlreadyExists if a name has another meaning here."""
    existing: List[Link] = []
    for link in chain:
        info = find(snapshotter, link.name)
        if info is None:
            break
        if info.kind != COMMITTED or info.parent != link.parent:
            raise AlreadyExists(
                f'"{link.name}" is no layer of this image: it is {info.kind} with parent "{info.parent}", not '
                f'committed with parent "{link.parent}"; remove it first',
                **info._asdict(),
            )
        existing.append(link)
    return existing


def _blob(layer: Layer, name: str) -> ociimage.Extent:
    try:
        return ociimage.blob_of(layer, name)
    except OSError as error:
        raise os_error(error, f"cannot read {name}") from error


def _import(snapshotter: Snapshotter, link: Link, layer: Layer, labels: Mapping[str, str], name: str) -> None:
    """Make one layer a snapshot; it is committed if both of its digests are right."""

    def unpack(directory: str, parents: List[str]) -> ImportResult:
        from .formats import layertar

        if snapshotter.rehearsing:
            return ImportResult(0, "", 0)
        extent = _blob(layer, name)
        try:
            with ociimage.BlobReader(extent) as blob, layertar.open_layer(blob) as plain:  # type: ignore[arg-type]
                try:
                    result = snapshotter.layers.import_layer(directory, parents, plain)
                except SnapshotterError as error:
                    raise error.prefixed(name) from error
                blob.finish(layer, name)
        except OSError as error:
            raise os_error(error, f"cannot read {name}") from error
        if result.digest != link.diff_id:
            raise InvalidArgument(f"{name} has the diff id {result.digest}: the archive is damaged, get it again")
        return result

    snapshotter.import_layer(link.name, link.parent, labels, unpack)


# -- absent --------------------------------------------------------------------


def _chain_in_store(snapshotter: Snapshotter, name: str) -> List[Link]:
    """The chain that ends with a snapshot; what is below it and has no digest for a name is not of an image."""
    if not ociimage.is_digest(name):
        raise InvalidArgument(f"chain_id {name!r} is not sha256: and 64 lower-case hexadecimal digits")
    chain: List[Link] = []
    while ociimage.is_digest(name):
        if any(link.name == name for link in chain):
            raise damaged(f"the parent {name!r} is its own ancestor", parent=name)
        info = find(snapshotter, name)
        chain.insert(0, Link(name, info.parent if info else "", ""))
        name = chain[0].parent
    return chain


def _absent(snapshotter: Snapshotter, chain: List[Link], about: Dict[str, Any]) -> Outcome:
    before, actions = _state(snapshotter, chain), []
    _existing(snapshotter, chain)
    for link in reversed(chain):
        if find(snapshotter, link.name) is None:
            continue
        if snapshotter.children(link.name):
            break
        try:
            snapshotter.remove(link.name)
        except NotFound:
            # Another task was quicker.
            continue
        except FailedPrecondition:
            if snapshotter.children(link.name):
                # It got one meanwhile.
                break
            raise
        actions.append(f"remove {link.name}")
    kept = [link.name for link in chain if find(snapshotter, link.name)]
    return _outcome(snapshotter, chain, before, actions, set(), {**about, "kept": kept})


# -- the result ----------------------------------------------------------------


def _state(snapshotter: Snapshotter, chain: Sequence[Link]) -> Dict[str, Any]:
    infos = [info for info in (find(snapshotter, link.name) for link in chain) if info]
    return {info.name: {"kind": info.kind, "parent": info.parent, "labels": info.labels} for info in infos}


def _outcome(
    snapshotter: Snapshotter,
    chain: List[Link],
    before: Dict[str, Any],
    actions: List[str],
    imported: Set[str],
    about: Dict[str, Any],
) -> Outcome:
    result = {
        **about,
        "chain_id": chain[-1].name,
        "chain": [{**link._asdict(), "imported": link.name in imported} for link in chain],
        "actions": actions,
        "diff": {"before": before, "after": _state(snapshotter, chain) if actions else before},
    }
    return Outcome(bool(actions), result)
