# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test Windows error codes: their classes, messages and remedies."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import errors, vmcompute
from hypothesis import given
from hypothesis import strategies as st


def hresult(code):
    """Return the HRESULT as the signed number that ctypes returns."""
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
        # The severity bit and the customer bit do not change the result.
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


def test_two_sentences_of_hcsshim_name_a_path(monkeypatch):
    monkeypatch.setattr(vmcompute.DLL, "call", lambda *_: hresult(0x80070005))
    for process, title in (
        (vmcompute.process_base_image, "hcsshim::ProcessBaseLayer"),
        (vmcompute.process_utility_image, "hcsshim::ProcessUtilityVMImage"),
    ):
        with pytest.raises(errors.Win32Error) as caught:
            process("C:\\root\\snapshots\\1")
        assert caught.value.message == f"{title} \\\\?\\C:\\root\\snapshots\\1: {errors.message(5)} (0x5)"
        assert caught.value.details["call"].startswith("Process")


def test_a_layer_that_another_program_has_prepared():
    error = errors.hcs_error("PrepareLayer", "PrepareLayer", hresult(0x800700B7))
    assert isinstance(error, Unavailable)
    assert "a container runs in it" in error.details["advice"]
    assert not isinstance(errors.hcs_error("ImportLayer", "ImportLayer", hresult(0x800700B7)), Unavailable)


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
        # "not_found" would mean that the snapshot does not exist.
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
    error = errors.call_error("AttachVirtualDisk", 19, "x").with_context("failed to create scratch layer")
    assert isinstance(error, errors.Win32Error)
    assert error.winerror == 19
    assert "BitLocker" in error.details["advice"]
    assert error.message.startswith("failed to create scratch layer: AttachVirtualDisk x: ")


@pytest.mark.parametrize("code", [0x5, 0x20, 0x57, 0x5B4, 0x15, 0x48F, 0x490, 0xC0370106, 0xC0000420])
def test_known_codes_of_layer_calls_say_what_to_do(code):
    error = errors.hcs_error("ActivateLayer", "ActivateLayer", hresult(code if code >> 16 else 0x80070000 | code))
    assert error.details["advice"].endswith(".")
