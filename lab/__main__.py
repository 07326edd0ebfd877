# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m lab``: start, look at, disturb and stop loopback nodes. See docs/lab.md."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import platform
import re
import secrets
import select
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import faults, inventory, package, sample, server, state
from .authentication import SCHEMES
from .host import ADDRESS

_CONNECTIONS = ("psrp", "winrm")
_MAX_NODES = 64
#: Seconds that a new lab may take until it answers.
_PATIENCE = 30.0


class _Failure(Exception):
    """Why a command cannot do what it was asked for, for the person who asked."""


def main(arguments: list[str]) -> int:
    """Run one command. 0 is success, 1 a failure, 2 a wrong command line, 3 (status) a lab that is down."""
    if arguments == ["serve"]:  # What up starts in the background.
        return server.main()
    options = _parser().parse_args(arguments)
    try:
        if options.command == "package":
            digest = package.write_package(Path(options.file), options.version)
            print(f"{options.file} says that it is Python {options.version}. SHA-256: {digest}")
            return 0
        if options.command == "layer":
            sample.write_layer(Path(options.file))
            return 0
        directory = Path(options.directory).absolute()
        if options.command == "up":
            return _up(directory, options)
        if options.command == "status":
            return _status(directory)
        if options.command == "fault":
            return _fault(directory, options)
        return _down(directory, options.purge)
    except (_Failure, OSError) as failure:
        print(f"lab: {failure}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Loopback stand-ins for Windows hosts.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a lab in the background and write its inventory")
    up.add_argument(
        "--nodes", type=_count, default=3, metavar="N", help=f"how many nodes, 1 to {_MAX_NODES} (default 3)"
    )
    up.add_argument(
        "--connection",
        type=_list_of(_CONNECTIONS),
        default=("psrp", "psrp", "winrm"),
        metavar="LIST",
        help="connections, dealt out to the nodes in turn (default psrp,psrp,winrm)",
    )
    up.add_argument(
        "--auth",
        type=_list_of(SCHEMES),
        default=("basic",),
        metavar="LIST",
        help="what nodes accept: basic, ntlm, or basic,ntlm (default basic)",
    )
    up.add_argument("--tls", action="store_true", help="HTTPS, with a certificate authority of the lab's own")
    up.add_argument("--latency", type=_seconds, default=0.0, metavar="S", help="seconds before each answer (default 0)")
    up.add_argument(
        "--spawn", type=_seconds, default=0.0, metavar="S", help="seconds that a new shell takes (default 0)"
    )
    up.add_argument(
        "--python",
        type=_program,
        default=sys.executable,
        metavar="PATH",
        help="what nodes run as Python (default this)",
    )
    up.add_argument("--without-python", action="store_true", help="nodes have no Python")
    status = commands.add_parser("status", help="say whether the lab is up; exit code 3 if it is not")
    down = commands.add_parser("down", help="stop the lab; the nodes' files stay")
    down.add_argument("--purge", action="store_true", help="delete the nodes' files and the logs too")
    fault = commands.add_parser(
        "fault",
        help="let something go wrong with one request of a node, once",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {kind:12}{meaning}" for kind, meaning in faults.KINDS.items()),
    )
    fault.add_argument("node", help="which node, for example node1")
    fault.add_argument(
        "--kind", choices=[*faults.KINDS, "none"], required=True, help="see below; none takes back the last wish"
    )
    fault.add_argument(
        "--at", type=_position, default=1, metavar="K", help="with the node's Kth request from now on (default 1)"
    )
    fault.add_argument(
        "--seconds", type=_seconds, default=1.0, metavar="S", help="for delay, late, down and die (default 1)"
    )
    layer = commands.add_parser("layer", help="write a small base layer, for playbooks that want one to import")
    layer.add_argument("file", help="the gzipped tar to write")
    runtime = commands.add_parser(
        "package", help="write a Python for lab nodes, for playbooks that want one to install"
    )
    runtime.add_argument("file", help="the zip to write")
    runtime.add_argument(
        "--version", type=_version, default=platform.python_version(), help="what it claims to be (default: this)"
    )
    for command in (up, status, down, fault):
        command.add_argument("--directory", default=".lab", help="where the lab keeps its files (default .lab)")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_NODES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MAX_NODES}")
    return int(text)


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 60")
    return value


def _version(text: str) -> str:
    if not re.fullmatch(r"3\.[0-9]{1,2}\.[0-9]{1,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version such as 3.12.10")
    return text


def _program(text: str) -> str:
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a program")
    return os.path.abspath(text)


def _list_of(choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        values = tuple(text.split(","))
        for value in values:
            if value not in choices:
                raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(choices)}")
        return values

    return parse


