# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one image in a namespace of containerd: its records, its content and its snapshots.

The present state is read from containerd's databases, so a task with nothing to do needs no connection and reads no
layer. Changes go through the API (``containerd.images`` has the order).
"""

from __future__ import annotations

import shutil
import time
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Union

from .. import labels as label_rules
from ..containerd import databases, images
from ..containerd.client import Client, Descriptor, Resource
from ..containerd.discovery import SNAPSHOTTER
from ..containerd.images import CONTENT_REFERENCE, MANAGED_LABEL, PINNED, PINNED_LABEL, Link
from ..containerd.manifests import Manifests, StoredImage
from ..containerd.node import ContainerdNode
from ..containerd.picture import Picture
from ..containerd.references import References
from ..containerd.upload import lease_of
from ..errors import FailedPrecondition, InvalidArgument, Unavailable
from ..files import os_error
from ..formats import imagenames, ociimage
from ..formats.digest import is_digest
from ..formats.imagepackage import Package, Part, from_object, package_of
from ..model import COMMITTED
from ..outcome import Outcome
from .image import check_state, choose_image, find_images, names_of
from .result import ABSENT

_Source = Union[str, Mapping[str, Any], None]

#: A namespace that containerd does not have yet.
_EMPTY = databases.Namespace({}, {}, {}, {}, {}, {}, {}, {})


def ensure_image(
    node: ContainerdNode,
    state: str = "present",
    src: _Source = None,
    platform: str = "windows/amd64",
    reference: str = "",
    os_version: str = "",
    labels: Optional[Mapping[str, str]] = None,
    chain_id: str = "",
    names: Optional[Sequence[str]] = None,
    pinned: Optional[bool] = None,
    unpack: Optional[bool] = None,
) -> Outcome:
    """Import an image into a namespace of containerd, or remove its records.

    ``src``, ``platform``, ``reference`` and ``os_version`` as in
    ``image.ensure_image``; objects in ``src`` also have ``names`` and the
    descriptors of ``imagepackage.as_object``. ``names`` are those of the
    records, by default those in the archive. ``labels`` are merged into the
    labels of the records. ``pinned`` protects the image from kubelet; None
    leaves that as it is. Without ``unpack``, containerd unpacks the image for
    the first container.

    ``absent`` takes ``names`` or ``src``. A name can be an image id,
    ``sha256:<digits>``, and stands for all names of that image.

    The result has ``missing``: the digests of the blobs that an image in
    ``src`` needs and containerd does not have.

    Raises as ``image.ensure_image``, ``ContainerdNode.connect`` and
    ``images.require_snapshotter``; FailedPrecondition if a container uses an
    image that is to be removed.
    """
    check_state(state, src)
    _check_options(state, src, labels, chain_id, names, pinned, unpack)
    if state == ABSENT:
        return _absent(node, src, platform, reference, os_version, names)
    found = find_images(node.layers, src, platform, reference)
    image = choose_image(node.warnings, found, os_version)
    source = src if isinstance(src, str) else ""
    present = _Present(node, image, _package(image, src, source), bool(source))
    wanted = dict(labels or {})
    if pinned is not None:
        wanted[PINNED_LABEL] = PINNED if pinned else ""
    named = names_of(image, names)
    if not named:
        raise InvalidArgument("the archive does not name the image: set names to what kubelet asks for")
    done = present.ensure(named, wanted, unpack is not False)
    done.result["names"] = named
    return done


def _check_options(
    state: str,
    src: _Source,
    labels: Optional[Mapping[str, str]],
    chain_id: str,
    names: Optional[Sequence[str]],
    pinned: Optional[bool],
    unpack: Optional[bool],
) -> None:
    if chain_id:
        raise InvalidArgument("chain_id is about our own store: on containerd's store, name the image with names")
    if state == ABSENT and (bool(src) == bool(names) or labels or pinned is not None or unpack is not None):
        raise InvalidArgument("state=absent needs exactly one of src and names, and no labels, pinned or unpack")
    if state != ABSENT and not src:
        raise InvalidArgument("state=present needs src")
    label_rules.validate(labels or {})
    reserved = sorted(key for key in labels or {} if key in (MANAGED_LABEL, PINNED_LABEL))
    if reserved:
        raise InvalidArgument(
            f"labels must not have {reserved[0]}: "
            + ("use the option pinned" if reserved[0] == PINNED_LABEL else "CRI sets this label itself")
        )


def _package(image: ociimage.Image, src: _Source, source: str) -> Package:
    """Return the parts of the image that was chosen."""
    if isinstance(src, Mapping):
        return from_object(_offered(src, image), tuple(layer.diff_id for layer in image.layers))
    try:
        return package_of(image, f"{source}: ")
    except OSError as error:
        raise os_error(error, f"cannot read {source}") from error


def _offered(src: Mapping[str, Any], image: ociimage.Image) -> Mapping[str, Any]:
    """Return the object in ``src`` that became an image."""
    return next(found for found in src["images"] if found.get("config") == image.config)


# -- present ---------------------------------------------------------------------


class _Plan(NamedTuple):
    """What is to be done, in this order: send blobs, label blobs, unpack layers, set records."""

    target: Descriptor
    send: List[Part]
    labels: Dict[str, Dict[str, str]]
    unpack: List[Tuple[Link, Part]]
    records: Dict[str, Tuple[Descriptor, Dict[str, str]]]

    def actions(self) -> List[str]:
        return [
            *(f"send {part.digest}" for part in self.send),
            *(f"unpack {link.name}" for link, _part in self.unpack),
            *(f"label {digest}" for digest in self.labels if digest not in {part.digest for part in self.send}),
            *(f"tag {name}" for name in self.records),
        ]


class _Present:
    """One image that is to be in containerd. ``is_here``: its archive is on this node."""

    def __init__(self, node: ContainerdNode, image: ociimage.Image, package: Package, is_here: bool) -> None:
        self._node = node
        self._image = image
        self._package = package
        self._is_here = is_here
        diff_ids = [layer.diff_id for layer in image.layers]
        chain = ociimage.chain_ids(diff_ids)
        self._chain = [Link(*link) for link in zip(chain, ["", *chain], diff_ids)]
        self._picture: Picture = node.read(may_be_unused=True)
        self._namespace = node.one_namespace(self._picture)

    def ensure(self, names: List[str], labels: Dict[str, str], unpack: bool) -> Outcome:
        objects = _objects(self._picture, self._namespace)
        plan = self._plan(objects, names, labels, unpack)
        actions = plan.actions()
        before = self._state(objects, names)
        after = before
        unpacked: Set[str] = set()
        uploads = [lease_of(part.digest) for part in self._package.parts() if lease_of(part.digest) in objects.leases]
        if self._is_here:
            # Before the first blob is sent: one that cannot be read would waste the others.
            for part in plan.send:
                part.require()
        if self._node.dry_run:
            unpacked = {link.name for link, _part in plan.unpack}
            after = self._predict(before, plan)
        elif actions:
            if plan.send and not self._is_here:
                raise Unavailable(f"{plan.send[0].name} was removed by another task; run the task again")
            self._require_space(plan)
            unpacked = self._perform(plan, uploads)
            self._picture = self._node.read(may_be_unused=True)
            after = self._state(_objects(self._picture, self._namespace), names)
            # Another client can have unpacked a layer at the same time.
            skipped = {f"unpack {link.name}" for link, _part in plan.unpack if link.name not in unpacked}
            actions = [action for action in actions if action not in skipped]
        elif uploads:
            self._perform(plan, uploads)
        result = {
            "containerd": {**self._node.describe(self._picture), "namespace": self._namespace},
            "config": self._image.config,
            "os_version": self._image.os_version,
            "manifest": plan.target.digest,
            "chain_id": self._chain[-1].name,
            "chain": [{**link._asdict(), "imported": link.name in unpacked} for link in self._chain],
            "images": [_shown(name, record) for name, record in after["images"].items()],
            "missing": [part.digest for part in plan.send],
            "actions": actions,
            "diff": {"before": before, "after": after},
        }
        return Outcome(bool(actions), result)

    def _plan(self, objects: databases.Namespace, names: List[str], labels: Dict[str, str], unpack: bool) -> _Plan:
        manifests = Manifests(self._node.root, objects.blobs)
        kept = self._kept(objects, manifests, names)
        package = self._package
        target = kept or images.descriptor_of(package.manifest)
        top = self._chain[-1].name
        links = self._missing_links(objects) if unpack else []
        layers = [(link, package.layers[self._chain.index(link)]) for link in links]
        needed = [part for _link, part in layers] if kept else package.parts()
        wanted = {package.manifest.digest: images.manifest_labels(package)} if kept is None else {}
        if unpack:
            wanted[package.config.digest] = images.config_labels(self._node.snapshotter, top)
        records = {}
        for name in names:
            found = objects.images.get(name)
            keeps = found is not None and (
                found.digest == target.digest or (kept is not None and self._is_same(manifests.images(found.digest)))
            )
            changes = {
                key: value for key, value in labels.items() if (found.labels if found else {}).get(key, "") != value
            }
            if found is None or not keeps or changes:
                aim = Descriptor(found.media_type, found.digest, found.size) if found and keeps else target
                records[name] = (aim, changes)
        return _Plan(
            target,
            list({part.digest: part for part in needed if part.digest not in objects.blobs}.values()),
            {digest: more for digest, more in wanted.items() if not _has_labels(objects, digest, more)},
            layers,
            records,
        )

    def _kept(self, objects: databases.Namespace, manifests: Manifests, names: List[str]) -> Optional[Descriptor]:
        """Return the target of a record that already names this image, and whose content is complete.

        The same image can have another manifest, for example the one that kubelet pulled. A node that discards the
        layers which it has unpacked does not need them: then no label of the manifest names them.
        """
        for name in [*names, *objects.images]:
            record = objects.images.get(name)
            for stored in manifests.images(record.digest) if record else ():
                blob = objects.blobs.get(stored.manifest)
                needs = [
                    value for key, value in (blob.labels if blob else {}).items() if key.startswith(CONTENT_REFERENCE)
                ]
                # Without the reference to the configuration, the collector would remove that.
                is_complete = stored.config in needs and all(digest in objects.blobs for digest in needs)
                if record and stored.config == self._image.config and is_complete:
                    return Descriptor(record.media_type, record.digest, record.size)
        return None

    def _is_same(self, stored: Sequence[StoredImage]) -> bool:
        return any(found.config == self._image.config for found in stored)

    def _missing_links(self, objects: databases.Namespace) -> List[Link]:
        """Return the links of the chain without a snapshot. Raises AlreadyExists if a name is something else."""
        store = self._picture.store
        # A proxy plugin keeps its records elsewhere. Then what containerd itself says has to do.
        is_proxy = not store.records and not store.last_id and self._node.snapshotter != SNAPSHOTTER
        entries = objects.snapshots.get(self._node.snapshotter, {})
        missing = []
        for link in self._chain:
            entry = entries.get(link.name)
            record = store.records.get(entry.name) if entry else None
            if entry is None:
                missing.append(link)
            elif record is not None:
                images.check_link(link, record.kind, entry.parent)
                if record.id not in self._picture.directories.layers:
                    self._node.warnings.append(
                        f'the directory of the layer "{link.name}" is missing, so containers of this image cannot '
                        "start: store_check says what to do"
                    )
            elif is_proxy:
                images.check_link(link, COMMITTED, entry.parent)
            else:
                raise FailedPrecondition(
                    f'the record of the snapshot "{link.name}" is missing, so its layer cannot be unpacked again; '
                    "store_check names it, and says what to do",
                    name=link.name,
                )
        return missing

    def _require_space(self, plan: _Plan) -> None:
        """Raise Unavailable if the volume has less space than the blobs need, not counting what is unpacked."""
        others = _content_elsewhere(self._picture, self._namespace)
        size = sum(part.size for part in plan.send if part.digest not in others)
        free = shutil.disk_usage(self._node.root).free
        if size > free:
            raise Unavailable(
                f"the volume of {self._node.layers.display_path(self._node.root)} has {free} bytes free, and the "
                f"content of the image needs {size}: free some space first, for example by removing images",
                free=free,
                needed=size,
            )

    def _perform(self, plan: _Plan, uploads: List[str]) -> Set[str]:
        """Do what is planned. Return the names of the snapshots that were unpacked here, and not by another client.

        ``uploads`` are the leases of blobs that the controller sent: from now on the record of the image holds them.
        """
        unpacked = set()
        manifest, config = self._package.manifest.digest, self._package.config.digest
        with self._node.connect(self._namespace) as client:
            if plan.unpack:
                images.require_snapshotter(client, self._node.snapshotter)
            with client.lease() as lease:
                self._write(client, lease, plan)
                if manifest in plan.labels:
                    images.add_labels(client, manifest, plan.labels[manifest])
                self._hold_chain(client, lease, plan)
                for link, part in plan.unpack:
                    if images.unpack(client, self._node.snapshotter, link, part):
                        unpacked.add(link.name)
                if config in plan.labels:
                    images.add_labels(client, config, plan.labels[config])
                for name, (target, labels) in plan.records.items():
                    images.set_record(client, name, target, labels)
            for upload in uploads:
                client.drop_lease(upload)
            self._node.warnings.extend(client.warnings)
        return unpacked

    def _write(self, client: Client, lease: str, plan: _Plan) -> None:
        """Write the blobs that are missing, and hold the others. One of them may have gone meanwhile."""
        missing = {part.digest for part in plan.send}
        needed = {part.digest for _link, part in plan.unpack}
        if plan.target.digest == self._package.manifest.digest:
            needed = {part.digest for part in self._package.parts()}
        for part in self._package.parts():
            if part.digest not in missing:
                images.hold(client, lease, Resource(part.digest, "content"))
                if part.digest not in needed or images.has_blob(client, part.digest):
                    continue
                if not self._is_here:
                    raise Unavailable(f"{part.name} was removed by another task; run the task again")
            # What names others is complete when it can be seen.
            is_manifest = part.digest == self._package.manifest.digest
            images.write_part(client, part, plan.labels.get(part.digest, {}) if is_manifest else {})

    def _hold_chain(self, client: Client, lease: str, plan: _Plan) -> None:
        """Hold the topmost snapshot that exists, and with it its parents, until the configuration names one."""
        missing = [link for link, _part in plan.unpack]
        existing = [link for link in self._chain if link not in missing]
        if existing:
            images.hold(client, lease, Resource(existing[-1].name, f"snapshots/{self._node.snapshotter}"))

    # -- the difference ----------------------------------------------------------------

    def _state(self, objects: databases.Namespace, names: List[str]) -> Dict[str, Any]:
        entries = objects.snapshots.get(self._node.snapshotter, {})
        return {
            "images": {name: _record(objects.images[name]) for name in names if name in objects.images},
            "content": [part.digest for part in self._package.parts() if part.digest in objects.blobs],
            "snapshots": [link.name for link in self._chain if link.name in entries],
        }

    def _predict(self, before: Mapping[str, Any], plan: _Plan) -> Dict[str, Any]:
        records = dict(before["images"])
        for name, (target, labels) in plan.records.items():
            merged = {**records.get(name, {"labels": {}})["labels"], **labels}
            records[name] = {"target": target.digest, "labels": {key: value for key, value in merged.items() if value}}
        sent = {part.digest for part in plan.send}
        unpacked = {link.name for link, _part in plan.unpack}
        content = [part.digest for part in self._package.parts() if part.digest in {*before["content"], *sent}]
        snapshots = [link.name for link in self._chain if link.name in {*before["snapshots"], *unpacked}]
        return {"images": records, "content": content, "snapshots": snapshots}


def _objects(picture: Picture, namespace: str) -> databases.Namespace:
    return picture.metadata.namespaces.get(namespace, _EMPTY)


def _content_elsewhere(picture: Picture, namespace: str) -> Set[str]:
    """Return the digests of the blobs that other namespaces have. containerd stores each blob once."""
    namespaces = picture.metadata.namespaces
    return {digest for name, found in namespaces.items() if name != namespace for digest in found.blobs}


def _has_labels(objects: databases.Namespace, digest: str, labels: Mapping[str, str]) -> bool:
    blob = objects.blobs.get(digest)
    return blob is not None and all(blob.labels.get(key) == value for key, value in labels.items())


def _record(image: databases.Image) -> Dict[str, Any]:
    return {"target": image.digest, "labels": image.labels}


def _shown(name: str, record: Mapping[str, Any]) -> Dict[str, Any]:
    is_pinned = record["labels"].get(PINNED_LABEL) == PINNED
    return {"name": name, "target": record["target"], "labels": record["labels"], "pinned": is_pinned}


# -- absent ----------------------------------------------------------------------


def _absent(
    node: ContainerdNode, src: _Source, platform: str, reference: str, os_version: str, names: Optional[Sequence[str]]
) -> Outcome:
    picture = node.read(may_be_unused=True)
    namespace = node.one_namespace(picture)
    objects = _objects(picture, namespace)
    about: Dict[str, Any] = {}
    if src:
        image = choose_image(node.warnings, find_images(node.layers, src, platform, reference), os_version)
        about = {"config": image.config, "os_version": image.os_version}
        names = [image.config]
    manifests = Manifests(node.root, objects.blobs)
    ids = {
        name: frozenset(stored.config for stored in manifests.images(record.digest))
        for name, record in objects.images.items()
    }
    selected = _selected(names or (), ids)
    _refuse_used(selected, objects)
    freed = _freed(node, picture, namespace, selected)
    removed: Sequence[str] = selected
    after = objects._replace(images={name: found for name, found in objects.images.items() if name not in selected})
    if selected and not node.dry_run:
        with node.connect(namespace) as client:
            removed = images.remove_records(client, selected)
            node.warnings.extend(client.warnings)
        picture = node.read(may_be_unused=True)
        after = _objects(picture, namespace)
        freed = _really_freed(node, after, freed)
    shown = [name for name in objects.images if name in selected]
    result = {
        **about,
        "containerd": {**node.describe(picture), "namespace": namespace},
        "freed": {"bytes": sum(freed.values()), "snapshots": sorted(key for key, _size in _of(freed, "snapshot"))},
        "actions": [f"untag {name}" for name in removed],
        "diff": {
            "before": {"images": {name: _record(objects.images[name]) for name in shown}},
            "after": {"images": {name: _record(after.images[name]) for name in shown if name in after.images}},
        },
    }
    result["freed"]["content"] = sorted(key for key, _size in _of(freed, "content"))
    return Outcome(bool(removed), result)


def _selected(names: Sequence[str], ids: Mapping[str, FrozenSet[str]]) -> List[str]:
    """Return the names of the records to remove, in the order of the database.

    ``ids`` has the image ids of each record. If only records without a tag are left of an image, they go, too: the
    record of CRI, ``sha256:<image id>``, and those by digest of a repository whose tag goes.
    """
    found: Set[str] = set()
    for name in names:
        if is_digest(name):
            found.update(record for record, configs in ids.items() if name in configs or record == name)
        else:
            found.add(imagenames.canonical_name(name))
    found &= set(ids)
    repositories = {_repository(name) for name in found}
    for config in {config for name in found for config in ids[name]}:
        rest = [name for name, configs in ids.items() if config in configs and name not in found]
        if all(is_digest(name) or ("@" in name and _repository(name) in repositories) for name in rest):
            found.update(rest)
    return [name for name in ids if name in found]


def _repository(name: str) -> str:
    """Return a name without its tag or digest."""
    repository = name.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    return head if colon and "/" not in tag else repository


def _refuse_used(selected: Sequence[str], objects: databases.Namespace) -> None:
    for container, record in objects.containers.items():
        if record.image in selected:
            raise FailedPrecondition(
                f"the image {record.image} is used by the container {container}: remove the container first, in "
                "Kubernetes by removing its pod, or keep the image",
                image=record.image,
                container=container,
            )


#: What a collection frees: kind and key -> bytes.
_Freed = Dict[Tuple[str, str], int]


def _of(freed: _Freed, kind: str) -> List[Tuple[str, int]]:
    return [(key, size) for (found, key), size in freed.items() if found == kind]


def _freed(node: ContainerdNode, picture: Picture, namespace: str, selected: Sequence[str]) -> _Freed:
    """Return what the collector frees when these records are gone, and keeps now.

    The bytes of a blob that another namespace has stay.
    """
    objects = _objects(picture, namespace)
    now, version = time.time_ns(), picture.metadata.version
    left = {name: record for name, record in objects.images.items() if name not in selected}
    before, after = References(objects, now, version), References(objects._replace(images=left), now, version)
    others = _content_elsewhere(picture, namespace)
    freed: _Freed = {}
    for digest, blob in objects.blobs.items():
        if before.keeps_content(digest) and not after.keeps_content(digest):
            freed["content", digest] = 0 if digest in others else blob.size
    for key, entry in objects.snapshots.get(node.snapshotter, {}).items():
        if before.is_kept(node.snapshotter, key) and not after.is_kept(node.snapshotter, key):
            record = picture.store.records.get(entry.name)
            freed["snapshot", key] = record.usage.size if record and record.usage else 0
    return freed


def _really_freed(node: ContainerdNode, after: databases.Namespace, freed: _Freed) -> _Freed:
    """Return what is gone of what the collector should free. The rest is a warning."""
    entries = after.snapshots.get(node.snapshotter, {})
    left = [key for kind, key in freed if key in (after.blobs if kind == "content" else entries)]
    if left:
        node.warnings.append(
            f"containerd has not freed {len(left)} blobs and snapshots of the image yet, for example {left[0]}; "
            "snapshot_info shows what needs a snapshot"
        )
    return {(kind, key): size for (kind, key), size in freed.items() if key not in left}
