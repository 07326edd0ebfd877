# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's API as typed methods.

Each method is one call, and does what containerd's method of the same name does. Errors are those of containerd, with
its own messages. Times are RFC 3339 in UTC with nine decimals; sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ..errors import Internal, NotFound, SnapshotterError
from ..failpoint import failpoint
from ..model import ACTIVE, COMMITTED, VIEW, Info, Mount, Usage
from ..rpc import protobuf
from ..rpc.channel import TIMEOUT, Call
from . import messages
from .connection import Connection

#: Seconds after which containerd drops the lease of a task that was killed: longer than any task.
LEASE_SECONDS = 24 * 3600

#: The ids of leases of tasks begin with this. Such a lease only keeps garbage collection away while the task runs. If
#: the task is killed, the lease stays until it expires.
TASK_LEASE = "wcow-"

#: Seconds that containerd may take for work on layers: on Windows, a commit converts one.
WORK_TIMEOUT = 1800.0

#: Seconds that containerd may take to apply one layer: it has no progress.
APPLY_TIMEOUT = 4 * 3600.0

#: Seconds for the collection of garbage, which is a part of some calls.
COLLECT_TIMEOUT = 600.0

#: Bytes of content in one message. Both ends allow 16 MiB.
CONTENT_PIECE = 1 << 20

# The ordinal of 1970-01-01.
_EPOCH = dt.date(1970, 1, 1).toordinal()

# The label that limits the life of a lease.
_EXPIRE = "containerd.io/gc.expire"

_KINDS = {messages.VIEW: VIEW, messages.ACTIVE: ACTIVE, messages.COMMITTED: COMMITTED}


