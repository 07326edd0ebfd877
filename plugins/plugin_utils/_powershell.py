# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The scripts that give a private Python to a node which has none: the only PowerShell that does more than start one.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.

docs/powershell.md has the reason for each line. The scripts are constants:
what they need to know is the first line of standard input, JSON, and what
they receive are lines of base64 after it. Each answers one line of JSON. They
are for Windows PowerShell 5.1 and .NET Framework 4.7, which every node has.

Beside the directory of the runtime lie ``<directory>.wcow-new-<GUID>``, in
which a package is verified and unpacked, and ``<directory>.wcow-old-<GUID>``,
a runtime on its way out. What an interruption leaves of them, CLEAN removes.
The GUID keeps two runs apart: a script goes on when its client has gone.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Dict

from ._reply import RERUN, NodeFailure, Output, excerpt

#: cmd.exe takes 8191 characters in a line, in which winrm and ssh pass a script as base64 of UTF-16 behind the name and
#: the options of powershell.exe: so many characters may a script have.
LONGEST = 3000

#: Answers ``exists``, ``empty``, ``protected`` (nobody but administrators and SYSTEM has access), ``marker`` (the text
#: of wcow-runtime.json, JSON that says what was installed), ``version`` (what python.exe says, only asked if it is
#: protected) and ``left`` (what CLEAN removes).
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

#: Puts the package from ``url``, or from the lines after the request, in place of what is at ``directory``, if its
#: digest is ``sha256`` and its python.exe answers ``version``. ``marker`` becomes the text of its wcow-runtime.json.
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

#: Removes what was left beside ``directory``, and with ``absent`` the runtime too. Answers ``left``: what could not be
#: removed, and why.
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


def over_ssh(script: str) -> str:
    """The command line for ssh to Windows, where the far end may be cmd.exe or PowerShell."""
    encoded = base64.b64encode(script.encode("utf-16-le")).decode("ascii")
    return f"powershell.exe -NoProfile -NonInteractive -EncodedCommand {encoded}"


def parse(output: Output) -> Dict[str, Any]:
    """A script's answer, the last line of standard output. Raises NodeFailure if there is none."""
    lines = [line for line in (line.strip("\ufeff \t\r") for line in output.stdout.split("\n")) if line]
    try:
        reply = json.loads(lines[-1])
    except (IndexError, ValueError):
        reply = None
    if isinstance(reply, dict):
        return reply
    said = excerpt(output.stderr) or excerpt(output.stdout)
    if said:
        raise NodeFailure("failed_precondition", f"Windows PowerShell 5.1 on the node did not run the script:\n{said}")
    raise NodeFailure("unavailable", f"The node's PowerShell ended with exit code {output.code} and no reply. {RERUN}")
