# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/2 without sockets (RFC 9113): bytes in, events out; requests in, bytes out.

A ``Connection`` is one end of a connection, of a client or of a server. It has what gRPC needs: requests with bodies
and trailers, several streams at once, flow control, and limits for all that a peer can make it keep. It has no
priorities, no push, and no upgrade from HTTP/1.

Usage: pass received bytes to ``receive`` and handle the events, then send ``bytes_to_send()`` before receiving more. In
this way, a peer that does not read its answers cannot make us keep many of them. Call ``acknowledge`` when data of a
stream is used up: until then, the peer can send at most ``WINDOW`` bytes on this stream.
"""

from __future__ import annotations

import struct
from typing import Dict, List, NamedTuple, Optional, Sequence, Union

from . import hpack
from .hpack import Header

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: How many bytes a peer may send ahead on a stream and on a connection. A long list comes in one go.
WINDOW = 1 << 20

#: Streams that a client may have open at a server at once.
MAX_STREAMS = 100

# Frame types (section 6).
_DATA = 0
_HEADERS = 1
_RST_STREAM = 3
_SETTINGS = 4
_PUSH_PROMISE = 5
_PING = 6
_GOAWAY = 7
_WINDOW_UPDATE = 8
_CONTINUATION = 9

# Flags.
_ACK = 0x01
_END_STREAM = 0x01
_END_HEADERS = 0x04
_PADDED = 0x08
_PRIORITY = 0x20

# Settings (section 6.5.2).
_HEADER_TABLE_SIZE = 1
_ENABLE_PUSH = 2
_MAX_CONCURRENT_STREAMS = 3
_INITIAL_WINDOW_SIZE = 4
_MAX_FRAME_SIZE = 5
_MAX_HEADER_LIST_SIZE = 6

# Error codes (section 7).
NO_ERROR = 0
PROTOCOL_ERROR = 1
INTERNAL_ERROR = 2
FLOW_CONTROL_ERROR = 3
STREAM_CLOSED = 5
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
CANCEL = 8
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

_FRAME_HEADER = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
_DEFAULT_WINDOW = 65535
_MAX_WINDOW = (1 << 31) - 1
# The size of the largest frame that a peer may send to us: the least that the protocol allows.
_FRAME_SIZE = 16384
_MAX_FRAME = (1 << 24) - 1


class ProtocolError(Exception):
    """The peer broke the protocol, and the connection has to end. ``code`` is an error code of HTTP/2."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class HeadersReceived(NamedTuple):
    """The headers or the trailers of a stream. ``ended``: nothing follows them."""

    stream: int
    headers: List[Header]
    ended: bool


class DataReceived(NamedTuple):
    """A piece of a body. ``ended``: nothing follows it."""

    stream: int
    data: bytes
    ended: bool


class StreamReset(NamedTuple):
    """The peer ended a stream with an error code."""

    stream: int
    code: int


class GoingAway(NamedTuple):
    """The peer accepts no more streams. It does not handle streams after ``last_stream``."""

    last_stream: int
    code: int
    message: str


Event = Union[HeadersReceived, DataReceived, StreamReset, GoingAway]


