# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test pypsrp and pywinrm with lab nodes."""

from __future__ import annotations

import base64
import json
import time
import uuid

import pypsrp.exceptions
import pypsrp.powershell
import pypsrp.shell
import pytest
import winrm.exceptions
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _powershell

PYTHON = "'C:\\Program Files\\wcow\\python\\python.exe'"
ECHO = f"$input | & {PYTHON} -c 'import sys;sys.stdout.write(sys.stdin.read())'"
SECURITY = [("basic", False), ("ntlm", False), ("basic", True), ("ntlm", True)]


def run(code):
    """Return a script that runs Python code and exits with its exit code. PowerShell would drop double quotes."""
    assert '"' not in code
    return f"& {PYTHON} -c '{code.replace(chr(39), chr(39) * 2)}'\nexit $LASTEXITCODE"


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refusal(lab):
    return [line for line in lab.log() if line["action"] == "refused"][-1]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            # A zombie has ended.
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # ProcessLookupError: it ended during the read.
        return False


# -- each connection --------------------------------------------------------------


@pytest.mark.parametrize(("auth", "tls"), SECURITY)
def test_psrp(start_lab, auth, tls):
    lab = start_lab(auth=("basic", "ntlm"), tls=tls)
    output, errors, code = lab.psrp(f"{ECHO}\nexit 7", ["one", "two"], auth=auth)
    assert (output, errors, code) == (["one", "two"], [], 7)


@pytest.mark.parametrize(("auth", "tls"), SECURITY)
def test_winrs(start_lab, auth, tls):
    lab = start_lab(auth=("basic", "ntlm"), tls=tls)
    assert lab.winrs(f"{ECHO}\nexit 7", b"one\r\ntwo\n", auth=auth) == (b"\xef\xbb\xbfone\r\ntwo\r\n", b"", 7)


def test_negotiate_falls_back_to_ntlm(start_lab):
    lab = start_lab(auth=("basic", "ntlm"), tls=False)
    with lab.wsman(auth="negotiate") as connection, pypsrp.powershell.RunspacePool(connection):
        assert connection.transport.encryption is not None


def test_ntlm_over_http_without_encryption_is_refused(start_lab):
    lab = start_lab(auth=("basic", "ntlm"), tls=False)
    with pytest.raises(pypsrp.exceptions.WinRMTransportError, match="400"):
        lab.psrp("exit 0", auth="ntlm", encryption="never")
    assert "AllowUnencrypted" in lab.log()[-1]["reason"]


@pytest.mark.parametrize(("auth", "tls"), SECURITY)
def test_a_wrong_password(start_lab, auth, tls):
    lab = start_lab(auth=("basic", "ntlm"), tls=tls)
    with pytest.raises(pypsrp.exceptions.AuthenticationError):
        lab.psrp("exit 0", auth=auth, password="wrong")
    with pytest.raises(winrm.exceptions.InvalidCredentialsError):
        lab.winrs("exit 0", auth=auth, password="wrong")
    assert lab.log()[-1]["action"] == "rejected"


def test_a_scheme_that_is_off(lab):
    with pytest.raises(pypsrp.exceptions.AuthenticationError):
        lab.psrp("exit 0", auth="ntlm")


# -- output, input and exit codes ---------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_codes(lab, code):
    script = run(f"raise SystemExit({code})")
    assert lab.psrp(script)[2] == code
    assert lab.winrs(script)[2] == code


def test_without_exit_the_code_is_0_or_1(lab):
    script = run("raise SystemExit(3)").splitlines()[0]
    assert lab.psrp(script)[2] is None
    assert lab.winrs(script)[2] == 1


def test_a_script_goes_on_until_exit(lab):
    hello = run("print('hello')").splitlines()[0]
    script = f"{hello}; {hello}\nexit 4\n{hello}"
    assert lab.psrp(script) == (["hello", "hello"], [], 4)
    assert lab.winrs(script) == (b"hello\r\nhello\r\n", b"", 4)


def test_a_program_that_a_signal_ends(lab):
    assert lab.psrp(run("import os;os.kill(os.getpid(), 11)"))[2] == 1


