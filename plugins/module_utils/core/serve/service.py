# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's service of snapshots over a store of the collection (api/services/snapshots/v1/snapshots.proto).

Each call has a store object for itself, because calls run in several threads. Names in requests are those that
containerd's metadata gives to a backend: ``<namespace>/<number>/<key>``.

Three rules protect layers from containerd, which takes everything in a backend as its own:

* containerd's garbage collector lists all snapshots without a filter, and removes those that its metadata does not
  name. Therefore this list has only snapshots that containerd created. A snapshot whose parent is not in the list has
  no parent there, because the collector visits snapshots from the roots only.
* A removal that fails in another way than by ``failed precondition`` ends the collection, and what comes after it is
  never removed (core/metadata/snapshot.go, pruneBranch).
* The collector holds a lock that stops all work on snapshots. Therefore a removal is answered before the layer is
  destroyed.

A container's scratch disk without a size label gets the default size of the store (the option ``rootfs_size`` of the
module ``store``).
"""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from ..containerd.messages import ACTIVE, COMMITTED, METHODS, SNAPSHOT, TIMESTAMP, VIEW, Method
from ..containerd.times import parse_rfc3339
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, NotImplementedHere, SnapshotterError
from ..labels import SNAPSHOT_REF
from ..model import COMMITTED as COMMITTED_KIND
from ..model import Info, Mount
from ..outcome import translate
from ..proxy.messages import CHECK, GET_HEALTH, NOT_SERVING, SERVING
from ..rpc import protobuf
from ..snapshotter import Snapshotter
from .removals import Removals
from .store import Stores

#: The snapshots in one message of a list (services/snapshots/service.go), and the bytes after which it is sent sooner.
#: A client takes messages of 16 MiB, and the labels of one snapshot can have 8 MiB (metastore.transaction).
LIST_PAGE = 100
LIST_BYTES = 4 << 20

# Times that are kept in their encoded form: two for each snapshot of a large store.
_REMEMBERED_TIMES = 40_000

# What containerd's metadata calls a snapshot of a backend (core/metadata/snapshot.go, createKey).
_CREATED_BY_CONTAINERD = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*/[0-9]+/")

_KINDS = {"view": VIEW, "active": ACTIVE, "committed": COMMITTED}

# Errors that are answers to what the client asked, not faults of the store or the host.
_ANSWERS = ("not_found", "already_exists", "failed_precondition", "invalid_argument", "not_implemented")

_log = logging.getLogger(__name__)

_Handler = Callable[[Snapshotter, Dict[str, Any]], Iterable[Dict[str, Any]]]


class _Counts(NamedTuple):
    """What the health call reports of the calls so far. Times are in seconds."""

    calls: int = 0
    errors: int = 0
    last_error: str = ""
    slowest_method: str = ""
    slowest_time: float = 0.0


class Service:
    """Answers calls. ``open_store`` returns a new store object, given what to call with the id of a removed layer.

    ``version`` is what the health call reports. An object belongs to any number of threads.
    """

    def __init__(self, open_store: Callable[[Callable[[int], None]], Snapshotter], version: str = "") -> None:
        self._version = version
        self._started = time.monotonic()
        first = open_store(lambda _layer_id: None)
        self._own = first.store
        first.close()
        self._removals = Removals(lambda: open_store(lambda _layer_id: None))
        self._stores = Stores(lambda: open_store(self._removals.add))
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._running = 0
        self._is_stopping = False
        handlers: Dict[str, _Handler] = {
            "Prepare": self._prepare,
            "View": self._view,
            "Mounts": self._mounts,
            "Commit": self._commit,
            "Remove": self._remove,
            "Stat": self._stat,
            "Update": self._update,
            "List": self._list,
            "Usage": self._usage,
            "Cleanup": self._clean_up,
        }
        methods = ((METHODS[f"Snapshots/{name}"], handler) for name, handler in handlers.items())
        self._methods: Dict[str, Tuple[Method, _Handler]] = {method.path: (method, each) for method, each in methods}

    # -- calls ------------------------------------------------------------------------

    def is_quick(self, path: str) -> bool:
        """Return True for a method that is answered without waiting for the store."""
        return path in (CHECK.path, GET_HEALTH.path)

    def is_long(self, path: str) -> bool:
        """Return True for a method whose answer can have many messages."""
        return path == METHODS["Snapshots/List"].path

    def call(self, path: str, request: bytes) -> Iterator[bytes]:
        """Return the messages that answer a request to the method with this path, one after the other.

        Raises SnapshotterError with the sentence of containerd, for a method
        that is not known NotImplementedHere.
        """
        if path == CHECK.path:
            yield self._check(request)
            return
        if path == GET_HEALTH.path:
            yield protobuf.encode(GET_HEALTH.answer, self.health())
            return
        started = time.monotonic()
        with self._lock:
            self._running += 1
        failure = ""
        try:
            yield from self._answer(path, request)
        except SnapshotterError as error:
            failure = "" if error.code in _ANSWERS else error.message
            raise
        finally:
            self._count(path, time.monotonic() - started, failure)

    def _answer(self, path: str, request: bytes) -> Iterator[bytes]:
        if path not in self._methods:
            raise NotImplementedHere(f"unknown method {path[:200]}")
        method, handler = self._methods[path]
        try:
            message = protobuf.decode(method.request, request)
        except protobuf.DecodeError as error:
            raise InvalidArgument(f"the request of {path} cannot be decoded: {error}") from None
        for answer in self._with_store(handler, message, path):
            yield protobuf.encode(method.answer, answer)

    def _with_store(self, handler: _Handler, message: Dict[str, Any], path: str) -> Iterable[Dict[str, Any]]:
        """Return the answers of a handler. The store is free then, however slowly the client takes them."""
        try:
            store = self._stores.take()
            is_intact = False
            try:
                answers = handler(store, message)
                is_intact = True
                return answers
            except SnapshotterError as error:
                is_intact = error.code in _ANSWERS
                raise
            finally:
                for warning in store.warnings:
                    _log.warning("%s: %s", path.rpartition("/")[2], warning)
                if is_intact:
                    self._stores.give_back(store)
                else:
                    store.close()
        except Exception as error:
            # A defect of the core, too, must become an answer.
            raise translate(error, path.rpartition("/")[2], self._own.display_root) from error

    def _count(self, path: str, seconds: float, failure: str) -> None:
        with self._lock:
            self._running -= 1
            counts = self._counts
            self._counts = counts._replace(calls=counts.calls + 1)
            if failure:
                self._counts = self._counts._replace(errors=counts.errors + 1, last_error=failure)
            if seconds > counts.slowest_time and path in self._methods:
                self._counts = self._counts._replace(slowest_method=path.rpartition("/")[2], slowest_time=seconds)
        if failure:
            _log.error("%s failed: %s", path.rpartition("/")[2], failure)

    # -- health -----------------------------------------------------------------------

    def health(self) -> Dict[str, Any]:
        """Return the state of the service, as ``messages.HEALTH`` describes it. It waits for no other call."""
        with self._lock:
            counts, running = self._counts, self._running
        try:
            pending = len(self._own.pending_removals())
        except SnapshotterError:
            pending = 0
        return {
            "version": self._version,
            "uptime": int((time.monotonic() - self._started) * 1000),
            "calls": counts.calls,
            "errors": counts.errors,
            "last_error": counts.last_error,
            "slowest_method": counts.slowest_method,
            "slowest_time": int(counts.slowest_time * 1000),
            "running": running,
            "pending_removals": pending,
            "process": os.getpid(),
            "root": self._own.display_root,
        }

    def _check(self, request: bytes) -> bytes:
        """Answer the standard question for the health of a server (grpc.health.v1)."""
        try:
            service = protobuf.decode(CHECK.request, request)["service"]
        except protobuf.DecodeError as error:
            raise InvalidArgument(f"the request of {CHECK.path} cannot be decoded: {error}") from None
        if service not in ("", "containerd.services.snapshots.v1.Snapshots"):
            raise NotFound("unknown service")
        return protobuf.encode(CHECK.answer, {"status": NOT_SERVING if self._is_stopping else SERVING})

    def close_idle(self) -> None:
        """Close the store if it is not in use. Call this now and then."""
        self._stores.close_idle()

    def begin_stop(self) -> None:
        """Report from now on that the service stops."""
        self._is_stopping = True

    def stop(self, deadline: float) -> None:
        """Destroy removed layers until a time of ``time.monotonic()``. No call may run any more."""
        self._stores.close_idle(0.0)
        if not self._removals.stop(deadline):
            _log.warning("removed layers wait for their destruction; the next start continues")

    # -- the methods of containerd ----------------------------------------------------

    def _prepare(self, store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        key, parent, labels = message["key"], message["parent"], message["labels"]
        self._refuse_adoptable(store, labels.get(SNAPSHOT_REF, ""), parent)
        return [_mounts_of(store.prepare(key, parent, labels))]

    @staticmethod
    def _refuse_adoptable(store: Snapshotter, reference: str, parent: str) -> None:
        """Raise AlreadyExists if the layer is in the store: containerd looks for it then, and unpacks nothing.

        containerd takes a committed snapshot with this label whose parent is
        the one of the request (core/metadata/snapshot.go, createSnapshot).
        """
        if not reference:
            return
        for info in store.walk(f'kind=={COMMITTED_KIND},labels."{SNAPSHOT_REF}"=={_quoted(reference)}'):
            if info.parent == parent:
                raise AlreadyExists(f'snapshot "{info.name}": already exists')

    @staticmethod
    def _view(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        return [_mounts_of(store.view(message["key"], message["parent"], message["labels"]))]

    @staticmethod
    def _mounts(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        return [_mounts_of(store.mounts(message["key"]))]

    @staticmethod
    def _commit(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        store.commit(message["name"], message["key"], message["labels"], message["parent"])
        return [{}]

    @staticmethod
    def _remove(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        try:
            store.remove(message["key"])
        except (FailedPrecondition, NotFound):
            raise
        except SnapshotterError as error:
            # Any other class would end containerd's garbage collection.
            raise FailedPrecondition(error.message, **error.details) from error
        return [{}]

    @staticmethod
    def _stat(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        return [{"info": _message_of(store.stat(message["key"]))}]

    @staticmethod
    def _update(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        info, mask = message["info"], message["mask"]
        if info is None:
            raise InvalidArgument("the request of Update has no info")
        paths = mask["paths"] if mask is not None else ()
        return [{"info": _message_of(store.update(info["name"], info["labels"], paths))}]

    @staticmethod
    def _list(store: Snapshotter, message: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
        infos = store.walk(*message["filters"])
        if not message["filters"]:
            infos = list(_shown_to_collector(infos))
        return _pages(protobuf.encode(SNAPSHOT, _message_of(info)) for info in infos)

    @staticmethod
    def _usage(store: Snapshotter, message: Dict[str, Any]) -> List[Dict[str, Any]]:
        return [store.usage(message["key"])._asdict()]

    @staticmethod
    def _clean_up(store: Snapshotter, _message: Dict[str, Any]) -> List[Dict[str, Any]]:
        store.store.destroy_leftovers()
        return [{}]


def is_created_by_containerd(name: str) -> bool:
    """Return True for a name or key that containerd's metadata gives to the snapshots of a backend."""
    return _CREATED_BY_CONTAINERD.match(name) is not None


