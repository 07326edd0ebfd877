# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that hold container images, read without unpacking them.

Three forms: an OCI image layout as a directory or as a tar (opencontainers
image-spec, image-layout.md), and what ``docker save`` wrote before it wrote
such a layout (moby image/tarexport/save.go: ``manifest.json`` names a
configuration and layer tars). What comes out are values: a layer is known by
the file, the offset and the size of its blob.

A digest vouches for all that is read of a layout but ``index.json``. Every
fault is a SnapshotterError; an OSError of reading goes through.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, InvalidArgument, NotImplementedHere

#: Longest index, manifest or configuration, bytes. containerd's limit for what it keeps in memory is twice that.
MAXIMUM_DOCUMENT = 4 * 1024**2

#: Most images, of all platforms, that are looked at in one file.
MAXIMUM_IMAGES = 256

#: Most layers of one image: Docker takes 127 (moby layer/layer_store.go: maxLayerDepth).
MAXIMUM_LAYERS = 1024

#: An index in an index is all that is known to be made.
_MAXIMUM_DEPTH = 4

# Of a tar: most entries, longest extended header, most bytes of all headers.
_MAXIMUM_ENTRIES = 100_000
_MAXIMUM_HEADER = 1024**2
_MAXIMUM_HEADERS = 128 * 1024**2

_CHUNK = 1024**2
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_PLATFORM = re.compile("windows/[a-z0-9]+")

#: What the first bytes of files say that are compressed as a whole.
_ZSTD = b"\x28\xb5\x2f\xfd"
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    _ZSTD: "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh91AY&SY": "bzip2",
    b"PK\x03\x04": "zip",
}

#: Annotations that name an image in index.json, the whole name first (containerd core/images/annotations.go;
#: image-spec annotations.md).
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Extent(NamedTuple):
    """Where bytes lie: a file, the offset in it and the size in bytes."""

    path: str
    offset: int
    size: int


class Layer(NamedTuple):
    """One layer of an image.

    ``diff_id`` is the digest of the plain tar, ``digest`` that of the blob and
    ``size`` its length in bytes; where the file says neither, they are ``""``
    and -1. Without ``extent`` the blob is not in the file: it has to be got
    from one of ``urls``, if there are any.
    """

    diff_id: str
    digest: str
    size: int
    extent: Optional[Extent]
    urls: Tuple[str, ...]


class Image(NamedTuple):
    """One image for one platform; layers base first.

    ``config`` is the digest of its configuration, ``os_version`` the Windows
    that it is for, such as ``10.0.20348.2700``, ``""`` if it does not say.
    """

    config: str
    os_version: str
    layers: Tuple[Layer, ...]


def is_digest(text: str) -> bool:
    """Whether it is ``sha256:`` and 64 lower-case hexadecimal digits, the only kind of digest that is known here."""
    return bool(_DIGEST.fullmatch(text))


def chain_ids(diff_ids: Sequence[str]) -> List[str]:
    """The names of an image's layers, base first, each of which stands for all below it.

    image-spec config.md, "Layer ChainID"; identity.ChainIDs is what containerd calls.
    """
    chain: List[str] = []
    for diff_id in diff_ids:
        chain.append(_sha256(f"{chain[-1]} {diff_id}".encode("ascii")) if chain else diff_id)
    return chain


def read_images(path: str, platform: str, reference: str = "") -> List[Image]:
    """The images for ``platform``, ``windows/<architecture>``: at least one, and each for another Windows.

    ``reference`` is the name of the image where the file holds several.
    Raises InvalidArgument for a file that holds no such image or is damaged,
    FailedPrecondition if there is nothing at ``path``.
    """
    if not _PLATFORM.fullmatch(platform):
        raise InvalidArgument(f"platform {platform!r} is not windows/ and an architecture, such as windows/amd64")
    if not os.path.exists(path):
        raise FailedPrecondition("there is no such file or directory", path=path)
    archive = _Archive(path)
    found = _Search(archive, platform)
    if archive.find("index.json"):
        found.add_index(_choose(_named_descriptors(archive), reference))
    elif archive.find("manifest.json"):
        found.add_saved(_choose(_named_saves(archive), reference))
    else:
        raise InvalidArgument(
            "it holds neither index.json, as an OCI image layout does, nor manifest.json, as the output of docker save "
            "does; for a single layer tar there is the module layer"
        )
    if not found.images:
        others = ", ".join(dict.fromkeys(found.others)) or "nothing"
        raise InvalidArgument(f"it holds no image for {platform}; what it lists: {others}")
    return list(found.images.values())