def _up(directory: Path, options: argparse.Namespace) -> int:
    if state.read(directory)[1]:
        raise _Failure(f"a lab is already running in {directory}; stop it with: {_command('down', directory)}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / state.STATE).exists():
        raise _Failure(f"{directory} is not empty and is not the directory of a lab; choose another --directory")
    configuration = server.Configuration(
        directory=str(directory),
        connections=tuple(itertools.islice(itertools.cycle(options.connection), options.nodes)),
        auth=options.auth,
        tls=options.tls,
        latency=options.latency,
        spawn=options.spawn,
        with_python=not options.without_python,
        interpreter=options.python,
        password=secrets.token_urlsafe(18),
    )
    _start(directory, configuration)
    running, _ = state.read(directory)
    if running is None:
        raise _Failure(f"the lab has ended at once, see {directory / state.SERVER_LOG}")
    path = inventory.write(directory, running, configuration.password)
    silent = [node.name for node in running.nodes if not _answers(directory, running, node)]
    if silent:
        state.stop(directory)
        raise _Failure(f"no answer from {', '.join(silent)}, see {directory / state.SERVER_LOG}")
    print(f"The lab is up: {len(running.nodes)} nodes in {directory}, authentication {' or '.join(running.auth)}.")
    for node in running.nodes:
        print(_described(directory, running, node))
    print(f"Use it:  ansible-playbook -i {_shown(path)} PLAYBOOK      (the group is called windows)")
    print(f"Watch:   tail -f {_shown(directory / state.ACCESS_LOG)}")
    print(f"Stop it: {_command('down', directory)}")
    return 0


def _start(directory: Path, configuration: server.Configuration) -> None:
    """Start the background process, and wait until it says that it listens, or why it does not."""
    with (directory / state.SERVER_LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "serve"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    with process.stdin as configured, process.stdout as answer:  # type: ignore[union-attr]
        try:
            configured.write(json.dumps(configuration._asdict()).encode())
            configured.close()
            heard = select.select([answer], [], [], _PATIENCE)[0]
        except BaseException:
            process.kill()
            raise
        line = answer.readline() if heard else b""
    if not line:
        process.kill()
    message = json.loads(line or b'{"error": "it gave no answer"}')
    if "error" in message:
        process.wait()
        raise _Failure(f"the lab did not start: {message['error']} (see {directory / state.SERVER_LOG})")


def _status(directory: Path) -> int:
    current, running = state.read(directory)
    if not running or current is None:
        print(f"No lab is running in {directory}. Start one with: {_command('up', directory)}")
        return 3
    print(f"The lab is up: process {current.pid}, inventory {_shown(directory / state.INVENTORY)}.")
    for node in current.nodes:
        answers = _answers(directory, current, node)
        print(_described(directory, current, node), "" if answers else "  DOES NOT ANSWER", sep="")
    return 0


def _fault(directory: Path, options: argparse.Namespace) -> int:
    current, running = state.read(directory)
    if not running or current is None:
        raise _Failure(f"no lab is running in {directory}; start one with: {_command('up', directory)}")
    names = [node.name for node in current.nodes]
    if options.node not in names:
        raise _Failure(f"the lab has no node {options.node!r}; it has {', '.join(names)}")
    if options.kind == "none":
        faults.arm(directory / options.node, None)
        print(f"{options.node} is asked for no fault.")
    else:
        faults.arm(directory / options.node, faults.Fault(options.kind, options.at, options.seconds))
        print(f"With request {options.at} of {options.node} from now on: {faults.KINDS[options.kind]}.")
    return 0


def _down(directory: Path, purge: bool) -> int:
    stopped = state.stop(directory)
    print("The lab is down." if stopped else f"No lab was running in {directory}.")
    if purge:
        state.purge(directory)
    return 0


def _described(directory: Path, current: state.State, node: state.NodeState) -> str:
    url = f"{'https' if current.tls else 'http'}://{ADDRESS}:{node.port}/wsman"
    return f"  {node.name:8}{node.connection:7}{url:32}  C: is {_shown(directory / node.name / 'C')}"


def _answers(directory: Path, current: state.State, node: state.NodeState) -> bool:
    """Whether the node asks a stranger for credentials."""
    connection: http.client.HTTPConnection
    if current.tls:
        context = ssl.create_default_context(cafile=directory / state.AUTHORITY)
        connection = http.client.HTTPSConnection(ADDRESS, node.port, timeout=_PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection(ADDRESS, node.port, timeout=_PATIENCE)
    try:
        connection.request("POST", "/wsman")
        return connection.getresponse().status == 401
    except OSError:
        return False
    finally:
        connection.close()


def _shown(path: Path) -> str:
    """A path as a person would write it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _command(name: str, directory: Path) -> str:
    """A command line of this program that means the same directory."""
    elsewhere = "" if directory == Path(".lab").absolute() else f" --directory {_shown(directory)}"
    return f"python -m lab {name}{elsewhere}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