def test_stderr(lab):
    script = run("import sys;sys.stderr.write('first\\nsecond\\n');print('out')")
    output, errors, _ = lab.psrp(script)
    assert output == ["out"]
    assert [(str(error), error.fq_error) for error in errors] == [
        ("first", "NativeCommandError"),
        ("second", "NativeCommandErrorMessage"),
    ]
    assert lab.winrs(script) == (b"out\r\n", b"first\r\nsecond\r\n", 0)


def test_non_ascii_output_comes_through_the_console_code_page(lab):
    script = run("import sys;sys.stdout.buffer.write('\u00e9\u20ac'.encode())")
    assert lab.psrp(script)[0] == ["\u00e9\u20ac".encode().decode("cp437")]
    assert lab.winrs(script)[0].decode() == "\u00e9\u20ac\r\n"
    assert lab.winrs(script, codepage=437)[0].decode("cp437") == "\u00e9\u20ac".encode().decode("cp437") + "\r\n"


def test_non_ascii_input_becomes_question_marks(lab):
    assert lab.psrp(ECHO, ["\u00e9"])[0] == ["?"]
    assert lab.winrs(ECHO, "\u00e9".encode())[0] == b"\xef\xbb\xbf?\r\n"


def test_bytes_as_input_become_numbers(lab):
    assert lab.psrp(ECHO, [b"hi"])[0] == ["104", "105"]


def test_a_script_of_the_collection(start_lab):
    lab = start_lab(with_python=False)
    request = json.dumps({"directory": r"C:\Program Files\wcow\python"})
    reply = '{"exists":false,"empty":true,"protected":false,"left":[]}'
    assert lab.psrp(f"{_powershell.LOOK}\nexit $LASTEXITCODE", [request]) == ([reply], [], 0)
    assert lab.winrs(_powershell.LOOK, request.encode()) == (f"{reply}\r\n".encode(), b"", 0)


def test_a_megabyte_in_and_out(lab):
    lines = [f"{number:05}" * 3276 for number in range(64)]
    output, errors, _ = lab.psrp(ECHO, lines)
    assert output == lines
    assert errors == []
    stdout, stderr, code = lab.winrs(ECHO, "\n".join(lines).encode())
    assert (stdout.decode("utf-8-sig").split(), stderr, code) == (lines, b"", 0)


def test_one_line_of_a_megabyte(lab):
    script = run("print('x' * 1000000)")
    assert lab.psrp(script)[0] == ["x" * 1000000]
    assert lab.winrs(script)[0] == b"x" * 1000000 + b"\r\n"


def test_a_program_may_leave_its_input_unread(lab):
    script = f"$input | & {PYTHON} -c 'print(1)'\nexit $LASTEXITCODE"
    assert lab.psrp(script, ["x" * 65536] * 16) == (["1"], [], 0)


def test_the_one_line_of_the_collection(lab):
    script = f"$input | & {PYTHON} -I -X utf8 -c 'import sys;exec(sys.stdin.buffer.readline())'\nexit $LASTEXITCODE"
    lines = ["print(sys.stdin.buffer.readline(),flush=True);sys.exit(9)", '{"a": "b c"}', "x" * 65536]
    assert lab.psrp(script, lines) == (['b\'{"a": "b c"}\\r\\n\''], [], 9)
    assert lab.winrs(script, "\n".join(lines).encode()) == (b'b\'{"a": "b c"}\\r\\n\'\r\n', b"", 9)


def test_output_above_the_high_water_mark(lab):
    script = run("print(('x' * 99 + '\\n') * 100000, end='')")
    assert len(lab.winrs(script)[0]) == 101 * 100000


def test_two_pipelines_in_one_pool(lab):
    with lab.wsman() as connection, pypsrp.powershell.RunspacePool(connection) as pool:
        assert pool.get_available_runspaces() == 1
        for text in ("a", "b"):
            pipeline = pypsrp.powershell.PowerShell(pool)
            pipeline.add_script(ECHO)
            assert pipeline.invoke([text]) == [text]