class _Stream:
    """One stream: what the peer allows us to send, what waits for that, and which ends are closed."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.waiting = bytearray()
        # What follows the waiting bytes: trailers, or an empty list that ends the stream without them.
        self.trailers: Optional[Sequence[Header]] = None
        # Bytes that count for the window that the peer has, and those among them that are used up.
        self.received = 0
        self.acknowledged = 0
        self.has_headers = False
        self.is_closed_here = False
        self.is_closed_there = False


class _Block(NamedTuple):
    """A header block that is being received. ``ended``: the stream ends with it."""

    stream: int
    ended: bool
    fragments: bytearray


class Connection:
    """One end of a connection. ``is_client`` says which one. Not for several threads at once."""

    def __init__(self, is_client: bool) -> None:
        self._is_client = is_client
        self._streams: Dict[int, _Stream] = {}
        self._next_stream = 1
        self._last_stream = 0
        self._decoder = hpack.Decoder()
        self._input = bytearray()
        self._output = bytearray()
        self._preface = b"" if is_client else PREFACE
        self._has_settings = False
        self._is_finished = False
        # A header block that continues in the next frame.
        self._block: Optional[_Block] = None
        self._window = _DEFAULT_WINDOW
        self._received = 0
        self._peer_window = _DEFAULT_WINDOW
        self._peer_frame_size = _FRAME_SIZE
        settings = [(_INITIAL_WINDOW_SIZE, WINDOW), (_MAX_HEADER_LIST_SIZE, hpack.MAX_LIST_SIZE)]
        settings.append((_ENABLE_PUSH, 0) if is_client else (_MAX_CONCURRENT_STREAMS, MAX_STREAMS))
        self._output += PREFACE if is_client else b""
        self._send(_SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings))
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - _DEFAULT_WINDOW))

    # -- sending --------------------------------------------------------------

    def bytes_to_send(self) -> bytes:
        """Return the bytes to send, once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def open_stream(self, headers: Sequence[Header]) -> int:
        """Start a request of a client. Return its stream."""
        stream = self._next_stream
        self._next_stream += 2
        self._streams[stream] = _Stream(self._peer_window)
        self.send_headers(stream, headers)
        return stream

    def send_headers(self, stream: int, headers: Sequence[Header]) -> None:
        """Send the headers of a request or an answer. A stream that the peer reset is ignored, here and below."""
        if stream in self._streams:
            self._send_block(stream, headers, 0)

    def send_data(self, stream: int, data: bytes, end: bool = False) -> None:
        """Send a piece of a body, as soon as the peer allows it."""
        if stream in self._streams:
            self._streams[stream].waiting += data
            if end:
                self._streams[stream].trailers = ()
            self._flush(stream)

    def send_trailers(self, stream: int, headers: Sequence[Header]) -> None:
        """End a stream with these trailers, after all data."""
        if stream in self._streams:
            self._streams[stream].trailers = headers
            self._flush(stream)

    def acknowledge(self, stream: int, size: int) -> None:
        """Allow the peer to send ``size`` more bytes on a stream: received data of this size is used up."""
        state = self._streams.get(stream)
        if state is None or state.is_closed_there:
            return
        state.acknowledged += size
        if state.acknowledged > WINDOW // 2:
            self._send(_WINDOW_UPDATE, 0, stream, struct.pack(">I", state.acknowledged))
            state.received -= state.acknowledged
            state.acknowledged = 0

    def reset_stream(self, stream: int, code: int = CANCEL) -> None:
        """End a stream at once, and tell the peer."""
        if self._streams.pop(stream, None) is not None:
            self._send(_RST_STREAM, 0, stream, struct.pack(">I", code))

    def go_away(self, code: int = NO_ERROR, message: str = "") -> None:
        """Tell the peer that no more streams are accepted. Streams that are open go on."""
        if not self._is_finished:
            self._is_finished = True
            self._send(_GOAWAY, 0, 0, struct.pack(">II", self._last_stream, code) + message.encode())

    @property
    def has_settings(self) -> bool:
        """Whether the peer has sent its settings. A peer without settings does not speak HTTP/2."""
        return self._has_settings

    @property
    def open_streams(self) -> int:
        """The number of streams that are not closed at both ends."""
        return len(self._streams)

    @property
    def unsent(self) -> int:
        """How many bytes ``bytes_to_send`` returns now."""
        return len(self._output)

    def is_open(self, stream: int) -> bool:
        """Return True until both ends of a stream are closed, or one end reset it."""
        return stream in self._streams

    @property
    def total_waiting(self) -> int:
        """How many bytes of all bodies wait for the peer."""
        return sum(len(stream.waiting) for stream in self._streams.values())

    def waiting(self, stream: int) -> int:
        """Return how many bytes of a body wait for the peer."""
        return len(self._streams[stream].waiting) if stream in self._streams else 0

    def _send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self._output += _FRAME_HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload

    def _send_block(self, stream: int, headers: Sequence[Header], flags: int) -> None:
        block = hpack.encode(headers)
        pieces = [block[at : at + _FRAME_SIZE] for at in range(0, len(block), _FRAME_SIZE)] or [b""]
        for index, piece in enumerate(pieces):
            last = _END_HEADERS if index == len(pieces) - 1 else 0
            self._send(_CONTINUATION if index else _HEADERS, last | (0 if index else flags), stream, piece)

    def _flush(self, number: int) -> None:
        """Send what the windows allow. End the stream if nothing is left."""
        stream = self._streams[number]
        while stream.waiting:
            size = min(len(stream.waiting), stream.window, self._window, self._peer_frame_size)
            if size <= 0:
                return
            piece = bytes(stream.waiting[:size])
            del stream.waiting[:size]
            stream.window -= size
            self._window -= size
            ends = not stream.waiting and stream.trailers is not None and not stream.trailers
            self._send(_DATA, _END_STREAM if ends else 0, number, piece)
            if ends:
                self._close(number, here=True)
                return
        if stream.trailers is not None and not stream.is_closed_here:
            if stream.trailers:
                self._send_block(number, stream.trailers, _END_STREAM)
            else:
                self._send(_DATA, _END_STREAM, number)
            self._close(number, here=True)

    def _close(self, number: int, here: bool) -> None:
        stream = self._streams[number]
        if here:
            stream.is_closed_here = True
        else:
            stream.is_closed_there = True
        if stream.is_closed_here and stream.is_closed_there:
            del self._streams[number]

    # -- receiving ------------------------------------------------------------

    def receive(self, data: bytes) -> List[Event]:
        """Take received bytes. Return the events in them.

        Raises ProtocolError if the peer broke the protocol or exceeds a limit; ``bytes_to_send`` then has a GOAWAY.
        """
        self._input += data
        events: List[Event] = []
        try:
            self._take_preface()
            while not self._preface and len(self._input) >= _FRAME_HEADER.size:
                high, low, kind, flags, stream = _FRAME_HEADER.unpack_from(self._input)
                size = high << 8 | low
                if size > _FRAME_SIZE:
                    raise ProtocolError(FRAME_SIZE_ERROR, f"a frame has {size} bytes")
                end = _FRAME_HEADER.size + size
                if len(self._input) < end:
                    break
                payload = bytes(self._input[_FRAME_HEADER.size : end])
                del self._input[:end]
                self._frame(events, kind, flags, stream & _MAX_WINDOW, payload)
        except ProtocolError as error:
            self.go_away(error.code, str(error))
            raise
        return events

    def _take_preface(self) -> None:
        count = min(len(self._preface), len(self._input))
        if self._input[:count] != self._preface[:count]:
            raise ProtocolError(PROTOCOL_ERROR, "the client does not speak HTTP/2")
        self._preface = self._preface[count:]
        del self._input[:count]

    def _frame(self, events: List[Event], kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self._has_settings and kind != _SETTINGS:
            raise ProtocolError(PROTOCOL_ERROR, "the first frame has no settings: this is not HTTP/2")
        if self._block is not None and (kind != _CONTINUATION or stream != self._block.stream):
            raise ProtocolError(PROTOCOL_ERROR, "a header block is interrupted")
        if kind == _DATA:
            self._receive_data(events, flags, stream, payload)
        elif kind == _HEADERS:
            self._receive_headers(events, flags, stream, payload)
        elif kind == _CONTINUATION:
            if self._block is None:
                raise ProtocolError(PROTOCOL_ERROR, "a header block continues that did not start")
            if not payload and not flags & _END_HEADERS:
                raise ProtocolError(ENHANCE_YOUR_CALM, "a header block has empty frames")
            self._block.fragments.extend(payload)
            self._receive_block(events, flags, self._block)
        elif kind == _RST_STREAM:
            self._check_size("RST_STREAM", payload, 4)
            self._check_known(stream)
            if self._streams.pop(stream, None) is not None:
                events.append(StreamReset(stream, struct.unpack(">I", payload)[0]))
        elif kind == _SETTINGS:
            self._receive_settings(flags, stream, payload)
        elif kind == _PING:
            self._check_size("PING", payload, 8)
            if not flags & _ACK:
                self._send(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            if len(payload) < 8:
                raise ProtocolError(FRAME_SIZE_ERROR, f"a GOAWAY frame has {len(payload)} bytes")
            last, code = struct.unpack_from(">II", payload)
            events.append(GoingAway(last & _MAX_WINDOW, code, payload[8:].decode(errors="replace")))
        elif kind == _WINDOW_UPDATE:
            self._receive_window(stream, payload)
        elif kind == _PUSH_PROMISE:
            raise ProtocolError(PROTOCOL_ERROR, "the peer pushes an answer")

    def _receive_headers(self, events: List[Event], flags: int, stream: int, payload: bytes) -> None:
        payload = _without_padding(payload, flags)
        if flags & _PRIORITY:
            if len(payload) < 5:
                raise ProtocolError(FRAME_SIZE_ERROR, "a HEADERS frame is too short for its priority")
            payload = payload[5:]
        if not stream or (not self._is_client and stream % 2 == 0):
            raise ProtocolError(PROTOCOL_ERROR, f"headers arrived on stream {stream}")
        self._block = _Block(stream, bool(flags & _END_STREAM), bytearray(payload))
        self._receive_block(events, flags, self._block)

    def _receive_block(self, events: List[Event], flags: int, block: _Block) -> None:
        """Decode a header block when all of it is there."""
        number, ended, fragments = block
        if len(fragments) > hpack.MAX_LIST_SIZE:
            raise ProtocolError(ENHANCE_YOUR_CALM, f"a header block has more than {hpack.MAX_LIST_SIZE} bytes")
        if not flags & _END_HEADERS:
            return
        self._block = None
        try:
            headers = self._decoder.decode(bytes(fragments))
        except hpack.HpackError as error:
            raise ProtocolError(COMPRESSION_ERROR, str(error)) from None
        if not self._is_client and number > self._last_stream:
            self._last_stream = number
            if self._is_finished or len(self._streams) >= MAX_STREAMS:
                self._send(_RST_STREAM, 0, number, struct.pack(">I", REFUSED_STREAM))
                return
            self._streams[number] = _Stream(self._peer_window)
        self._check_known(number)
        stream = self._streams.get(number)
        if stream is None:
            # The stream was reset here while this was on its way.
            return
        if stream.is_closed_there:
            raise ProtocolError(STREAM_CLOSED, f"headers arrived on stream {number} after its end")
        if stream.has_headers and not ended and not self._is_client:
            raise ProtocolError(PROTOCOL_ERROR, f"the trailers of stream {number} do not end it")
        stream.has_headers = True
        events.append(HeadersReceived(number, headers, ended))
        if ended:
            self._close(number, here=False)

    def _receive_data(self, events: List[Event], flags: int, number: int, payload: bytes) -> None:
        self._check_known(number)
        # Padding counts, and so does data on streams that were reset here.
        self._received += len(payload)
        if self._received > WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR, "the peer sends more than the connection's window")
        data = _without_padding(payload, flags)
        stream = self._streams.get(number)
        ended = bool(flags & _END_STREAM)
        if stream is not None:
            if stream.is_closed_there or not stream.has_headers:
                raise ProtocolError(STREAM_CLOSED, f"data arrived on stream {number}, which is not open")
            stream.received += len(payload)
            if stream.received > WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR, f"the peer sends more than the window of stream {number}")
            if data or ended:
                events.append(DataReceived(number, data, ended))
            if ended:
                self._close(number, here=False)
            else:
                self.acknowledge(number, len(payload) - len(data))
        if self._received > WINDOW // 2:
            self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
            self._received = 0

    def _receive_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % _SETTING.size or (flags & _ACK and payload):
            raise ProtocolError(FRAME_SIZE_ERROR, "a SETTINGS frame has a wrong size or stream")
        if flags & _ACK:
            return
        window = self._peer_window
        for setting, value in _SETTING.iter_unpack(payload):
            if setting == _INITIAL_WINDOW_SIZE:
                if value > _MAX_WINDOW:
                    raise ProtocolError(FLOW_CONTROL_ERROR, f"the initial window has {value} bytes")
                window = value
            elif setting == _MAX_FRAME_SIZE:
                if not _FRAME_SIZE <= value <= _MAX_FRAME:
                    raise ProtocolError(PROTOCOL_ERROR, f"frames have at most {value} bytes")
                self._peer_frame_size = value
        self._change_windows(window)
        self._has_settings = True
        self._send(_SETTINGS, _ACK, 0)
        self._flush_all()

    def _change_windows(self, initial: int) -> None:
        """Use another initial window, also for the streams that are open (section 6.9.2)."""
        change = initial - self._peer_window
        self._peer_window = initial
        # One frame can have thousands of settings, so the streams are looked at once for all of them.
        for number, stream in self._streams.items() if change else ():
            stream.window += change
            if stream.window > _MAX_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR, f"the window of stream {number} grows by {change}")

    def _receive_window(self, number: int, payload: bytes) -> None:
        self._check_size("WINDOW_UPDATE", payload, 4)
        increment = struct.unpack(">I", payload)[0] & _MAX_WINDOW
        if not number:
            self._window += increment
            if not increment or self._window > _MAX_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR, f"the connection's window grows by {increment}")
            self._flush_all()
            return
        self._check_known(number)
        stream = self._streams.get(number)
        if stream is not None:
            stream.window += increment
            if not increment or stream.window > _MAX_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR, f"the window of stream {number} grows by {increment}")
            self._flush(number)

    def _flush_all(self) -> None:
        for number in list(self._streams):
            if self._streams[number].waiting:
                self._flush(number)

    def _check_known(self, stream: int) -> None:
        """Refuse a frame on a stream that was never opened."""
        last = self._next_stream - 2 if self._is_client else self._last_stream
        if not stream or stream % 2 == 0 or stream > last:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame arrived on stream {stream}, which was not opened")

    @staticmethod
    def _check_size(name: str, payload: bytes, size: int) -> None:
        if len(payload) != size:
            raise ProtocolError(FRAME_SIZE_ERROR, f"a {name} frame has {len(payload)} bytes")


def _without_padding(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]
