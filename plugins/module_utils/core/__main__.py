# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m core < request.json``: the door for tests and for administrators on a node."""

from __future__ import annotations

import sys

from .dispatch import MAXIMUM_REQUEST, serve

if __name__ == "__main__":
    # One byte more than allowed is enough to see that it is too long.
    raise SystemExit(serve(sys.stdin.buffer.read(MAXIMUM_REQUEST + 1), None, sys.stdout.buffer))
