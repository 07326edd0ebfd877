# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's filters.

``language`` reads and evaluates filters, ``scanner`` cuts their text into
tokens, ``re2`` matches regular expressions.
"""

from .language import (
    MAX_FILTER_BYTES,
    Adaptor,
    Filter,
    FilterError,
    Filters,
    Selector,
    parse,
    parse_all,
    snapshot_adaptor,
)

__all__ = [
    "MAX_FILTER_BYTES",
    "Adaptor",
    "Filter",
    "FilterError",
    "Filters",
    "Selector",
    "parse",
    "parse_all",
    "snapshot_adaptor",
]
