# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the version of the collection."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _version


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr(_version, "_COLLECTION", tmp_path)
    _version.collection_version.cache_clear()
    yield tmp_path
    _version.collection_version.cache_clear()


def test_the_version_of_a_checkout_and_of_an_installed_collection(collection):
    (collection / "galaxy.yml").write_text(yaml.safe_dump({"version": "1.2.3"}))
    assert _version.collection_version() == "1.2.3"
    _version.collection_version.cache_clear()
    (collection / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "1.2.4"}}))
    assert _version.collection_version() == "1.2.4"
