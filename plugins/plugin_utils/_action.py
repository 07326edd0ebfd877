# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base class of the action plugins: from a task's options to one request, from its reply to a result.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.parsing.ajson import AnsibleJSONEncoder
from ansible.plugins.action import ActionBase

from . import _command
from ._call import call
from ._payload import payload
from ._reply import PROTOCOL, RERUN, NodeFailure, Output

# Ansible imports action plugins before it forks a process for each task: built here, the payload is built once a run.
payload()

#: The options of doc_fragments/node.py. Each falls back to the host variable ``wcow_<option>``, then to the default.
#: Paths are plain strings: the type ``path`` would expand them on the controller.
NODE_OPTIONS: Dict[str, Dict[str, Any]] = {
    "root": {"type": "str", "default": r"C:\ProgramData\wcow"},
    "layers": {"type": "str", "choices": ["auto", "windows", "emulated"], "default": "auto"},
    "python": {"type": "str", "default": r"C:\Program Files\wcow\python\python.exe"},
    "cache_dir": {"type": "str"},
}

#: The message of ``Connection._winrm_exec`` in ansible-core, lib/ansible/plugins/connection/winrm.py.
SEND_FAILED = re.compile(r"send_input failed; \nstdout:(.*)\nstderr(.*)", re.DOTALL)

#: What ``Connection._winrm_connect`` there says, as any other error, when the system (macOS) gives a connection up.
CONNECT_TIMED_OUT = "the connection attempt timed out"

Answer = TypeVar("Answer")


class TaskFailure(Exception):
    """The task fails with this message; ``code`` and ``details`` are those of the core's errors."""

    def __init__(self, code: str, message: str, details: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}