def blob_of(layer: Layer, name: str) -> Extent:
    """Where the blob of a layer is, which can be imported as far as that is known without reading all of it.

    ``name`` begins the sentence of an error. Raises FailedPrecondition for one
    that is not there, InvalidArgument for one of another size than announced,
    NotImplementedHere for one that is compressed with zstd.
    """
    extent = layer.extent
    if extent is None and layer.urls:
        raise FailedPrecondition(
            f"{name} is not in the archive: only its publisher distributes it. Save the image with such layers in it, "
            f"or put {layer.urls[0]} into an image layout as {_blob_name(layer.digest)}",
            digest=layer.digest,
            urls=list(layer.urls),
        )
    if extent is None:
        raise FailedPrecondition(f"{name} is not in the archive: save the image anew, with all of its layers")
    if layer.size not in (-1, extent.size):
        raise InvalidArgument(
            f"{name} has {extent.size} bytes, and {layer.size} according to the manifest: the archive is damaged"
        )
    with open(extent.path, "rb") as file:
        file.seek(extent.offset)
        if file.read(min(len(_ZSTD), extent.size)) == _ZSTD:
            raise NotImplementedHere(
                f"{name} is compressed with zstd, which Python before 3.14 cannot read: save the image with gzip layers"
            )
    return extent


class BlobReader(io.RawIOBase):
    """The bytes of an extent, hashed as they are read."""

    def __init__(self, extent: Extent) -> None:
        super().__init__()
        self._left = extent.size
        self._hash = hashlib.sha256()
        self._file: BinaryIO = open(extent.path, "rb")
        self._file.seek(extent.offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self, layer: Layer, name: str) -> str:
        """Read what is left; the digest of it all.

        Raises InvalidArgument if that is not the layer's, or the file has become shorter.
        """
        while self.read(_CHUNK):
            pass
        digest = "sha256:" + self._hash.hexdigest()
        if self._left or (layer.digest and layer.digest != digest):
            raise InvalidArgument(
                f"{name} has the digest {digest}: the archive is damaged, get it again", digest=digest
            )
        return digest

    def close(self) -> None:
        self._file.close()
        super().close()


# -- the file ------------------------------------------------------------------


class _Archive:
    """The files of an archive by their names in it, which have forward slashes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries = None if os.path.isdir(path) else _entries(path)

    def find(self, name: str) -> Optional[Extent]:
        if self._entries is not None:
            return self._entries.get(name)
        path = os.path.join(self._path, *name.split("/"))
        return Extent(path, 0, os.path.getsize(path)) if os.path.isfile(path) else None

    def read(self, name: str, digest: str = "") -> bytes:
        """A document, and of that digest if one is given."""
        extent = self.find(name)
        if extent is None:
            raise InvalidArgument(f"{name} is not in the archive: save the image anew")
        if extent.size > MAXIMUM_DOCUMENT:
            raise InvalidArgument(f"{name} has {extent.size} bytes: at most {MAXIMUM_DOCUMENT} are read")
        with open(extent.path, "rb") as file:
            file.seek(extent.offset)
            data = file.read(extent.size)
        if digest and _sha256(data) != digest:
            raise InvalidArgument(f"{name} has the digest {_sha256(data)}: the archive is damaged, get it again")
        return data


class _Headers:
    """What ``tarfile`` reads of a file are headers: this keeps it from reading anything large into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAXIMUM_HEADERS
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._left -= size
        if not 0 <= size <= _MAXIMUM_HEADER or self._left < 0:
            raise ValueError("its headers are too long")
        return self._file.read(size)


def _entries(path: str) -> Dict[str, Extent]:
    """The files in a tar. Links count as files, as docker save has them for a layer that is there twice."""
    found: Dict[str, Extent] = {}
    links: Dict[str, str] = {}
    with open(path, "rb") as file:
        head = file.read(10)
        for magic, name in _COMPRESSIONS.items():
            if head.startswith(magic):
                raise InvalidArgument(
                    f"it is compressed with {name} as a whole, so that layers cannot be read where they lie in it: "
                    "decompress it first; layers inside of it may be gzipped"
                )
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        for name, target, extent in _members(path, file):
            if name in found or name in links:
                raise InvalidArgument(f"it has two entries {name!r}: it is not clear which of them counts")
            if len(found) + len(links) == _MAXIMUM_ENTRIES:
                raise InvalidArgument(f"it has more than {_MAXIMUM_ENTRIES} entries, which no image has")
            if extent.offset + extent.size > end:
                raise InvalidArgument(f"it is cut off in entry {name!r}: get it again")
            if target:
                links[name] = target
            else:
                found[name] = extent
    found.update({name: found[target] for name, target in links.items() if target in found})
    return found


