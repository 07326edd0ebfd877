# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base class of the action plugins: one request from a task's options, one result from the reply.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible.parsing.ajson import AnsibleJSONEncoder
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_version

from . import _command
from ._call import call, preload
from ._reply import PROTOCOL, RERUN, NodeFailure, Output, Reply, is_from_windows, unusable
from ._shapes import ADVICE, RESULTS, Malformed, fit
from ._text import as_json, one_line, without_secrets

preload()

#: Whether the connection ssh runs each command for Windows as a PowerShell script (ansible-core 2.17
#: plugins/connection/ssh.py, exec_command). Later releases pass it on as it is.
SSH_ENCODES = tuple(map(int, ansible_version.split(".")[:2])) < (2, 18)

#: The options of doc_fragments/node.py. Each falls back to the host variable ``wcow_<option>``, then to the default.
#: Paths are plain strings: the type ``path`` would expand them on the controller.
NODE_OPTIONS: Dict[str, Dict[str, Any]] = {
    "store": {"type": "str", "choices": ["own", "containerd"], "default": "own"},
    "root": {"type": "str", "default": r"C:\ProgramData\wcow"},
    "layers": {"type": "str", "choices": ["auto", "windows", "emulated"], "default": "auto"},
    "python": {"type": "str", "default": r"C:\Program Files\wcow\python\python.exe"},
    "cache_dir": {"type": "str"},
    "address": {"type": "str"},
    "namespace": {"type": "str"},
    "snapshotter": {"type": "str"},
}

#: Options of the type ``str`` whose value can be a number, that of bytes.
SIZE_OPTIONS = ("rootfs_size", "size", "minimum_free")

#: The message of ``Connection._winrm_exec`` in ansible-core, lib/ansible/plugins/connection/winrm.py.
SEND_FAILED = re.compile(r"send_input failed; \nstdout:(.*)\nstderr(.*)", re.DOTALL)

#: What ssh says when it does not get to run a command. Its other failures can come later.
SSH_NOT_CONNECTED = re.compile(
    r"ssh: (?:connect to host|Could not resolve)|Permission denied \(|Host key verification failed|"
    r"REMOTE HOST IDENTIFICATION HAS CHANGED|Too many authentication failures"
)

#: The end of a message of check mode.
EARLIER_TASKS = ". Earlier tasks change nothing in check mode: if one of them would create it, the real run finds it"

#: Where a message names an option, which ``{0}`` stands for: ahead of its value.
NAMED = r"\b{0}(?==|: ?['\"]| ['\"]| must )"
#: The same for ``root``, in the remedies of messages. Elsewhere, a root is a directory.
ROOT = r"^{0}(?= must | .* is a file)|(?<=nother ){0}\b|(?<=choose a ){0}\b|(?<=set ){0}\b"

UNTOUCHED = "The task did not begin on the node, so nothing was changed there."

#: The message of ``Connection._winrm_connect`` there, an ordinary error, when the system (macOS) times the connect out.
CONNECT_TIMED_OUT = "the connection attempt timed out"

Answer = TypeVar("Answer")


class TaskFailure(Exception):
    """The task fails with this message; ``code`` and ``details`` are those of the core's errors."""

    def __init__(self, code: str, message: str, details: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}