class Descriptor(NamedTuple):
    """A reference to a blob (OCI image specification)."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}


class Lease(NamedTuple):
    """A lease and its labels."""

    id: str
    created: str
    labels: Dict[str, str]


class Resource(NamedTuple):
    """What a lease holds: ``type`` is ``content``, ``ingests`` or ``snapshots/<snapshotter>``."""

    id: str
    type: str


class Namespace(NamedTuple):
    """A namespace and its labels."""

    name: str
    labels: Dict[str, str]


class Image(NamedTuple):
    """The record of an image: a name for a manifest or an index."""

    name: str
    labels: Dict[str, str]
    target: Descriptor
    created: str = ""
    updated: str = ""


class Container(NamedTuple):
    """The record of a container. It needs its snapshot, also when the container does not run."""

    id: str
    labels: Dict[str, str]
    image: str
    runtime: str
    snapshotter: str
    snapshot_key: str
    created: str
    updated: str
    sandbox: str


class Blob(NamedTuple):
    """The record of a blob in the content store."""

    digest: str
    size: int
    labels: Dict[str, str]
    created: str
    updated: str


class Ingest(NamedTuple):
    """A blob that is being written: ``offset`` of ``total`` bytes are there (0: the size is not known)."""

    ref: str
    offset: int
    total: int
    expected: str
    started: str
    updated: str


class Version(NamedTuple):
    """The version of containerd."""

    version: str
    revision: str


class Plugin(NamedTuple):
    """A plugin of containerd. ``problem`` says why it could not start, and is empty if it did."""

    type: str
    id: str
    exports: Dict[str, str]
    capabilities: List[str]
    problem: str


class Client:
    """containerd's API in one namespace. ``warnings`` collects sentences for the user."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.warnings: List[str] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A second call does nothing, and all other operations fail from now on."""
        self.connection.close()

    # -- leases ----------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self, labels: Optional[Mapping[str, str]] = None) -> Iterator[str]:
        """Hold a new lease in a ``with`` block: containerd collects nothing that calls in it create. Return its id.

        containerd drops the lease by itself after ``LEASE_SECONDS``, if the process ends in the block.
        """
        lease = self.create_lease(self.new_lease_id(), labels, LEASE_SECONDS)
        outer, self.connection.lease = self.connection.lease, lease.id
        try:
            yield lease.id
        finally:
            self.connection.lease = outer
            self.drop_lease(lease.id)

    @staticmethod
    def new_lease_id() -> str:
        """Return an id for a lease of this process that no other lease has."""
        return f"{TASK_LEASE}{os.getpid()}-{os.urandom(8).hex()}"

    def drop_lease(self, lease: str) -> None:
        """Delete a lease. A failure is a warning, because containerd drops the lease later."""
        try:
            self.delete_lease(lease)
        except NotFound:
            pass
        except SnapshotterError as error:
            hours = LEASE_SECONDS // 3600
            self.warnings.append(f"could not delete the lease {lease}, which ends by itself in {hours} hours: {error}")

    def create_lease(self, lease: str, labels: Optional[Mapping[str, str]] = None, seconds: int = 0) -> Lease:
        """Create a lease that ends after ``seconds``, 0 for a lease without an end. Raises AlreadyExists."""
        wanted = dict(labels or {})
        if seconds:
            wanted[_EXPIRE] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        return _lease(self._one("Leases/Create", "lease", id=lease, labels=wanted))

    def delete_lease(self, lease: str, sync: bool = False) -> None:
        """Delete a lease. With ``sync``, wait until containerd has collected garbage once. Raises NotFound."""
        self._call("Leases/Delete", COLLECT_TIMEOUT if sync else TIMEOUT, id=lease, sync=sync)

    def leases(self, *filters: str) -> List[Lease]:
        return [_lease(found) for found in self._call("Leases/List", filters=filters)["leases"]]

    def add_to_lease(self, lease: str, resource: Resource) -> None:
        self._call("Leases/AddResource", id=lease, resource=resource._asdict())

    def remove_from_lease(self, lease: str, resource: Resource) -> None:
        self._call("Leases/DeleteResource", id=lease, resource=resource._asdict())

    def lease_resources(self, lease: str) -> List[Resource]:
        """Return what a lease holds. Raises NotFound."""
        return [Resource(**found) for found in self._call("Leases/ListResources", id=lease)["resources"]]

    def collect_garbage(self) -> None:
        """Let containerd collect garbage now, and wait for it: the deletion of an empty lease does that."""
        lease = self.create_lease(self.new_lease_id(), seconds=LEASE_SECONDS)
        self.delete_lease(lease.id, sync=True)

    # -- snapshots ---------------------------------------------------------------

    def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None
    ) -> List[Mount]:
        return self._create("Snapshots/Prepare", snapshotter, key, parent, labels)

    def view(
        self, snapshotter: str, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None
    ) -> List[Mount]:
        return self._create("Snapshots/View", snapshotter, key, parent, labels)

    def mounts(self, snapshotter: str, key: str) -> List[Mount]:
        return _mounts(self._call("Snapshots/Mounts", snapshotter=snapshotter, key=key))

    def commit(self, snapshotter: str, name: str, key: str, labels: Optional[Mapping[str, str]] = None) -> None:
        self._call("Snapshots/Commit", WORK_TIMEOUT, snapshotter=snapshotter, name=name, key=key, labels=labels)

    def remove_snapshot(self, snapshotter: str, key: str) -> None:
        """Delete the record of a snapshot. Its layer goes when containerd collects garbage."""
        self._call("Snapshots/Remove", WORK_TIMEOUT, snapshotter=snapshotter, key=key)

    def stat(self, snapshotter: str, key: str) -> Info:
        """Return the info of a snapshot. Its id is 0, because the API does not tell it."""
        return _info(self._one("Snapshots/Stat", "info", snapshotter=snapshotter, key=key))

    def update_snapshot(
        self, snapshotter: str, name: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = ()
    ) -> Info:
        mask = {"paths": fieldpaths} if fieldpaths else None
        info = {"name": name, "labels": labels}
        return _info(self._one("Snapshots/Update", "info", snapshotter=snapshotter, info=info, mask=mask))

    def snapshots(self, snapshotter: str, *filters: str) -> List[Info]:
        found = self.connection.read_all("Snapshots/List", {"snapshotter": snapshotter, "filters": filters}, "infos")
        return [_info(info) for info in found]

    def usage(self, snapshotter: str, key: str) -> Usage:
        found = self._call("Snapshots/Usage", WORK_TIMEOUT, snapshotter=snapshotter, key=key)
        return Usage(found["size"], found["inodes"])

    def clean_up(self, snapshotter: str) -> None:
        """Let the snapshotter remove what it left behind. Raises NotImplementedHere if it cannot, as on Windows."""
        self._call("Snapshots/Cleanup", WORK_TIMEOUT, snapshotter=snapshotter)

    # -- namespaces, images, containers --------------------------------------------

    def namespaces(self) -> List[Namespace]:
        """Return the namespaces of containerd, not only that of this client."""
        return [Namespace(**found) for found in self._call("Namespaces/List")["namespaces"]]

    def create_namespace(self, name: str, labels: Optional[Mapping[str, str]] = None) -> None:
        self._call("Namespaces/Create", namespace={"name": name, "labels": labels})

    def delete_namespace(self, name: str) -> None:
        """Delete an empty namespace. Raises FailedPrecondition if it is not empty."""
        self._call("Namespaces/Delete", name=name)

    def image(self, name: str) -> Image:
        return _image(self._one("Images/Get", "image", name=name))

    def images(self, *filters: str) -> List[Image]:
        return [_image(found) for found in self._call("Images/List", filters=filters)["images"]]

    def create_image(self, name: str, target: Descriptor, labels: Optional[Mapping[str, str]] = None) -> Image:
        image = {"name": name, "target": target._asdict(), "labels": labels}
        return _image(self._one("Images/Create", "image", image=image))

    def update_image(self, image: Image, fieldpaths: Sequence[str] = ()) -> Image:
        """Change the record of an image: ``target``, ``labels`` or ``labels.<key>``; without paths, all of it."""
        wanted = {"name": image.name, "target": image.target._asdict(), "labels": image.labels}
        mask = {"paths": fieldpaths} if fieldpaths else None
        return _image(self._one("Images/Update", "image", image=wanted, mask=mask))

    def delete_image(self, name: str, sync: bool = False) -> None:
        """Delete the record of an image. With ``sync``, wait until containerd has collected garbage once."""
        self._call("Images/Delete", COLLECT_TIMEOUT if sync else TIMEOUT, name=name, sync=sync)

    def container(self, container: str) -> Container:
        return _container(self._one("Containers/Get", "container", id=container))

    def containers(self, *filters: str) -> List[Container]:
        found = self.connection.read_all("Containers/ListStream", {"filters": filters}, "container")
        return [_container(container) for container in found]

    # -- content -----------------------------------------------------------------

    def blob(self, digest: str) -> Blob:
        return _blob(self._one("Content/Info", "info", digest=digest))

    def blobs(self, *filters: str) -> List[Blob]:
        return [_blob(found) for found in self.connection.read_all("Content/List", {"filters": filters}, "infos")]

    def update_blob(self, digest: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = ()) -> Blob:
        """Change the labels of a blob: ``labels.<key>``; without paths, all of them."""
        mask = {"paths": fieldpaths} if fieldpaths else None
        return _blob(self._one("Content/Update", "info", info={"digest": digest, "labels": labels}, mask=mask))

    def delete_blob(self, digest: str) -> None:
        self._call("Content/Delete", digest=digest)

    def read_blob(self, digest: str, offset: int = 0, size: int = 0, timeout: float = WORK_TIMEOUT) -> Iterator[bytes]:
        """Return the content of a blob in pieces, from ``offset`` on; ``size`` 0 is all of it."""
        request = {"digest": digest, "offset": offset, "size": size}
        for piece in self.connection.stream("Content/Read", request, timeout):
            yield piece["data"]

    def ingest(self, ref: str) -> Ingest:
        return _ingest(self._one("Content/Status", "status", ref=ref))

    def ingests(self, *filters: str) -> List[Ingest]:
        return [_ingest(found) for found in self._call("Content/ListStatuses", filters=filters)["statuses"]]

    def abort_ingest(self, ref: str) -> None:
        """Delete what was written under ``ref``."""
        self._call("Content/Abort", ref=ref)

    def write_blob(self, ref: str, total: int, expected: str, timeout: float = WORK_TIMEOUT) -> ContentWriter:
        """Start or resume the writing of a blob of ``total`` bytes with the digest ``expected`` under the name ``ref``.

        Raises AlreadyExists if the namespace has the blob, Unavailable if
        another process writes under this name.
        """
        return ContentWriter(self.connection, ref, total, expected, timeout)

    # -- diffs and containerd itself -------------------------------------------------

    def apply(self, blob: Descriptor, mounts: Sequence[Mount], timeout: float = APPLY_TIMEOUT) -> Descriptor:
        """Unpack the blob of a layer into a snapshot with these mounts. Return the plain layer tar that it is."""
        request = {"diff": blob._asdict(), "mounts": [mount._asdict() for mount in mounts]}
        return _descriptor(self.connection.call("Diff/Apply", request, timeout)["applied"])

    def version(self) -> Version:
        return Version(**self._call("Version/Version"))

    def plugins(self, *filters: str) -> List[Plugin]:
        """Return the plugins, also those that could not start. Filters know ``type`` and ``id`` only."""
        return [_plugin(found) for found in self._call("Introspection/Plugins", filters=filters)["plugins"]]

    def server_id(self) -> str:
        """Return the id that containerd gave itself at its first start."""
        found: str = self._call("Introspection/Server")["uuid"]
        return found

    # -- the parts of the above --------------------------------------------------------

    def _call(self, method: str, timeout: float = TIMEOUT, **message: Any) -> Dict[str, Any]:
        return self.connection.call(method, message, timeout)

    def _one(self, method: str, field: str, **message: Any) -> Dict[str, Any]:
        """Return the message that an answer consists of. A message without fields can be absent."""
        schema = messages.METHODS[method].answer[field].type
        return _given(self._call(method, **message)[field], schema)

    def _create(
        self, method: str, snapshotter: str, key: str, parent: str, labels: Optional[Mapping[str, str]]
    ) -> List[Mount]:
        return _mounts(self._call(method, WORK_TIMEOUT, snapshotter=snapshotter, key=key, parent=parent, labels=labels))


