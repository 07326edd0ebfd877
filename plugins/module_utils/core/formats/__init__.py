# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File formats: bytes in, values out.

Most modules work on bytes, streams or the ``LayerRoot`` interface. Two open
files themselves, because they read and write parts of large files: ``vhdx``
also makes its changes durable, and ``ociimage`` only reads.
"""