class SnapshotterAction(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """The common part of all modules that talk to a node.

    A subclass states its options in the terms of ArgumentSpecValidator
    (``options``, ``required_if`` and so on), the ``operation`` of the core, the
    keys of the operation's result that the task returns (``returned``), and the
    ``stores`` that it works with. It overrides ``perform`` if it needs more than one operation. ``options`` repeat the
    module's documentation; a unit test compares them.
    """

    _supports_check_mode = True
    _supports_async = False

    module: str
    operation: str
    returned: Tuple[str, ...]
    options: Dict[str, Dict[str, Any]]
    stores: Sequence[str] = ("own",)
    #: The payload that the operation needs, see ``_payload``; empty for that of the store.
    payload_kind = ""
    required_if: Sequence[Sequence[Any]] = ()
    required_one_of: Sequence[Sequence[str]] = ()
    mutually_exclusive: Sequence[Sequence[str]] = ()

    #: The number of commands that were sent to the node.
    _requests = 0
    #: Whether requests ask for a trace of native calls, and that of the last reply.
    _wants_trace = False
    _trace: Sequence[Dict[str, Any]] = ()

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        """Do the task; return the entry of the reply that becomes its result.

        ``options`` are validated, without those of the node. Raises TaskFailure.
        """
        return self.ask(self.operation, drop_unset(options))

    def complete(self, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Return the options as the user wrote them, with what other options of the task add to them."""
        return arguments

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        self._warnings: List[str] = []
        self._variables: Dict[str, str] = {}
        no_log: Iterable[str] = ()
        try:
            options, no_log = self._validate(task_vars or {})
            self._node = {name: options.pop(name) for name in NODE_OPTIONS}
            self._choose_store()
            self._variables.update(self._templar.template((task_vars or {}).get("wcow_option_names") or {}))
            self._host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname")
            if self._connection.become:
                raise TaskFailure(
                    "invalid_argument",
                    f"{self.module} does not support become, and the connection would ignore it: remove become from "
                    "the task (become: false) and connect as a user who is an administrator of the node",
                )
            result = self._result(self.perform(options))
        except TaskFailure as failure:
            hint = EARLIER_TASKS if self._task.check_mode and failure.code == "not_found" else ""
            result = {
                "failed": True,
                "msg": name_variables(str(failure), self._variables) + hint,
                "error": {"code": failure.code, "details": failure.details},
            }
        if self._warnings:
            result["warnings"] = list(dict.fromkeys(self._warnings))
        # ansible-core does this for modules. Its own function is deprecated since 2.22.
        return {key: without_secrets(value, no_log) for key, value in result.items()} if no_log else result

    def _choose_store(self) -> None:
        """Raise TaskFailure for a store that this module does not work with."""
        if self._node["store"] not in self.stores:
            raise TaskFailure(
                "not_implemented",
                f"{self.module} does not work with containerd's own store (store: containerd, or the variable "
                "wcow_store). Set store: own for this task",
            )
        if self._node["store"] == "containerd" and "root" not in self._task.args:
            # The default and the variable wcow_root are about our own store.
            self._node["root"] = ""

    @property
    def store(self) -> str:
        """The store of the task: ``own`` or ``containerd``."""
        store: str = self._node["store"]
        return store

    def ask(
        self,
        operation: str,
        arguments: Dict[str, Any],
        attachment: Sequence[str] = (),
        check_mode: Optional[bool] = None,
    ) -> Dict[str, Any]:
        """Run one operation of the core on the node and return its entry of the reply.

        ``attachment``: lines of base64 that the operation reads. ``check_mode``:
        by default the task's own. Raises TaskFailure if the operation fails or
        the node cannot answer, AnsibleConnectionFailure if the connection fails.
        """
        (entry,) = self.ask_all([(operation, arguments)], attachment, check_mode)
        return raise_for_error(entry)

    def ask_all(
        self,
        operations: Sequence[Tuple[str, Dict[str, Any]]],
        attachment: Sequence[str] = (),
        check_mode: Optional[bool] = None,
        on_error: str = "stop",
    ) -> List[Dict[str, Any]]:
        """Run several operations in one round trip; return one entry each, in order, failures included.

        ``on_error``: ``continue`` runs the operations after a failed one; ``stop`` fails them, too.
        """
        request = {
            "protocol": PROTOCOL,
            **self._place(),
            "layers": "" if self._node["layers"] == "auto" else self._node["layers"],
            "operations": [{"operation": operation, "arguments": arguments} for operation, arguments in operations],
            "check_mode": self._task.check_mode if check_mode is None else check_mode,
            "on_error": "" if on_error == "stop" else on_error,
            "environment": self._environment(),
            "trace": self._wants_trace,
        }
        said = {key: value for key, value in request.items() if value}
        text = json.dumps(said, cls=AnsibleJSONEncoder, vault_to_text=True, separators=(",", ":"))
        first = operations[0][0]
        try:
            reply = call(
                lambda said: self._execute(said, first),
                self._node["python"],
                self._cache_directory(),
                text,
                attachment,
                self.payload_kind or self._node["store"],
            )
            self._warnings += reply.warnings
            self._trace = reply.body.get("trace", ())
            if reply.body.get("error"):
                raise_for_error(reply.body)
            entries = self._entries([operation for operation, _arguments in operations], reply)
        except NodeFailure as failure:
            raise TaskFailure(failure.code, str(failure)) from None
        wanted = [((entry.get("error") or {}).get("details") or {}).get("payload") for entry in entries]
        if "service" in wanted and self.payload_kind != "service":
            # The node has changed nothing so far.
            self.payload_kind = "service"
            return self.ask_all(operations, attachment, check_mode, on_error)
        return entries

    def _place(self) -> Dict[str, Any]:
        """Return the part of a request that says where the store is."""
        names = ("store", "root", "address", "namespace", "snapshotter")
        return {name: self._node[name] for name in (names if self._node["store"] == "containerd" else ("root",))}

    def _entries(self, operations: Sequence[str], reply: Reply) -> List[Dict[str, Any]]:
        """Return the entry of each operation, with a result of its shape. Raises NodeFailure."""
        entries: List[Dict[str, Any]] = reply.body.get("results", [])
        if len(entries) != len(operations):
            raise NodeFailure(
                "internal",
                f"The node's reply to {operations[0]!r} has neither a result nor an error for each operation",
            )
        for operation, entry in zip(operations, entries):
            self._warnings += entry.get("warnings", ())
            if not entry.get("error") and "result" in entry:
                try:
                    entry["result"] = fit(entry["result"], RESULTS[operation], operation)
                except Malformed as error:
                    raise unusable(error) from None
        return entries

    def _reach(self, operation: str, talk: Callable[[], Answer]) -> Answer:
        """Call ``talk``, an exchange with the node, and return its result. Raises as ``ask`` does."""
        try:
            return talk()
        except AnsibleConnectionFailure as failure:
            # The class tells Ansible that the host is unreachable.
            raise type(failure)(self._describe_loss(operation, failure)) from None
        except AnsibleError as failure:
            if str(failure) != CONNECT_TIMED_OUT:
                raise
            raise AnsibleConnectionFailure(self._describe_loss(operation, failure)) from None
        except Exception as failure:  # noqa: BLE001 - the libraries have no common error
            # pypsrp, pywinrm and their HTTP library raise their own errors when an open connection breaks.
            raise AnsibleConnectionFailure(self._describe_loss(operation, failure)) from None

    def _execute(self, text: str, operation: str) -> Output:
        """Run Python on the node over the task's connection with ``text`` on standard input. Raises as ``ask``."""
        python = self._node["python"]
        data: Any = text
        if not self._windows():
            if _command.is_path_of_windows(python):
                raise self._without_shell_type(f"its Python is {python} (option python, variable wcow_python)")
            line, data = _command.posix(python), text.encode("ascii")
            output = self._reach(operation, lambda: self._send(line, data))
            if is_from_windows(output):
                raise self._without_shell_type("it answers as Windows does")
            return output
        if self._connection.transport == "psrp":
            line = _command.psrp(python)
        else:
            line = self._line_of(_command.exiting(python))
        return self._reach(operation, lambda: self._send(line, data))

    def _line_of(self, script: str) -> str:
        """Return the command line that runs a PowerShell script over the task's connection."""
        transport = self._connection.transport
        # These encode the script themselves. In a second PowerShell, it might not get the standard input.
        encodes = transport in ("psrp", "winrm") or (transport == "ssh" and SSH_ENCODES)
        return script if encodes else _command.encoded(script)

    def _send(self, line: str, data: Any) -> Output:
        """Run a command line on the node over the task's connection with ``data`` on standard input."""
        if not self._connection.connected:
            # Ansible would connect too, but then a wrong password would look like a connection that broke.
            self._connection._connect()  # noqa: SLF001 - Ansible has no public way to connect
        self._requests += 1
        try:
            done = self._low_level_execute_command(line, sudoable=False, in_data=data)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as failure:
            # winrm raises this when the node did not take all of the input. The program's output follows if the program
            # ended early, for example because it does not exist. There is none if the connection broke.
            said = SEND_FAILED.search(str(failure))
            if said is None:
                raise
            if not "".join(said.groups()).strip():
                raise AnsibleConnectionFailure("the node did not receive all of the task's input") from None
            return Output(1, *said.groups())
        return Output(done["rc"], done["stdout"], done["stderr"])

    def _windows(self) -> bool:
        return bool(getattr(self._connection._shell, "_IS_WINDOWS", False))  # noqa: SLF001 - Ansible's own

    def _without_shell_type(self, sign: str) -> TaskFailure:
        """Return the failure for what looks like a Windows host, while Ansible speaks to it as to a POSIX host."""
        return TaskFailure(
            "invalid_argument",
            f"{self._host} has no Windows shell type, so Ansible takes it for a POSIX host, but {sign}. Set the "
            f"variable ansible_shell_type of {self._host} to cmd, or to powershell if that is the DefaultShell of its "
            "OpenSSH. The connections psrp and winrm need no shell type",
        )

    def _cache_directory(self) -> str:
        """A directory that only administrators (elsewhere: only the user) can write to; the node expands the path."""
        default = "$ProgramFiles/wcow/payload" if self._windows() else "~/.cache/wcow/payload"
        return self._node["cache_dir"] or default

    def _validate(self, task_vars: Dict[str, Any]) -> Tuple[Dict[str, Any], Iterable[str]]:
        """Return the task's options, complete and of the right types, and the no_log values."""
        # ansible_delegated_vars holds the variables of the host that the connection really leads to.
        variables = (task_vars.get("ansible_delegated_vars") or {}).get(self._task.delegate_to) or task_vars
        arguments = self.complete(dict(self._task.args))
        for name in NODE_OPTIONS:
            value = variables.get(f"wcow_{name}")
            if arguments.get(name) is None and value is not None:
                arguments[name] = self._templar.template(value)
            if name == "root" and "root" not in self._task.args:
                self._variables["root"] = "wcow_root"
        refuse_other_types({**NODE_OPTIONS, **self.options}, arguments)
        checked = ArgumentSpecValidator(
            {**NODE_OPTIONS, **self.options},
            required_if=self.required_if,
            required_one_of=self.required_one_of,
            mutually_exclusive=self.mutually_exclusive,
        ).validate(arguments)
        if checked.error_messages:
            message = f"{self.module}: {checked.errors.msg}"
            if "dictionary requested" in message:
                message += ". Write each entry as key and value, for example labels: {team: blue}"
            if isinstance(checked.errors[0], UnsupportedError):
                message = f"Unsupported parameters for ({self.module}) module: {checked.errors.msg}"
            raise TaskFailure("invalid_argument", message)
        return checked.validated_parameters, checked._no_log_values  # noqa: SLF001 - Ansible has no public way to them

    def _environment(self) -> Dict[str, str]:
        """The task's ``environment``, merged and templated as for modules."""
        environment: Dict[str, Any] = {}
        self._compute_environment_string(environment)
        return {str(name): str(value) for name, value in environment.items()}

    def _result(self, entry: Dict[str, Any]) -> Dict[str, Any]:
        """The task result: only documented keys, because Ansible acts on some other keys."""
        values = entry.get("result") or {}
        result = {"changed": bool(entry.get("changed")), **{key: values[key] for key in self.returned if key in values}}
        failure = values.get("failure")
        if failure:
            # Some of many failed; the result also describes the others.
            error = {"code": failure["code"], "details": failure["details"]}
            result.update(failed=True, msg=failure["message"], error=error)
        if self._task.diff and values.get("diff"):
            result["diff"] = _shown({side: values["diff"].get(side) for side in ("before", "after")})
        return result

    def _describe_loss(self, operation: str, failure: Exception) -> str:
        """Say what failed, and whether the node can have changed."""
        cause = one_line(str(failure)).rstrip(" .")
        not_begun = self._requests == 0 or (self._requests == 1 and SSH_NOT_CONNECTED.search(cause))
        advice = UNTOUCHED if not_begun else RERUN
        return f"{self.module}: the connection failed during {operation!r} on {self._host}: {cause}. {advice}"


def _shown(diff: Dict[str, Any]) -> Dict[str, Any]:
    """Return a difference as it is, or as text if it has letters for which Ansible would show escapes."""
    texts = {side: state if isinstance(state, str) else as_json(state) + "\n" for side, state in diff.items()}
    return diff if all(text.isascii() for text in texts.values()) else texts


def raise_for_error(entry: Dict[str, Any]) -> Dict[str, Any]:
    """Return a copy of an entry of a reply. Raises TaskFailure if the entry is a failure."""
    error = entry.get("error")
    if error:
        details = error.get("details", {})
        try:
            advice = fit(details, ADVICE, "details").get("advice", "")
        except Malformed as malformed:
            raise TaskFailure("internal", str(unusable(malformed))) from None
        # Users search for the message of Windows, so it comes first and the advice follows.
        raise TaskFailure(error["code"], error["message"] + (f". {advice}" if advice else ""), details)
    if "result" not in entry:
        raise TaskFailure("internal", "The node's reply has neither a result nor an error")
    return dict(entry)


def name_variables(message: str, variables: Dict[str, str]) -> str:
    """Return a message of a module with the names of variables where it names options.

    ``variables`` maps options to the variables that set them: those of a role,
    which passes ``wcow_option_names`` to its tasks, and ``wcow_root``.
    """
    for option, variable in variables.items():
        message = re.sub(rf"option {option}\b", f"variable {variable}", message)
        message = re.sub((ROOT if option == "root" else NAMED).format(option), variable, message)
        if option == "filters" and message.startswith("filters: "):
            # containerd's sentence begins with the same word.
            message = f"{variable}: {message}"
    return message


def drop_unset(options: Dict[str, Any]) -> Dict[str, Any]:
    """Return the options without those that are not set or false: the core has the same defaults."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def refuse_other_types(options: Dict[str, Dict[str, Any]], given: Dict[str, Any], within: str = "") -> None:
    """Raise TaskFailure for a value that should be text and is not; ``within`` begins the name of each option.

    YAML reads an unquoted ``1.10``, ``012``, ``12:30`` or ``yes`` as a different
    value than the user wrote, and Ansible would turn that value into text.
    """
    for name, option in options.items():
        value, where = given.get(name), within + name
        if name in SIZE_OPTIONS or value is None:
            continue
        if option["type"] == "str":
            _refuse_other_type(f"The option {where}", value, bool(option.get("no_log")))
        elif option["type"] == "dict" and isinstance(value, dict):
            for key, text in value.items():
                _refuse_other_type(f"The key of a label in {where}", key)
                _refuse_other_type(f"{within[:-1]}: The label {key!r}" if within else f"The label {key!r}", text)
        elif option["type"] == "list":
            for number, item in enumerate(value if isinstance(value, list) else [value]):
                if option["elements"] == "str":
                    _refuse_other_type(f"The option {where}[{number}]", item)
                elif isinstance(item, dict):
                    refuse_other_types(option["options"], item, f"{where}[{number}].")


def _refuse_other_type(what: str, value: Any, is_secret: bool = False) -> None:
    # ansible-core 2.18 and older pass a value that !vault encrypts as an object of its own kind.
    if not isinstance(value, str) and not hasattr(value, "__ENCRYPTED__"):
        shown = "a value" if is_secret else f"the value {value}"
        raise TaskFailure(
            "invalid_argument",
            f"{what} has {shown}, which YAML does not read as text: put the value in quotes, or end the expression "
            "with | string",
        )
