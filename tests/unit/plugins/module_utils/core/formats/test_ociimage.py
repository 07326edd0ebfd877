# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image archives of all forms are read as they are meant, and bad ones refused in a sentence that helps."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotImplementedHere,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import ociimage
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.formats.image_archives import (
    LAYERS,
    Archive,
    blob_name,
    config_of,
    digest_of,
    packed,
    tar,
)
from hypothesis import given, settings
from hypothesis import strategies as st

AMD64 = "windows/amd64"
DIFF_IDS = [digest_of(plain) for plain in LAYERS]


@pytest.fixture
def archive() -> Archive:
    return Archive()


def contents(image: ociimage.Image) -> List[bytes]:
    found = []
    for layer in image.layers:
        with ociimage.BlobReader(ociimage.blob_of(layer, "it")) as blob:
            found.append(blob.read())
            blob.finish(layer, "it")
    return found


def windows(version: str) -> Dict[str, Any]:
    return {"platform": {"os": "windows", "architecture": "amd64", "os.version": version}}


# -- names ---------------------------------------------------------------------


def test_chain_ids() -> None:
    """Computed with ``printf '%s %s' A B | sha256sum``."""
    a, b = "sha256:" + 64 * "a", "sha256:" + 64 * "b"
    first, second = ociimage.chain_ids([a, b])
    assert first == a
    assert second == digest_of(f"{a} {b}".encode())
    assert ociimage.chain_ids([a, b, a])[2] == digest_of(f"{second} {a}".encode())
    assert ociimage.chain_ids([]) == []


# -- the forms -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_an_image_layout(archive: Archive, tmp_path: Any, form: str) -> None:
    archive.index(archive.image())
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    (image,) = ociimage.read_images(path, AMD64)
    assert image.os_version == "10.0.20348.1"
    assert blob_name(image.config) in archive.files
    assert [layer.diff_id for layer in image.layers] == DIFF_IDS
    assert contents(image) == [packed(plain) for plain in LAYERS]


def test_a_tar_of_a_directory(archive: Archive, tmp_path: Any) -> None:
    archive.index(archive.image())
    archive.files = {f"./{name}": data for name, data in archive.files.items()}
    assert len(ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)) == 1


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_docker_save(archive: Archive, tmp_path: Any, form: str) -> None:
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1", "app:2")]).encode()
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    for reference in ("", "app:1", "app:2"):
        (image,) = ociimage.read_images(path, AMD64, reference)
        assert contents(image) == LAYERS


def test_docker_save_with_links_and_paths_of_windows(archive: Archive, tmp_path: Any) -> None:
    twice = [LAYERS[0], LAYERS[1], LAYERS[1]]
    entry = archive.save(twice)
    entry["Layers"] = [entry["Layers"][0].replace("/", "\\"), "one/layer.tar", "two/layer.tar"]
    archive.files["manifest.json"] = json.dumps([entry]).encode()
    path = archive.write(tmp_path / "a.tar")
    with tarfile.open(path, "a") as appended:
        for name, kind, target in (
            ("one/layer.tar", tarfile.SYMTYPE, f"../{digest_of(LAYERS[1])[7:19]}/layer.tar"),
            ("two/layer.tar", tarfile.LNKTYPE, f"{digest_of(LAYERS[1])[7:19]}/layer.tar"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            appended.addfile(link)
    (image,) = ociimage.read_images(path, AMD64)
    assert contents(image) == twice


def test_an_index_of_many_platforms(archive: Archive, tmp_path: Any) -> None:
    """Some of which are not in the archive, as where only one platform was saved."""
    absent = {"digest": digest_of(b"absent"), "size": 6}
    linux = archive.image(config={**config_of(LAYERS), "os": "linux"})
    nested = archive.json(
        {
            "manifests": [
                {**absent, "platform": {"os": "linux", "architecture": "amd64"}},
                {**absent, "digest": digest_of(b"x"), **windows("10.0.26100.1")},
                {**archive.image(version="10.0.17763.5"), **windows("10.0.17763.5")},
                archive.image(version="10.0.20348.9"),
                linux,
                {**archive.json({"layers": []}), "platform": {"os": "unknown", "architecture": "unknown"}},
            ]
        }
    )
    archive.index(nested)
    path = archive.write(tmp_path / "a.tar")
    assert [image.os_version for image in ociimage.read_images(path, AMD64)] == ["10.0.17763.5", "10.0.20348.9"]
    with pytest.raises(InvalidArgument) as refused:
        ociimage.read_images(path, "windows/arm64")
    assert "no image for windows/arm64; what it lists: linux/amd64, windows/amd64, unknown/unknown" in str(
        refused.value
    )
    archive.index({**absent, **windows("10.0.26100.1")})
    with pytest.raises(InvalidArgument, match="windows/amd64 10.0.26100.1 .*, not in the archive"):
        ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)


def test_several_images(archive: Archive, tmp_path: Any) -> None:
    one, two = archive.image(LAYERS[:1]), archive.image(LAYERS[:2])

    def named(descriptor: Any, name: str) -> Any:
        return {
            **descriptor,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"},
        }

    archive.index(named(one, "r.example/one:1"), named(two, "r.example/two:1"))
    path = archive.write(tmp_path / "a.tar")
    with pytest.raises(InvalidArgument, match="several images: .* reference .*: r.example/one:1, r.example/two:1"):
        ociimage.read_images(path, AMD64)
    with pytest.raises(InvalidArgument, match="no image named 'three'; what it names: r.example/one:1, r.example/two"):
        ociimage.read_images(path, AMD64, "three")
    assert len(ociimage.read_images(path, AMD64, "r.example/two:1")[0].layers) == 2
    archive.index(named(one, "r.example/one:1"), named(one, "r.example/same:1"))
    assert len(ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)[0].layers) == 1


