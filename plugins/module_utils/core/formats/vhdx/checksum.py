# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C, the checksum of MS-VHDX structures.

Bytes 4 to 8 of a structure hold its checksum. They count as zeros.
"""

from __future__ import annotations

import functools
import struct
from typing import List

from .structures import LOG_SECTOR

# The bits are reversed, as usual: bit 31 is the coefficient of x^0.
_POLYNOMIAL = 0x82F63B78
_ONE = 0x80000000


@functools.cache
def _crc_table() -> List[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _bit in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


def _multiply(first: int, second: int) -> int:
    """Return the product of two polynomials modulo the CRC's."""
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = first << 1 & 0xFFFFFFFF
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product


@functools.lru_cache(maxsize=1024)
def _power_of_zeros(count: int) -> int:
    """Return the factor by which ``count`` zero bytes multiply the register: x^8 to that power."""
    power, factor = _ONE, _ONE >> 8
    while count:
        if count & 1:
            power = _multiply(factor, power)
        factor = _multiply(factor, factor)
        count >>= 1
    return power


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data``.

    Most structures end in many zeros. These cost one comparison and one
    product instead of a step for each byte. The structures have few different
    lengths, so the factors are cached.
    """
    head = data[:LOG_SECTOR] if data[LOG_SECTOR:] == bytes(max(len(data) - LOG_SECTOR, 0)) else data
    body = head.rstrip(b"\0")
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in body:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return _multiply(_power_of_zeros(len(data) - len(body)), crc) ^ 0xFFFFFFFF


def checksum_matches(structure: bytes) -> bool:
    """Return whether the Checksum field is right."""
    (stored,) = struct.unpack_from("<I", structure, 4)
    return bool(crc32c(structure[:4] + bytes(4) + structure[8:]) == stored)


def with_checksum(structure: bytes) -> bytes:
    """Return the structure with the right Checksum field."""
    zeroed = structure[:4] + bytes(4) + structure[8:]
    return zeroed[:4] + struct.pack("<I", crc32c(zeroed)) + zeroed[8:]
