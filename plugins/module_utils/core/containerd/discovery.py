# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out how containerd runs on this node.

The service ``containerd`` is asked first, then the processes that run containerd.exe: RKE2, k0s and Docker start it
without a service. Flags of the command line count more than the configuration file, and that more than containerd's
defaults (cmd/containerd/command/main.go). A node without such a service or process has its configuration file in one of
the usual places, or none.
"""

from __future__ import annotations

import contextlib
import ntpath
import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, SnapshotterError
from ..formats import commandline
from ..layers.emulated import drives
from . import configuration, imports, programs

SERVICE = "containerd"
PROGRAM = "containerd.exe"

#: The built-in snapshotter of Windows, which is also CRI's default there.
SNAPSHOTTER = "windows"

#: Snapshotters of Windows whose layers are not directories.
NOT_MANAGED = ("blockcim", "cimfs")

_DEFAULT = "containerd's default"
_SERVICE_TITLE = f"service {SERVICE}"

# containerd reads nothing else from its command line that matters here.
_SHORT_FLAGS = {"a": "address", "c": "config", "l": "log-level"}
# With one of these, containerd does something else than to serve.
_COMMANDS = ("config", "h", "help", "oci-hook", "publish")
_OTHER_FLAGS = {"h", "help", "register-service", "unregister-service", "v", "version"}
_FLAGS_WITHOUT_VALUE = {*_OTHER_FLAGS, "run-service"}

# RKE2 writes the configuration here before each start, with root, state and address.
_RKE2_CONFIG = r"C:\var\lib\rancher\rke2\agent\etc\containerd\config.toml"
# k0s gives root and state on the command line. Its configuration begins with this line.
_K0S_LINE = b"# k0s_managed=true"
_K0S_ROOT = r"C:\var\lib\k0s\containerd"
_K0S_STATE = r"C:\var\lib\k0s\run\containerd"


class Value(NamedTuple):
    """A value, and where it was found: an option, the command line of a program, a file, or a default."""

    value: str
    source: str


class Options(NamedTuple):
    """What the user sets instead of what the node says; empty if the node decides.

    ``address`` may be written as Kubernetes writes it: ``npipe:////./pipe/containerd-containerd``.
    """

    address: str = ""
    root: str = ""
    snapshotter: str = ""


class Containerd(NamedTuple):
    r"""How containerd runs on this node.

    ``program`` names the service or process, for example ``service containerd``; empty if none was found. Then it is
    not known whether containerd runs (``is_running`` is None). ``root`` and ``state`` are directories, ``address`` is
    a pipe such as ``\\.\pipe\containerd-containerd``, and ``snapshotter`` is the one that CRI uses by default.
    ``notes`` are sentences for the user. ``config`` is the configuration file, or where containerd would look for it.
    ``executable`` is the program file of containerd, as its command line has it; empty if that is not known.
    """

    program: str
    is_running: Optional[bool]
    root: Value
    state: Value
    address: Value
    snapshotter: Value
    configuration: configuration.Configuration
    notes: Tuple[str, ...]
    config: str = ""
    executable: str = ""


_NOWHERE = Value("", "")
_UNKNOWN = Containerd("", None, _NOWHERE, _NOWHERE, _NOWHERE, Value(SNAPSHOTTER, _DEFAULT), configuration.DEFAULT, ())


class _Defaults(NamedTuple):
    """What containerd uses if nothing sets it (defaults/defaults_windows.go, defaults/defaults_unix.go)."""

    config: str
    root: str
    state: str
    address: str


def find(options: Options, release: str = "") -> Containerd:
    """Return how the containerd of this node runs.

    ``release`` is its version, for example ``1.7.20``; empty if it is not known. It matters for the settings of plugins
    (``configuration.read``).

    The option ``address`` selects one of several containerds. Without it, the service counts, then a process with the
    default address. Raises FailedPrecondition if that selects none, unless the options ``address`` and ``root`` are
    both set, and an error of ``configuration.read``, unless both are set.
    """
    options = options._replace(address=_plain_address(options.address))
    others: List[Containerd] = []
    for program in _programs():
        found = _describe(program, options, release)
        if options.address:
            is_wanted = _is_same(found.address.value, options.address)
        else:
            is_wanted = found.program == _SERVICE_TITLE or _is_same(found.address.value, _defaults().address)
        if is_wanted:
            return _override(found, options)
        others.append(found)
    if options.address and options.root:
        return _override(_UNKNOWN, options)
    if not options.address and len(others) == 1:
        return _override(others[0], options)
    found_at = "; ".join(f"{each.address.value} ({each.program or each.address.source})" for each in others)
    if options.address:
        raise FailedPrecondition(
            f"containerd on this node does not listen on {options.address}, but on {found_at}. Correct the option "
            f"address, or set the option root as well",
            address=options.address,
        )
    raise FailedPrecondition(f"several containerds run on this node: {found_at}. Select one with the option address")


def _override(found: Containerd, options: Options) -> Containerd:
    """Return the values with those that the options set, and notes about the result."""
    result = found._replace(
        root=_option("root", options.root) or found.root,
        address=_option("address", options.address) or found.address,
        snapshotter=_option("snapshotter", options.snapshotter) or found.snapshotter,
    )
    if not imports.path_rules().isabs(result.root.value):
        raise FailedPrecondition(
            f"the root {result.root.value!r} ({result.root.source}) is relative to a directory that is not known; set "
            f"the option root to the whole path"
        )
    used = {result.snapshotter.value, *result.configuration.runtime_snapshotters.values()}
    return result._replace(
        notes=(
            *result.notes,
            *result.configuration.notes,
            *(
                f"{name} is a snapshotter of this node: its layers are not managed"
                for name in NOT_MANAGED
                if name in used
            ),
        )
    )


def _option(name: str, value: str) -> Optional[Value]:
    return Value(value, f"the option {name}") if value else None


def _programs() -> Iterator[Optional[programs.Program]]:
    """Iterate over what may run containerd: the service, then processes; None if there is neither."""
    service = programs.find_service(SERVICE, PROGRAM)
    if service and service.command_line:
        yield service
    arguments = service and commandline.split(service.command_line)
    count = 0
    for process in programs.find_processes(PROGRAM):
        # The program is also started for single commands, for example by shims to publish an event.
        if _read_flags(process.command_line) is not None and commandline.split(process.command_line) != arguments:
            yield process
            count += 1
    if not (service and service.command_line) and not count:
        yield service


def _read_flags(command_line: str) -> Optional[Dict[str, str]]:
    """Return the flags of containerd with their values; None if it does not serve: ``containerd config dump``."""
    flags: Dict[str, str] = {}
    arguments = iter(commandline.split(command_line)[1:])
    for argument in arguments:
        if argument == "--" or not argument.startswith("-"):
            command = next(arguments, "") if argument == "--" else argument
            if command in _COMMANDS:
                return None
            # containerd ignores what follows.
            break
        # Go reads one hyphen like two.
        name, separator, value = argument[1:].removeprefix("-").partition("=")
        name = _SHORT_FLAGS.get(name, name)
        if not separator and name not in _FLAGS_WITHOUT_VALUE:
            value = next(arguments, "")
        flags[name] = value
    return None if _OTHER_FLAGS.intersection(flags) else flags


def _describe(program: Optional[programs.Program], options: Options, release: str) -> Containerd:
    """Return how a program runs containerd, or without one, how containerd would run."""
    flags = (program and _read_flags(program.command_line)) or {}
    defaults, default_source = _defaults(), _DEFAULT
    notes: List[str] = []
    config = flags.get("config") or next((path for path in _usual_configs(program) if imports.exists(path)), "")
    settings = configuration.DEFAULT
    if config:
        try:
            settings = configuration.read(config, release)
        except SnapshotterError as error:
            if not (options.address and options.root):
                raise type(error)(
                    f"{error.message}. To work without this file, set the options address and root", **error.details
                ) from None
            notes.append(f"The configuration is not known: {error.message}")
    elif program is None:
        notes.append("No service, process or configuration file of containerd was found; its defaults are used")
    if config and program is None and is_of_k0s(config):
        defaults, default_source = defaults._replace(root=_K0S_ROOT, state=_K0S_STATE), "k0s's default"

    def choose(name: str, default: str) -> Value:
        if flags.get(name):
            return Value(flags[name], f"the command line of {program.name}" if program else "")
        if name in settings.sources:
            return Value(getattr(settings, name), settings.sources[name])
        return Value(default, default_source)

    return Containerd(
        program.name if program else "",
        program.is_running if program else None,
        choose("root", defaults.root),
        choose("state", defaults.state),
        choose("address", defaults.address),
        choose("snapshotter", SNAPSHOTTER),
        settings,
        tuple(notes),
        config or defaults.config,
        commandline.split(program.command_line)[0] if program and program.command_line else "",
    )


# -- places ------------------------------------------------------------------------------------------------------------


def _defaults() -> _Defaults:
    if imports.path_rules() is ntpath:
        # A lab node has native paths in ProgramFiles and ProgramData. Only Windows finds them by these names.
        files = ntpath.join(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "containerd")
        data = ntpath.join(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "containerd")
        return _Defaults(rf"{files}\config.toml", rf"{data}\root", rf"{data}\state", r"\\.\pipe\containerd-containerd")
    return _Defaults(
        "/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd", "/run/containerd/containerd.sock"
    )


def _usual_configs(program: Optional[programs.Program]) -> Sequence[str]:
    """Return where a configuration may be that no command line names."""
    default = _defaults().config
    return (default, _RKE2_CONFIG) if program is None and imports.path_rules() is ntpath else (default,)


def is_of_k0s(path: str) -> bool:
    """Return True if k0s writes a configuration file itself, each time it starts."""
    with contextlib.suppress(OSError), open(drives.to_native(path), "rb") as file:
        return file.readline(len(_K0S_LINE) + 2).rstrip() == _K0S_LINE
    return False


def _plain_address(address: str) -> str:
    r"""Return an address as containerd writes it: ``\\.\pipe\x`` for ``npipe:////./pipe/x``, ``/x`` for ``unix:///x``."""
    scheme, _colon, rest = address.partition(":")
    if scheme == "npipe" or address.startswith("//./"):
        return "\\\\" + (rest or address).replace("/", "\\").lstrip("\\")
    return rest.removeprefix("//") if scheme == "unix" else address


def _is_same(first: str, second: str) -> bool:
    return (
        first.replace("/", "\\").lower() == second.replace("/", "\\").lower() if first[:1] == "\\" else first == second
    )
