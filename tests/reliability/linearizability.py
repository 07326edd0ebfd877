# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check whether operations that happen one at a time can explain a concurrent history.

The search is that of Wing and Gong ("Testing and Verifying Concurrent
Objects", 1993). It remembers tried configurations, as Lowe describes
("Testing for linearizability", 2017). It looks for an order in which each
operation takes effect at one moment between its call and its return. In that
order, the model must give each operation exactly the observed result.
"""

from __future__ import annotations

from typing import Any, Callable, Hashable, List, NamedTuple, Optional, Sequence, Set, Tuple


class Call(NamedTuple):
    """One operation as seen by its process. All processes use the same clock.

    ``code`` is ``"ok"`` or the code of the error. ``value`` is the returned value.
    """

    called: int
    returned: int
    process: int
    operation: str
    arguments: Tuple[Any, ...]
    code: str
    value: Any


#: Returns the state after a call, or None if the call cannot have had its result in this state.
Step = Callable[[Any, Call], Optional[Hashable]]


class NotLinearizable(AssertionError):
    """No order explains the history. The text shows where the longest attempt ended."""


def linearize(history: Sequence[Call], step: Step, reads: Sequence[str], state: Hashable) -> Any:
    """Return the state after all calls, in an order that explains them. Raises NotLinearizable.

    ``reads`` are the operations that never change the state. A call that failed
    does not change it either. The search can take such a call as soon as it
    fits: every order that is possible without the call is possible after it.
    The search therefore branches only where overlapping calls may have changed
    something.
    """
    calls = sorted(history)
    explained, stuck, last = -1, [], state
    seen: Set[Tuple[int, int, Hashable]] = set()
    # In each entry, all calls below ``low`` are done, and so are those whose bit is set in ``done`` (bit 0 is ``low``).
    stack: List[Tuple[int, int, Any]] = [(0, 0, state)]
    while stack:
        low, done, state = stack.pop()
        while True:
            while done & 1:
                low, done = low + 1, done >> 1
            if low == len(calls):
                return state
            candidates = _candidates(calls, low, done)
            if low + bin(done).count("1") > explained:
                explained, stuck, last = low + bin(done).count("1"), candidates, state
            for number in candidates:
                call = calls[number]
                if (call.code != "ok" or call.operation in reads) and step(state, call) is not None:
                    done |= 1 << (number - low)
                    break
            else:
                break
        if (low, done, state) in seen:
            continue
        seen.add((low, done, state))
        # The call that returned first is tried first, because it most probably happened first.
        for number in sorted(candidates, key=lambda number: -calls[number].returned):
            after = step(state, calls[number])
            if after is not None:
                stack.append((low, done | 1 << (number - low), after))
    shown = "\n".join(f"  {calls[number]}" for number in stuck)
    raise NotLinearizable(f"{explained} calls have an order, but then none of these fits\n{shown}\nin the state {last}")


def _candidates(calls: Sequence[Call], low: int, done: int) -> List[int]:
    """Return the calls that may come next: they are not done, and no other such call returned before they began."""
    found = []
    bound = calls[low].returned
    for number in range(low, len(calls)):
        if calls[number].called > bound:
            break
        if not done >> (number - low) & 1:
            found.append(number)
            bound = min(bound, calls[number].returned)
    return [number for number in found if calls[number].called <= bound]
