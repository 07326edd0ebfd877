# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The request: its grammar, and the table of operations.

A request is checked as a whole before any of it runs: an unknown operation, an
unknown or missing argument, or a value of the wrong type anywhere in the list
means that nothing is touched. docs/protocol.md describes the format.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .errors import InvalidArgument, NotImplementedHere, SnapshotterError

PROTOCOL = 1

#: Longest request, bytes. PSRP takes 10 MB an object by default, and base64 is not involved here.
MAXIMUM_REQUEST = 8 * 1024 * 1024

LAYERS = ("auto", "windows", "emulated")
STORES = ("own", "containerd")

# -- the types of arguments ---------------------------------------------------------------

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


# -- the operations ----------------------------------------------------------


class Operation(NamedTuple):
    """One entry of the table: which function runs it, and its arguments by name and type (``!``: required).

    ``module`` is relative to the core, and its ``function`` takes the store
    and the arguments and returns an ``Outcome``. Without a module, it is an
    operation of ``snapshots.SnapshotStore`` itself. ``containerd`` is the
    module whose function of the same name does it on containerd's store, ``""``
    if that is not possible. An operation with the same module for both is about
    the node, and gets no store.
    """

    module: str
    function: str
    arguments: Dict[str, str]
    containerd: str = ""


OPERATIONS: Dict[str, Operation] = {
    "prepare": Operation("", "prepare", {"key": "text!", "parent": "text", "labels": "labels"}),
    "view": Operation("", "view", {"key": "text!", "parent": "text", "labels": "labels"}),
    "mounts": Operation("", "mounts", {"key": "text!"}),
    "commit": Operation("", "commit", {"name": "text!", "key": "text!", "labels": "labels", "parent": "text"}),
    "remove": Operation("", "remove", {"key": "text!"}),
    "stat": Operation("", "stat", {"key": "text!"}),
    "update": Operation("", "update", {"name": "text!", "labels": "labels", "fieldpaths": "texts"}),
    "usage": Operation("", "usage", {"key": "text!"}),
    "walk": Operation("", "walk", {"filters": "texts"}),
    "mount": Operation("", "mount", {"key": "text!", "target": "text!"}),
    "unmount": Operation("", "unmount", {"target": "text!"}),
    "ensure_snapshot": Operation(
        "desired.snapshot",
        "ensure_snapshot",
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
            "parent_image": "text",
        },
        "desired.containerd",
    ),
    "ensure_set": Operation(
        "desired.snapshot_set",
        "ensure_set",
        {"snapshots": "snapshots!", "on_error": "text", "prune": "flag", "prune_filters": "texts"},
        "desired.containerd",
    ),
    "ensure_scratch": Operation(
        "desired.scratch", "ensure_scratch", {"key": "text!", "size": "size!"}, "desired.containerd"
    ),
    "list": Operation(
        "listing",
        "list_snapshots",
        {"names": "texts", "filters": "texts", "usage": "flag", "mounts": "flag", "scratch": "flag"},
        "containerd.listing",
    ),
    "ensure_layer": Operation(
        "desired.layer",
        "ensure_layer",
        {
            "name": "text!",
            "src": "source!",
            "parent": "text",
            "labels": "labels",
            "digest": "text",
            "assume": "flag",
            "parent_image": "text",
        },
    ),
    "ensure_mount": Operation(
        "desired.mount",
        "ensure_mount",
        {"state": "text!", "key": "text", "target": "text"},
        "desired.containerd",
    ),
    "ensure_export": Operation(
        "desired.layer_export",
        "ensure_export",
        {"name": "text!", "dest": "text!", "force": "flag"},
        "desired.containerd",
    ),
    "ensure_image": Operation(
        "desired.image",
        "ensure_image",
        {
            "state": "text",
            "src": "image",
            "platform": "text",
            "reference": "text",
            "os_version": "text",
            "labels": "labels",
            "chain_id": "text",
            "names": "texts",
            "pinned": "flag",
            "unpack": "flag",
        },
        "desired.containerd_image",
    ),
    "ensure_store": Operation(
        "desired.store",
        "ensure_store",
        {"state": "text", "rootfs_size": "size", "force": "flag"},
        "desired.containerd_store",
    ),
    "ensure_proxy_snapshotter": Operation(
        "desired.proxy_snapshotter",
        "ensure_proxy_snapshotter",
        {
            "state": "text",
            "version": "text!",
            "pipe": "text",
            "directory": "text",
            "name": "text",
            "log_level": "text",
            "manage_configuration": "flag",
            "default_snapshotter": "flag",
            "restart_containerd": "flag",
            "containerd_root": "text",
            "containerd_address": "text",
        },
    ),
    "check": Operation(
        "check.store_check",
        "check_store",
        {
            "repair": "flag",
            "quick": "flag",
            "minimum_free": "size",
            "at_restart": "flag",
            "only": "texts",
            "inventory": "flag",
        },
        "check.containerd.store_check",
    ),
    "describe_node": Operation("proxy.description", "describe_node", {"lines": "count"}, "proxy.description"),
    "stage": Operation(
        "staging", "stage", {"digest": "text!", "size": "count!", "offset": "count"}, "containerd.upload"
    ),
    "unstage": Operation("staging", "unstage", {"digest": "text!"}),
}

