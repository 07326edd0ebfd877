# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of images, as Kubernetes' container runtime interface (CRI) looks for them.

kubelet asks for ``nanoserver:ltsc2022``, and CRI looks for the record ``docker.io/library/nanoserver:ltsc2022``. A
record with any other spelling of the name is never found (containerd pkg/reference, distribution/reference).
"""

from __future__ import annotations

import re
from typing import Collection

from ..errors import InvalidArgument
from .digest import is_digest

_DEFAULT_DOMAIN = "docker.io"
_OLD_DEFAULT_DOMAIN = "index.docker.io"
_DEFAULT_PATH = "library/"
_DEFAULT_TAG = "latest"

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_COMPONENT = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?/{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)

#: Longest name without tag and digest, and longest text that can be a reference.
_MAX_NAME = 255
_MAX_REFERENCE = _MAX_NAME + 1 + 128 + 1 + 71


def canonical_name(text: str) -> str:
    """Return the name of the record that CRI looks for, such as ``docker.io/library/app:latest`` for ``app``.

    With a tag and a digest, the digest alone counts. Raises InvalidArgument for a text that does not name an image.
    """
    domain, slash, rest = text.partition("/")
    if not slash or not (any(sign in domain for sign in ".:") or domain == "localhost" or domain != domain.lower()):
        domain, rest = _DEFAULT_DOMAIN, text
    if domain == _OLD_DEFAULT_DOMAIN:
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in rest:
        rest = _DEFAULT_PATH + rest
    found = _REFERENCE.fullmatch(f"{domain}/{rest}") if len(text) <= _MAX_REFERENCE else None
    if found is None or len(found["name"]) > _MAX_NAME or re.fullmatch("[0-9a-f]{64}", text):
        hint = ": it must be in lower case" if text != text.lower() and canonical_or_none(text.lower()) else ""
        raise InvalidArgument(
            f"{text[:200]!r} does not name an image{hint}; a name is a registry, a path and a tag or digest, such as "
            "registry.example.com/team/app:1.4",
            name=text[:200],
        )
    if found["digest"]:
        return f"{found['name']}@{found['digest']}"
    return f"{found['name']}:{found['tag'] or _DEFAULT_TAG}"


def canonical_or_none(text: str) -> str:
    """Return the canonical name, ``""`` for a text that does not name an image."""
    try:
        return canonical_name(text)
    except InvalidArgument:
        return ""


def say_unknown(name: str, known: Collection[str]) -> str:
    """Return a sentence about a name that no image has. ``known`` are the names that there are."""
    import difflib

    nearest = ", ".join(difflib.get_close_matches(name, known, 5, 0.0))
    return f'no image has the name "{name}"; ' + (f"the nearest names are {nearest}" if known else "there are no names")


def names_image(text: str) -> bool:
    """Return whether a name in an archive is the name of an image, and not only a tag or the id of an image.

    The rule is that of ``ctr images import`` (core/images/archive/reference.go).
    """
    return any(sign in text for sign in "/:@") and not is_digest(text) and bool(canonical_or_none(text))
