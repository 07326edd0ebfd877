# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode and parse the times that containerd stores.

Records have times in the binary form of Go (time.Time.MarshalBinary): version, seconds since year 1 in UTC,
nanoseconds, and the offset of a time zone, which does not change the moment. Labels have times as RFC 3339 text.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
from typing import Dict, Optional

#: Version 1, and version 2 with the seconds of an offset that is not whole minutes.
_FORMATS = {1: struct.Struct(">xqI2x"), 2: struct.Struct(">xqI3x")}
_DAY = 86400
_NANOSECONDS = 1_000_000_000
# The day 1970-01-01, counted from 0001-01-01.
_EPOCH = dt.date(1970, 1, 1).toordinal() - 1

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


class Times:
    """Decode times. An object remembers the days that it has seen, because a store has many times of few days."""

    def __init__(self) -> None:
        self._days: Dict[int, str] = {}

    def text(self, data: bytes) -> str:
        """Return a time in Go's binary form as RFC 3339 in UTC with nine decimals.

        Raises ValueError if it is not such a time, or its year is not from 1 to 9999.
        """
        form = _FORMATS.get(data[0]) if data else None
        if form is None or len(data) != form.size:
            raise ValueError(f"{data.hex()} is not a time")
        total, nanoseconds = form.unpack(data)
        day, seconds = divmod(total, _DAY)
        date = self._days.get(day)
        if date is None:
            if not 0 <= day < dt.date.max.toordinal():
                raise ValueError(f"{data.hex()} is not a time of the years 1 to 9999")
            date = self._days[day] = dt.date.fromordinal(day + 1).isoformat()
        if nanoseconds >= _NANOSECONDS:
            raise ValueError(f"{data.hex()} has {nanoseconds} nanoseconds in its second")
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        return f"{date}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z"


def parse_rfc3339(text: str) -> Optional[int]:
    """Return a time as nanoseconds since 1970-01-01 UTC, or None if the text is not RFC 3339."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    try:
        days = dt.date(int(year), int(month), int(day)).toordinal() - 1 - _EPOCH
    except ValueError:
        return None
    if int(hour) > 23 or int(minute) > 59 or int(second) > 59 or int(hours or 0) > 23 or int(minutes or 0) > 59:
        return None
    offset = (int(hours or 0) * 60 + int(minutes or 0)) * (-60 if sign == "-" else 60)
    seconds = days * _DAY + int(hour) * 3600 + int(minute) * 60 + int(second) - offset
    return seconds * _NANOSECONDS + int((fraction or "")[:9].ljust(9, "0"))
