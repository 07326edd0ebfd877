# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services have in common: the context of a call, filters, field masks, and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import language

from ..bolt import Bucket
from . import messages, records

#: Objects in one message of a stream, as in containerd.
_BATCH = 100

_MAX_IDENTIFIER = 76
_IDENTIFIER = "[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*"

Empty = messages.message("google.protobuf.Empty")
_T = TypeVar("_T")


class Call(NamedTuple):
    """The namespace and the lease that a client sent in its headers; "" if it sent none."""

    namespace: str
    lease: str = ""

    def path(self, *names: str) -> tuple[str, ...]:
        """Return the path of a bucket of the namespace in meta.db. Raises for a missing or wrong namespace."""
        if not self.namespace:
            raise FailedPrecondition("namespace is required: failed precondition")
        check_identifier(self.namespace, "namespace validation: ")
        return ("v1", self.namespace, *names)

    def leased(self, root: Bucket) -> Bucket | None:
        """Return the lease of the call, None if it has none. Raises NotFound if there is no such lease."""
        if not self.lease:
            return None
        lease = records.find(root, *self.path("leases", self.lease))
        if lease is None:
            raise NotFound("lease does not exist: not found")
        return lease


def check_identifier(text: str, prefix: str = "") -> None:
    """Raise InvalidArgument unless the text is an identifier (pkg/identifiers)."""
    if not text:
        raise InvalidArgument(f"{prefix}identifier must not be empty: invalid argument")
    if len(text) > _MAX_IDENTIFIER:
        raise InvalidArgument(
            f'{prefix}identifier "{text}" greater than maximum length ({_MAX_IDENTIFIER} characters): invalid argument'
        )
    if not re.fullmatch(_IDENTIFIER, text):
        raise InvalidArgument(f'{prefix}identifier "{text}" must match ^{_IDENTIFIER}$: invalid argument')


def check_labels(texts: Mapping[str, str], what: str) -> None:
    """Raise InvalidArgument for a label that is too long. ``what`` is how containerd calls these labels."""
    try:
        labels.validate(texts)
    except InvalidArgument as error:
        raise error.with_context(what) from error


def updated_map(
    current: Mapping[str, str], wanted: Mapping[str, str], field: str, paths: Sequence[str]
) -> dict[str, str]:
    """Return the texts of a field such as ``labels`` after an update with these paths.

    ``labels`` replaces all, and ``labels.KEY`` one of them. A label without text is deleted later (records.write_map).
    """
    result = dict(wanted) if field in paths else dict(current)
    for path in paths:
        if path.startswith(f"{field}."):
            key = path[len(field) + 1 :]
            result[key] = wanted.get(key, "")
    return result


def check_paths(paths: Iterable[str], fields: Iterable[str], maps: Iterable[str], what: str) -> None:
    """Raise InvalidArgument for a path that is neither one of the fields nor a key of one of the maps."""
    allowed = [*fields, *maps]
    for path in paths:
        if path not in allowed and path.partition(".")[0] not in maps:
            raise InvalidArgument(f'cannot update "{path}" field on {what}: invalid argument')


def matching(objects: Iterable[_T], texts: Sequence[str], fields: Callable[[_T], Mapping[str, Any]]) -> list[_T]:
    """Return the objects that one of the filters matches. ``fields`` returns the fields of an object by name.

    A field is a text, or texts by key. Raises InvalidArgument for a text that is not a filter.
    """
    parsed = language.parse_all(texts)
    return [each for each in objects if parsed.matches(_adaptor(fields(each)))]


def _adaptor(fields: Mapping[str, Any]) -> language.Adaptor:
    def field(path: tuple[str, ...]) -> tuple[str, bool]:
        value = fields.get(path[0])
        if isinstance(value, Mapping):
            value = value.get(".".join(path[1:]))
        return value or "", value is not None

    return field


def batches(objects: Sequence[_T]) -> list[Sequence[_T]]:
    """Return the objects in the portions in which containerd sends them."""
    return [objects[at : at + _BATCH] for at in range(0, len(objects), _BATCH)]


def set_time(field: Any, time: int) -> None:
    """Set a Timestamp to nanoseconds since the epoch."""
    field.seconds, field.nanos = divmod(time, 1_000_000_000)
