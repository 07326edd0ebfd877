# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m lab``: starts, shows, disturbs and stops lab nodes. See docs/lab.md."""

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
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import faults, inventory, package, sample, server, state
from .authentication import SCHEMES
from .containerd.node import ADDRESS as CONTAINERD_ADDRESS
from .containerd.node import DAMAGES, Failure, NodeContainerd
from .host import ADDRESS, USER

_MAX_NODES = 64
#: Seconds in which a new lab has to answer.
_PATIENCE = 30.0


#: What ``break`` does without damaging the store.
_SWITCHES = {
    "stopped": "containerd does not run, until started",
    "started": "containerd runs again",
}


class _Failure(Exception):
    """A command fails. The message is for the user."""


def main(arguments: list[str]) -> int:
    """Run one command. Returns 0 on success, 1 on failure, 2 for a wrong command line, 3 if status finds no lab."""
    if arguments == ["serve"]:  # The background process of up.
        return server.main()
    options = _parser().parse_args(arguments)
    try:
        if options.command == "package":
            digest = package.write_package(Path(options.file), options.version)
            print(f"{options.file} reports itself as Python {options.version}. SHA-256: {digest}")
            return 0
        if options.command == "layer":
            digest, diff_id = sample.write_layer(Path(options.file))
            print(f"{options.file} is a base layer of a few files, gzipped. SHA-256: {digest}")
            print(f"For option digest of the module layer (the digest of the plain tar): sha256:{diff_id}")
            return 0
        directory = Path(options.directory).absolute()
        if options.command == "up":
            return _up(directory, options)
        if options.command == "status":
            return _status(directory)
        if options.command == "fault":
            return _fault(directory, options)
        if options.command == "break":
            return _break(directory, options)
        return _down(directory, options.purge)
    except (_Failure, Failure, OSError) as failure:
        print(f"lab: {failure}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Loopback stand-ins for Windows hosts.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a lab in the background and write its inventory")
    up.add_argument(
        "--nodes", type=_count, default=3, metavar="N", help=f"number of nodes, 1 to {_MAX_NODES} (default 3)"
    )
    up.add_argument(
        "--connection",
        type=_list_of(state.CONNECTIONS),
        default=("psrp", "psrp", "winrm"),
        metavar="LIST",
        help=f"connections of the nodes, in turn: {', '.join(state.CONNECTIONS)} (default psrp,psrp,winrm)",
    )
    up.add_argument(
        "--auth",
        type=_list_of(SCHEMES),
        default=("basic",),
        metavar="LIST",
        help="authentication: basic, ntlm, or basic,ntlm (default basic)",
    )
    up.add_argument("--tls", action="store_true", help="use HTTPS, with a certificate authority for this lab")
    up.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="S", help="delay of each answer in seconds (default 0)"
    )
    up.add_argument(
        "--spawn", type=_seconds, default=0.0, metavar="S", help="extra delay of a new shell in seconds (default 0)"
    )
    up.add_argument(
        "--python",
        type=_program,
        default=sys.executable,
        metavar="PATH",
        help="the Python of the nodes (default: this one)",
    )
    up.add_argument("--without-python", action="store_true", help="nodes have no Python")
    up.add_argument("--containerd", action="store_true", help="nodes have a simulated containerd")
    status = commands.add_parser("status", help="show whether the lab is up; exit code 3 if it is not")
    down = commands.add_parser("down", help="stop the lab; the files of the nodes stay")
    down.add_argument("--purge", action="store_true", help="also delete the files of the nodes and the logs")
    fault = commands.add_parser(
        "fault",
        help="make one request of a node fail",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {kind:12}{meaning}" for kind, meaning in faults.KINDS.items()),
    )
    fault.add_argument("node", help="the node, for example node1")
    fault.add_argument(
        "--kind",
        choices=[*faults.KINDS, "none"],
        required=True,
        help="see below; none removes a fault that has not happened yet",
    )
    fault.add_argument(
        "--at", type=_position, default=1, metavar="K", help="the Kth request of the node from now on (default 1)"
    )
    fault.add_argument(
        "--seconds", type=_seconds, default=1.0, metavar="S", help="length of delay, late, down and die (default 1)"
    )
    damages = {**DAMAGES, **_SWITCHES}
    damage = commands.add_parser(
        "break",
        help="damage or stop the containerd of a node",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {kind:16}{meaning}" for kind, meaning in damages.items()),
    )
    damage.add_argument("node", help="the node, for example node1")
    damage.add_argument("kind", choices=list(damages), help="see below")
    layer = commands.add_parser("layer", help="write a small base layer that playbooks can import")
    layer.add_argument("file", help="the gzipped tar to write")
    runtime = commands.add_parser("package", help="write a stand-in for a Python package that lab nodes can install")
    runtime.add_argument("file", help="the zip to write")
    runtime.add_argument(
        "--version",
        type=_version,
        default=platform.python_version(),
        help="the version that it reports (default: that of this Python)",
    )
    for command in (up, status, down, fault, damage):
        command.add_argument("--directory", default=".lab", help="the directory of the lab (default .lab)")
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
        raise argparse.ArgumentTypeError(f"{text!r} is not an executable file")
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
        containerd=options.containerd,
    )
    _start(directory, configuration)
    running, _settings = state.read(directory)
    if running is None:
        raise _Failure(f"the lab ended right after its start; see {directory / state.SERVER_LOG}")
    path = inventory.write(directory, running, configuration.password)
    silent = [node.name for node in running.nodes if not _answers(directory, running, node)]
    if silent:
        state.stop(directory)
        raise _Failure(
            f"{', '.join(silent)} did not answer, so the lab was stopped; see {directory / state.SERVER_LOG}"
        )
    print(f"The lab is up: {len(running.nodes)} nodes in {directory}, authentication {' or '.join(running.auth)}.")
    for node in running.nodes:
        print(_described(directory, running, node))
    if options.containerd:
        print(
            rf"Each node has a containerd: {CONTAINERD_ADDRESS} is {_shown(directory)}/NODE/pipe/containerd-containerd"
        )
    print(f"Use it:  ansible-playbook -i {_shown(path)} PLAYBOOK      (the group is called windows)")
    print(f"Watch:   tail -f {_shown(directory / state.ACCESS_LOG)}")
    print(f"Stop it: {_command('down', directory)}")
    return 0


