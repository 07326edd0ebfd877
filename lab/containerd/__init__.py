# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The simulated containerd of a lab node, behind containerd's own interface.

Clients find the gRPC services of containerd 2.3 on a unix socket, and the files of containerd in its root directory:
both databases, which are bbolt files under bbolt's lock, layers and blobs. ``ctr`` works with it. docs/lab.md says how
to start it.

The path of a call::

    server                        gRPC, threads, status codes
    messages, calls               the tables of the API; namespace, lease, filters, field masks
    snapshots, images, leases ... one module for each service
    store, database, records      the databases, and the values in them
    snapshotter                   metadata.db and the layer directories
    collector                     what nothing needs any more is deleted

``node`` runs it as a process of a lab node, ``sample`` fills a new one, and ``damage`` damages it.

What it models: the entries of meta.db in front of the records of metadata.db, with two transactions where containerd
has two; leases, roots and references of the garbage collector; marks of the collector that are lost with the process;
links to children that the collector leaves behind; removal directories; a directory with the next id, which the next
Prepare takes over; ingests that are continued, shared or locked; containerd's sentences and status codes.

What it does not model:

* Tasks, sandboxes, events, streaming, transfer, CRI, ttrpc: no container runs, and no scratch is ever in use.
* Diff.Diff, PluginInfo, other snapshotters than ``windows``, proxy plugins, a configuration file, ``ctr``'s own state.
* Layers are emulated, with the limits of that layer store. A layer is only unpacked into an empty layer directory:
  where Windows mixes it with what a leftover directory has, this containerd refuses.
* Calls run one after the other. A commit writes the whole database, so thousands of snapshots are slow.
* Nothing is flushed to the disk: the data survives the end of the process, but not that of the machine.
* metadata.db has no list of free pages, as meta.db of containerd 2.
* The collector is due every half second, however long it takes. containerd plans it by its own pauses.
* The named pipe is a unix socket: no access rights of Windows, no pipe instances, buffers where a pipe has none.
"""
