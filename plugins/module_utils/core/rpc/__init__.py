# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gRPC without libraries: nodes have only the standard library.

``protobuf``, ``hpack``, ``http2`` and ``grpc`` turn bytes into values and values into bytes. They do not open sockets
and do not wait. ``transport`` has the byte streams, ``link`` one connection of a client, and ``channel`` its calls.
"""