def _start(directory: Path, configuration: server.Configuration) -> None:
    """Start the background process, and wait until it listens. Raises _Failure."""
    with (directory / state.SERVER_LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "serve"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    with process.stdin as configured, process.stdout as answer:  # type: ignore[union-attr]  # both are pipes
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
    message = json.loads(line or b'{"error": "it did not answer"}')
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
        print(f"{options.node} has no fault waiting.")
    else:
        faults.arm(directory / options.node, faults.Fault(options.kind, options.at, options.seconds))
        print(f"With request {options.at} of {options.node} from now on: {faults.KINDS[options.kind]}.")
    return 0


def _break(directory: Path, options: argparse.Namespace) -> int:
    containerd = NodeContainerd(directory / options.node)
    if not containerd.exists():
        raise _Failure(
            f"{options.node} in {directory} has no containerd; "
            f"start the lab with: {_command('up', directory)} --containerd"
        )
    is_running = state.read(directory)[1]
    if options.kind == "started":
        containerd.switch_on(wait=is_running)
        print(f"containerd of {options.node} runs." if is_running else f"containerd of {options.node} runs from up on.")
        return 0
    was_stopped = containerd.is_stopped()
    containerd.switch_off()
    if options.kind == "stopped":
        print(f"containerd of {options.node} is stopped. Start it with: python -m lab break {options.node} started")
        return 0
    try:
        print(containerd.damage(options.kind))
    finally:
        if not was_stopped:
            containerd.switch_on(wait=is_running)
    return 0


def _down(directory: Path, purge: bool) -> int:
    stopped = state.stop(directory)
    print("The lab is down." if stopped else f"No lab was running in {directory}.")
    if purge:
        state.purge(directory)
    return 0


def _described(directory: Path, current: state.State, node: state.NodeState) -> str:
    url = f"{'https' if current.tls else 'http'}://{ADDRESS}:{node.port}/wsman"
    if node.connection in state.SSH_CONNECTIONS:
        url = f"ssh://{USER}@{ADDRESS}:{node.port}"
    width = max(5, *(len(known.connection) for known in current.nodes)) + 2
    return f"  {node.name:8}{node.connection:{width}}{url:32}  C: is {_shown(directory / node.name / 'C')}"


def _answers(directory: Path, current: state.State, node: state.NodeState) -> bool:
    """Return True if the node answers a request without credentials by 401, or begins to speak ssh."""
    if node.connection in state.SSH_CONNECTIONS:
        try:
            with socket.create_connection((ADDRESS, node.port), _PATIENCE) as begun:
                return begun.recv(8) == b"SSH-2.0-"
        except OSError:
            return False
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
    """Return a path, relative to the current directory if it is inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _command(name: str, directory: Path) -> str:
    """Return a command line of this program for the same directory."""
    elsewhere = "" if directory == Path(".lab").absolute() else f" --directory {_shown(directory)}"
    return f"python -m lab {name}{elsewhere}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
