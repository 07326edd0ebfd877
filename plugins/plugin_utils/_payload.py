# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the payload: the core as one zip file, whose bytes depend on its sources alone.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import ast
import collections
import functools
import hashlib
import io
import pathlib
import re
import zipfile
from typing import Dict, List, NamedTuple, Sequence, Set, Tuple, Union

CORE = pathlib.Path(__file__).parent.parent / "module_utils" / "core"

#: The file that the loader executes; the first entry of the zip.
BOOT = "core/boot.py"

#: The module that lets tests end the core at a chosen point, and its function. Neither is sent to nodes.
FAILPOINT = "failpoint"

#: Files that are not sent to nodes: the one for tests, and an interface that other modules import only for their
#: annotations.
NOT_SENT = (f"{FAILPOINT}.py", "snapshots.py")

#: Files and directories that only the module proxy_snapshotter needs: the service that it installs, which then runs
#: from this payload. The module support describes this service, so it sends the same payload.
SERVICE = (
    "containerd/config_change.py",
    "containerd/config_dump.py",
    "containerd/proxy_plugin.py",
    "containerd/proxy_settings.py",
    "containerd/restart.py",
    "containerd/usage.py",
    "desired/proxy_configuration.py",
    "desired/proxy_snapshotter.py",
    "formats/tomledit.py",
    "layers/emulated/bind.py",
    "proxy",
    "rpc/server.py",
    "serve",
    "win32/dispatcher.py",
    "win32/eventlog.py",
    "win32/pipeserver.py",
)

#: Files and directories that only ``store: containerd`` needs. Tasks on our own store do not send them.
CONTAINERD = (
    "check/containerd",
    "containerd",
    "desired/containerd.py",
    "desired/containerd_image.py",
    "desired/containerd_store.py",
    "formats/bolt.py",
    "formats/commandline.py",
    "formats/imagepackage.py",
    "formats/toml.py",
    "rpc",
    "win32/namedpipe.py",
    "win32/services.py",
)

#: Files of the above by the kind of a payload that has them all the same: what finds out whether a service serves the
#: store, and what asks it how it does. The smallest payload only finds out; a node with a service gets the largest one.
_FIND = tuple(f"proxy/{name}.py" for name in ("__init__", "installed", "manager", "served"))
_ASK = (*_FIND, "proxy/health.py", "proxy/messages.py")
WITH = {"own": (*_FIND, "formats/commandline.py"), "containerd": _ASK, "service": ()}

#: What is not sent, by the kind of a payload: that for tasks on a store (``own``, ``containerd``) or for the service.
WITHOUT = {"own": NOT_SENT + CONTAINERD + SERVICE, "containerd": NOT_SENT + SERVICE, "service": NOT_SENT}

#: The kinds of payloads.
KINDS = tuple(WITHOUT)

# The names of the lists of statements in a statement.
_BLOCKS = ("body", "handlers", "orelse", "finalbody")

# A string, or a word outside strings.
_WORD = re.compile(rb"\"[^\"\n]*\"|'[^'\n]*'|\w+")
_LONG_STRING = re.compile(rb"\"\"\"|'''|\\\n")
_LINTER_COMMENT = re.compile(rb"  # (?:type: ignore|noqa|pylint: ).*")


class Payload(NamedTuple):
    """The zip file (``data``), its SHA-256 in hexadecimal, and the range of boot.py's source in it."""

    digest: str
    data: bytes
    boot: range


def build(core: pathlib.Path, without: Sequence[str] = NOT_SENT, but: Sequence[str] = ()) -> Payload:
    """Pack the Python files below ``core`` after ``strip``, except the files and directories ``without``.

    The files ``but`` are packed in any case. The order, times and modes of the entries are fixed, and so is the system
    that they name. The bytes depend on the names and contents of the files alone.
    Raises OSError if a file cannot be read, SyntaxError if one is not Python.
    """
    sources: Dict[str, bytes] = {}
    for path in core.rglob("*.py"):
        name = path.relative_to(core).as_posix()
        if name in but or not any(name == left_out or name.startswith(left_out + "/") for left_out in without):
            sources["core/" + name] = strip(path.read_bytes())
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(sources, key=lambda name: (name != BOOT, name)):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # _call.py compresses the zip as a whole. That is a quarter smaller than compressing each file.
            archive.writestr(entry, sources[name], zipfile.ZIP_STORED)
    data, boot = target.getvalue(), sources[BOOT]
    start = data.index(boot)
    return Payload(hashlib.sha256(data).hexdigest(), data, range(start, start + len(boot)))


