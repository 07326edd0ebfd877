# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make text of a node safe to show, and results free of secrets.

A node, a key or a label can contain line ends that forge a line of Ansible's
output, escape sequences that control the terminal, and characters that change
the writing direction.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Iterable

#: Characters of a line at most. The longest key has 4096 bytes, and a message names several.
LONGEST = 64 * 1024


def is_visible(char: str) -> bool:
    """Return True if a character shows itself. Spaces of any width do; they are common in French messages."""
    return char.isprintable() or unicodedata.category(char) == "Zs"


def written_out(char: str) -> str:
    r"""Return a character as an escape such as ``\x1b`` or ``\u202e``."""
    return char.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Return ``text`` as one line: line ends and tabs become spaces, other invisible characters are written out."""
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    if text.isprintable():
        return text
    text = re.sub("[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)
    return "".join(char if is_visible(char) else written_out(char) for char in text)


def several_lines(text: str) -> str:
    """Return ``text`` with its line feeds. Each of its lines is as ``one_line`` returns it."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def as_json(value: Any) -> str:
    """Return ``value`` as indented JSON for readers, sorted. Only invisible characters are escaped."""
    text = json.dumps(value, sort_keys=True, indent=4, ensure_ascii=False)
    if text.isascii():
        return text
    # Outside ASCII, a character of JSON is part of a string. JSON escapes have four digits.
    return "".join(char if char == "\n" or is_visible(char) else json.dumps(char)[1:-1] for char in text)


def without_secrets(value: Any, secrets: Iterable[str]) -> Any:
    """Return a copy of a result without the values of ``no_log`` options, as Ansible does it for modules.

    A text or number that is a secret becomes a sentence in capitals, and eight asterisks stand for a secret within a
    text. Keys of dictionaries stay.
    """
    if isinstance(value, dict):
        return {key: without_secrets(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item, secrets) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    # The longest first: one secret can be part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        if text == secret or (secret in text and not isinstance(value, str)):
            return "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
        text = text.replace(secret, "*" * 8)
    return text if isinstance(value, str) else value
