# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters as conditions of SQL.

The fields are those of ``filters.snapshot_adaptor`` (bolt.go, adaptSnapshot).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple

if TYPE_CHECKING:
    from ..filters import language


class Condition(NamedTuple):
    """What follows WHERE, and its parameters.

    The condition selects every snapshot that the filters match. Unless it
    ``is_exact``, it selects others too.
    """

    sql: str
    parameters: List[str]
    is_exact: bool


# SQLite plans a query in a time that grows with the square of its terms, and refuses it beyond 1,000 of them.
_MAXIMUM_TERMS = 100


def condition(wanted: Optional[language.Filters]) -> Condition:
    """The condition for filters of which one must hold; all snapshots for None and for too many selectors."""
    if wanted is None or not wanted.filters:
        return Condition("1", [], True)
    if sum(len(one.selectors) for one in wanted.filters) + len(wanted.filters) > _MAXIMUM_TERMS:
        return Condition("1", [], False)
    clauses = []
    parameters: List[str] = []
    is_exact = True
    for one in wanted.filters:
        terms = []
        for selector in one.selectors:
            term = _selector_as_sql(selector)
            if term is None:
                is_exact = False
            else:
                terms.append(term[0])
                parameters.extend(term[1])
        clauses.append(" AND ".join(terms) or "1")
    return Condition(" OR ".join(f"({clause})" for clause in clauses), parameters, is_exact)


def _selector_as_sql(selector: language.Selector) -> Optional[Tuple[str, List[str]]]:
    """One selector as SQL and its parameters; None where SQL cannot decide."""
    field, *rest = selector.fieldpath
    operator, value = selector.operator, selector.value
    if operator == "~=":
        return None
    try:
        value.encode()
        for part in rest:
            part.encode()
    except UnicodeEncodeError:
        # Bytes that are not text equal nothing in the store, but SQLite cannot take them as a parameter.
        return None
    if field in ("kind", "name", "parent"):
        column = "coalesce(parent, '')" if field == "parent" and value == "" else field
        if operator == "":
            return "1", []
        if operator == "==":
            return f"{column} = ?", [value]
        if column == "parent":
            return "(parent IS NULL OR parent <> ?)", [value]
        return f"{column} <> ?", [value]
    if field == "labels":
        key = ".".join(rest)
        has_label = "id IN (SELECT id FROM labels WHERE key = ?{})"
        if operator == "":
            return has_label.format(""), [key]
        if operator == "==":
            return has_label.format(" AND value = ?"), [key, value]
        if value == "":
            return has_label.format(""), [key]
        return "NOT " + has_label.format(" AND value = ?"), [key, value]
    # Unknown fields are absent, and != takes an absent field for "".
    return ("1" if operator == "!=" and value != "" else "0"), []