@functools.cache
def strip(source: bytes) -> bytes:
    """Return the source of a module without what only readers and tools need.

    This removes docstrings, comment lines, comments for linters, failpoints,
    the annotations of functions and variables, what is imported for them alone,
    and an ``__all__`` that the module itself does not read. A body that is only
    a docstring becomes ``...``. The licence header stays, and so do the
    annotations in the body of a class: they are the fields of a named tuple.

    A removed line stays as an empty line. A traceback of the node therefore has
    the line numbers of this collection.
    """
    lines = source.split(b"\n")
    tree = ast.parse(source)
    types: List[ast.ImportFrom] = []
    exports: List[ast.stmt] = []
    for node, is_field in _statements(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                _blank(lines, first)
                if len(node.body) == 1 and not isinstance(node, ast.Module):
                    lines[first.lineno - 1] = b" " * first.col_offset + b"..."
            if isinstance(node, ast.FunctionDef):
                _remove_annotations(lines, node)
        elif isinstance(node, ast.AnnAssign) and not is_field:
            _remove_annotation(lines, node)
        elif isinstance(node, ast.ImportFrom) and node.module == "typing":
            types.append(node)
            _blank(lines, node)
        elif isinstance(node, ast.stmt) and _is_export_list(node):
            exports.append(node)
        elif isinstance(node, ast.stmt) and (_is_failpoint(node) or _is_for_annotations(node)):
            _blank(lines, node)
    in_strings = _lines_in_strings(tree) if _LONG_STRING.search(b"\n".join(lines)) else set()
    header = next((number for number, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    for number, line in enumerate(lines[header:], header):
        if number not in in_strings:
            lines[number] = b"" if line.lstrip().startswith(b"#") else _LINTER_COMMENT.sub(b"", line)
    words = collections.Counter(_WORD.findall(b"\n".join(lines)))
    for node in exports:
        if words[b"__all__"] == 1:
            _blank(lines, node)
    for node in types:
        used = ", ".join(alias.name for alias in node.names if words[alias.name.encode()])
        lines[node.lineno - 1] = f"from typing import {used}".encode() if used else b""
    return b"\n".join(lines)


def _statements(tree: ast.Module) -> List[Tuple[ast.AST, bool]]:
    """Return a module and all statements in it, each with whether it is in the body of a class itself."""
    found: List[Tuple[ast.AST, bool]] = [(tree, False)]
    for node, _is_field in found:  # the loop appends to the list
        for block in _BLOCKS:
            found += [(statement, isinstance(node, ast.ClassDef)) for statement in getattr(node, block, ())]
    return found


def _lines_in_strings(tree: ast.Module) -> Set[int]:
    """Return the lines, counted from 0, that begin inside a string: # does not begin a comment there."""
    found: Set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            found.update(range(node.lineno, node.end_lineno or 0))
    return found


def _remove_annotations(lines: List[bytes], node: ast.FunctionDef) -> None:
    """Remove the annotations of a function, except those of several lines. Nothing on a node reads annotations."""
    arguments = node.args
    spans: List[Tuple[int, Union[ast.arg, ast.expr], ast.expr]] = []
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None and argument.annotation is not None:
            spans.append((argument.col_offset + len(argument.arg.encode()), argument, argument.annotation))
    if node.returns is not None:
        arrow = lines[node.returns.lineno - 1].rfind(b" -> ", 0, node.returns.col_offset)
        spans.append((arrow, node.returns, node.returns))
    # The last comes first, so that the positions of the others stay right.
    for start, first, annotation in sorted(spans, key=lambda span: (span[1].lineno, span[0]), reverse=True):
        if start >= 0 and first.lineno == annotation.lineno == annotation.end_lineno:
            line = lines[first.lineno - 1]
            lines[first.lineno - 1] = line[:start] + line[annotation.end_col_offset :]


def _remove_annotation(lines: List[bytes], node: ast.AnnAssign) -> None:
    """Remove the annotation of a variable that gets a value, unless it has several lines."""
    target, annotation = node.target, node.annotation
    if node.value is not None and target.lineno == annotation.lineno == annotation.end_lineno:
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: target.end_col_offset] + line[annotation.end_col_offset :]


def _is_for_annotations(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``, a block that never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_export_list(node: ast.stmt) -> bool:
    """Whether a statement is ``__all__ = ...``."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"


def _is_failpoint(node: ast.stmt) -> bool:
    """Whether a statement is ``failpoint(...)`` or the import of that function."""
    if isinstance(node, ast.ImportFrom):
        return node.module == FAILPOINT
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == FAILPOINT


def _blank(lines: List[bytes], node: ast.stmt) -> None:
    for number in range(node.lineno - 1, node.end_lineno or node.lineno):
        lines[number] = b""


@functools.cache
def payload(kind: str) -> Payload:
    """The payload of a kind, one of ``KINDS``. It is built once in a process."""
    return build(CORE, WITHOUT[kind], WITH[kind])
