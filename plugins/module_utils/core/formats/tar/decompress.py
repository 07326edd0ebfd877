# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decompress a layer, gzip (RFC 1952) or zstd (RFC 8878), within limits."""

from __future__ import annotations

import hashlib
import importlib
import io
from typing import Any, BinaryIO, Callable, NamedTuple, Optional, Tuple, Type

from ...errors import InvalidArgument
from ..digest import format_digest

#: Largest plain layer, bytes. Windows Server Core has 6 GB.
MAX_SIZE = 256 * 1024**3

#: Deflate makes a layer 2 to 5 times smaller. Data that grows more than this,
#: after the first ``_RATIO_GRACE`` bytes, is refused as a decompression bomb.
MAX_RATIO = 250
_RATIO_GRACE = 256 * 1024**2

_CHUNK = 1024**2

#: How to import what looks wrong but is not, as the end of a sentence.
GIVE_DIGEST = "if it must be like this, give its digest: the diff id, which is the SHA-256 of the plain tar"


class Codec(NamedTuple):
    """A program that decompresses.

    ``new`` returns an object for one frame, with the methods and attributes of
    ``compression.zstd.ZstdDecompressor``. ``errors`` are what it raises for
    damaged data.
    """

    new: Callable[[], Any]
    errors: Tuple[Type[Exception], ...]


def zstd_codec() -> Optional[Codec]:
    """Return the zstd of this Python; None before Python 3.14."""
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        return None
    return Codec(zstd.ZstdDecompressor, (zstd.ZstdError,))


def is_zstd(head: bytes) -> bool:
    """Return whether a file with these first 4 bytes is compressed with zstd. It may begin with a skippable frame."""
    return head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def open_layer(
    stream: BinaryIO, *, digest: str = "", max_ratio: int = MAX_RATIO, zstd: Optional[Codec] = None
) -> BinaryIO:
    """Return the plain tar of a layer that is plain or compressed with gzip or zstd; its first bytes tell which.

    ``zstd`` replaces that of Python. Raises InvalidArgument if neither is
    there. Reading the result raises InvalidArgument for damaged or incomplete
    data, and for data that decompresses to more than ``max_ratio`` times its
    size. If it does, and ``stream`` is seekable, it is first read to its end:
    plain data with this ``digest`` may have any ratio.
    """
    start = stream.tell() if digest else 0
    head = b""
    while len(head) < 4:
        data = stream.read(4 - len(head))
        if not data:
            break
        head += data
    source = _Source(head, stream)
    if head[:2] == b"\x1f\x8b":
        import zlib

        codec = Codec(lambda: zlib.decompressobj(wbits=31), (zlib.error,))
    elif is_zstd(head):
        found = zstd or zstd_codec()
        if found is None:
            raise InvalidArgument(
                "the layer is compressed with zstd, which Python before 3.14 cannot read: send it from the controller "
                "(remote_src: false) with the package zstandard installed there, or decompress it with unzstd"
            )
        codec = found
    else:
        return io.BufferedReader(source, _CHUNK)

    def is_expected() -> bool:
        position = stream.tell()
        stream.seek(start)
        sha256, size = hashlib.sha256(), 0
        plain = _Plain(_Source(b"", stream), codec, 0, lambda: True)
        while size <= MAX_SIZE:
            data = plain.read(_CHUNK)
            if not data:
                break
            sha256.update(data)
            size += len(data)
        stream.seek(position)
        return format_digest(sha256) == digest

    return io.BufferedReader(_Plain(source, codec, max_ratio, is_expected if digest else lambda: False), _CHUNK)


class _Source(io.RawIOBase):
    """Bytes that were read ahead, then the rest of their stream."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Plain(io.RawIOBase):
    """Decompresses gzip members or zstd frames one after another, never more at once than the codec gives at least."""

    def __init__(self, source: io.RawIOBase, codec: Codec, max_ratio: int, is_expected: Callable[[], bool]) -> None:
        self._codec = codec
        self._member = codec.new()
        self._source = source
        self._max_ratio = max_ratio
        self._is_expected = is_expected
        self._compressed = 0
        self._plain = 0
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            rest = self._next_input()
            if rest is None:
                return 0
            try:
                self._ready = self._member.decompress(rest, len(buffer))
            except self._codec.errors as error:
                raise InvalidArgument(f"the compressed layer is damaged: {error}; get it again") from None
            self._plain += len(self._ready)
            self._check_ratio()
        data, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def _next_input(self) -> Optional[bytes]:
        """Return what the current member, or the next one, takes; None at the end."""
        if self._member.eof:
            rest = (self._member.unused_data or self._fetch()).lstrip(b"\0")
            if rest:
                self._member = self._codec.new()
            return rest or None
        tail: bytes = getattr(self._member, "unconsumed_tail", b"")
        if tail or not getattr(self._member, "needs_input", True):
            return tail
        rest = self._fetch()
        if not rest:
            raise InvalidArgument("the compressed layer is cut off: get it again")
        return rest

    def _check_ratio(self) -> None:
        limit = self._max_ratio * self._compressed
        if not self._max_ratio or self._plain <= max(_RATIO_GRACE, limit):
            return
        if not self._is_expected():
            raise InvalidArgument(
                f"the compressed layer grows to more than {self._max_ratio} times its size: {GIVE_DIGEST}"
            )
        self._max_ratio = 0

    def _fetch(self) -> bytes:
        data = self._source.read(65536) or b""
        self._compressed += len(data)
        return data