def _members(path: str, file: BinaryIO) -> Iterator[Tuple[str, str, Extent]]:
    """Of each file in a tar its name and where it lies; of each link its name and that of its target."""
    import struct
    import tarfile

    last = -1
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:", encoding="utf-8") as archive:  # type: ignore[call-overload]
            # Where there is no entry at all, Python 3.9 cannot be asked for another one.
            for member in iter(archive.next, None) if archive.firstmember else ():
                # Where a header has a negative size, some versions of tarfile go back, for ever.
                if member.offset <= last or member.size < 0:
                    raise InvalidArgument(f"it has a damaged header at entry {member.name!r}")
                last = member.offset
                archive.members.clear()
                if member.isdir():
                    continue
                if member.issparse():
                    raise InvalidArgument(
                        f"entry {member.name!r} is a sparse file of GNU tar: pack the archive without"
                    )
                name, target = _inside(member.name, ""), ""
                if member.issym():
                    target = _inside(member.linkname, name.rpartition("/")[0])
                elif member.islnk():
                    target = _inside(member.linkname, "")
                elif not member.isreg():
                    raise InvalidArgument(f"entry {member.name!r} is neither a file nor a directory nor a link")
                yield name, target, Extent(path, member.offset_data, 0 if target else member.size)
            file.seek(archive.offset)
            mark = file.read(tarfile.BLOCKSIZE)
    except (tarfile.TarError, struct.error, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise InvalidArgument(f"it is not a tar that can be read: {error}") from None
    # tarfile takes a damaged header for the end.
    if len(mark) < tarfile.BLOCKSIZE or any(mark):
        raise InvalidArgument(f"it is cut off or damaged at byte {last}: get it again")


def _inside(name: str, directory: str) -> str:
    """The name in the archive that a name in it means, seen from a directory in it."""
    parts = directory.split("/") if directory else []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise InvalidArgument(f"entry {name!r} leads out of the archive")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if name.startswith("/") or not parts:
        raise InvalidArgument(f"entry {name!r} leads out of the archive")
    return "/".join(parts)


# -- what the documents say ----------------------------------------------------

_Named = List[Tuple[List[str], Dict[str, Any]]]


def _parse(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name} is not JSON: {error}") from None


def _get(document: Any, key: str, kind: Any, where: str) -> Any:
    """What a document says under a key, an empty one of that kind if nothing."""
    value = document.get(key) if isinstance(document, dict) else None
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise InvalidArgument(f"{where} is damaged: {key!r} is {str(value)[:40]!r}")
    return value


def _objects(value: List[Any], where: str) -> List[Dict[str, Any]]:
    if not all(isinstance(item, dict) for item in value):
        raise InvalidArgument(f"{where} is damaged: it lists something that is no object")
    return value


def _texts(value: List[Any], where: str) -> List[str]:
    if not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"{where} is damaged: it lists something that is no text")
    return value


def _digest_of(descriptor: Any, where: str) -> str:
    digest: str = _get(descriptor, "digest", str, where)
    if not is_digest(digest):
        raise InvalidArgument(f"{where} has the digest {digest[:80]!r}, which is not sha256: and 64 hexadecimal digits")
    return digest


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _named_descriptors(archive: _Archive) -> _Named:
    """What index.json lists, each with its names."""
    where = "index.json"
    index = _parse(archive.read(where), where)
    named: _Named = []
    for descriptor in _objects(_get(index, "manifests", list, where), where):
        annotations = _get(descriptor, "annotations", dict, where)
        names = [_get(annotations, key, str, where) for key in _NAMES]
        named.append(([name for name in names if name], descriptor))
    return named


def _named_saves(archive: _Archive) -> _Named:
    """What manifest.json lists, each with its names."""
    where = "manifest.json"
    saves = _parse(archive.read(where), where)
    if not isinstance(saves, list):
        raise InvalidArgument(f"{where} is damaged: it is not a list")
    return [(_texts(_get(save, "RepoTags", list, where), where), save) for save in _objects(saves, where)]


def _choose(named: _Named, reference: str) -> List[Dict[str, Any]]:
    """What belongs to the one image that is meant: an index may list it once for each platform."""
    known = ", ".join(sorted({name for names, _entry in named for name in names[:1]})) or "no names"
    if reference:
        chosen = [entry for names, entry in named if reference in names]
        if not chosen:
            raise InvalidArgument(f"it holds no image named {reference!r}; what it names: {known}")
        return chosen
    groups: Dict[str, List[Dict[str, Any]]] = {}
    for names, entry in named:
        groups.setdefault(names[0] if names else "", []).append(entry)
    first = next(iter(groups.values()), [])
    # Names may differ and the image be the same.
    contents = [[(entry.get("digest"), entry.get("Config")) for entry in group] for group in groups.values()]
    if any(content != contents[0] for content in contents):
        raise InvalidArgument(f"it holds several images: say with reference which one; what it names: {known}")
    return first


