# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read container images in files, without unpacking them.

There are three forms: an OCI image layout as a directory or as a tar
(opencontainers image-spec, image-layout.md), and the output of older versions
of ``docker save`` (moby image/tarexport/save.go: ``manifest.json`` names a
configuration and layer tars). Newer versions write both lists, and not always
the same images into them (moby #47065, #47210, #51389). The results are values:
file, offset and size say where the blob of a layer is.

Everything that is read from a layout except ``index.json`` is verified by its
digest. Every fault is a SnapshotterError; an OSError from reading is not
translated.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from typing import Any, BinaryIO, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, InvalidArgument, NotImplementedHere, SnapshotterError
from ..files import only_files, read_at, special_kind
from .digest import chain_id, digest_of, format_digest, is_digest
from .signatures import describe
from .tar import pax
from .tar.decompress import is_zstd

__all__ = [
    "MAXIMUM_DOCUMENT",
    "MAXIMUM_IMAGES",
    "MAXIMUM_LAYERS",
    "Blob",
    "BlobReader",
    "Extent",
    "Image",
    "Layer",
    "blob_of",
    "chain_ids",
    "has_zstd",
    "read_images",
]

#: Longest index, manifest or configuration, bytes. containerd's limit for what it keeps in memory is twice that.
MAXIMUM_DOCUMENT = 4 * 1024**2

#: Most images, of all platforms, that are read from one file.
MAXIMUM_IMAGES = 256

#: Most layers of one image: Docker takes 127 (moby layer/layer_store.go: maxLayerDepth).
MAXIMUM_LAYERS = 1024

#: Known tools write at most an index in an index.
_MAXIMUM_DEPTH = 4

# Of a tar: most entries, most bytes of all headers.
_MAXIMUM_ENTRIES = 100_000
_MAXIMUM_HEADERS = 128 * 1024**2

_CHUNK = 1024**2
_PLATFORM = re.compile("windows/[a-z0-9]+")
_HEXADECIMAL = re.compile("[0-9a-f]{64}")

#: What ``_platform_of`` returns for a document that states nothing, and what BuildKit writes for an attestation.
_NO_PLATFORM = "unknown/unknown"

#: The first bytes of compressed files.
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh91AY&SY": "bzip2",
    b"PK\x03\x04": "zip",
}

#: Annotations that name an image in index.json, the whole name first (containerd core/images/annotations.go;
#: image-spec annotations.md).
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

#: Media types of indexes and manifests (image-spec media-types.md; distribution manifest/). Others are artifacts.
_IMAGE_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

#: The media type of a manifest that states none.
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

#: Media types of the configuration of an image. A manifest with another one describes an artifact.
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_CONFIG_TYPES = (CONFIG_TYPE, DOCKER_CONFIG_TYPE)


class Extent(NamedTuple):
    """Where bytes are: a file, the offset in it and the size in bytes."""

    path: str
    offset: int
    size: int


class Blob(NamedTuple):
    """A document of an image: its media type and digest, its size in bytes, and where it is."""

    media_type: str
    digest: str
    size: int
    extent: Extent


class Layer(NamedTuple):
    """One layer of an image.

    ``diff_id`` is the digest of the plain tar, ``digest`` that of the blob and
    ``size`` its length in bytes. If the file does not say them, they are ``""``
    and -1. Without ``extent`` the blob is not in the file: it must be downloaded
    from one of ``urls``, if there are any. ``media_type`` is ``""`` if the file
    does not say it.
    """

    diff_id: str
    digest: str
    size: int
    extent: Optional[Extent]
    urls: Tuple[str, ...]
    media_type: str = ""


class Image(NamedTuple):
    """One image for one platform; layers base first.

    ``config`` is the digest of its configuration. ``os_version`` is the Windows
    version that it is made for, such as ``10.0.20348.2700``, or ``""`` if the
    file does not say it. ``names`` are those that the file gives it, sorted: they
    can be whole names, names as Docker shows them, and tags. ``document`` is the
    configuration, and ``manifest`` the manifest: None for the output of older
    versions of ``docker save``, which has none.
    """

    config: str
    os_version: str
    layers: Tuple[Layer, ...]
    names: Tuple[str, ...] = ()
    document: Optional[Blob] = None
    manifest: Optional[Blob] = None


