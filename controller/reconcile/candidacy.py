"""What one candidate for a lease knows, and what it does next. Pure: seconds of a steady clock come in as arguments.

The rules are those of client-go's leader election:

* A lease is free when there is none, when nobody holds it, or when its record was not *seen to change* for as long as
  it says that it lasts. No clock is compared with another's: both sides measure times that passed, each on its own.
* Who holds it renews it all the time and counts from before it asked; who waits counts from after it looked. So the
  leader gives up (`renew_deadline`) before anybody else may begin (`lease`), whatever the network does in between.
* Every write names the version it replaces. Of two candidates that see a free lease, one gets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from controller.api.timing import LeaseTiming
from controller.store.lease import LeaseRecord

_RELEASED_SECONDS = 1  # A Lease must last for something; client-go writes the same.


class Step(Enum):
    """What a candidate does next."""

    LOOK = "look"
    WRITE = "write"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Candidacy:
    """One candidate. `record` is what was last seen of the lease, `changed_at` when it was first seen like this.

    `entitled`: `record` is what the lease is, as far as we know, and it is ours to write. `renewed_at` is when we asked
    for what was our last successful write. `act_at` is when something is next to be done.
    """

    identity: str
    timing: LeaseTiming
    record: LeaseRecord | None = None
    changed_at: float = -math.inf
    entitled: bool = False
    renewed_at: float | None = None
    act_at: float = -math.inf

    @property
    def holder(self) -> str:
        """Who holds the lease as far as we know."""
        return self.record.holder if self.record else ""

    def remaining(self, now: float) -> float:
        """Seconds for which we lead even if we never hear of the lease again; 0 or less: we do not."""
        return -math.inf if self.renewed_at is None else self.renewed_at + self.timing.renew_deadline - now

    def step(self, now: float) -> Step:
        """What to do now."""
        if now < self.act_at:
            return Step.REST
        return Step.WRITE if self.entitled else Step.LOOK

    def rest(self, now: float) -> float:
        """Seconds to the next step, or to the moment when we lead no longer."""
        remaining = self.remaining(now)
        return max(min(self.act_at - now, remaining if remaining > 0 else math.inf), 0.0)

    def patience(self, now: float) -> float:
        """Seconds that a request may take."""
        remaining = self.remaining(now)
        return min(self.timing.request, remaining) if remaining > 0 else self.timing.request

    def looked(self, record: LeaseRecord | None, now: float) -> Candidacy:
        """The lease was read; None: there is none. `now` is when the answer was there."""
        known = replace(
            self, record=record, changed_at=self.changed_at if record == self.record else now, act_at=now, entitled=True
        )
        if record is None or record.holder in ("", self.identity):
            return known
        free_at = known.changed_at + record.seconds
        if now >= free_at:
            return known
        return replace(known, entitled=False, renewed_at=None, act_at=min(now + self.timing.look_every, free_at))

    def wrote(self, record: LeaseRecord, asked_at: float, now: float) -> Candidacy:
        """Our record is the lease's: we lead, counted from when we asked for it."""
        return replace(
            self,
            record=record,
            changed_at=now,
            entitled=True,
            renewed_at=asked_at,
            act_at=asked_at + self.timing.renew_every,
        )

    def failed(self, now: float) -> Candidacy:
        """A request failed; nobody knows whether it did what it should. Look before writing again."""
        return replace(self, entitled=False, act_at=now + self.timing.look_every)

    def claim(self, at: datetime) -> LeaseRecord:
        """The record that makes the lease ours, or keeps it so. `at` is the wall clock's time, for people."""
        claim = LeaseRecord(self.identity, self.timing.lease, acquired_at=at, renewed_at=at)
        if self.record is None:
            return claim
        if self.record.holder == self.identity:
            return replace(self.record, seconds=self.timing.lease, renewed_at=at)
        return replace(claim, transitions=self.record.transitions + 1, version=self.record.version)


def released(record: LeaseRecord, at: datetime) -> LeaseRecord:
    """The record of a lease that its holder gave back: the next candidate that looks may have it."""
    return replace(record, holder="", seconds=_RELEASED_SECONDS, acquired_at=at, renewed_at=at)
