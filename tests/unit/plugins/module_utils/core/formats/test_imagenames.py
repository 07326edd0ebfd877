# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of images: those that CRI looks for."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.imagenames import (
    canonical_name,
    names_image,
)

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app", "docker.io/library/app:latest"),
        ("app:1.4", "docker.io/library/app:1.4"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/app", "docker.io/library/app:latest"),
        ("index.docker.io/app:1", "docker.io/library/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("Registry.Example.com/app", "Registry.Example.com/app:latest"),
        ("mcr.microsoft.com/windows/nanoserver:ltsc2022", "mcr.microsoft.com/windows/nanoserver:ltsc2022"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}"),
        (f"registry.example.com/app:1.4@{DIGEST}", f"registry.example.com/app@{DIGEST}"),
        ("a__b/c-d---e.f:A_b.C-d", "docker.io/a__b/c-d---e.f:A_b.C-d"),
    ],
)
def test_names_become_those_of_cri(text, name):
    assert canonical_name(text) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", ":", "app:", "app@", "app:1:2", "/app", "app/", "a//b", "-app", "app-", "a___b", "a..b", "ap p"),
        *("app:-1", "app:" + "x" * 129, "x" * 300, "y" * 100_000, "example.com/" + "a/" * 200 + "b", "app\n", "äpp"),
        *("app@sha256:0a", f"app@{DIGEST.upper()}", "0a" * 32, "http://example.com/app", r"C:\app"),
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidArgument, match="does not name an image"):
        canonical_name(text)
    assert not names_image(text)


def test_upper_case_is_named():
    for text in ("App", "team/App:1", "registry.example.com/TEAM/app"):
        with pytest.raises(InvalidArgument, match="it must be in lower case"):
            canonical_name(text)


@pytest.mark.parametrize("text", ["sample", "1.4", "latest", DIGEST])
def test_a_tag_or_an_id_in_an_archive_is_not_a_name(text):
    assert not names_image(text)


@pytest.mark.parametrize("text", ["app:1", "team/app", f"app@{DIGEST}"])
def test_a_name_in_an_archive(text):
    assert names_image(text)
