# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs first on the node: finds the payload, verifies it, hands over to it.

FOR INTERNAL USE OF THE COLLECTION ONLY. Nothing here runs on the controller:
``_call`` sends the text of ``load`` with each task, and that of ``receive``
to a node that lacks the payload. The first is paid for on the wire each time,
so it is terse and the controller words what the user reads; and it must
compile on any Python 3 in order to say that a Python is too old.

Both execute the very bytes that they hashed, never a file that they would
have to open a second time. ``digest`` is the SHA-256 of the payload,
``start`` and ``end`` delimit the source of boot.py in it, and ``path`` is the
payload's place in the cache, in which ``~`` and ``$NAME`` are expanded.
"""

from __future__ import annotations


def load(path: str, digest: str, start: int, end: int) -> None:
    """Run the payload from the cache; its exit code ends the process.

    Standard input holds the request in one line, then what it attaches.
    Without an intact payload the answer is ``need_payload``: 0 if there is no
    file, else the size of one that was damaged or tampered with; and
    ``python``, the version of this Python (``sys.hexversion``).
    """
    import hashlib
    import os
    import sys

    path = os.path.expandvars(os.path.expanduser(path))
    try:
        data = open(path, "rb").read()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() == digest and sys.hexversion > 0x3090000:
        boot: dict = {}  # type: ignore[type-arg]
        exec(data[start:end], boot)  # noqa: S102
        sys.exit(boot["run"](path, data))
    sys.stdout.write(f'{{"protocol":1,"need_payload":{len(data)},"python":{sys.hexversion}}}')


def receive(path: str, digest: str, start: int, end: int, count: int) -> None:
    """Run a payload that arrives, compressed, in ``count`` lines of base64 on standard input, ahead of the request.

    The answer is ``need_payload`` again if what arrived is not the payload.
    """
    import base64
    import hashlib
    import os
    import sys
    import zlib

    path = os.path.expandvars(os.path.expanduser(path))
    try:
        data = zlib.decompress(b"".join(base64.b64decode(sys.stdin.buffer.readline()) for _line in range(count)))
    except (ValueError, zlib.error):
        data = b""
    if hashlib.sha256(data).hexdigest() == digest:
        boot: dict = {}  # type: ignore[type-arg]
        exec(data[start:end], boot)  # noqa: S102
        boot["keep"](path, data)
        sys.exit(boot["run"](path, data))
    sys.stdout.write(f'{{"protocol":1,"need_payload":{len(data)},"python":{sys.hexversion}}}')