class ContentWriter:
    """Writes one blob, in a ``with`` block. ``offset`` is the position of the next bytes: a resumed blob has some.

    If the block ends without ``commit``, containerd keeps what was written, and the next writer with the same name
    resumes it.
    """

    def __init__(self, connection: Connection, ref: str, total: int, expected: str, timeout: float) -> None:
        self._connection = connection
        self._request = {"ref": ref, "total": total, "expected": expected}
        self._call: Call = connection.open("Content/Write", timeout)
        try:
            self.offset: int = self._ask(messages.STATUS)["offset"]
        except BaseException:
            self._call.cancel()
            raise

    def __enter__(self) -> ContentWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        self._call.cancel()

    def write(self, data: bytes) -> None:
        """Write the next bytes, at most ``CONTENT_PIECE``."""
        self.offset = self._ask(messages.WRITE, offset=self.offset, data=data)["offset"]

    def restart(self) -> None:
        """Drop what was written before: the next bytes are the first ones."""
        self.offset = 0

    def commit(self, labels: Optional[Mapping[str, str]] = None) -> str:
        """Make the blob a part of the namespace. Return its digest.

        Raises FailedPrecondition if its size or digest is not the expected one,
        AlreadyExists if another process committed it at the same time.
        """
        digest: str = self._ask(messages.COMMIT, offset=self.offset, labels=labels)["digest"]
        self._call.end()
        return digest

    def _ask(self, action: int, **fields: Any) -> Dict[str, Any]:
        """Send one request, and wait for its answer."""
        failpoint("api.write")
        self._call.send(self._connection.encode("Content/Write", {"action": action, **self._request, **fields}))
        answer = self._call.receive()
        failpoint("api.written")
        if answer is None:
            raise Internal(f"{self._connection.server} ended Content/Write without an answer")
        return self._connection.decode("Content/Write", answer)