def chain_ids(diff_ids: Sequence[str]) -> List[str]:
    """Return the chain ids of an image's layers, base first."""
    chain: List[str] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else "", diff_id))
    return chain


def read_images(path: str, platform: str, reference: str = "") -> List[Image]:
    """Return the images for ``platform``, ``windows/<architecture>``: at least one, each for another Windows version.

    They are variants of one image. ``reference`` selects it if the file has
    several: its name, its tag, or the digest of its entry (in ``manifest.json``
    that of its configuration). Raises InvalidArgument for a file that is
    damaged, has no such image, or has several (``candidates`` in the details
    are references), FailedPrecondition if ``path`` does not exist.
    """
    if not _PLATFORM.fullmatch(platform):
        raise InvalidArgument(f"platform {platform!r} is not windows/ and an architecture, such as windows/amd64")
    if not os.path.exists(path):
        raise FailedPrecondition("there is no such file or directory", path=path)
    archive = _Archive(path)
    has_index, has_saves = (archive.find(name) is not None for name in ("index.json", "manifest.json"))
    if not has_index and not has_saves:
        raise InvalidArgument(
            "it holds neither index.json, as an OCI image layout does, nor manifest.json, as the output of docker save "
            "does; for a single layer tar there is the module layer"
        )
    found = _Search(archive, platform)
    listed = _list_index(archive) if has_index else []
    indexed = found.follow(_select(listed, reference), found.add_descriptor)
    images = _images(indexed)
    saved: List[_Candidate] = []
    if has_saves:
        try:
            saves = _list_saves(archive)
            saved = found.follow(_select(saves, reference), found.add_save)
            listed = listed + saves
        except SnapshotterError:
            # What index.json lists can do without it.
            if not images:
                raise
    if images and not _images(saved).keys() <= images.keys():
        raise _ambiguous("manifest.json lists images that index.json does not", saved)
    if images or not saved:
        images = _choose(indexed, variants=len(_images(saved)) < 2)
    else:
        images = _choose(saved, variants=False)
    if images:
        return [image._replace(names=_names(config, [*indexed, *saved])) for config, image in images.items()]
    if reference and not _select(listed, reference):
        names = {_familiar(name): name for entry in reversed(listed) for name in entry.names[:1]}
        known = ", ".join(sorted(names.values())) or "no names"
        raise InvalidArgument(f"it holds no image named {reference!r}; what it names: {known}")
    others = ", ".join(dict.fromkeys(found.others)) or "nothing"
    raise InvalidArgument(f"it holds no image for {platform}; what it lists: {others}")


def blob_of(layer: Layer, name: str, zstd: bool = False) -> Extent:
    """Return where the blob of a layer is, after the checks that do not need to read all of it.

    ``name`` begins the message of an error. ``zstd`` says whether the caller
    can decompress zstd. Raises FailedPrecondition if the
    blob is missing, InvalidArgument if it does not have the announced size,
    NotImplementedHere if it is compressed with zstd and the caller cannot.
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
        raise FailedPrecondition(f"{name} is not in the archive: save the image again, with all of its layers")
    if layer.size not in (-1, extent.size):
        raise InvalidArgument(
            f"{name} has {extent.size} bytes, and {layer.size} according to the manifest: the archive is damaged"
        )
    if not zstd and has_zstd(extent):
        raise NotImplementedHere(
            f"{name} is compressed with zstd, which Python before 3.14 cannot read: send the image from the controller "
            "(remote_src: false) with the package zstandard installed there, or save it with gzip layers"
        )
    return extent


def has_zstd(extent: Extent) -> bool:
    """Return whether the bytes of an extent are compressed with zstd."""
    with open(extent.path, "rb", opener=only_files) as file:
        return is_zstd(read_at(file, extent.offset, min(4, extent.size)))


class BlobReader(io.RawIOBase):
    """The bytes of an extent; reading also hashes them."""

    def __init__(self, extent: Extent) -> None:
        super().__init__()
        self._extent = extent
        self._position = 0
        self._hashed = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = open(extent.path, "rb", opener=only_files)
        self._file.seek(extent.offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._extent.size - self._position))
        self._position += len(data)
        if self._position > self._hashed:
            self._hash.update(data[self._hashed - self._position :])
            self._hashed = self._position
        buffer[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Continue at an absolute offset that is not past what was read; each byte is hashed once."""
        self._position = offset
        self._file.seek(self._extent.offset + offset)
        return offset

    def finish(self, layer: Layer, name: str) -> str:
        """Read the rest, and return the digest of the whole extent.

        Raises InvalidArgument if the layer has another digest, or the file became shorter.
        """
        while self.read(_CHUNK):
            pass
        digest = format_digest(self._hash)
        if self._position < self._extent.size or (layer.digest and layer.digest != digest):
            raise InvalidArgument(
                f"{name} has the digest {digest}: the archive is damaged, get it again", digest=digest
            )
        return digest

    def close(self) -> None:
        self._file.close()
        super().close()


