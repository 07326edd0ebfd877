# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which security descriptors keep a store among administrators."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.protection import (
    SDDL,
    allows_administrators_only,
    is_protected,
    protect,
)


@pytest.mark.parametrize(
    "sddl",
    [
        SDDL,
        "O:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)",
        "D:(A;OICIIO;GA;;;CO)(A;;FA;;;BA)",
        "O:BAD:P(A;OICI;FA;;;BA)(D;;FA;;;WD)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FRFX;;;S-1-5-21-1-2-3-1104)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;S-1-5-21-1-2-3-1104)S:(AU;SA;FA;;;WD)",
        "D:P",
    ],
)
def test_protected(sddl: str) -> None:
    assert allows_administrators_only(sddl)


@pytest.mark.parametrize(
    "sddl",
    [
        # What C:\ProgramData hands down.
        "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FR;;;WD)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FRFW;;;S-1-5-21-1-2-3-1104)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;S-1-5-21-1-2-3-1104)",
        "O:BAD:P(A;OICI;FA;;;BA)(XA;;FA;;;S-1-5-21-1-2-3-1104;(Member_of {SID(BA)}))",
        "O:S-1-5-21-1-2-3-1104D:P(A;OICI;FA;;;BA)",
        "O:BAD:NO_ACCESS_CONTROL",
        "O:BA",
        "",
    ],
)
def test_open(sddl: str) -> None:
    assert not allows_administrators_only(sddl)


@pytest.mark.posix
def test_modes(tmp_path: Any) -> None:
    inside = tmp_path / "inside"
    inside.mkdir(0o755)
    tmp_path.chmod(0o755)
    assert not is_protected(str(tmp_path))
    protect(str(tmp_path))
    assert is_protected(str(tmp_path))
    assert os.stat(inside).st_mode & 0o777 == 0o755
