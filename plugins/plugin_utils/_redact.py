# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what may be a secret from values that a user sends to other people.

The text comes from messages and logs, so nothing marks a secret in it. What looks like one is removed, although some of
it is not one: a missing word costs less than a secret that was sent.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import re
from typing import Any, Sequence, Tuple

#: What stands for a text that was removed.
REMOVED = "<removed>"

#: Keys whose values are removed as a whole. Labels and environments are the places where users put anything.
_KEYS = re.compile("labels?|environment|env", re.IGNORECASE)

# The numbers of characters are limited, so that no text takes long.
_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|credentials?|cookie|authorization|signature|"
    r"(?:api|access|account|private|shared|storage|encryption)[_-]?key)[\w.-]{0,64}"
)

#: What follows a name: a quoted text, else everything up to the end of the clause.
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\S*[^,;\n]*)"""

_RULES: Sequence[Tuple[re.Pattern[str], str]] = (
    # A key in PEM.
    (re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL), REMOVED),
    # The user and the password in a URL.
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/\s@]{1,1024}@"), rf"\1{REMOVED}@"),
    # password=..., "token": "...", example.com/api-key: ...
    (re.compile(rf"({_NAME}[\"']?\s*[=:]\s*){_VALUE}", re.IGNORECASE), rf"\1{REMOVED}"),
    # --password ...
    (re.compile(rf"(--?[\w-]{{0,64}}?{_NAME}\s+)(?![=:])\S+", re.IGNORECASE), rf"\1{REMOVED}"),
    # The header of HTTP.
    (re.compile(r"(\b(?:bearer|basic|negotiate)\s+)[A-Za-z0-9+/_.=-]{16,}", re.IGNORECASE), rf"\1{REMOVED}"),
    # The value of a label, in the sentence of a finding.
    (re.compile(r"(\blabels?\s+[^\s=]+=)(?:.*(?= in meta\.db)|.*)"), rf"\1{REMOVED}"),
)

#: A word that is long enough for a key.
_WORD = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
#: Digests and the ids of containers, GUIDs, and containerd's keys of layers that it unpacks.
_KNOWN = re.compile(
    "[0-9a-f]+|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[a-z0-9/]*extract-[0-9]{1,10}-[A-Za-z0-9_-]{4}"
)


def _without_keys(found: re.Match[str]) -> str:
    """Return a long word, or ``REMOVED`` if it mixes letters of both cases with digits, as a random key does."""
    word = found[0]
    is_mixed = all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return REMOVED if is_mixed and not _KNOWN.fullmatch(word) else word


def redact_text(text: str, replaced: Sequence[Tuple[str, str]] = ()) -> str:
    """Return a text without what may be a secret, and with the texts in ``replaced`` replaced by their partners."""
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    text = _WORD.sub(_without_keys, text)
    # The longest first: one can be part of another.
    for old, new in sorted(replaced, key=lambda pair: len(pair[0]), reverse=True):
        text = re.sub(re.escape(old), new.replace("\\", "\\\\"), text, flags=re.IGNORECASE)
    return text


def redact(value: Any, replaced: Sequence[Tuple[str, str]] = ()) -> Any:
    """Return a copy of a JSON value, with each text as ``redact_text`` returns it.

    A value whose key names a secret, labels or an environment is removed as a whole.
    """
    if isinstance(value, dict):
        return {
            redact_text(str(key), replaced): REMOVED
            if item and (_KEYS.fullmatch(str(key)) or re.search(_NAME, str(key), re.IGNORECASE))
            else redact(item, replaced)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item, replaced) for item in value]
    return redact_text(value, replaced) if isinstance(value, str) else value
