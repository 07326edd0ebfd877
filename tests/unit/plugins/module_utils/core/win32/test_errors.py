# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Codes, their classes and sentences: what Windows returns becomes what a person searches for."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import errors
from hypothesis import given
from hypothesis import strategies as st


def hresult(code):
    """As ctypes gives it: signed."""
    return code - (1 << 32) if code >> 31 else code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0x80070005, 0x5),
        (0x800705B4, 0x5B4),
        (0x80070490, 0x490),
        (0xC0370106, 0xC0370106),
        (0x80004005, 0x80004005),
        (0xC0000022, 0xC0000022),
        # The severity and the customer bit do not matter.
        (0x00070005, 0x5),
        (0xA0070005, 0x5),
    ],
)
def test_a_win32_code_is_taken_out_of_an_hresult(value, code):
    assert errors.win32_code(hresult(value)) == code


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_hresult_has_a_code(value):
    code = errors.win32_code(value)
    assert 0 <= code < 2**32
    assert code == value & 0xFFFFFFFF or code == value & 0xFFFF


def test_the_sentence_is_that_of_hcsshim():
    error = errors.hcs_error("PrepareLayer", "PrepareLayer", hresult(0xC0370106))
    assert error.message.startswith("hcsshim::PrepareLayer failed in Win32: ")
    assert error.message.endswith(" (0xc0370106)")
    assert error.winerror == 0xC0370106
    assert error.details["call"] == "PrepareLayer"
    assert "Host Compute Service" in error.details["advice"]


def test_odd_titles_and_suffixes_are_kept():
    deactivate = errors.hcs_error("DeactivateLayer- failed", "DeactivateLayer", hresult(0x80070490))
    assert deactivate.message.startswith("hcsshim::DeactivateLayer- failed failed in Win32: ")
    mount = errors.hcs_error("GetLayerMountPath", "GetLayerMountPath", hresult(0x80070003), " (first call)")
    assert mount.message.endswith(" (0x3) (first call)")


def test_other_calls_name_their_subject():
    error = errors.call_error("OpenVirtualDisk", 32, r"C:\1\sandbox.vhdx")
    assert error.message.startswith(r"OpenVirtualDisk C:\1\sandbox.vhdx: ")
    assert error.message.endswith(" (0x20)")
    assert "in use" in error.details["advice"]
    assert errors.call_error("ImpersonateSelf", 5).message.startswith("ImpersonateSelf: ")


@pytest.mark.parametrize(
    ("code", "kind", "reply"),
    [
        (errors.ERROR_SHARING_VIOLATION, Unavailable, "unavailable"),
        (errors.ERROR_TIMEOUT, Unavailable, "unavailable"),
        (errors.ERROR_DISK_FULL, Unavailable, "unavailable"),
        (errors.ERROR_ACCESS_DENIED, FailedPrecondition, "failed_precondition"),
        (errors.ERROR_PRIVILEGE_NOT_HELD, FailedPrecondition, "failed_precondition"),
        # Not "not_found": that would read as if there were no such snapshot.
        (errors.ERROR_FILE_NOT_FOUND, errors.Win32Error, "internal"),
        (0xC0370106, errors.Win32Error, "internal"),
    ],
)
def test_codes_have_classes(code, kind, reply):
    error = errors.hcs_error("ActivateLayer", "ActivateLayer", hresult(code if code >> 16 else 0x80070000 | code))
    assert isinstance(error, errors.Win32Error)
    assert isinstance(error, kind)
    assert error.code == reply


def test_a_prefix_keeps_code_and_class():
    error = errors.call_error("AttachVirtualDisk", 19, "x").prefixed("failed to create scratch layer")
    assert isinstance(error, errors.Win32Error)
    assert error.winerror == 19
    assert "BitLocker" in error.details["advice"]
    assert error.message.startswith("failed to create scratch layer: AttachVirtualDisk x: ")


@pytest.mark.parametrize("code", [0x5, 0x20, 0x57, 0x5B4, 0x15, 0x48F, 0x490, 0xC0370106, 0xC0000420])
def test_known_codes_of_layer_calls_say_what_to_do(code):
    error = errors.hcs_error("ActivateLayer", "ActivateLayer", hresult(code if code >> 16 else 0x80070000 | code))
    assert error.details["advice"].endswith(".")
