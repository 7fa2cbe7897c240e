"""What this dispatcher has of the limits that hold for the whole fleet, and when to ask for more.

A lane's `concurrency_max` is places: each dispatcher has some, and claims no more than it has
places for. They are its own until it gives them back, or until it is dead and nothing of its is
claimed any more; so the fleet's claimed jobs are never more than the lane allows. Every
dispatcher says how many it could use; the store shares them out by that, and takes back at the
next lease what is not used.

A rate, of a lane or of a destination, is tokens in a bucket in the store. A dispatcher takes a
slice, good for a moment, and gives back what it did not need. So the bucket's row is written a
few times a second, not once a job, and the rate holds by the database's clock.

A destination may be closed besides: paused, or with an open breaker, for so long; and a breaker
that is half open gives one token over the whole fleet.

Lanes and destinations without limits have no `Quota` at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from time import monotonic

from outbox.message import Epoch, LaneId
from outbox.store import limits as store
from outbox.store.engine import Connection, Lane
from outbox.store.limits import Want

SLICE_S = 2.0
"""Tokens that were taken are good for so long."""
ASK_AGAIN_S = 0.25
"""At least so long between two questions about the same places."""
RENEW_S = 1.0
"""Who has places asks at least so often whether others need them."""
TOKENS_S_MIN = 0.02
TOGETHER_MAX = 200
"""So many limits are leased in one statement at most."""


class Quota:
    """A dispatcher's part of one lane's limits, or of one destination's rate."""

    __slots__ = (
        "ask_at",
        "closed_until",
        "demand",
        "destination",
        "half_open",
        "has_places",
        "in_use",
        "is_rated",
        "lane_id",
        "places",
        "renew_at",
        "tokens",
        "tokens_until",
    )

    def __init__(self, *, lane_id: LaneId | None = None, destination: str | None = None) -> None:
        self.lane_id = lane_id
        self.destination = destination
        self.has_places = False
        self.is_rated = False
        # Of a destination: paused or broken until then (monotonic seconds); half open after that.
        self.closed_until = 0.0
        self.half_open = False
        self.in_use = 0
        self.places = 0
        self.tokens = 0
        self.tokens_until = 0.0
        self.demand = 0
        self.ask_at = 0.0
        self.renew_at = 0.0

    @property
    def room(self) -> float:
        """How many more may be claimed now; infinite where nothing is limited any more."""
        room = math.inf
        if self.closed_until > monotonic():
            return 0
        if self.has_places:
            room = self.places - self.in_use
        if self.is_rated or self.half_open:
            room = min(room, self.tokens if monotonic() < self.tokens_until else 0)
        return room

    @property
    def closed_s(self) -> float:
        """For how long nobody may talk to it."""
        return max(0.0, self.closed_until - monotonic())

    def take(self, count: int) -> None:
        """Use places and tokens; with a negative count, give them back."""
        self.in_use += count
        self.tokens -= count

    def needs_lease_at(self) -> float:
        """Return when (monotonic seconds) the store should be asked; infinite: not at all."""
        if self.closed_until > monotonic():
            # Nobody has to be asked: it is time to look again.
            return self.closed_until if self.demand else math.inf
        if self.demand > self.room:
            return self.ask_at
        by_tokens = self.is_rated or self.half_open
        idle_tokens = by_tokens and self.tokens > 0 and not self.demand
        if idle_tokens or self.places > self.in_use + self.demand:
            return max(self.ask_at, self.renew_at)
        return self.renew_at if self.has_places and self.places > 0 else math.inf

    def want(self) -> Want:
        """Return what to ask for. The tokens that are left go back with it."""
        back, self.tokens = self.tokens, 0
        return Want(
            lane_id=self.lane_id,
            destination=self.destination,
            in_use=self.in_use,
            wanted=self.demand,
            back=back if self.is_rated or self.half_open else 0.0,
        )

    def leased(self, got: store.Leased, *, sent_at: float) -> None:
        """Take over what the store has given. `sent_at`: monotonic, from before it was asked."""
        self.places = got.places or 0
        self.renew_at = sent_at + RENEW_S
        self.ask_at = sent_at + ASK_AGAIN_S
        if got.tokens is not None:
            self.tokens += got.tokens
            self.tokens_until = sent_at + SLICE_S
            if got.places is None or got.places > self.in_use:
                self.ask_at = sent_at + max(got.wait_s, TOKENS_S_MIN)


