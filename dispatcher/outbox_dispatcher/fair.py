"""Fair shares of a queue's room: weighted round robin over tenants, across claims.

Each tenant has a tag: how much it has had, over its weight. Room goes to the lowest tag, so over
time each tenant that wants something gets as much as its weight says. Who comes back after a
pause starts level with the lowest of those that waited: it has saved nothing up, and owes
nothing. Of equal tags, who has had nothing yet
goes first, then who was served longest ago. So a backlog of others, however
long, costs it no more than the round that is under way (invariant 10).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from random import random
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")

TURNS = 4
"""Each tenant's part of a claim's room is dealt in about so many turns."""


class FairShares:
    """The tags of one queue's tenants. Those that nobody needs to remember are forgotten."""

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._turns: dict[str, tuple[bool, int]] = {}
        self._round = 0
        self._weights: Mapping[str, int] = {}

    def deal(
        self, room: int, wants: Mapping[str, int], weights: Mapping[str, int]
    ) -> dict[str, int]:
        """Share `room` out over tenants, each of which wants so many at most (1 or more)."""
        self._weights = weights
        if len(wants) == 1:
            self._forget()
            ((tenant, want),) = wants.items()
            return {tenant: min(room, want)}
        turn = max(1, room // (TURNS * len(wants)))
        self._round += 1
        newcomer = (False, self._round)
        line = [
            (self._tags.get(tenant, 0.0), self._turns.get(tenant, newcomer), random(), tenant)
            for tenant in wants
        ]
        heapq.heapify(line)
        given: dict[str, int] = {}
        while room > 0 and line:
            tag, _, draw, tenant = line[0]
            had = given.get(tenant, 0)
            part = min(turn, room, wants[tenant] - had)
            given[tenant] = had + part
            room -= part
            if given[tenant] < wants[tenant]:
                turn_had = (True, self._round)
                heapq.heapreplace(line, (tag + part / weights[tenant], turn_had, draw, tenant))
            else:
                heapq.heappop(line)
        return given

    def charge(self, got: Mapping[str, int], waiting: Collection[str]) -> None:
        """Note what each tenant really got, and that `waiting` got no more for lack of room."""
        if not waiting:
            self._forget()
            return
        for tenant, count in got.items():
            self._tags[tenant] = self._tags.get(tenant, 0.0) + count / self._weights[tenant]
            self._turns[tenant] = (True, self._round)
        for tenant in waiting:
            self._turns.setdefault(tenant, (False, self._round))
        lowest = min(self._tags.get(tenant, 0.0) for tenant in waiting)
        self._tags = {name: tag - lowest for name, tag in self._tags.items() if tag > lowest}
        kept = self._tags.keys() | set(waiting)
        self._turns = {name: turn for name, turn in self._turns.items() if name in kept}

    def _forget(self) -> None:
        """Nobody has to wait for anybody: all start level."""
        self._tags, self._turns = {}, {}


def in_turn(things: Sequence[Thing], key: Callable[[Thing], Key]) -> list[Thing]:
    """Return the things in turn over their keys; those of one key keep their order."""
    by_key: dict[Key, list[Thing]] = {}
    for thing in things:
        by_key.setdefault(key(thing), []).append(thing)
    if len(by_key) < 2:
        return list(things)
    turns: list[Thing] = []
    lines = list(by_key.values())
    longest = max(map(len, lines))
    for place in range(longest):
        turns += [line[place] for line in lines if place < len(line)]
    return turns
