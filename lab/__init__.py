# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab nodes: loopback stand-ins for Windows hosts.

``python -m lab up`` starts them. Ansible's psrp and winrm connections talk to
them with real PowerShell remoting and WinRS over WS-Management, and its ssh
connection with a real ssh client. A lab node
runs its Python as a local process. docs/lab.md lists what lab nodes model.

The path of a request::

    http, authentication      bytes to an envelope
    node, wsman               envelope to a call of a shell
    psrp_shell, winrs_shell   call to a script and its input
    ssh                       the same, from the command line of an ssh session
    encoded_command           command line of powershell.exe to a script
    scripts, powershell       script to statements
    process                   statements to local processes
    windows                   the calls of Windows that the collection's scripts make

``containerd`` is a package of its own: the simulated containerd of a node.
"""