class Limits:
    """All limits that concern this dispatcher. Empty in a store where nothing is limited."""

    def __init__(self) -> None:
        self.lanes: dict[LaneId, Quota] = {}
        self.destinations: dict[str, Quota] = {}

    @property
    def any(self) -> bool:
        """Whether there is, or was, a limit at all."""
        return bool(self.lanes or self.destinations)

    def of_lane(self, lane: Lane) -> Quota | None:
        """Return a main lane's quota as its settings are now; None: it has no limits."""
        quota = self.lanes.get(lane.lane_id)
        if lane.concurrency_max is None and not lane.is_rated:
            if quota is not None:
                # What it counts still runs; should a limit come back, it is counted in.
                quota.has_places = quota.is_rated = False
                quota.places = quota.tokens = 0
            return None
        if quota is None:
            quota = self.lanes[lane.lane_id] = Quota(lane_id=lane.lane_id)
        quota.has_places = lane.concurrency_max is not None
        quota.is_rated = lane.is_rated
        quota.ask_at = quota.renew_at = 0.0
        return quota

    def set_destinations(
        self, rows: Iterable[store.Destination], *, sent_at: float, unsaved: Mapping[str, float]
    ) -> None:
        """Take over which destinations have a rate, are paused or broken.

        `unsaved`: pauses that the store has not heard of yet, until when (monotonic).
        """
        gated = {row.name: row for row in rows if row.is_rated or row.is_open or row.closed_s > 0}
        for gone in self.destinations.keys() - gated.keys() - unsaved.keys():
            quota = self.destinations.pop(gone)
            quota.is_rated = quota.half_open = False
            quota.closed_until = 0.0
        for name, row in gated.items():
            quota = self.destinations.setdefault(name, Quota(destination=name))
            if row.is_open and not quota.half_open:
                quota.tokens = 0
            quota.is_rated, quota.half_open = row.is_rated, row.is_open
            quota.closed_until = max(sent_at + row.closed_s, unsaved.get(name, 0.0))
            quota.ask_at = 0.0

    def close(self, name: str, until: float) -> None:
        """Let nobody talk to a destination until then (monotonic seconds)."""
        quota = self.destinations.setdefault(name, Quota(destination=name))
        quota.closed_until = max(quota.closed_until, until)

    def closed_until(self, name: str) -> float:
        """Return until when (monotonic seconds) nobody may talk to a destination."""
        quota = self.destinations.get(name)
        return 0.0 if quota is None else quota.closed_until

    def begin(self) -> None:
        """Start an epoch: what this process has of anything, the store shall say anew."""
        for quota in self._all():
            quota.places = quota.tokens = 0
            quota.ask_at = quota.renew_at = 0.0

    def recount(self, in_use: Iterable[Quota]) -> None:
        """Count the places in use afresh: one for each element."""
        for quota in self._all():
            quota.in_use = 0
        for used in in_use:
            used.in_use += 1

    def forget_demand(self) -> None:
        """Count demand afresh, before a claim's room is dealt out."""
        for quota in self._all():
            quota.demand = 0

    def next_lease_at(self) -> float:
        """Return when (monotonic seconds) the store should be asked next."""
        return min((quota.needs_lease_at() for quota in self._all()), default=math.inf)

    async def lease(self, connection: Connection, epoch: Epoch) -> None:
        """Ask the store for what is due. Lets psycopg's OperationalError out."""
        now = monotonic()
        due = [quota for quota in self._all() if quota.needs_lease_at() <= now]
        due.sort(key=lambda quota: quota.ask_at)
        await self.lease_of(connection, due[:TOGETHER_MAX], epoch)

    async def lease_of(self, connection: Connection, quotas: list[Quota], epoch: Epoch) -> None:
        """Ask the store for these. Lets psycopg's OperationalError out."""
        if not quotas:
            return
        sent_at = monotonic()
        answers = await store.lease(connection, [quota.want() for quota in quotas], epoch=epoch)
        by_name = {(answer.lane_id, answer.destination): answer for answer in answers}
        for quota in quotas:
            quota.leased(by_name[quota.lane_id, quota.destination], sent_at=sent_at)

    def _all(self) -> list[Quota]:
        return [*self.lanes.values(), *self.destinations.values()]