# -- what is refused -----------------------------------------------------------

_LONG = {"x": "y" * ociimage.MAXIMUM_DOCUMENT}


def _with_manifest(change: Callable[[Archive, Dict[str, Any]], Any]) -> Callable[[Archive], None]:
    """An archive with one image whose manifest is changed before its digest is computed."""

    def build(archive: Archive) -> None:
        manifest = json.loads(archive.files.pop(blob_name(archive.image()["digest"])))
        archive.index(archive.json(change(archive, manifest) or manifest))

    return build


def _with_layer(**change: Any) -> Callable[[Archive], None]:
    return _with_manifest(lambda _archive, manifest: manifest["layers"][1].update(change))


def _cycle(archive: Archive) -> None:
    """No index can have its own digest in it; one that says so is damaged."""
    digest = digest_of(b"cycle")
    archive.files[blob_name(digest)] = json.dumps({"manifests": [{"digest": digest}]}).encode()
    archive.index({"digest": digest, "size": 1})


def _deep(archive: Archive) -> None:
    descriptor = archive.image()
    for _ in range(6):
        descriptor = archive.json({"manifests": [descriptor]})
    archive.index(descriptor)


def _flipped(archive: Archive) -> None:
    descriptor = archive.image()
    archive.files[blob_name(descriptor["digest"])] += b" "
    archive.index(descriptor)


def _saved(**change: Any) -> Callable[[Archive], None]:
    def build(archive: Archive) -> None:
        archive.files["manifest.json"] = json.dumps([{**archive.save(), **change}]).encode()

    return build


def _listed(name: str, value: Any) -> Callable[[Archive], None]:
    def build(archive: Archive) -> None:
        archive.files[name] = json.dumps(value).encode()

    return build


