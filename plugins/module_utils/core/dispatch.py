# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door: one JSON request in, one line of ASCII JSON out.

A request is checked as a whole before any of it runs: an unknown operation,
an unknown or missing argument or a value of the wrong type anywhere in the
list means that nothing is touched. docs/protocol.md describes both forms.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, Callable, Dict, List, NamedTuple, Optional, Tuple

from .errors import FailedPrecondition, InvalidArgument, SnapshotterError, translate
from .snapshotter import Snapshotter

PROTOCOL = 1

#: Longest request, bytes. PSRP takes 10 MB an object by default, and base64 is not involved here.
MAXIMUM_REQUEST = 8 * 1024 * 1024

LAYERS = ("auto", "windows", "emulated")


class _Session:
    """One request being answered: its store, opened when the first operation needs it."""

    def __init__(self, root: str, layers: str, check_mode: bool, attachment: Optional[BinaryIO]) -> None:
        self.check_mode = check_mode
        self.attachment = attachment
        self.root = root
        self._layers = layers
        self._snapshotter: Optional[Snapshotter] = None

    @property
    def snapshotter(self) -> Snapshotter:
        if self._snapshotter is None:
            store = _open_layers(self._layers)
            if self.check_mode:
                from .layers.rehearsal import Rehearsal

                store = Rehearsal(store)
            self._snapshotter = Snapshotter(self.root, store, rehearse=self.check_mode)
        return self._snapshotter

    def take_warnings(self) -> List[str]:
        if self._snapshotter is None:
            return []
        warnings, self._snapshotter.warnings = self._snapshotter.warnings, []
        return warnings

    def close(self) -> None:
        if self._snapshotter is not None:
            self._snapshotter.close()


def _open_layers(name: str) -> Any:
    if name == "windows" or (name == "auto" and os.name == "nt"):
        from .layers.windows import WindowsLayers

        return WindowsLayers()
    from .layers.emulated import EmulatedLayers

    return EmulatedLayers()


# -- arguments ---------------------------------------------------------------

_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_source(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, dict) and list(value) == ["staged"] and isinstance(value["staged"], str)
    )


def _is_image(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, dict) and list(value) == ["images"] and _is_objects(value["images"]) and bool(value["images"])
    )


_TYPES: Dict[str, Tuple[_Check, str]] = {
    "text": (_is_text, "a string"),
    "flag": (_is_flag, "true or false"),
    "count": (_is_count, "a whole number of 0 or more"),
    "size": (_is_size, "a number of bytes or a text such as 40GB"),
    "texts": (_is_texts, "a list of strings"),
    "labels": (_is_labels, "an object of strings"),
    "snapshots": (_is_objects, "a list of objects, each with arguments of ensure_snapshot"),
    "source": (_is_source, 'a path, or {"staged": digest}'),
    "image": (_is_image, 'a path, or {"images": [object, ...]}'),
}


class Operation(NamedTuple):
    """One entry of the table: how to run it, and its arguments by name and type (``!`` marks the required)."""

    run: Callable[..., Tuple[bool, Any]]
    arguments: Dict[str, str]


# -- operations --------------------------------------------------------------
# Each takes the session and the arguments, and returns whether it changed anything and the result.