# -- from messages to values -----------------------------------------------------------


def _given(value: Optional[Dict[str, Any]], schema: Any) -> Dict[str, Any]:
    """Return a message, with the defaults of all fields if it is absent."""
    return protobuf.decode(schema, b"") if value is None else value


def _time(value: Optional[Mapping[str, int]]) -> str:
    """Return a time as RFC 3339 in UTC with nine decimals, ``""`` if there is none or it has no calendar date."""
    if value is None:
        return ""
    day, second = divmod(value["seconds"], 86400)
    if not 0 < day + _EPOCH <= dt.date.max.toordinal():
        return ""
    date = dt.date.fromordinal(day + _EPOCH).isoformat()
    nanoseconds = value["nanos"] % 1_000_000_000
    return f"{date}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{nanoseconds:09}Z"


def _mounts(answer: Mapping[str, Any]) -> List[Mount]:
    return [Mount(found["type"], found["source"], found["options"]) for found in answer["mounts"]]


def _info(found: Mapping[str, Any]) -> Info:
    kind = found["kind"]
    return Info(
        _KINDS.get(kind, f"unknown kind {kind}"),
        found["name"],
        found["parent"],
        found["labels"],
        _time(found["created"]),
        _time(found["updated"]),
        0,
    )


def _descriptor(found: Optional[Dict[str, Any]]) -> Descriptor:
    return Descriptor(**_given(found, messages.DESCRIPTOR))


def _lease(found: Mapping[str, Any]) -> Lease:
    return Lease(found["id"], _time(found["created"]), found["labels"])


def _image(found: Mapping[str, Any]) -> Image:
    times = (_time(found["created"]), _time(found["updated"]))
    return Image(found["name"], found["labels"], _descriptor(found["target"]), *times)


def _container(found: Mapping[str, Any]) -> Container:
    return Container(
        found["id"],
        found["labels"],
        found["image"],
        _given(found["runtime"], messages.RUNTIME)["name"],
        found["snapshotter"],
        found["snapshot_key"],
        _time(found["created"]),
        _time(found["updated"]),
        found["sandbox"],
    )


def _blob(found: Mapping[str, Any]) -> Blob:
    times = (_time(found["created"]), _time(found["updated"]))
    return Blob(found["digest"], found["size"], found["labels"], *times)


def _ingest(found: Mapping[str, Any]) -> Ingest:
    times = (_time(found["started"]), _time(found["updated"]))
    return Ingest(found["ref"], found["offset"], found["total"], found["expected"], *times)


def _plugin(found: Mapping[str, Any]) -> Plugin:
    problem = found["init_err"]["message"] if found["init_err"] else ""
    return Plugin(found["type"], found["id"], found["exports"], found["capabilities"], problem)
