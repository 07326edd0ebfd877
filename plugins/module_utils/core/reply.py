# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reply: one entry for each operation, as plain JSON values. docs/protocol.md describes the format."""

from __future__ import annotations

from typing import Any, Dict, List

from .errors import SnapshotterError


def success(changed: bool, result: Any, warnings: List[str]) -> Dict[str, Any]:
    """Return the entry of an operation that succeeded."""
    return {"ok": True, "changed": changed, "result": result, "warnings": warnings}


def failure(operation: str, error: SnapshotterError, warnings: List[str]) -> Dict[str, Any]:
    """Return the entry of an operation that failed."""
    entry: Dict[str, Any] = {"ok": False, "error": error_entry(error, operation=operation)}
    if warnings:
        entry["warnings"] = warnings
    return entry


def error_entry(error: SnapshotterError, **details: Any) -> Dict[str, Any]:
    """Return an error as code, message and details."""
    details.update(error.details)
    return {"code": error.code, "message": error.message, "details": details}


def plain(value: Any) -> Any:
    """Return what an operation of the store returned as JSON values: named tuples as objects, None as ``{}``."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {} if value is None else value._asdict()