#: The operations of the store itself that change something. All others only read.
CHANGING = ("prepare", "view", "commit", "remove", "update", "mount", "unmount")


# -- the request -------------------------------------------------------------


class Request(NamedTuple):
    """A request that was checked; ``problems`` has one entry for each operation, None if it is valid.

    ``root`` can be empty if ``store`` is ``containerd``: then the node is
    asked for it, as for an empty ``address``, ``namespace`` or ``snapshotter``.
    """

    root: str
    layers: str
    operations: List[Tuple[str, Dict[str, Any]]]
    problems: List[Optional[SnapshotterError]]
    check_mode: bool
    go_on: bool
    environment: Dict[str, str]
    trace: bool
    store: str
    address: str
    namespace: str
    snapshotter: str


_CONTAINERD_KEYS = ("address", "namespace", "snapshotter")
_KEYS = (
    *("protocol", "store", "root", "layers", "operations", "check_mode", "on_error", "environment", "trace"),
    *_CONTAINERD_KEYS,
)


def parse_request(text: bytes) -> Request:
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
            f"unsupported protocol version {request.get('protocol')!r} (expected {PROTOCOL})", protocol=PROTOCOL
        )
    unknown = [key for key in request if key not in _KEYS]
    if unknown:
        raise InvalidArgument(
            f"the request has unknown keys: {', '.join(sorted(unknown))}; known are {', '.join(_KEYS)}"
        )
    store = request.get("store", "own")
    if store not in STORES:
        raise InvalidArgument(f"store {store!r} is not one of {', '.join(STORES)}")
    root, of_containerd = _checked_place(request, store)
    layers = request.get("layers", "auto")
    if layers not in LAYERS:
        raise InvalidArgument(f"layers {layers!r} is not one of {', '.join(LAYERS)}")
    check_mode, trace = request.get("check_mode", False), request.get("trace", False)
    if not isinstance(check_mode, bool) or not isinstance(trace, bool):
        raise InvalidArgument("check_mode and trace must be true or false")
    on_error = request.get("on_error", "stop")
    if on_error not in ("stop", "continue"):
        raise InvalidArgument(f"on_error {on_error!r} is not one of stop, continue")
    environment = request.get("environment") or {}
    if not _is_labels(environment) or any(
        not key or "=" in key or "\0" in key + value for key, value in environment.items()
    ):
        raise InvalidArgument(
            "environment must be an object of strings, its names without = and nothing with a NUL character"
        )
    _refuse_surrogates("the request", {"root": root, "environment": environment, **of_containerd})
    operations = request.get("operations")
    if not isinstance(operations, list) or not operations:
        raise InvalidArgument("operations must be a list of at least one operation")
    parsed: List[Tuple[str, Dict[str, Any]]] = []
    problems: List[Optional[SnapshotterError]] = []
    for entry in operations:
        try:
            name, arguments = _parse_operation(entry)
            if store == "containerd" and not OPERATIONS[name].containerd:
                possible = [name for name, operation in OPERATIONS.items() if operation.containerd]
                raise NotImplementedHere(
                    f"{name} does not work on containerd's store (store: containerd); possible there: "
                    f"{', '.join(possible)}"
                )
            parsed.append((name, arguments))
            problems.append(None)
        except SnapshotterError as error:
            parsed.append(("", {}))
            problems.append(error)
    go_on = on_error == "continue"
    return Request(root, layers, parsed, problems, check_mode, go_on, environment, trace, store, **of_containerd)


def _checked_place(request: Dict[str, Any], store: str) -> Tuple[str, Dict[str, str]]:
    """Return the root, and what says where containerd's store is. Raises InvalidArgument."""
    of_containerd = {key: request.get(key) or "" for key in _CONTAINERD_KEYS}
    for key, value in of_containerd.items():
        if not isinstance(value, str):
            raise InvalidArgument(f"{key} must be a string")
        if value and store == "own":
            raise InvalidArgument(f"{key} is about containerd's store, and the request has store: own")
    root = request.get("root", "" if store == "containerd" else None)
    if not isinstance(root, str) or (not root and store == "own"):
        raise InvalidArgument("root must be the path of the store's directory")
    return root, of_containerd


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