BAD = [
    (lambda _archive: None, "neither index.json"),
    (lambda archive: archive.index(), "no image for windows/amd64; what it lists: nothing"),
    (lambda archive: archive.files.update({"index.json": b"{"}), "index.json is not JSON"),
    (lambda archive: archive.files.update({"index.json": b"\xff\xfe{"}), "index.json is not JSON"),
    (lambda archive: archive.files.update({"index.json": b"[" * 200_000}), "index.json is not JSON"),
    (_listed("index.json", _LONG), "index.json has 41943"),
    (_listed("index.json", []), "no image"),
    (_listed("index.json", {"manifests": {}}), "index.json is damaged: 'manifests'"),
    (_listed("index.json", {"manifests": [1]}), "lists something that is no object"),
    (_listed("index.json", {"manifests": [{"digest": "sha512:00"}]}), "has the digest 'sha512:00'"),
    (_listed("index.json", {"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}), "is not sha256: and 64"),
    (_listed("index.json", {"manifests": [{"annotations": {"io.containerd.image.name": 1}}]}), "is damaged"),
    (_cycle, "has the digest sha256:.*: the archive is damaged"),
    (_flipped, "has the digest sha256:.*: the archive is damaged"),
    (_deep, "indexes in indexes more than 4 deep"),
    (lambda archive: archive.index(*({"digest": f"sha256:{n:064}"} for n in range(300))), "more than 256 images"),
    (lambda archive: archive.index(archive.json(_LONG)), "bytes: at most 4194304"),
    (lambda archive: archive.index(archive.json([])), "has the digest ''"),
    (_with_manifest(lambda archive, manifest: {**manifest, "config": archive.json(_LONG)}), "bytes: at most 4194304"),
    (_with_manifest(lambda _archive, manifest: {**manifest, "config": {"digest": "sha256:" + 64 * "0"}}), "not in the"),
    (
        _with_manifest(lambda _archive, manifest: {**manifest, "layers": manifest["layers"][:2]}),
        "has 2 layers, and 3 according to",
    ),
    (_with_manifest(lambda archive, manifest: {**manifest, "config": archive.json(config_of([]))}), "and 0 according"),
    (_with_manifest(lambda _archive, manifest: {**manifest, "layers": "none"}), "'layers' is 'none'"),
    (
        _with_manifest(
            lambda archive, manifest: {
                **manifest,
                "config": archive.json({**config_of([]), "rootfs": {"diff_ids": ["x", "y", "z"]}}),
            }
        ),
        "has the digest 'x'",
    ),
    (_with_layer(digest=7), "'digest' is '7'"),
    (_with_layer(size="7"), "layer 2 in blobs/sha256/.* has the size '7'"),
    (_with_layer(size=-7), "has the size '-7'"),
    (_with_layer(urls=[1]), "no text"),
    (_saved(Config="../../secret"), "leads out of the archive"),
    (_saved(Config="/secret"), "leads out of the archive"),
    (_saved(Config=""), "leads out of the archive"),
    (_saved(Config="other.json"), "other.json is not in the archive"),
    (_saved(Layers=["a", "b", "..\\..\\c"]), "leads out of the archive"),
    (_saved(Layers=["a", 1]), "no text"),
    (_saved(Layers=[]), "has 0 layers, and 3 according to"),
    (_listed("manifest.json", {}), "manifest.json is damaged: it is not a list"),
    (_listed("manifest.json", []), "no image for windows/amd64; what it lists: nothing"),
    (_listed("manifest.json", [7]), "no object"),
]


@pytest.mark.parametrize("form", ["tar", "directory"])
@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_documents(archive: Archive, tmp_path: Any, number: int, form: str) -> None:
    build, message = BAD[number]
    build(archive)
    (tmp_path / "a").mkdir()
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    with pytest.raises(InvalidArgument, match=message):
        ociimage.read_images(path, AMD64)


@pytest.mark.parametrize("platform", ["linux/amd64", "windows", "windows/", "windows/amd64/v1", ""])
def test_other_platforms(platform: str) -> None:
    with pytest.raises(InvalidArgument, match="is not windows/ and an architecture"):
        ociimage.read_images("/nowhere", platform)


def test_nothing_there(tmp_path: Any) -> None:
    with pytest.raises(FailedPrecondition, match="no such file or directory"):
        ociimage.read_images(str(tmp_path / "nothing"), AMD64)


def test_layers_that_cannot_be_imported(archive: Archive, tmp_path: Any) -> None:
    """They are found when they are wanted, not before."""
    zstd = archive.blob(b"\x28\xb5\x2f\xfd and more")
    foreign = {"digest": digest_of(b"foreign"), "size": 1, "urls": ["https://example.com/layer"]}
    absent = {"digest": digest_of(b"absent"), "size": 1}
    wrong = {**archive.blob(b"five."), "size": 6}
    empty = archive.blob(b"")
    layers = [zstd, foreign, absent, wrong, empty]
    archive.index(archive.json({"config": archive.json(config_of([b""] * 5)), "layers": layers}))
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
    for layer, kind, message in zip(
        image.layers,
        (NotImplementedHere, FailedPrecondition, FailedPrecondition, InvalidArgument),
        (
            "layer is compressed with zstd",
            "only its publisher distributes it. Save .* https://example.com/layer into an image layout as blobs/sha256",
            "layer is not in the archive: save the image anew",
            "layer has 5 bytes, and 6 according to the manifest",
        ),
    ):
        with pytest.raises(kind, match=message):
            ociimage.blob_of(layer, "layer")
    assert ociimage.blob_of(image.layers[-1], "layer").size == 0


def test_a_blob_with_another_digest(archive: Archive, tmp_path: Any) -> None:
    archive.index(archive.image())
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
    extent = ociimage.blob_of(image.layers[0], "layer")
    with open(extent.path, "r+b") as file:
        file.seek(extent.offset + 20)
        file.write(b"!")
    with ociimage.BlobReader(extent) as blob, pytest.raises(InvalidArgument, match="layer has the digest"):
        blob.finish(image.layers[0], "layer")
    os.truncate(extent.path, extent.offset + 20)
    unknown = image.layers[0]._replace(digest="")
    with ociimage.BlobReader(extent) as blob, pytest.raises(InvalidArgument, match="layer has the digest"):
        blob.finish(unknown, "layer")


# -- the tar around it ---------------------------------------------------------


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, size
    return entry.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)

BAD_TARS = [
    (b"", "not a tar that can be read"),
    (b"x" * 2000, "not a tar that can be read"),
    (gzip.compress(END), "compressed with gzip as a whole"),
    (b"\x28\xb5\x2f\xfd" + END, "compressed with zstd as a whole"),
    (b"PK\x03\x04" + END, "compressed with zip as a whole"),
    (_entry("../index.json") + END, "'../index.json' leads out of the archive"),
    (_entry("a/../../index.json") + END, "leads out of the archive"),
    (_entry("/index.json") + END, "leads out of the archive"),
    (_entry("a", tarfile.SYMTYPE, "../../etc/passwd") + END, "leads out of the archive"),
    (_entry("a", tarfile.SYMTYPE, "/etc/passwd") + END, "leads out of the archive"),
    (_entry("a", tarfile.LNKTYPE, "../a") + END, "leads out of the archive"),
    (_entry("a", tarfile.FIFOTYPE) + END, "'a' is neither a file nor a directory nor a link"),
    (_entry("a", tarfile.CHRTYPE) + END, "'a' is neither a file nor a directory nor a link"),
    (_entry("index.json") * 2 + END, "two entries 'index.json'"),
    (_entry("a") + _entry("./a", tarfile.SYMTYPE, "b") + END, "two entries 'a'"),
    (_entry("a", size=5000) + END, "damaged|cut off|unexpected end"),
    (_entry("a"), "cut off or damaged"),
    (_entry("a") + b"x" * 512 + END, "cut off or damaged at byte 0"),
    (_entry("a", size=1 << 40) + END, "cut off|unexpected end"),
    (_entry("x", tarfile.XHDTYPE, size=1 << 40) + END, "headers are too long"),
    (_entry("x", tarfile.GNUTYPE_LONGNAME, size=1 << 40) + END, "headers are too long"),
    (_entry("x", tarfile.XHDTYPE) * 3000 + END, "not a tar that can be read"),
    (_entry("a", size=-1024) + END, "damaged|not a tar|cut off"),
    (_entry("first") + _entry("a", size=-1024) + END, "damaged|not a tar|cut off"),
]


@pytest.mark.parametrize("number", range(len(BAD_TARS)))
def test_bad_tars(tmp_path: Any, number: int) -> None:
    data, message = BAD_TARS[number]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InvalidArgument, match=message):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


def test_a_sparse_file(tmp_path: Any) -> None:
    header = bytearray(_entry("a", tarfile.GNUTYPE_SPARSE))
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + END)
    with pytest.raises(InvalidArgument, match="sparse file"):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