# -- the file ------------------------------------------------------------------


class _Archive:
    """The files of an archive by name. Names have forward slashes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries = None if os.path.isdir(path) else _entries(path)

    def find(self, name: str) -> Optional[Extent]:
        if self._entries is not None:
            return self._entries.get(name)
        path = os.path.join(self._path, *name.split("/"))
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        kind = special_kind(status.st_mode)
        if kind:
            raise InvalidArgument(f"{name} is {kind}, not a file")
        return Extent(path, 0, status.st_size)

    def read(self, name: str, digest: str = "") -> bytes:
        """Read a document, and check its digest if one is given."""
        extent = self.find(name)
        if extent is None:
            raise InvalidArgument(f"{name} is not in the archive: save the image again")
        if extent.size > MAXIMUM_DOCUMENT:
            raise InvalidArgument(f"{name} has {extent.size} bytes: at most {MAXIMUM_DOCUMENT} are read")
        with open(extent.path, "rb", opener=only_files) as file:
            file.seek(extent.offset)
            data = file.read(extent.size)
        if digest and digest_of(data) != digest:
            raise InvalidArgument(f"{name} has the digest {digest_of(data)}: the archive is damaged, get it again")
        return data


def _entries(path: str) -> Dict[str, Extent]:
    """Return the files in a tar. Links count as files: docker save writes one for a layer that occurs twice."""
    found: Dict[str, Extent] = {}
    links: Dict[str, str] = {}
    with open(path, "rb", opener=only_files) as file:
        head = file.read(10)
        if not head:
            raise InvalidArgument("it is empty (0 bytes): get it again")
        for magic, name in _COMPRESSIONS.items():
            if head.startswith(magic) or (name == "zstd" and is_zstd(head)):
                raise InvalidArgument(
                    f"it is compressed with {name} as a whole, so its layers cannot be read in place: "
                    "decompress it first; layers inside of it may be gzipped. A single layer is for the module layer"
                )
        end = file.seek(0, os.SEEK_END)
        for name, target, extent in _Members(path, file):
            if name in found and not target and _is_content(name) and _equal(file, found[name], extent):
                continue
            if name in found or name in links:
                raise InvalidArgument(f"it has two entries {name!r}: it is not clear which of them counts")
            if len(found) + len(links) == _MAXIMUM_ENTRIES:
                raise InvalidArgument(f"it has more than {_MAXIMUM_ENTRIES} entries, far more than an image has")
            if extent.offset + extent.size > end:
                raise InvalidArgument(f"it is cut off in entry {name!r}: get it again")
            if target:
                links[name] = target
            else:
                found[name] = extent
    found.update({name: found[target] for name, target in links.items() if target in found})
    return found


def _is_content(name: str) -> bool:
    """Whether a digest elsewhere in the archive verifies the file of this name."""
    return name.startswith("blobs/") or name.endswith("/layer.tar")


def _equal(file: BinaryIO, one: Extent, other: Extent) -> bool:
    """Return whether two parts of a file have the same bytes."""
    return one.size == other.size and all(
        read_at(file, one.offset + done, min(_CHUNK, one.size - done))
        == read_at(file, other.offset + done, min(_CHUNK, one.size - done))
        for done in range(0, one.size, _CHUNK)
    )


class _Members:
    """Iterates over the files and links in a tar.

    Yields the name of a file and where it is; the name of a link and the name
    of its target. The iteration reads headers only.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        self._has_index = False
        self._headers_left = _MAXIMUM_HEADERS
        self._position = 0
        self._last = ""
        self._last_position = -1

    def __iter__(self) -> Iterator[Tuple[str, str, Extent]]:
        headers = pax.HeaderReader(self._take, "the archive", self._where)
        while True:
            start = self._position
            if start >= self._end and self._has_index:
                # Without an end mark: digests verify all contents.
                break
            try:
                found = headers.next()
            except InvalidArgument as error:
                if self._last_position < 0:
                    kind = describe(read_at(self._file, 0, pax.BLOCK))
                    what = f"it is not an image, but {kind} (not a tar that can be read)" if kind else ""
                    raise error.with_context(what or "it is not a tar that can be read") from None
                raise InvalidArgument(
                    f"it is cut off or damaged at byte {self._last_position}: {error.message}; get it again"
                ) from None
            if found is None:
                break
            self._last_position = start
            header, records = found
            name = self._last = _member_text(records, b"path", header.name)
            if header.type == pax.SPARSE_TYPE or any(key.startswith(b"GNU.sparse.") for key in records):
                raise InvalidArgument(f"entry {name!r} is a sparse file of GNU tar: pack the archive without it")
            # In archives older than POSIX only the name tells that an entry is a directory.
            if header.type == pax.DIRECTORY_TYPE or (header.type == "\0" and name.endswith("/")):
                continue
            yield self._member(header, records, name)

    def _member(self, header: pax.Header, records: pax.Records, name: str) -> Tuple[str, str, Extent]:
        inside, target, size = _inside(name, ""), "", 0
        link = _member_text(records, b"linkpath", header.link)
        if header.type == pax.SYMLINK_TYPE:
            target = _inside(link, inside.rpartition("/")[0])
        elif header.type == pax.HARD_LINK_TYPE:
            target = _inside(link, "")
        elif header.type in pax.FILE_TYPES:
            size = header.size
            if b"size" in records:
                size = pax.parse_decimal(_member_text(records, b"size", ""), f"entry {name!r} has a size")
        else:
            raise InvalidArgument(f"entry {name!r} is neither a file nor a directory nor a link")
        self._has_index |= inside in ("index.json", "manifest.json")
        extent = Extent(self._path, self._position, size)
        self._position += size + len(pax.padding(size))
        return inside, target, extent

    def _take(self, count: int) -> bytes:
        """Read exactly ``count`` bytes of a header."""
        self._headers_left -= count
        if self._headers_left < 0:
            raise InvalidArgument(f"its headers are too long: at most {_MAXIMUM_HEADERS} bytes are read")
        data = read_at(self._file, self._position, count)
        if len(data) < count:
            raise InvalidArgument(f"the archive ends {self._where()}")
        self._position += count
        return data

    def _where(self) -> str:
        return f"after entry {self._last!r}" if self._last else "before its first entry was complete"


