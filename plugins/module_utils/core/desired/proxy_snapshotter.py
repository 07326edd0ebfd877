# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of the proxy snapshotter on a node: a service serves the store to containerd, or does not exist.

The service runs the payload of the task that installed it, from a directory of that version. An upgrade writes the new
version beside the old one, changes the service, and restarts it. If the new one does not become healthy, the old one
runs again.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from ..containerd import discovery
from ..containerd.configuration import Configuration as ContainerdConfiguration
from ..containerd.connection import pipe_path
from ..containerd.proxy_settings import Settings
from ..containerd.restart import restart
from ..containerd.usage import count_users
from ..errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError, Unavailable
from ..files import translating_os_errors
from ..outcome import Outcome
from ..proxy import health, served, versions
from ..proxy.host import open_manager
from ..proxy.manager import NAME, State
from .proxy_configuration import Configuration
from .result import ABSENT, PRESENT
from .store import ensure_store

if TYPE_CHECKING:
    from ..store import OwnSnapshots

RESTARTED = "restarted"

#: Where the files of the service are.
DIRECTORY = r"C:\Program Files\wcow\snapshotter"
#: The pipe on which it serves.
PIPE = r"\\.\pipe\wcow-snapshotter"
#: The name of the snapshotter in containerd's configuration.
SNAPSHOTTER = "wcow"

LOG_LEVELS = ("error", "warning", "info", "debug")

#: Seconds in which a service that runs has to answer.
HEALTH_TIME = 30.0

_LOG = "service.log"


class Options(NamedTuple):
    """What a task states about the service, besides its state."""

    version: str
    pipe: str
    directory: str
    name: str
    log_level: str
    manage_configuration: bool
    default_snapshotter: bool
    restart_containerd: bool
    containerd_root: str
    containerd_address: str


def ensure_proxy_snapshotter(
    snapshots: OwnSnapshots,
    state: str = PRESENT,
    version: str = "",
    pipe: str = PIPE,
    directory: str = DIRECTORY,
    name: str = SNAPSHOTTER,
    log_level: str = "info",
    manage_configuration: bool = False,
    default_snapshotter: bool = False,
    restart_containerd: bool = False,
    containerd_root: str = "",
    containerd_address: str = "",
) -> Outcome:
    """Make the service ``present`` (installed, running, healthy), ``restarted`` (that, too) or ``absent``.

    ``version`` is that of the collection. ``present`` also creates and protects the store, because the service runs
    from it. ``absent`` leaves the store as it is.

    ``manage_configuration`` also names the snapshotter in the configuration of containerd, or removes it from there;
    ``default_snapshotter`` makes it the one of CRI. containerd knows that after a restart, which ``restart_containerd``
    does if it is a service; otherwise the result says that it is needed.

    Raises InvalidArgument for options that cannot be right, NotFound for the restart of a service that does not exist,
    FailedPrecondition for a Python or a directory from which a service cannot run safely, for a service that
    containerd still uses, and for a version that did not become healthy, and Unavailable if the service does not stop.
    """
    if state not in (PRESENT, ABSENT, RESTARTED):
        raise InvalidArgument(f"state {state!r} is not one of {PRESENT}, {ABSENT}, {RESTARTED}")
    if log_level not in LOG_LEVELS:
        raise InvalidArgument(f"log_level {log_level!r} is not one of {', '.join(LOG_LEVELS)}")
    if not pipe_path(pipe):
        raise InvalidArgument(f"pipe {pipe!r} is not the name of a pipe; use a name such as {PIPE}", pipe=pipe)
    if (default_snapshotter or restart_containerd) and not manage_configuration:
        raise InvalidArgument("default_snapshotter and restart_containerd go with manage_configuration=true")
    options = Options(
        version,
        pipe,
        directory,
        name,
        log_level,
        manage_configuration,
        default_snapshotter,
        restart_containerd,
        containerd_root,
        containerd_address,
    )
    task = _Task(snapshots, options)
    return task.make_absent() if state == ABSENT else task.make_present(restarts=state == RESTARTED)


