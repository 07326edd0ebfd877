# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that what may be a secret is removed from text, and that what a maintainer needs stays."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._redact import REMOVED, redact, redact_text

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "the option password: hunter2, and more",
        'the line "password" = "hunter2" of config.toml',
        "password = 'correct hunter2 staple'",
        "Password=correct hunter2 staple",
        "registry_password: a,hunter2",
        '{"token": "hunter2", "name": "x"}',
        "identitytoken=hunter2",
        "example.com/api-key=hunter2",
        "client_secret=hunter2;",
        "AccountKey=hunter2==",
        "sig=1&signature=hunter2",
        "Authorization: hunter2",
        "ctr --password hunter2 images pull",
        "ctr --registry-token hunter2",
        "https://user:hunter2@registry.example.com/v2/",
        "proxy http://hunter2@proxy.example.com:3128",
        "Bearer hunter2hunter2hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n",
        'snapshot "x" has the label example.com/note=my hunter2 in meta.db in meta.db, but not in metadata.db',
        "the label example.com/note=hunter2 is too long",
        "a word hunter2Hunter2Hunter2Hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIjoxfQhunter2.a",
    ],
)
def test_what_may_be_a_secret_is_removed(text):
    redacted = redact_text(text)
    assert SECRET not in redacted
    assert REMOVED in redacted


@pytest.mark.parametrize(
    "text",
    [
        r"C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows\snapshots\rm-7 waits to be destroyed",
        r"\\.\pipe\containerd-containerd",
        "sha256:44c26163a1a2da5ec7ee6bc1b5ac8c1dfa1d8e2e5ab10d9ddfb87be0bcd0a8b3",
        '"k8s.io/12/extract-508124100-bXl0 sha256:44c26163a1a2da5ec7ee6bc1b5ac8c1dfa1d8e2e5ab10d9ddfb87be0bcd0a8b3"',
        "hcsshim::PrepareLayer failed in Win32: Access is denied. (0x5)",
        r"\\?\Volume{3F2504E0-4F89-41D3-9A0C-0305E82C3301}",
        "2026-11-29 19:43:15,123 ERROR Commit failed: the layer is in use",
        "failed to authenticate with the server: basic, negotiate",
        "the specified credentials were rejected by the server",
        "Basic authentication over plain HTTP is not supported",
        "mcr.microsoft.com/windows/servercore:ltsc2022 and https://mcr.microsoft.com/v2/",
        "it passed 3 checks: all",
    ],
)
def test_what_a_maintainer_needs_stays(text):
    assert redact_text(text) == text


def test_values_under_keys_that_name_secrets_or_labels():
    given = {
        "labels": {"example.com/note": SECRET},
        "details": {"key": "x", "registry_token": SECRET, "environment": {"A": SECRET}, "label": SECRET},
        "problems": [f"password={SECRET}", 7, None, True],
        "labels_wanted": 3,
        "token": None,
    }
    found = redact(given)
    assert SECRET not in json.dumps(found)
    assert found == {
        "labels": REMOVED,
        "details": {"key": "x", "registry_token": REMOVED, "environment": REMOVED, "label": REMOVED},
        "problems": [f"password={REMOVED}", 7, None, True],
        "labels_wanted": 3,
        "token": None,
    }


def test_texts_that_the_user_names_are_replaced_also_in_keys():
    replaced = [("corp", "company"), ("corp.example.com", "example.com"), (r"D:\Contoso", r"D:\Customer\1")]
    given = {"node1.CORP.example.com": r"corp has d:\contoso\wcow"}
    assert redact(given, replaced) == {"node1.example.com": r"company has D:\Customer\1\wcow"}


@pytest.mark.parametrize(
    "part", ["token", "a", "a.", "a://", "-----BEGIN -----", "label x=", "-token ", "bearer ", '"']
)
def test_no_text_takes_long(part):
    """A node decides what is in a line."""
    started = time.process_time()
    redact_text(part * (64 * 1024 // len(part)))
    assert time.process_time() - started < 10
