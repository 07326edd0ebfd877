# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The PowerShell scripts that install and remove a private Python.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.

docs/powershell.md explains each line. The scripts are constants. The first
line of standard input is the request, in JSON. Lines of base64 may follow it.
Each script answers with one line of JSON. The scripts need Windows PowerShell
5.1 and .NET Framework 4.7, which every node has.

INSTALL verifies and unpacks a package in ``<directory>.wcow-new-<GUID>``,
beside the directory of the runtime. ``<directory>.wcow-old-<GUID>`` is a
replaced or removed runtime. CLEAN removes both after an interruption. The GUID
separates two runs, because a script continues after its client has gone.

The lab recognizes each script by its digest: change lab/scripts.py together
with a script.
"""

from __future__ import annotations

from typing import Any, Dict

from ._reply import RERUN, NodeFailure, Output, excerpt, unusable
from ._shapes import STEP_FAILED, Malformed, fit, read_json

#: Characters of a script at most. winrm and ssh pass a script as base64 of UTF-16 in one command line, after the name
#: and options of powershell.exe, and a line of cmd.exe has 8191 characters at most.
LONGEST = 3000

#: Answers ``exists``, ``empty``, ``protected`` (only administrators and SYSTEM have access), ``marker`` (the text of
#: wcow-runtime.json, which records in JSON what was installed), ``version`` (the output of python.exe, which only runs
#: if it is protected) and ``left`` (the leftovers that CLEAN removes).
LOOK = r"""$ErrorActionPreference = 'Stop'
$step = 'look'
try {
    $lines = @($input)
    $request = ConvertFrom-Json -InputObject $lines[0]
    $directory = $request.directory
    $parent = [IO.Path]::GetDirectoryName($directory)
    $name = [IO.Path]::GetFileName($directory)
    $reply = @{ exists = [IO.Directory]::Exists($directory); empty = $true; protected = $false; left = @() }
    if ([IO.Directory]::Exists($parent)) {
        $reply.left = [IO.Directory]::GetDirectories($parent, "$name.wcow-*")
    }
    if ($reply.exists) {
        $rights = (Get-Acl -LiteralPath $directory).Sddl
        $reply.protected = $rights -match '^O:BAG:.*D:P[A-Z]*(\(A;OICI;FA;;;(SY|BA)\)){2}$'
        $reply.empty = [IO.Directory]::GetFileSystemEntries($directory).Length -eq 0
    }
    if ([IO.File]::Exists("$directory\wcow-runtime.json")) {
        $reply.marker = [IO.File]::ReadAllText("$directory\wcow-runtime.json")
        if ($reply.protected) {
            try {
                $reply.version = & "$directory\python.exe" -I -c 'import sys;print(sys.version.split()[0])'
            } catch {
                $reply.version = ''
            }
        }
    }
} catch {
    $reply = @{ step = $step; error = "$_" }
}
ConvertTo-Json -InputObject $reply -Compress
"""

#: Replaces ``directory`` by the package from ``url``, or from the lines after the request, if the digest is ``sha256``
#: and python.exe reports ``version``. Writes ``marker`` to wcow-runtime.json.
INSTALL = r"""$ErrorActionPreference = 'Stop'
$step = 'prepare'
try {
    $lines = @($input)
    $request = ConvertFrom-Json -InputObject $lines[0]
    $directory = $request.directory
    $id = [Guid]::NewGuid().ToString('N')
    $new = "$directory.wcow-new-$id"
    $old = "$directory.wcow-old-$id"
    $rights = New-Object -TypeName Security.AccessControl.DirectorySecurity
    $rights.SetSecurityDescriptorSddlForm('O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
    [void][IO.Directory]::CreateDirectory($new, $rights)
    if ((Get-Acl -LiteralPath $new).Sddl -notmatch '^O:BAG:.*D:P[A-Z]*(\(A;OICI;FA;;;(SY|BA)\)){2}$') {
        throw "$new has other rights than it was made with"
    }
    $step = 'receive'
    $package = "$new\package.zip"
    if ($request.url) {
        $tls = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
        [Net.ServicePointManager]::SecurityProtocol = $tls
        (New-Object -TypeName Net.WebClient).DownloadFile($request.url, $package)
    } else {
        $file = [IO.File]::Create($package)
        try {
            for ($i = 1; $i -lt $lines.Length; $i++) {
                $bytes = [Convert]::FromBase64String($lines[$i])
                $file.Write($bytes, 0, $bytes.Length)
            }
        } finally {
            $file.Close()
        }
    }
    $step = 'verify'
    $hash = (Get-FileHash -LiteralPath $package -Algorithm SHA256).Hash
    if ($hash -ne $request.sha256) {
        throw "its SHA-256 is $hash"
    }
    $step = 'unpack'
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    [IO.Compression.ZipFile]::ExtractToDirectory($package, $new)
    [IO.File]::Delete($package)
    $step = 'try'
    $version = & "$new\python.exe" -I -c 'import sys;print(sys.version.split()[0])'
    if ($version -ne $request.version) {
        throw "its python.exe answers '$version'"
    }
    [IO.File]::WriteAllText("$new\wcow-runtime.json", $request.marker)
    $step = 'replace'
    if ([IO.File]::Exists("$directory\python.exe")) {
        [IO.File]::Open("$directory\python.exe", 'Open', 'ReadWrite', 'ReadWrite').Close()
    }
    if ([IO.Directory]::Exists($directory)) {
        [IO.Directory]::Move($directory, $old)
    }
    $reply = @{ installed = $false }
    for ($i = 1; $reply.installed -eq $false; $i++) {
        try {
            [IO.Directory]::Move($new, $directory)
            $reply.installed = $true
        } catch {
            if ($i -lt 10) {
                Start-Sleep -Seconds 1
            } else {
                if ([IO.Directory]::Exists($old)) {
                    [IO.Directory]::Move($old, $directory)
                }
                throw
            }
        }
    }
} catch {
    $reply = @{ step = $step; error = "$_" }
    try {
        [IO.Directory]::Delete($new, $true)
    } catch {
        $reply.left = $new
    }
}
ConvertTo-Json -InputObject $reply -Compress
"""

#: Removes the leftovers beside ``directory``, and with ``absent`` the runtime too. Answers ``left``: the directories
#: that could not be removed, with the reason.
CLEAN = r"""$ErrorActionPreference = 'Stop'
$step = 'replace'
try {
    $lines = @($input)
    $request = ConvertFrom-Json -InputObject $lines[0]
    $directory = $request.directory
    $parent = [IO.Path]::GetDirectoryName($directory)
    $name = [IO.Path]::GetFileName($directory)
    $reply = @{ left = @() }
    if ($request.absent) {
        if ([IO.File]::Exists("$directory\python.exe")) {
            [IO.File]::Open("$directory\python.exe", 'Open', 'ReadWrite', 'ReadWrite').Close()
        }
        $id = [Guid]::NewGuid().ToString('N')
        [IO.Directory]::Move($directory, "$directory.wcow-old-$id")
    }
    $step = 'clean'
    foreach ($path in [IO.Directory]::GetDirectories($parent, "$name.wcow-*")) {
        try {
            [IO.File]::Delete("$path\python.exe")
            [IO.Directory]::Delete($path, $true)
        } catch {
            $reply.left += "$path, $_"
        }
    }
} catch {
    $reply = @{ step = $step; error = "$_" }
}
ConvertTo-Json -InputObject $reply -Compress
"""


def parse(output: Output, shape: Dict[str, Any]) -> Dict[str, Any]:
    """Return the reply of a script, the last line of its standard output.

    The reply has ``shape``, or STEP_FAILED if it has an ``error``. Raises
    NodeFailure if there is no such reply.
    """
    lines = [line for line in (line.strip("\ufeff \t\r") for line in output.stdout.split("\n")) if line]
    try:
        reply = read_json(lines[-1])
    except (IndexError, ValueError):
        reply = None
    if isinstance(reply, dict):
        try:
            return dict(fit(reply, STEP_FAILED if "error" in reply else shape, "the reply"))
        except Malformed as error:
            raise unusable(error) from None
    said = excerpt(output.stderr) or excerpt(output.stdout)
    if said:
        raise NodeFailure("failed_precondition", f"Windows PowerShell 5.1 on the node did not run the script:\n{said}")
    raise NodeFailure("unavailable", f"The node's PowerShell ended with exit code {output.code} and no reply. {RERUN}")