def test_the_environment_of_a_program(lab):
    script = run("import os;print(os.environ['COMPUTERNAME'], os.environ['WCOW_EMULATED_DRIVES'], os.getcwd())")
    node = lab.directory / "node1"
    assert lab.psrp(script)[0] == [f"node1 {node} {node}/C/Users/Administrator"]


# -- refusals -----------------------------------------------------------------


def test_a_script_outside_the_grammar(lab):
    output, errors, code = lab.psrp("Get-Process")
    assert (output, code) == ([], 1)
    assert str(errors[0]).startswith("lab node: the statement 'Get-Process' is not supported")
    assert errors[0].fq_error == "ParseException"
    assert (refusal(lab)["text"], refusal(lab)["shell"]) == ("Get-Process", "psrp")
    stdout, stderr, code = lab.winrs("Get-Service")
    assert (stdout, code) == (b"", 1)
    assert stderr.startswith(b'#< CLIXML\r\n<Objs Version="1.1.0.1"')
    assert b"lab node: the statement 'Get-Service' is not supported" in stderr
    assert (refusal(lab)["text"], refusal(lab)["shell"]) == ("Get-Service", "winrs")


def test_a_changed_script_of_the_collection(lab):
    changed = _powershell.LOOK.replace("Get-Acl", "Get-Item")
    output, errors, code = lab.psrp(changed, ["{}"])
    assert (output, code) == ([], 1)
    assert str(errors[0]).startswith("lab node: the PowerShell script with the SHA-256 ")
    assert refusal(lab)["text"] == changed


@pytest.mark.parametrize("script", ["$input | Out-Null", "$input | & 'C:\\none.exe'"])
def test_input_for_a_script_that_fails_at_once(lab, script):
    assert lab.psrp(script, ["x" * 65536] * 16)[2] == 1
    assert lab.winrs(script, b"x" * 1000000)[2] == 1


def test_a_cmdlet_is_refused(lab):
    with lab.wsman() as connection, pypsrp.powershell.RunspacePool(connection) as pool:
        pipeline = pypsrp.powershell.PowerShell(pool)
        pipeline.add_cmdlet("Get-Item").add_parameter("Path", "C:\\")
        pipeline.invoke()
        assert "cmdlets and arguments are not supported" in str(pipeline.streams.error[0])


def test_a_missing_program(lab):
    script = "& 'C:\\none.exe' x\nexit $LASTEXITCODE"
    output, errors, code = lab.psrp(script)
    assert (output, code) == ([], 1)
    assert str(errors[0]).startswith("The term 'C:\\none.exe' is not recognized as the name of a cmdlet")
    assert errors[0].fq_error == "CommandNotFoundException"
    stdout, stderr, code = lab.winrs(script)
    assert (stdout, code) == (b"", 1)
    assert b"is not recognized as the name of a cmdlet" in stderr


def test_a_program_that_cannot_run(lab):
    program = lab.drive / "broken.exe"
    program.write_bytes(b"MZ")
    program.chmod(0o755)
    output, errors, code = lab.psrp("& 'C:\\broken.exe'\nexit $LASTEXITCODE")
    assert (output, code) == ([], 1)
    assert str(errors[0]).startswith("Program 'C:\\broken.exe' failed to run: ")
    assert errors[0].fq_error == "NativeCommandFailed"
    assert lab.psrp(f"& {PYTHON} 'a\0b'")[1][0].fq_error == "NativeCommandFailed"
    assert b"NativeCommandFailed" in lab.winrs("& 'C:\\broken.exe'")[1]


def test_a_node_without_python(start_lab):
    lab = start_lab(with_python=False)
    assert lab.psrp(run("print(1)"))[1][0].fq_error == "CommandNotFoundException"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("dir", []), ("powershell", ["-Command", "x"]), ("powershell", ["-EncodedCommand", "%%"])],
)
def test_a_command_line_other_than_encoded_powershell(lab, command, arguments):
    protocol = lab.protocol()
    shell = protocol.open_shell()
    try:
        stdout, stderr, code = protocol.get_command_output(shell, protocol.run_command(shell, command, arguments))
    finally:
        protocol.close_shell(shell)
    assert (stdout, code) == (b"", 1)
    assert b"lab node:" in stderr