class _Search:
    """Looks for the images of one platform: ``images`` by the digest of their configuration, ``others`` in words."""

    def __init__(self, archive: _Archive, platform: str) -> None:
        self.images: Dict[str, Image] = {}
        self.others: List[str] = []
        self._archive = archive
        self._platform = platform
        self._seen: Dict[str, None] = {}

    def add_index(self, descriptors: List[Dict[str, Any]], depth: int = 1) -> None:
        """Follow the descriptors of an index to manifests and to further indexes (image-spec image-index.md)."""
        for descriptor in descriptors:
            digest = _digest_of(descriptor, "a descriptor in an index")
            if digest in self._seen:
                continue
            self._seen[digest] = None
            if len(self._seen) > MAXIMUM_IMAGES or depth > _MAXIMUM_DEPTH:
                raise InvalidArgument(
                    f"it lists more than {MAXIMUM_IMAGES} images, or indexes in indexes more than {_MAXIMUM_DEPTH} deep"
                )
            platform = _get(descriptor, "platform", dict, digest)
            said, version = _platform_of(platform, digest)
            if platform and said != self._platform:
                self.others.append(said)
                continue
            name = _blob_name(digest)
            if self._archive.find(name) is None:
                # Whoever saves one platform may keep the index of all.
                self.others.append(f"{said} {version} ({digest}, not in the archive)")
                continue
            document = _parse(self._archive.read(name, digest), name)
            if _get(document, "manifests", list, name):
                self.add_index(_objects(document["manifests"], name), depth + 1)
            else:
                self._add_manifest(document, name, version)

    def _add_manifest(self, manifest: Any, name: str, version: str) -> None:
        """image-spec manifest.md."""
        layers = []
        for number, descriptor in enumerate(_objects(_get(manifest, "layers", list, name), name), 1):
            where = f"layer {number} in {name}"
            digest = _digest_of(descriptor, where)
            size = descriptor.get("size")
            if not isinstance(size, int) or size < 0:
                raise InvalidArgument(f"{where} has the size {str(size)[:40]!r}, which is not a number of bytes")
            urls = _texts(_get(descriptor, "urls", list, where), where)
            layers.append(Layer("", digest, size, self._archive.find(_blob_name(digest)), tuple(urls)))
        digest = _digest_of(_get(manifest, "config", dict, name), f"the configuration in {name}")
        self._add(self._archive.read(_blob_name(digest), digest), digest, layers, version)

    def add_saved(self, saves: List[Dict[str, Any]]) -> None:
        """Follow the entries of manifest.json."""
        if len(saves) > MAXIMUM_IMAGES:
            raise InvalidArgument(f"manifest.json lists more than {MAXIMUM_IMAGES} images of one name")
        for save in saves:
            name = _get(save, "Config", str, "manifest.json")
            config = self._archive.read(_inside(name, ""))
            layers = []
            for text in _texts(_get(save, "Layers", list, "manifest.json"), "manifest.json"):
                # Docker on Windows once wrote paths of Windows here.
                extent = self._archive.find(_inside(text.replace("\\", "/"), ""))
                layers.append(Layer("", "", -1, extent, ()))
            self._add(config, _sha256(config), layers, "")

    def _add(self, config: bytes, digest: str, layers: List[Layer], version: str) -> None:
        """Complete an image by its configuration (image-spec config.md), and note it."""
        where = f"the configuration {digest}"
        document = _parse(config, where)
        said, own_version = _platform_of(document, where)
        if said != self._platform:
            self.others.append(said)
            return
        diff_ids = _texts(_get(_get(document, "rootfs", dict, where), "diff_ids", list, where), where)
        for diff_id in diff_ids:
            _digest_of({"digest": diff_id}, f"a layer in {where}")
        if not diff_ids or len(diff_ids) != len(layers) or len(layers) > MAXIMUM_LAYERS:
            raise InvalidArgument(
                f"the image has {len(layers)} layers, and {len(diff_ids)} according to {where}: they must be as many, "
                f"at least 1 and at most {MAXIMUM_LAYERS}"
            )
        layers = [layer._replace(diff_id=diff_id) for layer, diff_id in zip(layers, diff_ids)]
        self.images[digest] = Image(digest, own_version or version, tuple(layers))


def _platform_of(document: Any, where: str) -> Tuple[str, str]:
    """System and architecture as ``windows/amd64``, and the version of the system, of a descriptor or configuration."""
    system, architecture, version = (_get(document, key, str, where) for key in ("os", "architecture", "os.version"))
    return f"{system or 'unknown'}/{architecture or 'unknown'}", version