def _member_text(records: pax.Records, key: bytes, default: str) -> str:
    """Return a pax record as text. An image has only ASCII names, so other bytes are escaped, not refused."""
    return records[key].decode("utf-8", "backslashreplace") if key in records else default


def _inside(name: str, directory: str) -> str:
    """Resolve a name, relative to a directory in the archive, to a name in the archive."""
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


class _Listed(NamedTuple):
    """One entry of index.json or manifest.json.

    ``names`` begin with the whole name. ``digest`` is that of the manifest or
    index or, in manifest.json, of the configuration.
    """

    names: Tuple[str, ...]
    digest: str
    entry: Dict[str, Any]


class _Candidate(NamedTuple):
    """One image that a list names: all entries with one digest.

    ``names`` are the whole names. ``images`` are those for the platform, by
    the digest of the configuration; there are none if it is for others.
    ``version`` is the Windows version that the list itself states.
    """

    names: FrozenSet[str]
    digest: str
    is_index: bool
    version: str
    images: Dict[str, Image]


def _parse(data: bytes, name: str) -> Any:
    """Parse a document. An empty one is like ``null``."""
    try:
        return json.loads(data) if data.strip() else None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name} is not JSON: {error}") from None


def _get(document: Any, key: str, kind: Any, where: str) -> Any:
    """Return the value of a key in a document, or an empty one of that kind."""
    value = document.get(key) if isinstance(document, dict) else None
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise InvalidArgument(f"{where} is damaged: {key!r} is {str(value)[:40]!r}")
    return value


