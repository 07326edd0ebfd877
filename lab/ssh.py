# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh endpoint of a node: OpenSSH for Windows, whose default shell is cmd.exe or PowerShell.

One command of a client is one request: it has one line in the access log, and
faults count it as one. Each command gets its whole input and runs to its end
even if its client has gone, as programs on Windows do.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from pathlib import Path
from typing import Any

import asyncssh

from .access_log import AccessLog
from .encoded_command import EncodedCommand, decoded
from .faults import Fault, Faults
from .host import ADDRESS, USER, HostFiles
from .powershell import Unsupported
from .state import KNOWN_HOSTS, PRIVATE_KEY

#: The name in the access log.
KIND = "ssh"

#: The code page of a console, unless a client changes it.
_CODEC = "cp437"
_CHUNK = 1 << 16
_ALGORITHM = "ssh-ed25519"

_logger = logging.getLogger(__name__)

# It reports each connection and command.
logging.getLogger("asyncssh").setLevel(logging.ERROR)

#: For each shell, how ansible-core 2.17 selects UTF-8 before a command. The scripts here read and write ASCII.
CODE_PAGE = {"cmd": "chcp.com 65001 >nul 2>&1 && ", "powershell": "chcp.com 65001 > $null ; "}


class SshKeys:
    """New keys for one ``up``: the host key of all nodes, and the only key that they accept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._user_key = asyncssh.generate_private_key(_ALGORITHM)
        self.host_key = asyncssh.generate_private_key(_ALGORITHM)

    def accepts(self, key: asyncssh.SSHKey) -> bool:
        """Return True for the key that ``write`` gives to clients."""
        return key == self._user_key.convert_to_public()

    def write(self, ports: list[int]) -> None:
        """Write what clients need: their key, which only its owner can read, and the host key of each port."""
        path = self._directory / PRIVATE_KEY
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(self._user_key.export_private_key())
        host_key = self.host_key.export_public_key().decode("ascii").strip()
        lines = [f"[{ADDRESS}]:{port} {host_key}\n" for port in ports]
        (self._directory / KNOWN_HOSTS).write_text("".join(lines), encoding="ascii")


class SshEndpoint:
    """The listener of one node, and its commands. Call ``listen``, then ``close``."""

    def __init__(
        self,
        files: HostFiles,
        log: AccessLog,
        keys: SshKeys,
        shell: str,
        faults: Faults,
        latency: float = 0.0,
        spawn: float = 0.0,
    ) -> None:
        """``shell``: the default shell, ``cmd`` or ``powershell``. ``latency`` and ``spawn`` are as in Node."""
        self._files = files
        self._note = functools.partial(log.write, node=files.name)
        self._keys = keys
        self._shell = shell
        self._faults = faults
        self._delay = latency + spawn
        self._port = 0
        self._listener: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._connected = 0
        self._commands: set[EncodedCommand] = set()
        self._sessions: set[asyncio.Task[Any]] = set()
        self._outage: asyncio.Task[None] | None = None

    async def listen(self) -> int:
        """Accept connections, and return the port: a free one the first time, the same one later."""
        self._listener = await asyncssh.create_server(
            lambda: _Connection(self),
            ADDRESS,
            self._port,
            server_host_keys=[self._keys.host_key],
            process_factory=self._serve,
            encoding=None,
            allow_pty=False,
            agent_forwarding=False,
            x11_forwarding=False,
            compression_algs=None,
            backlog=256,
            reuse_address=True,
            server_version="OpenSSH_for_Windows_9.5",
        )
        self._port = self._listener.get_port()
        return self._port

    async def close(self) -> None:
        """Stop listening, drop all connections and end all commands."""
        if self._outage is not None:
            self._outage.cancel()
        self._hang_up()
        await self._end_commands()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def opened(self, connection: asyncssh.SSHServerConnection) -> int:
        """Keep a new connection, and return its number."""
        self._connections.add(connection)
        self._connected += 1
        return self._connected

    def closed(self, connection: asyncssh.SSHServerConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def accepts(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Return True for the account of the lab and its key. Windows ignores the case of a user name."""
        if user.casefold() == USER.casefold() and self._keys.accepts(key):
            return True
        self._note(action="rejected", shell=KIND)
        return False

    def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.abort()

    async def _end_commands(self) -> None:
        await asyncio.gather(*(command.running.stop() for command in list(self._commands)))

    async def _be_away(self, fault: Fault) -> None:
        """Refuse all connections for a while. The fault ``die`` also ends what runs on the node."""
        self._hang_up()
        if fault.kind == "die":
            await self._end_commands()
        await asyncio.sleep(fault.seconds)
        try:
            await self.listen()
        except OSError:
            _logger.exception("%s cannot listen again", self._files.name)

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run the command of one session."""
        session = asyncio.current_task()
        if session is not None:
            self._sessions.add(session)
            session.add_done_callback(self._sessions.discard)
        begun = time.monotonic()
        connection = process.get_extra_info("connection")
        fault = self._faults.next()
        log: dict[str, Any] = {"connection": process.get_extra_info("number"), "action": "Command", "shell": KIND}
        if fault is not None:
            log["injected"] = fault.kind
            if fault.kind in ("drop-before", "down", "die"):
                self._note(**{**log, "action": None}, received=0, sent=0, status=None, seconds=0.0)
                connection.abort()
                if fault.kind != "drop-before":
                    self._outage = asyncio.ensure_future(self._be_away(fault))
                return
        await asyncio.sleep(self._delay + (fault.seconds if fault is not None and fault.kind == "delay" else 0.0))
        line = process.command if process.command and not process.subsystem else ""
        if line.startswith("/"):  # A client that takes the node for a POSIX host.
            streams, code, size = {"stdout": b"", "stderr": _not_found(self._shell, line)}, 1, 0
        else:
            streams, code, size = await self._run(process, line)
        if fault is not None and fault.kind in ("drop-after", "cut"):
            kept = 0 if fault.kind == "drop-after" else len(streams["stdout"]) // 2
            streams = {"stdout": streams["stdout"][:kept], "stderr": b""}
        # The line is in the log before the client has its answer.
        self._note(
            **log,
            received=len(line) + size,
            sent=sum(map(len, streams.values())),
            status=code,
            seconds=round(time.monotonic() - begun, 6),
        )
        if fault is not None and fault.kind == "late":
            await asyncio.sleep(fault.seconds)
        if process.is_closing():
            return  # The client has gone.
        process.stdout.write(streams["stdout"])
        process.stderr.write(streams["stderr"])
        if fault is not None and fault.kind in ("drop-after", "cut"):
            connection.abort()
        else:
            process.exit(code)

    async def _run(self, process: asyncssh.SSHServerProcess[bytes], line: str) -> tuple[dict[str, bytes], int, int]:
        """Run a command line with the input of a session. Return its output, exit code, and the size of its input."""
        command = EncodedCommand(self._files, self._note, KIND, line, codec=_CODEC, to_script=self._script_of)
        self._commands.add(command)
        feeder = asyncio.ensure_future(_feed(process, command))
        try:
            streams = await _output_of(command)
        finally:
            self._commands.discard(command)
            feeder.cancel()
        return streams, self._exit_code(command), await feeder

    def _script_of(self, line: str) -> str:
        """Return the script of a command line. The default shell PowerShell is given any other line as a script."""
        if not line:
            raise Unsupported("lab node: over ssh, only commands are supported: no terminal, no file transfer.")
        line = line.removeprefix(CODE_PAGE[self._shell])
        try:
            return decoded(line)
        except Unsupported:
            if self._shell == "powershell" and not line.lower().startswith("powershell"):
                return line
            raise

    def _exit_code(self, command: EncodedCommand) -> int:
        """Return the exit code of the default shell.

        cmd.exe passes on that of its program. PowerShell with ``-c`` ends with
        0 or 1, unless the line itself has ``exit``.
        """
        code = command.output.exit_code
        if code is None:
            return 1  # The command was killed.
        return code if self._shell == "cmd" else int(code != 0)


class _Connection(asyncssh.SSHServer):
    """One connection. The only way in is the key."""

    def __init__(self, endpoint: SshEndpoint) -> None:
        self._endpoint = endpoint
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        conn.set_extra_info(number=self._endpoint.opened(conn))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._endpoint.closed(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._endpoint.accepts(username, key)


def _not_found(shell: str, line: str) -> bytes:
    """Return the words of a default shell for a program that Windows does not have."""
    if shell == "cmd":
        return b"The system cannot find the path specified.\r\n"
    program = line.split(maxsplit=1)[0]
    return (
        f"{program} : The term '{program}' is not recognized as the name of a cmdlet, function, script file, or "
        "operable program. Check the spelling of the name, or if a path was included, verify that the path is correct "
        f"and try again.\r\n    + CategoryInfo          : ObjectNotFound: ({program}:String) [], "
        "CommandNotFoundException\r\n    + FullyQualifiedErrorId : CommandNotFoundException\r\n"
    ).encode(_CODEC, "replace")


async def _feed(process: asyncssh.SSHServerProcess[bytes], command: EncodedCommand) -> int:
    """Pass on the input of a session until it ends, also by a loss of the connection. Return its size in bytes."""
    size = 0
    try:
        while chunk := await process.stdin.read(_CHUNK):
            size += len(chunk)
            if not command.output.finished:
                command.feed(chunk, end=False)
    except (asyncssh.Error, asyncssh.BreakReceived, OSError):
        pass  # The client has gone.
    except asyncio.CancelledError:
        return size  # The command has ended, and leaves its input unread.
    if not command.output.finished:
        command.feed(b"", end=True)
    return size


async def _output_of(command: EncodedCommand) -> dict[str, bytes]:
    """Wait for the end of a command, and return all of its output."""
    pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    while not command.output.exhausted:
        for stream, data in await command.output.take(_CHUNK, timeout=60.0) or ():
            pieces[stream].append(data)
    return {stream: b"".join(parts) for stream, parts in pieces.items()}
