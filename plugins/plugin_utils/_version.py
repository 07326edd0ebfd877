# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version of this collection.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import functools
import json
import pathlib

import yaml

_COLLECTION = pathlib.Path(__file__).parents[2]


@functools.cache
def collection_version() -> str:
    """Return the version from MANIFEST.json, which an installed collection has, or galaxy.yml in a checkout."""
    manifest = _COLLECTION / "MANIFEST.json"
    if manifest.exists():
        version: str = json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
        return version
    return str(yaml.safe_load((_COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))["version"])