def _objects(value: List[Any], where: str) -> List[Dict[str, Any]]:
    """Return a list of objects; null is an empty object."""
    if not all(item is None or isinstance(item, dict) for item in value):
        raise InvalidArgument(f"{where} is damaged: it lists something that is not an object")
    return [item or {} for item in value]


def _texts(value: List[Any], where: str) -> List[str]:
    if not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"{where} is damaged: it lists something that is not a text")
    return value


def _digest_of(descriptor: Any, where: str) -> str:
    """Return the digest in a descriptor. Raises NotImplementedHere if it is of another algorithm."""
    digest: str = _get(descriptor, "digest", str, where)
    if is_digest(digest):
        return digest
    kind = InvalidArgument if digest.startswith("sha256:") else NotImplementedHere
    raise kind(f"{where} has the digest {digest[:80]!r}, which is not sha256: and 64 hexadecimal digits")


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


# -- the lists -----------------------------------------------------------------


def _list_index(archive: _Archive) -> List[_Listed]:
    where = "index.json"
    index = _parse(archive.read(where), where)
    listed = []
    for descriptor in _objects(_get(index, "manifests", list, where), where):
        annotations = _get(descriptor, "annotations", dict, where)
        names = [_get(annotations, key, str, where) for key in _NAMES]
        digest = _get(descriptor, "digest", str, where)
        listed.append(_Listed(tuple(name for name in names if name), digest, descriptor))
    return listed


def _list_saves(archive: _Archive) -> List[_Listed]:
    where = "manifest.json"
    saves = _parse(archive.read(where), where)
    if saves is not None and not isinstance(saves, list):
        raise InvalidArgument(f"{where} is damaged: it is not a list")
    listed = []
    for save in _objects(saves or [], where):
        config = _get(save, "Config", str, where)
        # All versions of docker save name the file by its digest.
        digits = _HEXADECIMAL.search(config)
        digest = f"sha256:{digits.group()}" if digits else config
        for name in _texts(_get(save, "RepoTags", list, where), where) or [""]:
            # The tag alone is a name too, as in index.json.
            names = (name, name.rpartition("/")[2].partition(":")[2])
            listed.append(_Listed(tuple(text for text in names if text), digest, save))
    return listed


def _select(listed: List[_Listed], reference: str) -> List[_Listed]:
    """Return the entries that a reference can mean; all if it is empty."""
    wanted = _familiar(reference)
    return [
        entry
        for entry in listed
        if not reference or reference == entry.digest or wanted in [_familiar(name) for name in entry.names]
    ]


