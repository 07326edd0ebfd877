# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the ssh endpoint with the client of asyncssh. tests/integration/test_ssh.py has Ansible's ssh."""

from __future__ import annotations

import asyncio
import base64
import time

import asyncssh
import pytest

PYTHON = "'C:\\Program Files\\wcow\\python\\python.exe'"
ECHO = f"$input | & {PYTHON} -c 'import sys;sys.stdout.write(sys.stdin.read())'"
SHELLS = ("cmd", "powershell")


def encoded(script):
    text = base64.b64encode(script.encode("utf-16-le")).decode()
    return f"powershell.exe -NoProfile -NonInteractive -EncodedCommand {text}"


@pytest.fixture(params=SHELLS)
def shell(request):
    return request.param


@pytest.fixture
def lab(start_lab, shell):
    return start_lab(connections=(f"ssh-{shell}",))


def connect(lab, **options):
    return asyncssh.connect(
        "127.0.0.1",
        lab.port,
        **{
            "username": "Administrator",
            "client_keys": [str(lab.directory / "id_ed25519")],
            "known_hosts": str(lab.directory / "known_hosts"),
            "config": None,
            **options,
        },
    )


def run(lab, command, data=b"", **options):
    """Run a command; return its standard output, its standard error and its exit code."""

    async def session():
        async with connect(lab, **options) as connection:
            done = await connection.run(command, input=data, encoding=None)
            return done.stdout, done.stderr, done.returncode

    return asyncio.run(session())


def test_input_output_and_exit_code(lab, shell):
    output, errors, code = run(lab, encoded(f"{ECHO}\nexit 7"), b"one\r\ntwo\n")
    # PowerShell reports only the success of its last command.
    assert (output, errors, code) == (b"one\r\ntwo\r\n", b"", 7 if shell == "cmd" else 1)
    assert run(lab, encoded("exit 0"))[2] == 0


def test_much_input_and_output(lab):
    data = b"".join(b"%063d\n" % number for number in range(80_000))
    output, errors, code = run(lab, encoded(f"{ECHO}\nexit $LASTEXITCODE"), data)
    assert (output.replace(b"\r\n", b"\n") == data, errors, code) == (True, b"", 0)
    line = lab.log()[-1]
    assert line["received"] > len(data)
    assert line["sent"] == len(output)


def test_errors_of_powershell(lab):
    output, errors, code = run(lab, encoded(r"& 'C:\none.exe'"))
    assert (output, code) == (b"", 1)
    assert errors.startswith(b"#< CLIXML\r\n")
    assert b"CommandNotFoundException" in errors


def test_a_line_that_cmd_cannot_read(lab, shell):
    line = encoded("exit 0" + " " * 4000)
    assert run(lab, line)[1] == b"The command line is too long.\r\n"


def test_a_script_as_the_command_line(lab, shell):
    _output, errors, code = run(lab, f"& {PYTHON} -c 'print(6*7)'")
    assert (code == 0) is (shell == "powershell")
    assert (b"the only command line that is supported" in errors) is (shell == "cmd")


@pytest.mark.parametrize("options", [{"username": "guest"}, {"client_keys": None, "password": "x"}], ids=str)
def test_who_is_not_let_in(lab, options):
    with pytest.raises(asyncssh.PermissionDenied):
        run(lab, encoded("exit 0"), **options)


def test_no_terminal_and_no_file_transfer(lab):
    assert b"only commands are supported" in run(lab, None)[1]

    async def transfer():
        async with connect(lab) as connection, connection.start_sftp_client():
            pass

    with pytest.raises(asyncssh.Error):
        asyncio.run(transfer())


def test_a_program_goes_on_without_its_client(lab):
    mark = lab.drive / "Windows" / "Temp" / "mark"
    code = f"import sys,time;sys.stdin.read();time.sleep(0.5);open({str(mark)!r},{'w'!r})".replace("'", "''")
    mark.unlink(missing_ok=True)

    async def leave():
        async with connect(lab) as connection:
            await connection.create_process(encoded(f"$input | & {PYTHON} -c '{code}'"), encoding=None)
            await asyncio.sleep(0.3)
            connection.abort()

    asyncio.run(leave())
    deadline = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
