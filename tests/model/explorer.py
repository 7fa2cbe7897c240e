"""Breadth first through all states of the model: so a broken rule comes with a shortest story."""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass

from tests.model.naming import canonical
from tests.model.parts import Bounds, Broken, Rules, State, first
from tests.model.system import check, steps

LEFT_BEHIND = "from everywhere the job can still get to its end without another fault"


@dataclass(frozen=True)
class Explored:
    """`broken` None: every invariant holds in all `states`. Else `story` leads to it."""

    states: int
    steps: int
    ended: int
    broken: str | None = None
    story: tuple[str, ...] = ()


def explore(rules: Rules, bounds: Bounds) -> Explored:
    """Visit every state within `bounds`."""
    # Nothing here is cyclic, and the collector would walk over all states again and again.
    gc.disable()
    try:
        return _explore(rules, bounds)
    finally:
        gc.enable()


def _explore(rules: Rules, bounds: Bounds) -> Explored:
    start = canonical(first(bounds))
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    before: dict[State, list[State]] = {}
    waiting = deque([start])
    taken = 0

    def story(state: State, *last: str) -> tuple[str, ...]:
        told = list(reversed(last))
        while (step := came_from[state]) is not None:
            state, name = step
            told.append(name)
        return tuple(reversed(told))

    while waiting:
        state = waiting.popleft()
        try:
            check(state, bounds)
            following = list(steps(state, rules, bounds))
        except Broken as broken:
            return Explored(len(came_from), taken, 0, str(broken), story(state))
        for name, reached in following:
            taken += 1
            after = canonical(reached)
            if after.faults == state.faults:
                before.setdefault(after, []).append(state)
            if after not in came_from:
                came_from[after] = (state, name)
                waiting.append(after)

    ends = [state for state in came_from if state.entry is None]
    # What ran out of claims within the bounds is cut short, not left behind.
    safe = {state for state in came_from if state.claims >= bounds.claims}
    safe.update(ends)
    queue = deque(safe)
    while queue:
        for earlier in before.get(queue.popleft(), ()):
            if earlier not in safe:
                safe.add(earlier)
                queue.append(earlier)
    for state in came_from:
        if state not in safe:
            return Explored(len(came_from), taken, len(ends), LEFT_BEHIND, story(state))
    return Explored(len(came_from), taken, len(ends))