def test_links_that_lead_nowhere_are_not_there(archive: Archive, tmp_path: Any) -> None:
    loop = _entry("index.json", tarfile.SYMTYPE, "a") + _entry("a", tarfile.SYMTYPE, "index.json")
    (tmp_path / "a.tar").write_bytes(loop + END)
    with pytest.raises(InvalidArgument, match="neither index.json"):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


def test_memory_stays_small(archive: Archive, tmp_path: Any) -> None:
    """However many entries there are, and however large they are."""
    archive.index(archive.image())
    with open(tmp_path / "a.tar", "wb") as file:
        file.writelines(_entry(f"blobs/sha256/{number:064}") for number in range(5_000))
        file.write(_entry("large", size=1 << 26))
        file.seek(1 << 26, os.SEEK_CUR)
        file.write(tar(archive.files))
    tracemalloc.start()
    try:
        assert ociimage.read_images(str(tmp_path / "a.tar"), AMD64)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024**2
    finally:
        tracemalloc.stop()


def _whole() -> bytes:
    archive = Archive()
    archive.index(archive.json({"manifests": [{**archive.image(), **windows("10.0.20348.1")}]}))
    return tar(archive.files)


WHOLE = _whole()


def test_changed_archives(tmp_path: Any, figures: Any) -> None:
    """Any change is refused, or does no harm: what is read has the digests that it must have."""
    cases = 1000

    @settings(max_examples=cases)
    @given(st.data())
    def change(data: st.DataObject) -> None:
        changed = bytearray(WHOLE)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            del changed[data.draw(st.integers(0, len(changed))) :]
        path = tmp_path / "changed.tar"
        path.write_bytes(changed)
        refused = "-"
        try:
            (image,) = ociimage.read_images(str(path), AMD64)
            assert contents(image) == [packed(plain) for plain in LAYERS]
        except SnapshotterError as error:
            refused = str(error)
        assert 0 < len(refused) < 2000

    change()
    figures(generated_cases=cases)


def test_the_reader_is_a_stream(archive: Archive, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with ociimage.BlobReader(ociimage.Extent(str(tmp_path / "file"), 2, 5)) as blob:
        assert io.BufferedReader(blob).read() == b"23456"