def _prepare(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return True, [mount._asdict() for mount in session.snapshotter.prepare(**arguments)]


def _view(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return True, [mount._asdict() for mount in session.snapshotter.view(**arguments)]


def _mounts(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return False, [mount._asdict() for mount in session.snapshotter.mounts(**arguments)]


def _commit(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return True, session.snapshotter.commit(**arguments)._asdict()


def _remove(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    session.snapshotter.remove(**arguments)
    return True, {}


def _stat(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return False, session.snapshotter.stat(**arguments)._asdict()


def _update(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return True, session.snapshotter.update(**arguments)._asdict()


def _usage(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    return False, session.snapshotter.usage(**arguments)._asdict()


def _walk(session: _Session, filters: Optional[List[str]] = None) -> Tuple[bool, Any]:
    return False, [info._asdict() for info in session.snapshotter.walk(*(filters or []))]


def _mount(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    session.snapshotter.mount(**arguments)
    return True, {}


def _unmount(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    session.snapshotter.unmount(**arguments)
    return True, {}


def _ensure_snapshot(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.ensure_snapshot(session.snapshotter, **arguments)


def _ensure_set(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure_set

    return ensure_set.ensure_set(session.snapshotter, **arguments)


def _ensure_scratch(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.ensure_scratch(session.snapshotter, **arguments)


def _list(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.list_snapshots(session.snapshotter, **arguments)


def _ensure_layer(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.ensure_layer(session.snapshotter, **arguments)


def _ensure_mount(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.ensure_mount(session.snapshotter, **arguments)


def _ensure_export(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import ensure

    return ensure.ensure_export(session.snapshotter, **arguments)


def _ensure_image(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import image

    return image.ensure_image(session.snapshotter, **arguments)


def _ensure_store(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import store

    return store.ensure_store(session.snapshotter, **arguments)


def _check(session: _Session, **arguments: Any) -> Tuple[bool, Any]:
    from . import check

    return check.check_store(session.snapshotter, **arguments)


def _stage(session: _Session, digest: str, size: int, offset: Optional[int] = None) -> Tuple[bool, Any]:
    import io

    from .staging import Staging

    snapshotter = session.snapshotter
    if session.check_mode:
        offset = None
    data = session.attachment or io.BytesIO()
    return offset is not None, Staging(snapshotter.root, snapshotter.layers).receive(digest, size, offset, data)


def _unstage(session: _Session, digest: str) -> Tuple[bool, Any]:
    from .staging import Staging

    if session.check_mode:
        return False, {}
    return Staging(session.snapshotter.root, session.snapshotter.layers).discard(digest), {}


OPERATIONS: Dict[str, Operation] = {
    "prepare": Operation(_prepare, {"key": "text!", "parent": "text", "labels": "labels"}),
    "view": Operation(_view, {"key": "text!", "parent": "text", "labels": "labels"}),
    "mounts": Operation(_mounts, {"key": "text!"}),
    "commit": Operation(_commit, {"name": "text!", "key": "text!", "labels": "labels", "parent": "text"}),
    "remove": Operation(_remove, {"key": "text!"}),
    "stat": Operation(_stat, {"key": "text!"}),
    "update": Operation(_update, {"name": "text!", "labels": "labels", "fieldpaths": "texts"}),
    "usage": Operation(_usage, {"key": "text!"}),
    "walk": Operation(_walk, {"filters": "texts"}),
    "mount": Operation(_mount, {"key": "text!", "target": "text!"}),
    "unmount": Operation(_unmount, {"target": "text!"}),
    "ensure_snapshot": Operation(
        _ensure_snapshot,
        {
            "state": "text!",
            "key": "text",
            "name": "text",
            "parent": "text",
            "labels": "labels",
            "purge_labels": "flag",
            "rootfs_size": "size",
            "uvm_scratch": "flag",
            "creates": "text",
            "recursive": "flag",
        },
    ),
    "ensure_set": Operation(
        _ensure_set, {"snapshots": "snapshots!", "on_error": "text", "prune": "flag", "prune_filters": "texts"}
    ),
    "ensure_scratch": Operation(_ensure_scratch, {"key": "text!", "size": "size!"}),
    "list": Operation(
        _list, {"names": "texts", "filters": "texts", "usage": "flag", "mounts": "flag", "scratch": "flag"}
    ),
    "ensure_layer": Operation(
        _ensure_layer, {"name": "text!", "src": "source!", "parent": "text", "labels": "labels", "digest": "text"}
    ),
    "ensure_mount": Operation(_ensure_mount, {"state": "text!", "key": "text", "target": "text"}),
    "ensure_export": Operation(_ensure_export, {"name": "text!", "dest": "text!", "force": "flag"}),
    "ensure_image": Operation(
        _ensure_image,
        {
            "state": "text",
            "src": "image",
            "platform": "text",
            "reference": "text",
            "os_version": "text",
            "labels": "labels",
            "chain_id": "text",
        },
    ),
    "ensure_store": Operation(_ensure_store, {"state": "text", "rootfs_size": "size", "force": "flag"}),
    "check": Operation(
        _check,
        {
            "repair": "flag",
            "quick": "flag",
            "minimum_free": "size",
            "at_restart": "flag",
            "only": "texts",
            "inventory": "flag",
        },
    ),
    "stage": Operation(_stage, {"digest": "text!", "size": "count!", "offset": "count"}),
    "unstage": Operation(_unstage, {"digest": "text!"}),
}


# -- the request -------------------------------------------------------------


class _Request(NamedTuple):
    root: str
    layers: str
    operations: List[Tuple[str, Dict[str, Any]]]
    problems: List[Optional[InvalidArgument]]
    check_mode: bool
    go_on: bool
    environment: Dict[str, str]
    trace: bool


_KEYS = ("protocol", "root", "layers", "operations", "check_mode", "on_error", "environment", "trace")


def parse_request(text: bytes) -> _Request:
    """Check a request. Raises InvalidArgument where the request itself is wrong.

    What is wrong with single operations is in ``problems``, one entry each.
    """
    if len(text) > MAXIMUM_REQUEST:
        raise InvalidArgument(
            f"the request is {len(text)} bytes long; at most {MAXIMUM_REQUEST} are possible", size=len(text)
        )
    try:
        request = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidArgument("the request is not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise InvalidArgument(f"the request is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise InvalidArgument("the request is not a JSON object")
    if request.get("protocol") != PROTOCOL or isinstance(request.get("protocol"), bool):
        raise InvalidArgument(
            f"protocol {request.get('protocol')!r} is not spoken here, only {PROTOCOL}", protocol=PROTOCOL
        )
    unknown = [key for key in request if key not in _KEYS]
    if unknown:
        raise InvalidArgument(
            f"the request has unknown keys: {', '.join(sorted(unknown))}; known are {', '.join(_KEYS)}"
        )
    root = request.get("root")
    if not isinstance(root, str) or not root:
        raise InvalidArgument("root must be the path of the store's directory")
    layers = request.get("layers", "auto")
    if layers not in LAYERS:
        raise InvalidArgument(f"layers {layers!r} is none of {', '.join(LAYERS)}")
    check_mode, trace = request.get("check_mode", False), request.get("trace", False)
    if not isinstance(check_mode, bool) or not isinstance(trace, bool):
        raise InvalidArgument("check_mode and trace must be true or false")
    on_error = request.get("on_error", "stop")
    if on_error not in ("stop", "continue"):
        raise InvalidArgument(f"on_error {on_error!r} is none of stop, continue")
    environment = request.get("environment") or {}
    if not _is_labels(environment) or any(
        not key or "=" in key or "\0" in key + value for key, value in environment.items()
    ):
        raise InvalidArgument(
            "environment must be an object of strings, its names without = and nothing with a NUL character"
        )
    _refuse_surrogates("the request", {"root": root, "environment": environment})
    operations = request.get("operations")
    if not isinstance(operations, list) or not operations:
        raise InvalidArgument("operations must be a list of at least one operation")
    parsed: List[Tuple[str, Dict[str, Any]]] = []
    problems: List[Optional[InvalidArgument]] = []
    for entry in operations:
        try:
            parsed.append(_parse_operation(entry))
            problems.append(None)
        except InvalidArgument as error:
            parsed.append(("", {}))
            problems.append(error)
    return _Request(root, layers, parsed, problems, check_mode, on_error == "continue", environment, trace)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_operation(entry: Any) -> Tuple[str, Dict[str, Any]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("operation"), str):
        raise InvalidArgument('an operation is an object with "operation" and "arguments"')
    unknown = [key for key in entry if key not in ("operation", "arguments")]
    if unknown:
        raise InvalidArgument(f"an operation has unknown keys: {', '.join(sorted(unknown))}")
    name = entry["operation"]
    if name not in OPERATIONS:
        raise InvalidArgument(f'unknown operation "{name}"; known are {", ".join(OPERATIONS)}', operation=name)
    given = _checked_arguments(name, name, entry.get("arguments", {}))
    _refuse_surrogates(name, given)
    return name, given


def _checked_arguments(where: str, name: str, given: Any) -> Dict[str, Any]:
    """The arguments that operation ``name`` is given; ``where`` begins the messages."""
    wanted = OPERATIONS[name].arguments
    if not isinstance(given, dict):
        raise InvalidArgument(f"{where}: arguments must be an object")
    for argument in given:
        if argument not in wanted:
            raise InvalidArgument(
                f'{where} has no argument "{argument}"; it takes {", ".join(wanted)}', argument=argument
            )
    # null is "not given"
    arguments = {argument: value for argument, value in given.items() if value is not None}
    for argument, rule in wanted.items():
        if argument not in arguments:
            if rule.endswith("!"):
                raise InvalidArgument(f'{where} needs the argument "{argument}"', argument=argument)
            continue
        check, text = _TYPES[rule.rstrip("!")]
        if not check(arguments[argument]):
            raise InvalidArgument(f"{where}: {argument} must be {text}", argument=argument)
        if check is _is_objects:
            arguments[argument] = [
                _checked_arguments(f"{where}: {argument}[{number}]", "ensure_snapshot", item)
                for number, item in enumerate(arguments[argument])
            ]
    return arguments


def _refuse_surrogates(name: str, given: Dict[str, Any]) -> None:
    # JSON can write half a surrogate pair, which no file name, key or label can hold.
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name}: a text is not valid Unicode: it has half of a surrogate pair") from None


# -- the reply ---------------------------------------------------------------


def handle(text: bytes, attachment: Optional[BinaryIO] = None) -> Dict[str, Any]:
    """The reply to one request. Raises nothing: every failure is part of the reply."""
    try:
        request = parse_request(text)
    except SnapshotterError as error:
        return {"protocol": PROTOCOL, "error": _error(error), "results": []}
    os.environ.update(request.environment)
    if any(request.problems):
        refused = FailedPrecondition("not run: another operation of the request is not valid, so nothing was touched")
        return {
            "protocol": PROTOCOL,
            "results": [{"ok": False, "error": _error(problem or refused)} for problem in request.problems],
        }
    if not request.trace:
        return {"protocol": PROTOCOL, "results": _run_all(request, attachment)}
    from .win32 import trace

    trace.start()
    results = _run_all(request, attachment)
    return {"protocol": PROTOCOL, "results": results, "trace": trace.stop()}


def _run_all(request: _Request, attachment: Optional[BinaryIO]) -> List[Dict[str, Any]]:
    session = _Session(request.root, request.layers, request.check_mode, attachment)
    results: List[Dict[str, Any]] = []
    failed = ""
    try:
        for number, (name, arguments) in enumerate(request.operations):
            if failed and not request.go_on:
                results.append(
                    {"ok": False, "error": _error(FailedPrecondition(f"not run: {failed} failed before it"))}
                )
                continue
            result = _run(session, name, arguments)
            results.append(result)
            if not result["ok"]:
                failed = f"operation {number} ({name})"
    finally:
        session.close()
    return results


def _run(session: _Session, name: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
    try:
        changed, result = OPERATIONS[name].run(session, **arguments)
        return {"ok": True, "changed": changed, "result": result, "warnings": session.take_warnings()}
    except Exception as error:  # noqa: BLE001 - a mistake of ours, too, must come out as a reply
        return _failure(session, name, translate(error, name, session.root))


def _failure(session: _Session, name: str, error: SnapshotterError) -> Dict[str, Any]:
    failure = {"ok": False, "error": _error(error, operation=name)}
    warnings = session.take_warnings()
    if warnings:
        failure["warnings"] = warnings
    return failure


def _error(error: SnapshotterError, **details: Any) -> Dict[str, Any]:
    details.update(error.details)
    return {"code": error.code, "message": error.message, "details": details}


def serve(text: bytes, attachment: Optional[BinaryIO], out: BinaryIO) -> int:
    """Answer one request on ``out``: one line of ASCII JSON. Returns the exit code, 0 whenever there is a reply."""
    reply = handle(text, attachment)
    out.write(json.dumps(reply, separators=(",", ":")).encode("ascii") + b"\n")
    out.flush()
    return 0
