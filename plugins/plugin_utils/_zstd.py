# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repack layers from zstd to gzip, because Python before 3.14 cannot read zstd on the node.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import os
import shutil
import sys
import tempfile
from typing import Any, BinaryIO, Iterator, Optional

from ..module_utils.core.errors import SnapshotterError
from ..module_utils.core.formats.tar.decompress import Codec, open_layer, zstd_codec
from ._action import TaskFailure

#: Bytes that the package decompresses at a time: it does not limit the result, which is at most 32,000 times as long.
_PIECE = 1024


def codec() -> Optional[Codec]:
    """Return the zstd of Python 3.14, or that of the package zstandard; None without both."""
    own = zstd_codec()
    if own:
        return own
    try:
        package = importlib.import_module("zstandard")
    except ImportError:
        return None
    return Codec(lambda: _Frame(package), (package.ZstdError,))


@contextlib.contextmanager
def repacked(stream: BinaryIO, name: str, diff_id: str = "") -> Iterator[BinaryIO]:
    """Provide a temporary file with a layer, compressed with gzip: the same bytes for the same layer.

    ``stream`` is seekable and at the beginning of the layer. ``diff_id`` is
    the digest of the plain tar, if it is known; the node verifies it. Raises
    TaskFailure that begins with ``name``.
    """
    found = codec()
    if found is None:
        raise TaskFailure(
            "failed_precondition",
            f"{name} is compressed with zstd, which the Python of the controller ({sys.executable}) cannot read: "
            "install the package zstandard for it (pip install zstandard), or decompress the layer with unzstd",
        )
    with contextlib.ExitStack() as stack:
        try:
            packed: Any = stack.enter_context(tempfile.NamedTemporaryFile(prefix="wcow-", suffix=".tar.gz"))
            with gzip.GzipFile("", "wb", 6, packed, mtime=0) as writer:
                shutil.copyfileobj(open_layer(stream, digest=diff_id, zstd=found), writer, 1 << 20)
            packed.flush()
        except SnapshotterError as error:
            raise TaskFailure(error.code, f"{name}: {error.message}", error.details) from None
        except OSError as error:
            raise TaskFailure(
                "failed_precondition",
                f"Cannot repack {name} in {tempfile.gettempdir()} on the controller: {error.strerror or error}; set "
                "TMPDIR to a directory with enough space",
            ) from None
        packed.seek(0, os.SEEK_SET)
        yield packed


class _Frame:
    """One frame for the package zstandard, with the methods of ``compression.zstd.ZstdDecompressor``."""

    def __init__(self, package: Any) -> None:
        self._object = package.ZstdDecompressor().decompressobj()
        self._held = b""

    def decompress(self, data: bytes, _limit: int) -> bytes:
        data = self._held + data
        self._held = data[_PIECE:]
        plain: bytes = self._object.decompress(data[:_PIECE])
        return plain

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def needs_input(self) -> bool:
        return not self._held

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data) + self._held
