# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which security descriptors keep ordinary accounts out."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.sddl import fault
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.protection import SDDL

ACCOUNT = "S-1-5-21-1-2-3-1104"


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
        "D:PS:(AU;SA;FA;;;WD)",
        # Python 3.12.4 and newer give this one to a directory with the mode 0700.
        "O:BAG:SYD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)",
        "O:LAD:P(A;;FA;;;BA)(A;;GRGX;;;BO)(A;;0x80000000;;;S-1-5-83-0)",
    ],
)
def test_protected(sddl: str) -> None:
    assert fault(sddl) == ""


@pytest.mark.parametrize(
    "sddl",
    [
        # A directory inherits this one from C:\ProgramData.
        "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FR;;;WD)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FRFW;;;S-1-5-21-1-2-3-1104)",
        "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;S-1-5-21-1-2-3-1104)",
        "O:BAD:P(A;OICI;FA;;;BA)(XA;;FA;;;S-1-5-21-1-2-3-1104;(Member_of {SID(BA)}))",
        "O:S-1-5-21-1-2-3-1104D:P(A;OICI;FA;;;BA)",
        'O:BAD:P(A;;FA;;;BA)(XA;;FR;;;BA;(@User.t == ")S:"))(A;;FA;;;WD)',
        "O:BAD:P(A;;FA;;;BA)(A;;?;;;BA)",
        "O:BAD:P(A;;FA;;;BA)(A;;FA;;;WD",
        "O:BAD:NO_ACCESS_CONTROL",
        "O:BA",
        "",
    ],
)
def test_open(sddl: str) -> None:
    assert fault(sddl)


@pytest.mark.parametrize("rights", ["FA", "FR", "0x1200a9"])
@pytest.mark.parametrize(
    "account",
    # Groups of all users, of a domain's users and guests, and of programs: by name and by number.
    [
        "DU",
        "DG",
        "DC",
        "AC",
        "WD",
        "BU",
        "AU",
        "RU",
        "RD",
        "LG",
        "SU",
        "S-1-15-2-2",
        "S-1-5-21-1-2-3-513",
        "S-1-5-80-0",
    ],
)
def test_groups_of_users_and_programs_have_no_access(account: str, rights: str) -> None:
    descriptor = f"O:BAD:P(A;OICI;FA;;;BA)(A;OICI;{rights};;;{account})"
    assert fault(descriptor).endswith(f"by {account}")
    assert bool(fault(descriptor, readable=True)) is (rights == "FA")


def test_the_user_of_this_process_is_an_administrator() -> None:
    descriptor = f"O:{ACCOUNT}D:P(A;;FA;;;{ACCOUNT})"
    assert fault(descriptor) == f"belongs to {ACCOUNT}"
    assert fault(descriptor, ACCOUNT) == ""
    assert fault(f"O:BAD:P(A;;FA;;;{ACCOUNT})") == f"can be changed by {ACCOUNT}"
