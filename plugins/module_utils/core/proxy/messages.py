# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods that the proxy snapshotter serves besides containerd's, as ``containerd/messages`` has those."""

from __future__ import annotations

from ..containerd.messages import EMPTY, Method
from ..rpc.protobuf import INTEGER, TEXT, Field, Schema

#: Values of ``status`` in an answer of grpc.health.v1.Health/Check.
SERVING = 1
NOT_SERVING = 2

_HEALTH_REQUEST: Schema = {"service": Field(1, TEXT)}
_HEALTH_ANSWER: Schema = {"status": Field(1, INTEGER)}

#: What ``Snapshotter/Health`` answers. Times are in milliseconds.
HEALTH: Schema = {
    #: The version of the collection, empty if it was started without one.
    "version": Field(1, TEXT),
    "uptime": Field(2, INTEGER),
    #: How many calls have ended, and how many of them by a fault of the store or the host.
    "calls": Field(3, INTEGER),
    "errors": Field(4, INTEGER),
    "last_error": Field(5, TEXT),
    #: The call that took longest.
    "slowest_method": Field(6, TEXT),
    "slowest_time": Field(7, INTEGER),
    #: How many calls run now, and how many layers of removed snapshots wait to be destroyed.
    "running": Field(8, INTEGER),
    "pending_removals": Field(9, INTEGER),
    "process": Field(10, INTEGER),
    "root": Field(11, TEXT),
}

CHECK = Method("/grpc.health.v1.Health/Check", _HEALTH_REQUEST, _HEALTH_ANSWER)
GET_HEALTH = Method("/wcow.snapshotter.v1.Snapshotter/Health", EMPTY, HEALTH)