class _Task:
    """One task: the service before it, and what it did."""

    def __init__(self, snapshots: OwnSnapshots, options: Options) -> None:
        self._snapshots = snapshots
        self._store = snapshots.store
        self._options = options
        self._discovery = discovery.Options(address=options.containerd_address, root=options.containerd_root)
        self._home = self._store.layers.native(options.directory)
        self._manager = open_manager(self._home)
        self._actions: List[str] = []
        self._before = self._manager.find()
        # Milliseconds without a service that answers; None if it was not interrupted.
        self._downtime: Optional[int] = None
        self._configuration: Optional[Configuration] = None
        if options.manage_configuration:
            settings = Settings(
                options.name, options.pipe, self._store.display_root, is_default=options.default_snapshotter
            )
            self._configuration = Configuration(self._discovery, settings)

    # -- present -------------------------------------------------------------

    def make_present(self, *, restarts: bool) -> Outcome:
        before = self._before
        if restarts and before is None:
            raise NotFound(f"there is no service {NAME} to restart; install it with state={PRESENT}", service=NAME)
        shown = self._store.layers.display_path
        with translating_os_errors("cannot examine", self._home, display=shown):
            versions.refuse_interpreter(sys.executable, shown)
            versions.refuse_foreign(self._home, shown)
            wanted = versions.own_version(self._options.version, self._manager.module)
            is_intact = versions.is_intact(os.path.join(self._home, wanted.name), wanted.files)
        if self._configuration is not None:
            # Before anything is changed, because it refuses what cannot be changed safely.
            self._configuration.plan(present=True)
        store = ensure_store(self._snapshots, asks_service=False).result
        self._actions += [f"{action} the store" for action in store["actions"]]
        arguments = self._arguments(wanted)
        is_configured = before is not None and before.arguments == arguments and not before.settings
        if not is_intact:
            self._actions.append(f"write version {wanted.name}")
        if not is_configured:
            self._actions.append("create the service" if before is None else "change the service")
        found = self._ask_running()
        is_as_wanted = is_intact and is_configured and found is not None
        if before is None or not before.is_running:
            self._actions.append("start the service")
        elif restarts or not is_as_wanted:
            self._actions.append("restart the service")
        if self._store.dry_run:
            self._configure()
            return self._outcome(self._describe(arguments, is_running=True), found if is_as_wanted else None)
        if not is_intact:
            versions.write(self._home, wanted, shown)
        if not is_configured:
            self._manager.install(arguments)
        if restarts or not is_as_wanted:
            found = self._run(arguments)
        if not is_configured:
            self._remove_old(wanted.name)
        # containerd gets to know a service that serves.
        self._configure()
        return self._outcome(self._describe(arguments, is_running=True), found)

    def _configure(self) -> None:
        """Change the configuration of containerd, and restart it if the task says so."""
        if self._configuration is None:
            return
        self._actions += self._configuration.actions()
        if not self._store.dry_run:
            self._configuration.apply()
        if self._options.restart_containerd and self._configuration.restart_needed:
            self._restart_containerd(self._configuration)

    def _restart_containerd(self, configuration: Configuration) -> None:
        if not configuration.is_service or os.name != "nt":
            self._store.warnings.append(
                f"containerd ({configuration.found.program or 'no program was found'}) does not know its new "
                f"configuration yet, and is not a service that this task can restart; {configuration.remedy}"
            )
            return
        self._actions.append("restart containerd")
        if not self._store.dry_run:
            restart(discovery.SERVICE)
            configuration.restart_needed = False

    def _arguments(self, version: versions.Version) -> List[str]:
        """Return the program of the service with its arguments."""
        options = self._options
        program = os.path.join(self._home, version.name, versions.START)
        settings = {
            "--service": NAME,
            "--address": options.pipe,
            "--root": self._store.display_root,
            "--layers": self._store.layers.name,
            "--version": options.version,
            "--log": os.path.join(self._home, versions.LOGS, _LOG),
            "--log-level": options.log_level,
        }
        return [sys.executable, "-I", "-X", "utf8", program, *(text for pair in settings.items() for text in pair)]

    def _ask_running(self) -> Optional[Dict[str, Any]]:
        """Return the health of the service as it runs now; None if it does not run or is not healthy."""
        if self._before is None or not self._before.is_running:
            return None
        settings = _settings(self._before)
        try:
            found = health.ask(settings.get("--address", ""))
        except SnapshotterError:
            return None
        is_own = found["process"] == self._before.process and found["version"] == settings.get("--version")
        return found if is_own else None

    def _run(self, arguments: List[str]) -> Dict[str, Any]:
        """Start the service with these arguments, or again. Return its health."""
        stopped = time.monotonic()
        was_running = self._before is not None and self._before.is_running
        try:
            self._manager.stop()
            found = self._start(arguments)
        except SnapshotterError as error:
            raise self._go_back(arguments, error) from error
        if was_running:
            self._downtime = int((time.monotonic() - stopped) * 1000)
        return found

    def _start(self, arguments: List[str]) -> Dict[str, Any]:
        settings = dict(zip(arguments[5::2], arguments[6::2]))
        process = self._manager.start()
        return health.wait_until_healthy(
            settings["--address"], process, settings["--version"], HEALTH_TIME, self._is_running
        )

    def _is_running(self) -> bool:
        found = self._manager.find()
        return found is not None and found.is_running

    def _go_back(self, arguments: List[str], error: SnapshotterError) -> SnapshotterError:
        """Run the service as it was before. Return the error of the task."""
        said = self._last_problem()
        reason = error.message + (f"; its log says: {said}" if said else "")
        before = self._before
        if before is None or not before.is_running or before.arguments == arguments:
            return FailedPrecondition(f"the proxy snapshotter does not run: {reason}", log=self._display_log())
        version = _settings(before).get("--version", "unknown")
        try:
            self._manager.stop()
            self._manager.install(before.arguments)
            self._start(before.arguments)
        except SnapshotterError as failure:
            return Unavailable(
                f"the proxy snapshotter does not run in version {self._options.version}: {reason}. Version {version} "
                f"does not run any more, either: {failure.message}. Without it, containerd starts no new containers",
                log=self._display_log(),
            )
        return FailedPrecondition(
            f"the proxy snapshotter does not run in version {self._options.version}: {reason}. The service runs "
            f"version {version} again, as before",
            log=self._display_log(),
        )

    def _last_problem(self) -> str:
        """Return the last error in the log of the service."""
        path = os.path.join(self._home, versions.LOGS, _LOG)
        return self._store.layers.display_path(versions.last_problem(path))

    def _display_log(self) -> str:
        return self._store.layers.display_path(os.path.join(self._home, versions.LOGS, _LOG))

    def _remove_old(self, current: str) -> None:
        """Remove all versions but this one and the one before, to which an administrator may want to go back."""
        kept = {current}
        if self._before is not None and len(self._before.arguments) > 4:
            kept.add(os.path.basename(os.path.dirname(self._before.arguments[4])))
        with translating_os_errors("cannot list", self._home, display=self._store.layers.display_path):
            for name in versions.list_versions(self._home):
                if name not in kept and versions.remove(self._home, name):
                    self._actions.append(f"remove version {name}")

    # -- absent --------------------------------------------------------------

    def make_absent(self) -> Outcome:
        has_files = os.path.isdir(self._home)
        if self._before is not None or self._configuration is not None:
            self._refuse_used()
        if self._configuration is not None:
            self._configuration.plan(present=False)
        # While the service runs: containerd must not be told of a service that does not exist.
        self._configure()
        if self._before is not None:
            self._actions.append("remove the service")
        if has_files:
            self._actions.append("remove its files")
        if not self._store.dry_run:
            if self._before is not None:
                self._manager.remove()
            if has_files:
                self._remove_files()
        return self._outcome(None, None)

    def _refuse_used(self) -> None:
        """Raise FailedPrecondition if containerd has records of the snapshotter, or takes it for new pods.

        Its name there can be another one than that of the task: the address tells.
        """
        found = discovery.find(self._discovery) if self._configuration is None else self._configuration.found
        named = self._names_in(found.configuration)
        for name in dict.fromkeys([self._options.name, *named]):
            users = count_users(self._store.layers.native(found.root.value), name)
            if users.snapshots or users.containers:
                raise FailedPrecondition(
                    f"containerd uses the snapshotter {name}: it has {users.snapshots} snapshots and "
                    f"{users.containers} containers of it in {users.namespaces} namespaces, which would be lost to it. "
                    "Make another snapshotter the default, restart containerd, remove these containers and their "
                    "images with kubelet or crictl, and run the task again",
                    snapshotter=name,
                    **users._asdict(),
                )
        for name in named:
            if self._configuration is not None and name == self._options.name:
                continue
            remedy = (
                f"run the module proxy_snapshotter with state=absent, manage_configuration=true and name={name}, which "
                "removes these settings, and restart containerd"
            )
            if name in (found.configuration.snapshotter, *found.configuration.runtime_snapshotters.values()):
                raise FailedPrecondition(
                    f"{found.config} makes {name} the snapshotter of new pods, and none would start without the "
                    f"service: {remedy}",
                    snapshotter=name,
                )
            self._store.warnings.append(f"{found.config} still names the snapshotter {name}; {remedy}")

    def _names_in(self, configuration: ContainerdConfiguration) -> List[str]:
        """Return the names that containerd's configuration gives to the service."""
        if self._before is None:
            return []
        address = _settings(self._before).get("--address", "")
        plugins = configuration.proxy_plugins.items()
        return [
            name
            for name, plugin in plugins
            if served.is_snapshotter(plugin) and served.is_same_address(plugin.address, address)
        ]

    def _remove_files(self) -> None:
        shown = self._store.layers.display_path
        with translating_os_errors("cannot remove", self._home, display=shown):
            left = versions.remove_home(self._home)
        if left:
            self._store.warnings.append(
                f"{shown(self._home)} stays: it has {', '.join(left[:5])}, which is in use or not the service's"
            )

    # -- both ----------------------------------------------------------------

    def _describe(self, arguments: List[str], *, is_running: bool) -> Dict[str, Any]:
        """Return the service as the module returns it."""
        settings = dict(zip(arguments[5::2], arguments[6::2]))
        directory = os.path.dirname(arguments[4]) if len(arguments) > 4 else ""
        return {
            "name": NAME,
            "running": is_running,
            "version": settings.get("--version", ""),
            "directory": self._store.layers.display_path(directory),
            "pipe": settings.get("--address", ""),
            "root": settings.get("--root", ""),
            "log": self._store.layers.display_path(settings.get("--log", "")),
            "log_level": settings.get("--log-level", ""),
        }

    def _outcome(self, after: Optional[Dict[str, Any]], found: Optional[Dict[str, Any]]) -> Outcome:
        before = self._before and self._describe(self._before.arguments, is_running=self._before.is_running)
        result: Dict[str, Any] = {
            "service": after,
            "health": found,
            "previous_version": before["version"] if before else None,
            "downtime": self._downtime,
            "configuration": None,
            "restart_needed": False,
            "actions": self._actions,
            "diff": {"before": before, "after": after},
        }
        if self._configuration is not None:
            result["configuration"] = self._configuration.describe()
            result["restart_needed"] = self._configuration.restart_needed
            result["diff"] = self._configuration.add_diff(before, after)
        return Outcome(bool(self._actions), result)


def _settings(state: State) -> Dict[str, str]:
    """Return the arguments of a service by their names."""
    return dict(zip(state.arguments[5::2], state.arguments[6::2]))