class SnapshotterAction(ActionBase):  # type: ignore[misc]
    """What the modules of this collection have in common.

    A subclass says what it takes, in the terms of ArgumentSpecValidator
    (``options``, ``required_if`` and so on), which ``operation`` of the core answers and
    which keys of the operation's result the task returns (``returned``). It
    overrides ``perform`` if one operation is not all. ``options`` repeat the
    module's documentation; a unit test compares them.
    """

    _supports_check_mode = True
    _supports_async = False

    module: str
    operation: str
    returned: Tuple[str, ...]
    options: Dict[str, Dict[str, Any]]
    required_if: Sequence[Sequence[Any]] = ()
    required_one_of: Sequence[Sequence[str]] = ()
    mutually_exclusive: Sequence[Sequence[str]] = ()

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        """Do the task; return the entry of the reply that becomes its result.

        ``options`` are validated, without those of the node. Raises TaskFailure.
        """
        return self.ask(self.operation, given(options))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        self._warnings: List[str] = []
        no_log: Iterable[str] = ()
        try:
            options, no_log = self._validated(task_vars or {})
            self._node = {name: options.pop(name) for name in NODE_OPTIONS}
            self._host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname")
            if self._connection.become:
                raise TaskFailure(
                    "invalid_argument",
                    f"{self.module} does not support become, and the connection would ignore it: remove become from "
                    "the task (become: false) and connect as a user who is an administrator of the node",
                )
            result = self._result(self.perform(options))
        except TaskFailure as failure:
            result = {
                "failed": True,
                "msg": str(failure),
                "error": {"code": failure.code, "details": failure.details},
            }
        if self._warnings:
            result["warnings"] = list(dict.fromkeys(self._warnings))
        scrubbed: Dict[str, Any] = remove_values(result, no_log)
        return scrubbed

    def ask(
        self,
        operation: str,
        arguments: Dict[str, Any],
        attachment: Sequence[str] = (),
        check_mode: Optional[bool] = None,
    ) -> Dict[str, Any]:
        """Run one operation of the core on the node and return its entry of the reply.

        ``attachment``: lines of base64 that the operation reads. ``check_mode``:
        the task's own unless given. Raises TaskFailure if the operation fails
        or the node cannot answer, AnsibleConnectionFailure if it is not reached.
        """
        (entry,) = self.ask_all([(operation, arguments)], attachment, check_mode)
        return succeeded(entry)

    def ask_all(
        self,
        operations: Sequence[Tuple[str, Dict[str, Any]]],
        attachment: Sequence[str] = (),
        check_mode: Optional[bool] = None,
        on_error: str = "stop",
    ) -> List[Dict[str, Any]]:
        """As ``ask``, several operations in one round trip: one entry each, in order, failures among them.

        ``on_error``: whether those after a failed one are run (``continue``) or are failures, too (``stop``).
        """
        request = {
            "protocol": PROTOCOL,
            "root": self._node["root"],
            "layers": self._node["layers"],
            "operations": [{"operation": operation, "arguments": arguments} for operation, arguments in operations],
            "check_mode": self._task.check_mode if check_mode is None else check_mode,
            "on_error": "" if on_error == "stop" else on_error,
            "environment": self._environment(),
        }
        said = {key: value for key, value in request.items() if value}
        text = json.dumps(said, cls=AnsibleJSONEncoder, vault_to_text=True, separators=(",", ":"))
        reply = self._reach(
            operations[0][0],
            lambda: call(self._execute, self._node["python"], self._cache_directory(), text, attachment),
        )
        self._warnings += reply.warnings
        if "error" in reply.body:
            succeeded(reply.body)
        entries: List[Dict[str, Any]] = reply.body.get("results") or []
        if len(entries) != len(operations):
            raise TaskFailure(
                "internal",
                f"The node's reply to {operations[0][0]!r} has neither a result nor an error for each operation",
            )
        for entry in entries:
            self._warnings += entry.get("warnings") or []
        return entries

    def _reach(self, operation: str, talk: Callable[[], Answer]) -> Answer:
        """What ``talk``, an exchange with the node, returns. Raises as ``ask`` does."""
        try:
            return talk()
        except NodeFailure as failure:
            raise TaskFailure(failure.code, str(failure)) from None
        except AnsibleConnectionFailure as failure:
            # The class tells Ansible that the host is unreachable.
            raise type(failure)(self._lost(operation, failure)) from None
        except AnsibleError as failure:
            if str(failure) != CONNECT_TIMED_OUT:
                raise
            raise AnsibleConnectionFailure(self._lost(operation, failure)) from None
        except Exception as failure:  # noqa: BLE001
            # When an open connection breaks, pypsrp, pywinrm and their HTTP library let their own errors through.
            raise AnsibleConnectionFailure(self._lost(operation, failure)) from None

    def _execute(self, text: str) -> Output:
        """Run Python on the node over the task's connection with ``text`` on standard input."""
        python = self._node["python"]
        data: Any = text
        if not self._windows():
            line, data = _command.posix(python), text.encode("ascii")
        elif self._connection.transport == "psrp":
            line = _command.psrp(python)
        elif self._connection.transport == "winrm":
            line = _command.winrm(python)
        else:
            line = _command.ssh(python)
        return self._send(line, data)

    def _send(self, line: str, data: Any) -> Output:
        """Run a command line on the node over the task's connection with ``data`` on standard input."""
        try:
            done = self._low_level_execute_command(line, sudoable=False, in_data=data)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as failure:
            # winrm says so when the node has not taken all of the input, and then what the program said: something if
            # it ended early, for example because it does not exist; nothing if the connection broke.
            said = SEND_FAILED.search(str(failure))
            if said is None:
                raise
            if not "".join(said.groups()).strip():
                raise AnsibleConnectionFailure("the node did not receive all of the task's input") from None
            return Output(1, *said.groups())
        return Output(done["rc"], done["stdout"], done["stderr"])

    def _windows(self) -> bool:
        return bool(getattr(self._connection._shell, "_IS_WINDOWS", False))  # noqa: SLF001

    def _cache_directory(self) -> str:
        """Where only administrators, or on other systems only the user, can write; the node expands it."""
        default = "$ProgramFiles/wcow/payload" if self._windows() else "~/.cache/wcow/payload"
        return self._node["cache_dir"] or default

    def _validated(self, task_vars: Dict[str, Any]) -> Tuple[Dict[str, Any], Iterable[str]]:
        """The task's options, complete and of the right types, and the values that must not be shown."""
        # ansible_delegated_vars holds the variables of the host that the connection really leads to.
        variables = (task_vars.get("ansible_delegated_vars") or {}).get(self._task.delegate_to) or task_vars
        arguments = dict(self._task.args)
        for name in NODE_OPTIONS:
            value = variables.get(f"wcow_{name}")
            if arguments.get(name) is None and value is not None:
                arguments[name] = self._templar.template(value)
        checked = ArgumentSpecValidator(
            {**NODE_OPTIONS, **self.options},
            required_if=self.required_if,
            required_one_of=self.required_one_of,
            mutually_exclusive=self.mutually_exclusive,
        ).validate(arguments)
        if checked.error_messages:
            message = f"{self.module}: {checked.errors.msg}"
            if isinstance(checked.errors[0], UnsupportedError):
                message = f"Unsupported parameters for ({self.module}) module: {checked.errors.msg}"
            raise TaskFailure("invalid_argument", message)
        return checked.validated_parameters, checked._no_log_values  # noqa: SLF001

    def _environment(self) -> Dict[str, str]:
        """The task's ``environment``, merged and templated as Ansible does it for modules."""
        environment: Dict[str, Any] = {}
        self._compute_environment_string(environment)
        return {str(name): str(value) for name, value in environment.items()}

    def _result(self, entry: Dict[str, Any]) -> Dict[str, Any]:
        """The entry of the reply as a task result: only keys of the module's, since Ansible acts on some others."""
        values = entry.get("result") or {}
        result = {"changed": bool(entry.get("changed")), **{key: values[key] for key in self.returned if key in values}}
        failure = values.get("failure")
        if failure:
            # Some of many failed, and the result tells of the others.
            error = {"code": failure["code"], "details": failure["details"]}
            result.update(failed=True, msg=failure["message"], error=error)
        if self._task.diff and values.get("diff"):
            result["diff"] = {side: values["diff"].get(side) for side in ("before", "after")}
        return result

    def _lost(self, operation: str, failure: Exception) -> str:
        return (
            f"{self.module}: the connection failed during {operation!r} on {self._host}. {RERUN} What failed: {failure}"
        )


