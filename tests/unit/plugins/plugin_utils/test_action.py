# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of errors of connection plugins that a lab node cannot cause; tests/integration has the others."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action


class Action(_action.SnapshotterAction):
    module = "wcow.snapshotter.store_check"

    def __init__(self):
        self._host = "node1"


def reach(failure):
    def talk():
        raise failure

    Action()._reach("check", talk)


def test_a_connection_that_the_system_gives_up():
    """Unreachable, as with any other connection failure, though winrm does not say so."""
    with pytest.raises(AnsibleConnectionFailure) as caught:
        reach(AnsibleError("the connection attempt timed out"))
    assert "the connection failed during 'check' on node1" in str(caught.value)
    assert "Rerunning the task is safe" in str(caught.value)


def test_other_errors_of_ansible_stay_as_they_are():
    failure = AnsibleError("pypsrp or dependencies are not installed")
    with pytest.raises(AnsibleError) as caught:
        reach(failure)
    assert caught.value is failure
