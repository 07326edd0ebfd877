# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Windows' own functions, called through ctypes: one module a DLL, one small function a call.

A module starts with the table of the prototypes it uses. DLLs are loaded when
the first of their functions is called, and from System32 only. All layouts
are those of 64-bit Windows, x64 and arm64 alike.

Functions take and give plain Python values and fail with ``Win32Error``. A
handle is a ``kernel32.Handle``, which its ``with`` block closes; a path is an
absolute Windows path without the prefix ``\\?\`` unless a function says
otherwise. The package imports on every system; calling anything that needs
Windows raises NotImplementedHere elsewhere.
"""
