# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of a snapshot store: containerd's nine operations, and what Windows layers need besides.

Desired states, the check and the door work on this interface. The store of the
collection (``snapshotter``) implements it on SQLite and a layer store. Another
implementation must keep the promises below; tests/contract holds the proof.
The operations and their rules are those of containerd
(core/snapshots/snapshotter.go, core/snapshots/storage/bolt.go).

Vocabulary
    A *snapshot* is one state of a file system. An **active** snapshot is
    writable, a **view** is read-only; both are identified by a *key*. A
    **committed** snapshot is identified by its *name*, never changes, and can
    be the *parent* of others. Keys and names share one space: a store never
    has two snapshots with the same identifier.

Life of a snapshot
    ``prepare`` and ``view`` create; ``commit`` turns an active snapshot into a
    committed one; ``remove`` ends it. There is no way back: a committed
    snapshot never becomes active again, and a view is never committed. To
    change the content of a committed snapshot, prepare an active one on top
    of it. A parent outlives its children, because ``remove`` refuses to remove
    a snapshot that still has some.

Example 1: an image layer becomes a snapshot::

    store.prepare("extract-1 sha256:ab...", parent="sha256:12...")   # active, empty
    ...                                                              # unpack the layer tar into its directory
    store.commit("sha256:ab...", "extract-1 sha256:ab...")           # the key is gone, the name exists

    Every layer of an image is such a snapshot on top of the one below, named
    by its chain id. Two images that share their lower layers share snapshots.
    If the unpack fails, ``remove`` of the key leaves nothing behind.

Example 2: a container gets a 40 GB ``C:`` and keeps its changes::

    size = {"containerd.io/snapshot/windows/rootfs.sizebytes": str(40 * 1024**3)}
    mounts = store.prepare("build-7", parent="sha256:ab...", labels=size)
    ...                                                    # the runtime mounts it; the container writes
    store.grow_scratch("build-7", 60 * 1024**3)            # C: is full: more space, same content
    store.commit("tools-2026-11", "build-7")               # the changes are a layer now
    store.view("inspect", parent="tools-2026-11")          # read-only access to the result
    store.remove("inspect")                                # a view goes first,
    store.remove("tools-2026-11")                          # then its parent

Promises of every operation
    It is strict: it raises where the state does not allow it, and it never
    treats "already done" as success. Idempotency belongs to ``desired``. It
    does its whole work or none of it, also if the process ends halfway; a
    leftover that needs a later cleanup is reported in ``warnings``. Errors are
    ``SnapshotterError``; each text below lists the classes. A store object
    belongs to one thread. Several objects, also in other threads and
    processes, may work on one store at the same time.
"""

from __future__ import annotations

from typing import BinaryIO, Callable, Dict, List, Mapping, Optional, Protocol, Sequence

from .layers.base import LayerStore
from .lock import FileLock
from .model import Description, ImportResult, Info, Mount, ScratchInfo, TopLayer, Usage


class Snapshots(Protocol):
    """The nine operations of containerd's snapshotter, and two about the store as a whole."""

    def prepare(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        """Create the active snapshot ``key`` on top of ``parent`` and return how to mount it.

        Without a parent it is the start of a base layer: an empty directory
        tree. With one it gets a scratch disk. Labels choose the size of that
        disk and request a scratch for a utility VM (``labels``).
        Raises AlreadyExists (key), NotFound (parent), InvalidArgument (parent
        is not committed; labels; key), FailedPrecondition (no template disk).
        """

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        """Create the read-only view ``key`` of ``parent`` and return how to mount it.

        It needs no disk space until it is mounted. Raises as ``prepare``.
        """

    def mounts(self, key: str) -> List[Mount]:
        """Return how to mount an active snapshot or view. Nothing is mounted and nothing changes.

        Raises NotFound, FailedPrecondition (a committed snapshot has no mounts).
        """

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None, parent: str = "") -> Info:
        """Turn the active snapshot ``key`` into the committed snapshot ``name``.

        Content and id stay the same, both times are reset. ``labels`` are all
        labels of the result: those of the active snapshot are not inherited.
        ``parent`` gives a parent to an active snapshot that has none.
        Raises NotFound (key, parent), AlreadyExists (name), FailedPrecondition
        (not active; mounted; parent not committed), InvalidArgument (another
        parent than it has), Unavailable (another process commits it).
        """

    def remove(self, key: str) -> None:
        """Remove a snapshot of any kind, with its layer.

        The identifier is free as soon as this returns. If the layer is still
        in use, its destruction is left for a cleanup and a warning says so;
        a warning also says if the layer did not exist any more.
        Raises NotFound, FailedPrecondition (it has children; it is mounted),
        Unavailable (another process works on it).
        """

    def remove_all(self, keys: Sequence[str]) -> List[str]:
        """Remove snapshots in this order, each as ``remove`` does, and return those that existed.

        This is faster than a call for each. The first failure ends it: what
        comes before it is removed.
        """

    def stat(self, key: str) -> Info:
        """Return the info of a snapshot of any kind. Raises NotFound."""

    def update(self, name: str, labels: Optional[Mapping[str, str]] = None, fieldpaths: Sequence[str] = ()) -> Info:
        """Change the labels of a snapshot of any kind and return its new info. Nothing else can be changed.

        Without ``fieldpaths``, or with ``labels`` among them, ``labels``
        replaces all labels. ``labels.<key>`` sets one label (everything after
        the first dot is the key). An empty or absent value removes a label.
        A changed size label resizes nothing.
        Raises NotFound, InvalidArgument (another field path; labels),
        Unavailable (another process commits it).
        """

    def usage(self, key: str) -> Usage:
        """Return the disk use of a snapshot without its parents.

        An active snapshot is measured now; a committed one reports what was
        recorded at its commit. Raises NotFound, FailedPrecondition (its layer
        does not exist).
        """

    def walk(self, *filters: str) -> List[Info]:
        """Return the infos of all snapshots that match at least one filter, in byte order of identifiers.

        Without filters all snapshots match. ``filters`` has the language.
        Raises InvalidArgument for a filter that cannot be parsed.
        """

    def exists(self) -> bool:
        """Return True if there is a store. Where there is none, the other operations answer as for an empty one."""

    def close(self) -> None:
        """Release what the object holds. A second call does nothing; any other operation fails afterwards."""