def test_a_command_line_that_is_too_long(lab):
    stdout, stderr, code = lab.winrs("& x " + "y" * 8191)
    assert (stdout, stderr, code) == (b"", b"The command line is too long.\r\n", 1)


# -- faults -------------------------------------------------------------------


def winrs_of(lab, **options):
    return pypsrp.shell.WinRS(lab.wsman(), **options)


@pytest.mark.parametrize("action", ["receive", "close"])
def test_an_unknown_shell(lab, action):
    with winrs_of(lab, codepage=65001) as shell:
        shell_id = shell.id
        other = winrs_of(lab, id=shell_id)
        other._selector_set, other.opened = shell._selector_set, True
        shell.wsman.delete(shell.resource_uri, selector_set=shell._selector_set)
        with pytest.raises(pypsrp.exceptions.WSManFaultError, match="shell was not found") as caught:
            getattr(other, action)()
        assert caught.value.code == 2150858843
        shell.opened = False


def test_an_unknown_command(lab):
    with winrs_of(lab) as shell, pytest.raises(pypsrp.exceptions.WSManFaultError, match="was not found in the shell"):
        shell.receive(command_id=str(uuid.uuid4()))


def test_a_receive_that_times_out(lab):
    protocol = lab.protocol()
    protocol.operation_timeout_sec = 1
    shell = protocol.open_shell()
    try:
        encoded = base64.b64encode(run("import time;time.sleep(1.5);print(1)").encode("utf-16-le")).decode()
        command = protocol.run_command(shell, "powershell", ["-EncodedCommand", encoded])
        with pytest.raises(winrm.exceptions.WinRMOperationTimeoutError):
            protocol.get_command_output_raw(shell, command)
        assert lab.log()[-1]["fault"] == 2150858793
        assert protocol.get_command_output(shell, command) == (b"1\r\n", b"", 0)
    finally:
        protocol.close_shell(shell)


def test_input_for_a_command_that_has_ended(lab):
    protocol = lab.protocol()
    shell = protocol.open_shell()
    try:
        command = protocol.run_command(shell, "powershell", ["-EncodedCommand", "ZQB4AGkAdAA="])
        assert protocol.get_command_output(shell, command) == (b"", b"", 0)
        with pytest.raises(winrm.exceptions.WSManFaultError, match="pipe has been ended"):
            protocol.send_command_input(shell, command, b"x")
    finally:
        protocol.close_shell(shell)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"codepage": 4711}, "code page 4711"),
        ({"environment": {"A": "b"}}, "Environment"),
        ({"working_directory": "C:\\"}, "WorkingDirectory"),
        ({"resource_uri": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/other"}, "shell/other"),
    ],
)
def test_shells_that_are_not_modelled(lab, options, text):
    with pytest.raises(pypsrp.exceptions.WSManFaultError, match=text):
        winrs_of(lab, **options).open()


def test_actions_that_are_not_modelled(lab):
    with (
        lab.wsman() as connection,
        pytest.raises(pypsrp.exceptions.WSManFaultError, match="transfer/Get is not"),
    ):
        connection.get_server_config()


def test_malformed_psrp_data(lab):
    with lab.wsman() as connection, pypsrp.powershell.RunspacePool(connection) as pool:
        for data in (b"nonsense", b"\0" * 60, b"\0" * 8 + b"\0" * 8 + b"\3" + b"\0\0\0\5" + b"12345"):
            with pytest.raises(pypsrp.exceptions.WSManFaultError, match="cannot be understood"):
                pool.shell.send("stdin", data)
    assert lab.psrp("exit 5")[2] == 5


# -- the end of shells --------------------------------------------------------

# Write the process ids of this process and of a child in the same process group, and keep running.
STAY = (
    "import os,subprocess,sys,time;p=subprocess.Popen([sys.executable,'-c','import time;time.sleep(60)']);"
    "print(os.getpid(),p.pid,flush=True);time.sleep(60)"
)


def begin(pool, code):
    """Start Python code in a pool and wait for its first line; return the pipeline and the process ids on that line."""
    pipeline = pypsrp.powershell.PowerShell(pool)
    pipeline.add_script(run(code))
    pipeline.begin_invoke()
    while not pipeline.output:
        pipeline.poll_invoke()
    return pipeline, [int(pid) for pid in pipeline.output[0].split()]


