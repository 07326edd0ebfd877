# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encode and decode protobuf messages (protobuf.dev, Encoding).

A schema maps the names of fields to their numbers and types. A message is a dictionary with the same names::

    MOUNT = {"type": Field(1, TEXT), "source": Field(2, TEXT), "options": Field(4, TEXT, repeated=True)}
    encode(MOUNT, {"type": "bind", "source": "/x"})
    decode(MOUNT, data)["options"]

As in proto3, a field that has its default value is not encoded, and decoding adds the defaults of fields that are not
there: empty text, 0, False, an empty list or map, and None for a message.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Tuple, Union

TEXT = "text"
BYTES = "bytes"
#: int32, int64, uint32, uint64 and enums, as a signed number of 64 bits.
INTEGER = "integer"
BOOLEAN = "boolean"
#: A map from text to text.
TEXT_MAP = "map"

# Wire types.
_VARINT = 0
_FIXED64 = 1
_LENGTH_DELIMITED = 2
_FIXED32 = 5

# The wire types of values that are bytes, and how many they are.
_SIZES = {_LENGTH_DELIMITED: 0, _FIXED32: 4, _FIXED64: 8}

_MAX_NUMBER = (1 << 29) - 1

_DEFAULTS = {TEXT: "", BYTES: b"", INTEGER: 0, BOOLEAN: False}


class Field(NamedTuple):
    """A field of a schema: its number, and its type, which is the schema of a message or one of the names above."""

    number: int
    type: Union[str, Mapping[str, Any]]
    repeated: bool = False


Schema = Mapping[str, Field]

_ENTRY: Schema = {"key": Field(1, TEXT), "value": Field(2, TEXT)}


class DecodeError(ValueError):
    """Bytes that are not a message of the schema."""


def encode(schema: Schema, message: Mapping[str, Any]) -> bytes:
    """Encode a message. Fields are in the order of their numbers in the schema, maps in the order of their keys.

    A message in a message can be given in its encoded form, too.
    """
    # A list has many messages, so this takes care of speed, too: what depends on the schema alone is computed once.
    parts: List[bytes] = []
    for name, tag, kind, repeated in _table(schema).encoders:
        value = message.get(name)
        if not value:
            if value is None or repeated or isinstance(kind, str):
                continue
            # A message without fields is there all the same.
            parts += (tag, _varint(0))
        elif kind == TEXT_MAP:
            for key, text in sorted(value.items()):
                entry = encode(_ENTRY, {"key": key, "value": text})
                parts += (tag, _varint(len(entry)), entry)
        elif repeated:
            for element in value:
                parts += (tag, *_content(kind, element))
        else:
            parts += (tag, *_content(kind, value))
    return b"".join(parts)


def decode(schema: Schema, data: bytes) -> Dict[str, Any]:
    """Decode a message. Fields that the schema does not name are skipped. Raises DecodeError."""
    # A list has many messages of one schema, so this takes care of speed: the common case is a number of one byte.
    table = _table(schema)
    message = table.scalars.copy()
    for name in table.lists:
        message[name] = []
    for name in table.maps:
        message[name] = {}
    at, size = 0, len(data)
    while at < size:
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _read_varint(data, at - 1)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise DecodeError(f"a field has the number {number}")
        value: Union[int, bytes]
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire in _SIZES:
            length = _SIZES[wire]
            if wire == _LENGTH_DELIMITED:
                length, at = _read_varint(data, at)
            value = data[at : at + length]
            at += length
            if at > size:
                raise DecodeError(f"field {number} is cut off")
        else:
            raise DecodeError(f"field {number} has the wire type {wire}")
        if number in table.fields:
            name, field = table.fields[number]
            _store(message, name, field, wire, value)
    return message


class _Table(NamedTuple):
    """What a schema says, as the functions above need it.

    ``encode`` needs name, tag and type of each field, and whether it is repeated. ``decode`` needs the fields by
    number, the defaults of values, and the names of lists and of maps.
    """

    schema: Schema
    encoders: List[Tuple[str, bytes, Union[str, Mapping[str, Any]], bool]]
    fields: Dict[int, Tuple[str, Field]]
    scalars: Dict[str, Any]
    lists: List[str]
    maps: List[str]


# By the identity of the schema, which the table keeps alive.
_tables: Dict[int, _Table] = {}


def _table(schema: Schema) -> _Table:
    table = _tables.get(id(schema))
    if table is None:
        lists = [name for name, field in schema.items() if field.repeated]
        maps = [name for name, field in schema.items() if field.type == TEXT_MAP]
        scalars = {
            name: _DEFAULTS[field.type] if isinstance(field.type, str) else None
            for name, field in schema.items()
            if name not in lists and name not in maps
        }
        encoders = [(name, _tag(field), field.type, field.repeated) for name, field in schema.items()]
        fields = {field.number: (name, field) for name, field in schema.items()}
        table = _tables[id(schema)] = _Table(schema, encoders, fields, scalars, lists, maps)
    return table


def _store(message: Dict[str, Any], name: str, field: Field, wire: int, value: Any) -> None:
    kind = field.type
    expected = _VARINT if kind in (INTEGER, BOOLEAN) else _LENGTH_DELIMITED
    if wire != expected:
        raise DecodeError(f"field {name} has the wire type {wire} instead of {expected}")
    if kind == TEXT_MAP:
        entry = decode(_ENTRY, value)
        message[name][entry["key"]] = entry["value"]
    elif field.repeated:
        message[name].append(_value(name, field, value))
    else:
        message[name] = _value(name, field, value)


def _value(name: str, field: Field, value: Any) -> Any:
    if field.type == TEXT:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise DecodeError(f"field {name} is not UTF-8") from None
    if field.type == INTEGER:
        return value - (1 << 64) if value >> 63 else value
    if field.type == BOOLEAN:
        return value != 0
    return value if isinstance(field.type, str) else decode(field.type, value)


def _tag(field: Field) -> bytes:
    return _varint(field.number << 3 | (_VARINT if field.type in (INTEGER, BOOLEAN) else _LENGTH_DELIMITED))


def _content(kind: Union[str, Mapping[str, Any]], value: Any) -> Tuple[bytes, ...]:
    """Return what follows the tag of a value."""
    if kind == TEXT:
        value = value.encode()
    elif kind in (INTEGER, BOOLEAN):
        return (_varint(int(value)),)
    elif not isinstance(kind, str) and not isinstance(value, bytes):
        value = encode(kind, value)
    return _varint(len(value)), value


# The numbers of one byte.
_SHORT = [bytes([value]) for value in range(0x80)]


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return _SHORT[value]
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> Tuple[int, int]:
    """Return a number of 64 bits, and the position behind it."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise DecodeError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise DecodeError(f"the number that ends at byte {at} has more than 10 bytes")
