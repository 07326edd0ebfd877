# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start labs in a thread of the test process and connect real clients to them."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from pathlib import Path

import pypsrp.host
import pypsrp.powershell
import pypsrp.wsman
import pytest
import winrm.protocol

from lab.host import USER
from lab.server import Configuration, Server

# pyspnego reads its accounts from one environment variable, so all labs of a process share the password.
PASSWORD = "correct horse battery staple"


class LiveLab:
    """A running lab. Tests use only ``node1``, because every node accepts all connections."""

    def __init__(self, directory: Path, **options):
        defaults = {"connections": ("psrp",), "auth": ("basic",), "tls": False, "latency": 0.0, "spawn": 0.0}
        self.directory = directory
        self.configuration = Configuration(
            **{**defaults, "directory": str(directory), "with_python": True, "password": PASSWORD, **options}
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = Server(self.configuration)
        self.state = self.run(self.server.start())
        self.port = self.state.nodes[0].port

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self):
        self.run(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.directory / "access.jsonl").read_text().splitlines()]

    @property
    def drive(self) -> Path:
        return self.directory / "node1" / "C"

    def wsman(self, auth="basic", password=PASSWORD, **options) -> pypsrp.wsman.WSMan:
        tls = self.configuration.tls
        return pypsrp.wsman.WSMan(
            "127.0.0.1",
            port=self.port,
            username=USER,
            password=password,
            auth=auth,
            ssl=tls,
            cert_validation=str(self.directory / "ca.pem") if tls else True,
            no_proxy=True,
            **{"encryption": "never" if auth == "basic" and not tls else "auto", **options},
        )

    def psrp(self, script, lines=None, **options):
        """Run a script in a new pool; return its output, its error records and its exit code (None without exit)."""
        with self.wsman(**options) as connection, pypsrp.powershell.RunspacePool(connection, host=Host()) as pool:
            pipeline = pypsrp.powershell.PowerShell(pool)
            pipeline.add_script(script)
            output = pipeline.invoke(lines)
            return list(output), list(pipeline.streams.error), pool.host.exit_code

    def protocol(self, auth="basic", password=PASSWORD) -> winrm.protocol.Protocol:
        scheme = "https" if self.configuration.tls else "http"
        return winrm.protocol.Protocol(
            f"{scheme}://127.0.0.1:{self.port}/wsman",
            transport=auth,
            username=USER,
            password=password,
            proxy=None,
            ca_trust_path=str(self.directory / "ca.pem"),
        )

    def winrs(self, script, data=None, codepage=65001, **options):
        """Run a script in a new shell, as Ansible does; return stdout, stderr and the exit code."""
        protocol = self.protocol(**options)
        shell = protocol.open_shell(codepage=codepage)
        try:
            encoded = winrs_arguments(script)
            command = protocol.run_command(shell, "PowerShell", encoded, console_mode_stdin=data is None)
            chunks = [data[at : at + 200000] for at in range(0, len(data), 200000)] if data else []
            for number, chunk in enumerate(chunks, start=1):
                protocol.send_command_input(shell, command, chunk, end=number == len(chunks))
            result = protocol.get_command_output(shell, command)
            protocol.cleanup_command(shell, command)
            return result
        finally:
            protocol.close_shell(shell)


class Host(pypsrp.host.PSHost):
    """A PowerShell host that records the exit code."""

    def __init__(self):
        super().__init__(None, None, False, "test", None, None, None)
        self.exit_code = None

    def SetShouldExit(self, runspace, pipeline, code):  # noqa: N802, pypsrp calls this method by its name
        self.exit_code = code


def winrs_arguments(script):
    return ["-NoProfile", "-NonInteractive", "-EncodedCommand", base64.b64encode(script.encode("utf-16-le")).decode()]


@pytest.fixture(scope="session")
def start_lab(tmp_path_factory):
    """Return a function that starts a lab with the given options, or returns the lab that already has them."""
    labs: dict[str, LiveLab] = {}

    def start(**options):
        key = repr(sorted(options.items()))
        if key not in labs:
            labs[key] = LiveLab(tmp_path_factory.mktemp("lab"), **options)
        return labs[key]

    yield start
    for lab in labs.values():
        lab.close()


@pytest.fixture
def lab(start_lab):
    """The lab that most tests share. It uses Basic over HTTP."""
    return start_lab()