def test_stopping_a_pipeline_ends_its_process_group(lab):
    with lab.wsman() as connection, pypsrp.powershell.RunspacePool(connection) as pool:
        pipeline, pids = begin(pool, STAY)
        pipeline.stop()
        wait_until(lambda: not any(map(alive, pids)))
        again = pypsrp.powershell.PowerShell(pool)
        again.add_script(ECHO)
        assert again.invoke(["still here"]) == ["still here"]


def test_deleting_a_shell_ends_its_process_group(lab):
    with lab.wsman() as connection, pypsrp.powershell.RunspacePool(connection) as pool:
        _, pids = begin(pool, STAY)
    wait_until(lambda: not any(map(alive, pids)))


def test_a_winrs_signal_ends_the_process_group(lab):
    protocol = lab.protocol()
    shell = protocol.open_shell()
    encoded = base64.b64encode(run(STAY).encode("utf-16-le")).decode()
    command = protocol.run_command(shell, "powershell", ["-EncodedCommand", encoded])
    pids = [int(pid) for pid in protocol.get_command_output_raw(shell, command)[0].split()]
    protocol.cleanup_command(shell, command)
    wait_until(lambda: not any(map(alive, pids)))
    protocol.close_shell(shell)


def test_a_client_that_vanishes_leaves_nothing_behind(start_lab):
    lab = start_lab(idle_timeout=3.0)
    connection = lab.wsman()
    pool = pypsrp.powershell.RunspacePool(connection)
    pool.open()
    _, pids = begin(pool, STAY)
    assert all(map(alive, pids))
    connection.close()
    wait_until(lambda: lab.log()[-1]["action"] == "idle")
    # A process that was killed takes a moment to end.
    wait_until(lambda: not any(map(alive, pids)))


def test_a_client_may_ask_for_a_shorter_idle_time(lab):
    shell = winrs_of(lab, idle_time_out=1)
    shell.open()
    assert shell.idle_time_out == "PT1.000S"
    wait_until(lambda: lab.log()[-1]["action"] == "idle")
    with pytest.raises(pypsrp.exceptions.WSManFaultError, match="shell was not found"):
        shell.close()


def test_the_end_of_a_lab_ends_its_children(start_lab):
    lab = start_lab(connections=("psrp", "winrm"))
    connection = lab.wsman()
    pool = pypsrp.powershell.RunspacePool(connection)
    pool.open()
    _, pids = begin(pool, STAY)
    lab.run(lab.server.close())
    wait_until(lambda: not any(map(alive, pids)))


# -- time and the log ---------------------------------------------------------


def test_latency_and_spawn_time(start_lab):
    lab = start_lab(latency=0.05, spawn=0.2)
    lab.psrp("exit 0")
    seconds = {line["action"]: line["seconds"] for line in lab.log() if "seconds" in line}
    assert seconds["Create"] >= 0.25
    assert seconds["Delete"] >= 0.05


def test_the_log_counts_bytes_and_keeps_secrets(start_lab):
    lab = start_lab(auth=("basic", "ntlm"), connections=("winrm",))
    lab.psrp(ECHO, ["of the input nothing is logged"])
    lab.winrs(ECHO, b"of the input nothing is logged", auth="ntlm")
    text = (lab.directory / "access.jsonl").read_text()
    assert "of the input" not in text
    password = lab.configuration.password
    assert password not in text
    assert base64.b64encode(f"Administrator:{password}".encode()).decode() not in text
    lines = lab.log()
    assert {line["node"] for line in lines} == {"node1"}
    requests = [line for line in lines if "status" in line]
    assert all(line["received"] > 200 and line["sent"] > 60 and line["connection"] in (1, 2) for line in requests)
    assert [line["action"] for line in requests if line["connection"] == 1 and line["shell"] == "psrp"][:4] == [
        "Create", "Receive", "Command", "Send",
    ]  # fmt: skip
    assert [line["text"] for line in lines if line["action"] == "script"] == [ECHO, ECHO]
