# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab nodes: loopback stand-ins for Windows hosts.

``python -m lab up`` starts them. Real Ansible connections (psrp, winrm) talk
to them with real PowerShell remoting and WinRS over WS-Management, and they
run the node's Python as an ordinary local process. docs/lab.md says what they
model and what they do not.

Bytes come in through ``http`` and ``authentication``, become a
``wsman.Request`` that ``node`` answers with the help of a shell
(``psrp_shell``, ``winrs_shell``), and a shell runs its script by ``powershell``
(the grammar) and ``process`` (the processes).
"""