def succeeded(entry: Dict[str, Any]) -> Dict[str, Any]:
    """An entry of a reply that holds a result. Raises TaskFailure if it is a failure."""
    error = entry.get("error")
    if error:
        details = error.get("details") or {}
        # What Windows says is what people search for; what it means and what to do comes after it.
        advice = f". {details['advice']}" if "advice" in details else ""
        raise TaskFailure(error["code"], error["message"] + advice, details)
    if "result" not in entry:
        raise TaskFailure("internal", "The node's reply has neither a result nor an error")
    return dict(entry)


def given(options: Dict[str, Any]) -> Dict[str, Any]:
    """The options that say something: what is not given, or false, is the core's default and is not sent.

    Labels are text: YAML reads an unquoted ``1.10``, ``012`` or ``12:30`` as
    another value than was written, so anything but text is refused here,
    where the remedy is known. Raises TaskFailure.
    """
    for label, value in (options.get("labels") or {}).items():
        # ansible-core 2.18 and older pass a value that !vault encrypts as an object of its own kind.
        if not isinstance(value, str) and not hasattr(value, "__ENCRYPTED__"):
            raise TaskFailure(
                "invalid_argument",
                f"The label {label!r} has the value {value}, which YAML does not read as text: put the value in "
                "quotes, or end the expression with | string",
            )
    return {name: value for name, value in options.items() if value is not None and value is not False}