class Descriptions(Protocol):
    """Reading several snapshots at one moment."""

    def describe(self, *names: str, scratch: bool = True) -> Dict[str, Description]:
        """Return info, mounts and scratch disk of each of these snapshots that exists, in the order of ``names``.

        All records are read in one transaction, so they fit together. Without
        ``scratch`` only records are read, and the scratch of each is None.
        Raises FailedPrecondition for a scratch disk that cannot be read, and
        for a layer of a snapshot or of its parents that does not exist.
        """


class Disks(Protocol):
    """The scratch disks of snapshots. Sizes are in bytes."""

    def scratch(self, key: str) -> Optional[ScratchInfo]:
        """Return the scratch disk of a snapshot, None if it has none.

        Raises NotFound, FailedPrecondition (it cannot be read; the layer does not exist).
        """

    def grow_scratch(self, key: str, size: int) -> ScratchInfo:
        """Make the scratch disk of an active snapshot at least ``size`` bytes and return what it is now.

        A disk never shrinks. Raises NotFound, FailedPrecondition (not active;
        no scratch disk; mounted, on Windows), InvalidArgument (size),
        Unavailable (another process works on it).
        """

    def default_rootfs_size(self) -> int:
        """Return the size that the store gives to a scratch disk without a size of its own, 0 for the template's."""


class Mounts(Protocol):
    """Mounting snapshots on the node itself, without a container."""

    def mount(self, key: str, target: str) -> None:
        """Make an active snapshot (writable) or a view (read-only) a directory tree at ``target``.

        Raises NotFound, FailedPrecondition (committed; ``target`` is in use),
        Unavailable (another process works on it).
        """

    def unmount(self, target: str) -> None:
        """Undo ``mount``. A target that is not mounted is not an error. Raises Unavailable."""

    def mounted_at(self, key: str) -> List[str]:
        """Return the targets where a snapshot is mounted, as users write paths. Raises NotFound."""

    def is_mounted(self, key: str, target: str) -> bool:
        """Return True if ``key`` is mounted at ``target``. Raises NotFound, InvalidArgument (not an absolute path)."""


class Holders(Protocol):
    """What keeps a snapshot from being removed."""

    def children(self, name: str) -> List[str]:
        """Return the identifiers of the snapshots whose parent is ``name``, in byte order."""

    def users(self, names: Sequence[str]) -> Dict[str, List[str]]:
        """Return what outside the records of snapshots needs these snapshots, by name: ``image "a"``, ``lease "b"``.

        A snapshot that nothing needs is left out. What it names must not be removed.
        """


class Images(Protocol):
    """The images whose layers are in the store."""

    def top_layers(self, image: str) -> List[TopLayer]:
        """Return the top layers of the images with this canonical name, one for each version of Windows: at least one.

        Raises NotFound (no image has the name; its layers are not unpacked),
        FailedPrecondition (it is not for Windows; it cannot be read).
        """


class Unpack(Protocol):
    """Unpacks one plain layer tar into the layer of a snapshot that is being imported."""

    def __call__(self, tar: BinaryIO, digest: str = "") -> ImportResult:
        """``digest`` is what the tar must have, if that is known. Raises as ``LayerStore.import_layer``."""


class Transfers(Protocol):
    """Layers as OCI layer tars."""

    def import_layer(
        self, name: str, parent: str, labels: Mapping[str, str], fill: Callable[[Unpack], ImportResult]
    ) -> ImportResult:
        """Create the committed snapshot ``name`` from a layer tar.

        The store calls ``fill`` with a function that unpacks one plain tar.
        ``fill`` opens the tar, calls that function, and may raise to reject
        the result; nothing is left then. The labels of what it returns are
        added to ``labels``. In a dry run ``fill`` is not called.
        Raises AlreadyExists (name) before anything is written, NotFound or
        InvalidArgument (parent), and what ``fill`` raises.
        """

    def export_layer(self, name: str, stream: BinaryIO) -> None:
        """Write the layer of a committed snapshot to ``stream`` as an OCI layer tar.

        Raises NotFound, FailedPrecondition (not committed), Unavailable
        (another process works on it).
        """

    def lock_export(self, path: str) -> Optional[FileLock]:
        """Lock the native ``path`` for the file of an export. Return None if another process has that lock.

        Raises OSError.
        """


class SnapshotStore(Snapshots, Descriptions, Disks, Mounts, Holders, Images, Transfers, Protocol):
    """Everything that the desired states need of a store.

    ``root`` is the store's directory as a path of this host. ``layers`` keeps
    the layers on disk. With ``dry_run`` nothing is written, and the operations
    return what they would return. ``warnings`` collects sentences for the
    user about what went wrong without failing an operation. ``managed_labels``
    are labels that the store gives to each snapshot; purging keeps them.
    """

    managed_labels: Sequence[str]
    root: str
    layers: LayerStore
    dry_run: bool
    warnings: List[str]