def _familiar(name: str) -> str:
    """Return a name as Docker shows it. Its manifest.json has names of this form, its index.json whole ones."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _images(candidates: Sequence[_Candidate]) -> Dict[str, Image]:
    return {config: image for candidate in candidates for config, image in candidate.images.items()}


def _names(config: str, candidates: Sequence[_Candidate]) -> Tuple[str, ...]:
    """Return the names of the image with this configuration."""
    return tuple(sorted({name for candidate in candidates if config in candidate.images for name in candidate.names}))


def _choose(candidates: Sequence[_Candidate], variants: bool) -> Dict[str, Image]:
    """Return the images of the one image that the candidates are, by the digest of their configuration.

    With ``variants``, the list can itself be the index of one image: each
    manifest in it is then for another build of Windows, or for another
    version that the list states. Raises InvalidArgument for several images.
    """
    # Different names, and different manifests, may mean the same image.
    contents = {tuple(candidate.images) or (candidate.digest,) for candidate in candidates}
    if len(contents) > 1 and len({candidate.names for candidate in candidates}) > 1:
        raise _ambiguous("it holds several images", candidates)
    fitting = list({tuple(candidate.images): candidate for candidate in candidates if candidate.images}.values())
    images = _images(fitting)
    if len(fitting) > 1:
        parts = 4 if all(candidate.version for candidate in fitting) else 3
        versions = {tuple(image.os_version.split(".")[:parts]) for image in images.values()}
        if not variants or len(versions) < len(images) or any(candidate.is_index for candidate in fitting):
            raise _ambiguous("it holds several images of one name, or without a name", fitting)
    return images


def _ambiguous(problem: str, candidates: Sequence[_Candidate]) -> InvalidArgument:
    """Return the error that lists the candidates, each by a reference that selects it."""
    names = [name for candidate in candidates for name in candidate.names]
    shown: Dict[str, str] = {}
    for candidate in candidates:
        own = sorted(name for name in candidate.names if names.count(name) == 1)
        versions = ", ".join(image.os_version for image in candidate.images.values() if image.os_version)
        reference = own[0] if own else candidate.digest
        shown[reference] = reference if own or not versions else f"{reference} (for Windows {versions})"
    return InvalidArgument(
        f"{problem}: select one with reference; the candidates: {', '.join(sorted(shown.values()))}",
        candidates=sorted(shown),
    )


# -- from a list to images -----------------------------------------------------


class _Search:
    """Looks for the images of one platform. ``others`` says in words what else is listed."""

    def __init__(self, archive: _Archive, platform: str) -> None:
        self.others: List[str] = []
        self._archive = archive
        self._platform = platform
        self._count = 0
        # Of the candidate that is followed:
        self._seen: Dict[str, None] = {}
        self._images: Dict[str, Image] = {}
        self._is_image = False

    def follow(self, listed: List[_Listed], add: Callable[[Dict[str, Any], int], None]) -> List[_Candidate]:
        """Return the images among the entries of a list. ``add`` is ``add_descriptor`` or ``add_save``.

        What is not an image, or not one that can be read, goes into ``others``
        only: artifacts may lie beside images.
        """
        self._count = 0
        groups: Dict[str, List[_Listed]] = {}
        for entry in listed:
            groups.setdefault(entry.digest, []).append(entry)
        candidates = []
        for digest, group in groups.items():
            self._seen, self._images, self._is_image = {}, {}, False
            self._attempt(add, group[0].entry, 1)
            if self._is_image:
                names = frozenset(name for entry in group for name in entry.names[:1])
                _said, version = _platform_of(_get(group[0].entry, "platform", dict, digest), digest)
                candidates.append(_Candidate(names, digest, len(self._seen) > 1, version, self._images))
        return candidates

    def _attempt(self, add: Callable[[Dict[str, Any], int], None], entry: Dict[str, Any], depth: int) -> None:
        self._count += 1
        if self._count > MAXIMUM_IMAGES or depth > _MAXIMUM_DEPTH:
            raise InvalidArgument(
                f"it lists more than {MAXIMUM_IMAGES} images, or indexes in indexes more than {_MAXIMUM_DEPTH} deep"
            )
        try:
            add(entry, depth)
        except NotImplementedHere as error:
            self.others.append(error.message)

    def add_descriptor(self, descriptor: Dict[str, Any], depth: int) -> None:
        """Follow a descriptor to a manifest, or to an index and what that lists (image-spec image-index.md)."""
        kind = _get(descriptor, "mediaType", str, "an entry in an index")
        if kind and kind not in _IMAGE_TYPES:
            self.others.append(kind)
            return
        digest = _digest_of(descriptor, "an entry in an index")
        if digest in self._seen:
            return
        self._seen[digest] = None
        platform = _get(descriptor, "platform", dict, digest)
        said, version = _platform_of(platform, digest)
        name = _blob_name(digest)
        extent = self._archive.find(name)
        if platform and said != self._platform:
            self._is_image = self._is_image or (extent is not None and said != _NO_PLATFORM)
            self.others.append(said)
            return
        if extent is None or not extent.size:
            # A tool that saves one platform may keep the index of all.
            self.others.append(f"{said} {version} ({digest}, {'empty' if extent else 'not in the archive'})")
            return
        document = _parse(self._archive.read(name, digest), name)
        manifests = _objects(_get(document, "manifests", list, name), name)
        for manifest in manifests:
            self._attempt(self.add_descriptor, manifest, depth + 1)
        if not manifests:
            kind = kind or _get(document, "mediaType", str, name) or MANIFEST_TYPE
            self._add_manifest(document, Blob(kind, digest, extent.size, extent), version)

    def _add_manifest(self, manifest: Any, blob: Blob, version: str) -> None:
        """image-spec manifest.md. A manifest with the configuration of something else is an artifact."""
        name = _blob_name(blob.digest)
        described = _get(manifest, "config", dict, name)
        descriptors = _objects(_get(manifest, "layers", list, name), name)
        kind = _get(described, "mediaType", str, name)
        if not described or not descriptors or (kind and kind not in _CONFIG_TYPES):
            self.others.append(f"{name} ({kind or 'without a configuration'}, {len(descriptors)} layers)")
            return
        digest = _digest_of(described, f"the configuration in {name}")
        config = self._parse_config(self._archive.read(_blob_name(digest), digest), digest)
        if config is None:
            return
        document = self._document(kind or CONFIG_TYPE, digest, _blob_name(digest))
        layers = []
        for number, descriptor in enumerate(descriptors, 1):
            where = f"layer {number} in {name}"
            layer_digest = _digest_of(descriptor, where)
            size = descriptor.get("size")
            if not isinstance(size, int) or size < 0:
                raise InvalidArgument(f"{where} has the size {str(size)[:40]!r}, which is not a number of bytes")
            urls = _texts(_get(descriptor, "urls", list, where), where)
            extent = self._archive.find(_blob_name(layer_digest))
            layer_kind = _get(descriptor, "mediaType", str, where)
            layers.append(Layer("", layer_digest, size, extent, tuple(urls), layer_kind))
        self._add(config, Image(digest, version, tuple(layers), document=document, manifest=blob))

    def add_save(self, save: Dict[str, Any], _depth: int) -> None:
        """Follow an entry of manifest.json."""
        name = _inside(_get(save, "Config", str, "manifest.json"), "")
        data = self._archive.read(name)
        digest = digest_of(data)
        config = self._parse_config(data, digest)
        if config is None:
            return
        layers = []
        for text in _texts(_get(save, "Layers", list, "manifest.json"), "manifest.json"):
            # Docker on Windows once wrote paths of Windows here.
            extent = self._archive.find(_inside(text.replace("\\", "/"), ""))
            layers.append(Layer("", "", -1, extent, ()))
        document = self._document(DOCKER_CONFIG_TYPE, digest, name)
        self._add(config, Image(digest, "", tuple(layers), document=document))

    def _document(self, kind: str, digest: str, name: str) -> Optional[Blob]:
        """Return a document that was read."""
        extent = self._archive.find(name)
        return Blob(kind, digest, extent.size, extent) if extent else None

    def _parse_config(self, data: bytes, digest: str) -> Any:
        """Return a configuration; None if it is not for the platform."""
        where = f"the configuration {digest}"
        document = _parse(data, where)
        said, _version = _platform_of(document, where)
        # A signature or an attestation can have a configuration, too, but it is for no system.
        self._is_image = self._is_image or said != _NO_PLATFORM
        if said == self._platform:
            return document
        self.others.append(said)
        return None

    def _add(self, config: Any, image: Image) -> None:
        """Complete an image with its configuration (image-spec config.md), and add it."""
        where = f"the configuration {image.config}"
        diff_ids = _texts(_get(_get(config, "rootfs", dict, where), "diff_ids", list, where), where)
        for diff_id in diff_ids:
            _digest_of({"digest": diff_id}, f"a layer in {where}")
        layers = image.layers
        if not diff_ids or len(diff_ids) != len(layers) or len(layers) > MAXIMUM_LAYERS:
            raise InvalidArgument(
                f"the image has {len(layers)} layers, and {len(diff_ids)} according to {where}: they must be as many, "
                f"at least 1 and at most {MAXIMUM_LAYERS}"
            )
        layers = tuple(layer._replace(diff_id=diff_id) for layer, diff_id in zip(layers, diff_ids))
        _said, own_version = _platform_of(config, where)
        self._images[image.config] = image._replace(os_version=own_version or image.os_version, layers=layers)


def _platform_of(document: Any, where: str) -> Tuple[str, str]:
    """Return ``windows/amd64`` or the like, and the version of the system, from a descriptor or configuration."""
    system, architecture, version = (_get(document, key, str, where) for key in ("os", "architecture", "os.version"))
    return f"{system or 'unknown'}/{architecture or 'unknown'}", version
