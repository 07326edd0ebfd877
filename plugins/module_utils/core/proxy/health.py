# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the proxy snapshotter how it does."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional

from ..containerd.connection import opener
from ..errors import Internal, SnapshotterError, Unavailable
from ..rpc import protobuf
from ..rpc.channel import Channel
from .messages import GET_HEALTH

#: Seconds that an answer may take. It waits for nothing, so one is enough; a busy node gets more.
TIMEOUT = 5.0

# Seconds between two questions.
_PAUSE = 0.05


def ask(address: str, timeout: float = TIMEOUT) -> Dict[str, Any]:
    """Return the health of the proxy snapshotter at an address, as ``messages.HEALTH`` describes it.

    Raises Unavailable if it does not answer in time, InvalidArgument for an address that cannot be right, and as
    ``rpc.channel.Channel.unary`` if something else answers.
    """
    channel = Channel(opener(address), f"the proxy snapshotter at {address}")
    try:
        answer = channel.unary(GET_HEALTH.path, b"", timeout=timeout)
        return protobuf.decode(GET_HEALTH.answer, answer)
    except protobuf.DecodeError as error:
        raise Internal(f"the answer of {channel.server} cannot be decoded: {error}") from None
    finally:
        channel.close()


def wait_until_healthy(
    address: str, process: int, version: str, seconds: float, is_running: Callable[[], bool]
) -> Dict[str, Any]:
    """Return the health as soon as this process answers with this version.

    Another process can still have the address. Raises Unavailable with the reason if that does not happen within
    ``seconds``, or when ``is_running`` says that the process has ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        problem = ""
        found: Optional[Dict[str, Any]] = None
        try:
            found = ask(address, min(TIMEOUT, max(_PAUSE, deadline - time.monotonic())))
        except SnapshotterError as error:
            problem = error.message
        if found is not None:
            if found["process"] == process and found["version"] == version:
                return found
            problem = f"the process {found['process']} answers, with version {found['version'] or 'unknown'}"
        if not is_running():
            raise Unavailable(f"the process {process} has ended")
        if time.monotonic() >= deadline:
            raise Unavailable(f"no answer of the process {process} within {seconds:.0f} seconds: {problem}")
        time.sleep(_PAUSE)
