# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One request to the core on the node; a second call with the payload if the node lacks it.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import ast
import base64
import functools
import inspect
import string
import zlib
from typing import Callable, Iterator, Sequence, Union

from . import _loader
from ._payload import KINDS, payload
from ._reply import RERUN, NodeFailure, Output, Reply, parse

#: Bytes in a line of base64, 64 KiB of text: PSRP sends each line as one object, and objects have a quota (10 MB).
LINE = 48 * 1024

#: Runs the command line on the node with this standard input. All text is ASCII and ``\n`` ends lines: PSRP splits
#: by str.splitlines, PowerShell 5.1 passes ASCII on only.
Execute = Callable[[str], Output]


def lines_of(data: bytes) -> Iterator[str]:
    """``data`` as lines of base64."""
    for offset in range(0, len(data), LINE):
        yield base64.b64encode(data[offset : offset + LINE]).decode("ascii")


class _Minifier(ast.NodeTransformer):
    """Shortens the names of a function's parameters and variables to one letter, and drops annotations."""

    def __init__(self, function: ast.FunctionDef) -> None:
        names = [argument.arg for argument in function.args.args]
        names += [
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        self._letters = dict(zip(dict.fromkeys(names), string.ascii_lowercase))

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._letters[node.arg])

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._letters.get(node.id, node.id), node.ctx)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assigned = ast.Assign([node.target], node.value)  # type: ignore[arg-type]  # the source has a value
        return self.generic_visit(ast.copy_location(assigned, node))


@functools.cache
def source_of(function: Callable[..., None]) -> str:
    """The text of a function of ``_loader``, without what only readers need."""
    tree = ast.parse(inspect.getsource(function))
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    del definition.body[0]
    definition.returns = None
    return ast.unparse(_Minifier(definition).visit(tree))


def loader_line(function: Callable[..., None], *arguments: Union[str, int]) -> str:
    """The first line of standard input, which defines a function of ``_loader`` and calls it."""
    program = f"{source_of(function)}\n{function.__name__}({','.join(map(ascii, arguments))})"
    packed = base64.b64encode(zlib.compress(program.encode("ascii"), 9)).decode("ascii")
    return f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{packed}')))"


def preload() -> None:
    """Make what all calls send: the payloads and the loader.

    Ansible imports action plugins before it forks a process for each task and node. What they make at their import, no
    process has to make again.
    """
    for kind in KINDS:
        payload(kind)
    for function in (_loader.load, _loader.receive):
        source_of(function)


def call(
    execute: Execute, python: str, directory: str, request: str, attachment: Sequence[str] = (), kind: str = "own"
) -> Reply:
    """Send ``request`` (one line of ASCII) and what it attaches (lines); return the core's reply.

    ``directory`` is where the node keeps payloads, of which the request needs
    the one of this ``kind``. A node that lacks this payload
    answers so before it changes anything, and the second call carries the payload.
    Raises NodeFailure if there is no reply, and what ``execute`` raises.
    """
    code = payload(kind)
    path = f"{directory}/wcow-{code.digest}.zip"
    known = (path, code.digest, code.boot.start, code.boot.stop)

    def attempt(*lines: str) -> Reply:
        return parse(execute("\n".join([*lines, request, *attachment, ""])), python)

    first = attempt(loader_line(_loader.load, *known))
    if "need_payload" not in first.body:
        return first
    check_version(python, first.body["python"])
    lines = list(lines_of(zlib.compress(code.data, 9)))
    second = attempt(loader_line(_loader.receive, *known, len(lines)), *lines)
    if "need_payload" in second.body:
        raise NodeFailure("unavailable", f"The collection's code arrived damaged and was not executed. {RERUN}")
    if first.body["need_payload"]:
        second.warnings.append(f"{path} was damaged or tampered with: it was not executed, and is replaced")
    return second


def check_version(python: str, version: int) -> None:
    """Raise NodeFailure if the node's Python is too old for the core; ``version`` is its ``sys.hexversion``."""
    if version < 0x03090000:
        raise NodeFailure(
            "failed_precondition",
            f'The core needs Python 3.9 or newer, and "{python}" on the node is {version >> 24}.{version >> 16 & 255}. '
            "Set the variable wcow_python (or the option python) to a newer one; the role "
            "wcow.snapshotter.python_runtime installs it",
        )