def _shown_to_collector(infos: Iterable[Info]) -> Iterator[Info]:
    """Return what a list without filters shows; the module's text says why."""
    for info in infos:
        if is_created_by_containerd(info.name):
            yield info if is_created_by_containerd(info.parent) else info._replace(parent="")


def _pages(infos: Iterable[bytes]) -> Iterator[Dict[str, Any]]:
    """Return the messages of a list, given encoded snapshots."""
    page: List[bytes] = []
    size = 0
    for info in infos:
        if page and (len(page) == LIST_PAGE or size + len(info) > LIST_BYTES):
            yield {"infos": page}
            page, size = [], 0
        page.append(info)
        size += len(info)
    if page:
        yield {"infos": page}


def _message_of(info: Info) -> Dict[str, Any]:
    return {
        "name": info.name,
        "parent": info.parent,
        "kind": _KINDS[info.kind],
        "created": _timestamp(info.created),
        "updated": _timestamp(info.updated),
        "labels": info.labels,
    }


# Lists have the same times again and again.
@functools.lru_cache(maxsize=_REMEMBERED_TIMES)
def _timestamp(text: str) -> bytes:
    """Return a time as an encoded message."""
    seconds, nanos = divmod(parse_rfc3339(text) or 0, 1_000_000_000)
    return protobuf.encode(TIMESTAMP, {"seconds": seconds, "nanos": nanos})


def _mounts_of(mounts: Iterable[Mount]) -> Dict[str, Any]:
    return {"mounts": [{"type": each.type, "source": each.source, "options": each.options} for each in mounts]}


def _quoted(value: str) -> str:
    """Return a text as the language of filters quotes it."""
    escaped = (f"\\U{ord(char):08x}" if char in '"\\' or not char.isprintable() else char for char in value)
    return f'"{"".join(escaped)}"'
