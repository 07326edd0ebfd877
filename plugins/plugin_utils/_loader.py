# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader: runs first on the node, finds the payload, verifies it and runs it.

FOR INTERNAL USE OF THE COLLECTION ONLY. Nothing here runs on the controller:
``_call`` sends the text of ``load`` with each task, and that of ``receive``
to a node that lacks the payload. Each task pays for the text of ``load`` on
the wire, so ``load`` is terse and the controller words the messages. It must
compile on any Python 3, because it reports a Python that is too old.

Both functions execute the bytes that they hashed, and never open the file a
second time. ``digest`` is the SHA-256 of the payload. ``start`` and ``end``
delimit the source of boot.py in it. ``path`` is the payload's place in the
cache; ``~`` and ``$NAME`` in it are expanded.

Both end the process with ``os._exit``: the reply is flushed by then, and the
end of the process follows it at once. WinRM then sends both in one response.
"""

from __future__ import annotations


def load(path: str, digest: str, start: int, end: int) -> None:
    """Run the payload from the cache and exit with its exit code.

    Standard input holds the request in one line, then its attachment.
    Without an intact payload the answer has ``need_payload``, which is 0 if
    there is no file, else the size of a damaged or altered file, and
    ``python``, the version of this Python (``sys.hexversion``).
    """
    import hashlib
    import os
    import sys

    path = os.path.expandvars(os.path.expanduser(path))
    try:
        # Opening a named pipe would wait for its other end.
        data = (os.path.isfile(path) and open(path, "rb").read()) or b""
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() == digest and sys.hexversion > 0x3090000:
        boot: dict = {}  # type: ignore[type-arg]  # an import of typing takes time
        exec(data[start:end], boot)  # noqa: S102 - the digest has proved the source
        os._exit(boot["run"](path, data))
    sys.stdout.write(f'{{"protocol":1,"need_payload":{len(data)},"python":{sys.hexversion}}}')


def receive(path: str, digest: str, start: int, end: int, count: int) -> None:
    """Run a payload that arrives on standard input ahead of the request: compressed, in ``count`` lines of base64.

    The answer has ``need_payload`` again if the received bytes are not the payload.
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
        boot: dict = {}  # type: ignore[type-arg]  # an import of typing takes time
        exec(data[start:end], boot)  # noqa: S102 - the digest has proved the source
        boot["keep"](path, data)
        os._exit(boot["run"](path, data))
    sys.stdout.write(f'{{"protocol":1,"need_payload":{len(data)},"python":{sys.hexversion}}}')
