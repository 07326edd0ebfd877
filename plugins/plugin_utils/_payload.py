# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The core as one file that the node can keep: a zip with the same bytes for the same tree.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import pathlib
import zipfile
from typing import Dict, List, NamedTuple, Set

CORE = pathlib.Path(__file__).parent.parent / "module_utils" / "core"

#: What the loader executes, and so the first entry.
BOOT = "core/boot.py"

#: The module and the function in it that let tests end the core at a chosen point. No node ever gets them.
FAILPOINT = "failpoint"


class Payload(NamedTuple):
    """The zip file, its SHA-256 in hexadecimal, and where in it the source of boot.py lies."""

    digest: str
    data: bytes
    boot: range


def build(core: pathlib.Path) -> Payload:
    """Pack the Python files below ``core``, stripped.

    Order, times, modes and the making system are fixed, so that the bytes
    depend on the names and contents of the files alone.
    Raises OSError if a file cannot be read, SyntaxError if one is not Python.
    """
    sources: Dict[str, bytes] = {
        "core/" + path.relative_to(core).as_posix(): strip(path.read_bytes())
        for path in core.rglob("*.py")
        if path.stem != FAILPOINT
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(sources, key=lambda name: (name != BOOT, name)):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # Compressed as one piece on its way (_call.py), which is a quarter less than file by file.
            archive.writestr(entry, sources[name], zipfile.ZIP_STORED)
    data, boot = target.getvalue(), sources[BOOT]
    start = data.index(boot)
    return Payload(hashlib.sha256(data).hexdigest(), data, range(start, start + len(boot)))


def strip(source: bytes) -> bytes:
    """The text of a module without docstrings, comment lines and failpoints: a third less to send and to compile.

    What goes leaves empty lines, so that a traceback of the node names the
    lines of this collection. The licence header stays.
    """
    lines = source.split(b"\n")
    text: Set[int] = set()  # lines inside of strings, where # begins no comment
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                _blank(lines, first)
        elif isinstance(node, (ast.Constant, ast.JoinedStr)):
            text.update(range(node.lineno, node.end_lineno or 0))
        elif isinstance(node, ast.stmt) and _is_failpoint(node):
            _blank(lines, node)
    header = next((number for number, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    for number, line in enumerate(lines[header:], header):
        if line.lstrip().startswith(b"#") and number not in text:
            lines[number] = b""
    return b"\n".join(lines)


def _is_failpoint(node: ast.stmt) -> bool:
    """Whether a node is ``failpoint(...)`` as a statement, or the import of that function."""
    if isinstance(node, ast.ImportFrom):
        return node.module == FAILPOINT
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == FAILPOINT


def _blank(lines: List[bytes], node: ast.stmt) -> None:
    for number in range(node.lineno - 1, node.end_lineno or node.lineno):
        lines[number] = b""


@functools.cache
def payload() -> Payload:
    """The payload of this collection, built once in a process."""
    return build(CORE)
