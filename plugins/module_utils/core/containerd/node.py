# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's store on this node, as a task opens it."""

from __future__ import annotations

from typing import Any, Dict, List

from ..errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ..layers.base import LayerStore
from ..proxy.served import is_snapshotter
from ..rpc.transport import NotListening
from . import discovery
from .client import Client
from .connection import connect
from .picture import Picture, read_picture

#: Kubernetes' namespace.
KUBERNETES = "k8s.io"


class ContainerdNode:
    """The containerd of this node: where its store is, and its layers.

    ``root`` is native. ``namespace`` is the one that the task names, ``""`` for
    all. Raises as ``discovery.find``, and FailedPrecondition for a snapshotter
    whose layers are not directories.
    """

    def __init__(
        self, options: discovery.Options, namespace: str, layers: LayerStore, *, dry_run: bool = False
    ) -> None:
        self.found = discovery.find(options)
        if self.found.configuration.is_ambiguous:
            self.found = discovery.find(options, _ask_release(self.found.address.value))
        self.snapshotter = self.found.snapshotter.value
        if self.snapshotter in discovery.NOT_MANAGED:
            raise FailedPrecondition(
                f"the snapshotter {self.snapshotter} ({self.found.snapshotter.source}) is not managed: its layers are "
                "files of images, not directories; to work with another snapshotter of this node, set the option "
                "snapshotter"
            )
        plugin = self.found.configuration.proxy_plugins.get(self.snapshotter)
        #: The proxy plugin that is the snapshotter, None if it is one of containerd's own.
        self.proxy = plugin if plugin is not None and is_snapshotter(plugin) else None
        self.namespace = namespace
        self.layers = layers
        self.dry_run = dry_run
        self.root = layers.native(self.found.root.value)
        self.warnings: List[str] = list(self.found.notes)
        if self.proxy:
            self.warnings.append(
                f"the snapshotter {self.snapshotter} ({self.found.snapshotter.source}) is a proxy plugin: its records "
                "and layers are not in containerd's root, and no check compares them with containerd's. With store: "
                "own, tasks work on a store that the collection serves; the option snapshotter selects another one"
            )

    def close(self) -> None:
        """Do nothing: each reading opens and closes the databases."""

    def read(self, *, may_be_unused: bool = False) -> Picture:
        """Read the store. Raises as ``read_picture``, and NotFound for an unknown namespace.

        Raises NotFound, too, if only other snapshotters have snapshots, unless this one ``may_be_unused`` so far.
        """
        picture = read_picture(self.root, self.snapshotter)
        namespaces = picture.metadata.namespaces
        if self.namespace and self.namespace not in namespaces:
            raise NotFound(
                f"containerd has no namespace {self.namespace!r}; it has {_listed(namespaces)}. Set the option "
                "namespace to one of them, or leave it out for all",
                namespace=self.namespace,
            )
        snapshotters = {name for namespace in namespaces.values() for name in namespace.snapshots}
        is_unused = self.snapshotter not in snapshotters and not picture.store.records
        if snapshotters and is_unused and not may_be_unused:
            raise NotFound(
                f"the snapshotter {self.snapshotter} ({self.found.snapshotter.source}) has no snapshots in "
                f"{self.layers.display_path(self.root)}; those with snapshots are {_listed(snapshotters)}. Set the "
                "option snapshotter",
                snapshotter=self.snapshotter,
            )
        return picture

    def one_namespace(self, picture: Picture) -> str:
        """Return the namespace in which a task works that changes something.

        That is the one of the task, else Kubernetes' if it exists or if there is
        none at all, else the only one. Raises InvalidArgument if several remain.
        """
        namespaces = picture.metadata.namespaces
        if self.namespace:
            return self.namespace
        if KUBERNETES in namespaces or not namespaces:
            return KUBERNETES
        if len(namespaces) == 1:
            return next(iter(namespaces))
        raise InvalidArgument(
            f"containerd has several namespaces: {_listed(namespaces)}. Select one with the option namespace"
        )

    def connect(self, namespace: str) -> Client:
        """Return a client of the running containerd, to which it has connected. The caller closes it.

        Raises FailedPrecondition if containerd does not run, and as ``client.Client.version``.
        """
        client = Client(connect(self.found.address.value, namespace))
        try:
            client.version()
        except NotListening as error:
            client.close()
            what = f" ({self.found.program})" if self.found.program else ""
            raise FailedPrecondition(
                f"containerd{what} does not answer at {self.found.address.value}, and this task works through its API: "
                f"{error.message}. Start containerd, or correct the option address; snapshot_info and store_check also "
                "work while it is stopped",
                address=self.found.address.value,
            ) from None
        except BaseException:
            client.close()
            raise
        return client

    def describe(self, picture: Picture) -> Dict[str, Any]:
        """Return where the store is, for the result of a task; ``sources`` has where each value was found."""
        values = {name: getattr(self.found, name) for name in ("root", "address", "snapshotter")}
        return {
            **{name: value.value for name, value in values.items()},
            "namespaces": sorted(picture.metadata.namespaces),
            "sources": {name: value.source for name, value in values.items()},
            "running": picture.is_running,
            "program": self.found.program,
        }


def _ask_release(address: str) -> str:
    """Return the version of the containerd at an address, ``""`` if it does not answer."""
    try:
        with Client(connect(address, KUBERNETES)) as client:
            return client.version().version
    except SnapshotterError:
        return ""


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
