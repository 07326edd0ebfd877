# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Windows' own functions, called through ctypes: one module for each DLL, one small function for each call.

A module starts with the table of the prototypes that it uses. A DLL is loaded
when the first of its functions is called, and only from System32. All layouts
are those of 64-bit Windows, the same on x64 and arm64.

Functions take and return plain Python values and raise ``Win32Error``. A
handle is a ``kernel32.Handle``, which its ``with`` block closes. A path is an
absolute Windows path without the prefix ``\\?\`` unless a function says
otherwise. Every function may be called in several threads at the same time.
The package can be imported on every system; a call that needs Windows raises
NotImplementedHere elsewhere.
"""
