"""Leader election: of all candidates for a lease one leads, and works for as long as it surely does.

The rules are those of client-go's leader election:

* A lease is free when there is none, when nobody holds it, or when its record was not *seen to change* for as long as
  it says that it lasts. No clock is compared with another's: both sides measure times that passed, each on its own.
* Who holds it renews it all the time and counts from before the request; who waits counts from after the answer. So the
  leader gives up (`renew_deadline`) before anybody else may begin (`lease`), whatever the network does in between.
* Every write names the version it replaces. Of two candidates that see a free lease, one gets it.

`ElectionState` has the rules, without a clock and without I/O; `LeaderElector` does what they say.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Protocol

from controller.api.timing import REAL, LeaseTiming
from controller.runtime.fencing import Leadership
from controller.store.lease import Lease, LeaseRecord
from controller.store.protocol import ConflictError, ForbiddenError, NotFoundError, RefusedError, StoreError

logger = logging.getLogger(__name__)

_RELEASED_SECONDS = 1  # A Lease must last for something; client-go writes the same.


class Step(Enum):
    """What a candidate does next."""

    READ = "read"
    WRITE = "write"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class ElectionState:
    """What one candidate knows. `record` is what was last read of the lease, `changed_at` when it first read like this.

    `may_write`: `record` is what the lease is, as far as we know, and it is free or ours. `renewed_at` is when we sent
    what was our last successful write. `act_at` is when something is next to be done.
    """

    identity: str
    timing: LeaseTiming
    record: LeaseRecord | None = None
    changed_at: float = -math.inf
    may_write: bool = False
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
            return Step.WAIT
        return Step.WRITE if self.may_write else Step.READ

    def wait(self, now: float) -> float:
        """Seconds to the next step, or to the moment when we lead no longer."""
        remaining = self.remaining(now)
        return max(min(self.act_at - now, remaining if remaining > 0 else math.inf), 0.0)

    def request_timeout(self, now: float) -> float:
        """Seconds that a request may take."""
        remaining = self.remaining(now)
        return min(self.timing.request, remaining) if remaining > 0 else self.timing.request

    def on_read(self, record: LeaseRecord | None, now: float) -> ElectionState:
        """The lease was read; None: there is none. `now` is when the answer was there."""
        state = replace(
            self,
            record=record,
            changed_at=self.changed_at if record == self.record else now,
            act_at=now,
            may_write=True,
        )
        if record is None or record.holder in ("", self.identity):
            return state
        free_at = state.changed_at + record.seconds
        if now >= free_at:
            return state
        return replace(state, may_write=False, renewed_at=None, act_at=min(now + self.timing.look_every, free_at))

    def on_write(self, record: LeaseRecord, sent_at: float, now: float) -> ElectionState:
        """The lease has our record: we lead, counted from when we sent it."""
        return replace(
            self,
            record=record,
            changed_at=now,
            may_write=True,
            renewed_at=sent_at,
            act_at=sent_at + self.timing.renew_every,
        )

    def on_failure(self, now: float) -> ElectionState:
        """A request failed; nobody knows whether it did what it should. Read before writing again."""
        return replace(self, may_write=False, act_at=now + self.timing.look_every)

    def claim(self, at: datetime) -> LeaseRecord:
        """The record that makes the lease ours, or keeps it so. `at` is the wall clock's time, for people."""
        claim = LeaseRecord(self.identity, self.timing.lease, acquired_at=at, renewed_at=at)
        if self.record is None:
            return claim
        if self.record.holder == self.identity:
            return replace(self.record, seconds=self.timing.lease, renewed_at=at)
        return replace(claim, transitions=self.record.transitions + 1, version=self.record.version)


def release_record(record: LeaseRecord, at: datetime) -> LeaseRecord:
    """The record of a lease that its holder gave back: the next candidate that looks may have it."""
    return replace(record, holder="", seconds=_RELEASED_SECONDS, acquired_at=at, renewed_at=at)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds that pass whatever the time is set to, and the wall clock (UTC), which only people read.

    `steady` best also runs while the machine sleeps (CLOCK_BOOTTIME): asleep is when leaders are deposed.
    """

    steady: Callable[[], float]
    utc: Callable[[], datetime]


Work = Callable[[Leadership], Awaitable[None]]


class LeaderElection(Protocol):
    """Lets work be done while this process leads."""

    @property
    def leading(self) -> bool:
        """Whether the work may be done now."""
        ...

    def not_ready(self) -> str | None:
        """Say why we cannot even stand for election; None if we can."""
        ...

    async def run(self, work: Work) -> None:
        """Work while leading, until the work ends by itself or this is cancelled."""
        ...


class NoElection:
    """Leads at once and for ever: there is no other replica."""

    leading = True

    def not_ready(self) -> str | None:
        """See `LeaderElection`."""
        return None

    async def run(self, work: Work) -> None:
        """See `LeaderElection`."""
        await work(Leadership(lambda: math.inf))


class LeaderElector:
    """One candidate for a lease. `identity` must be of this process alone: who finds its own name in it takes it."""

    def __init__(self, lease: Lease, identity: str, clocks: Clocks, timing: LeaseTiming = REAL.lease) -> None:
        self._lease = lease
        self._clocks = clocks
        self._state = ElectionState(identity, timing)
        self._working = False
        self._logged = ("", "")
        self._refused = ""

    @property
    def leading(self) -> bool:
        """Whether the work is done here now."""
        return self._working and self._remaining() > 0

    def not_ready(self) -> str | None:
        """See `LeaderElection`. That nobody answers for now is no reason: it does not keep us from standing."""
        return f"lease: {self._refused}" if self._refused and not self.leading else None

    @property
    def holder(self) -> str:
        """Who holds the lease as far as we know, empty for nobody."""
        return self._state.holder

    async def run(self, work: Work) -> None:
        """Stand for the lease; while we hold it, work; when it is lost, cancel the work and stand again.

        The work is cancelled and has ended before the lease is released or stood for again. Ends when the work ends by
        itself, and raises what it raises.
        """
        try:
            while True:
                while self._remaining() <= 0:
                    await self._act()
                logger.info("leading", extra={"identity": self._state.identity})
                if await self._lead(work):
                    return
                logger.warning("no longer leading", extra={"holder": self.holder or "nobody"})
        finally:
            await self._release()

    def _remaining(self) -> float:
        return self._state.remaining(self._clocks.steady())

    async def _lead(self, work: Work) -> bool:
        """Work until that ends or the lease is lost; say whether it was the work."""
        over = asyncio.Event()
        leadership = Leadership(lambda: -math.inf if over.is_set() else self._remaining())
        keeping = asyncio.create_task(self._keep())
        working = asyncio.ensure_future(work(leadership))
        self._working = True
        try:
            await asyncio.wait((keeping, working), return_when=asyncio.FIRST_COMPLETED)
            ended = working.done()
        finally:
            # Renewed no longer: work that does not end loses the lease, and with it the right to write.
            keeping.cancel()
            working.cancel()
            try:
                await asyncio.wait((keeping, working))
            finally:
                over.set()
                self._working = False
        for task in (working, keeping):
            if not task.cancelled():
                task.result()
        return ended

    async def _keep(self) -> None:
        while self._remaining() > 0:
            await self._act()

    async def _act(self) -> None:
        """Take the next step; what goes wrong is part of it."""
        state, now = self._state, self._clocks.steady()
        step = state.step(now)
        if step is Step.WAIT:
            await asyncio.sleep(state.wait(now))
            return
        self._state = state.on_failure(now)  # That is how it stands if this is cancelled on the way.
        try:
            async with asyncio.timeout(state.request_timeout(now)):
                if step is Step.WRITE:
                    record = await self._lease.write(state.claim(self._clocks.utc()))
                    self._state = state.on_write(record, now, self._clocks.steady())
                    self._refused = ""
                else:
                    self._state = state.on_read(await self._lease.read(), self._clocks.steady())
                    if not self._state.may_write:
                        self._refused = ""  # Somebody leads. Whether we may write is found out when it is our turn.
        except (StoreError, TimeoutError) as error:
            self._state = state.on_failure(self._clocks.steady())
            if isinstance(error, ForbiddenError | NotFoundError | RefusedError):
                self._refused = str(error)
            self._log(str(error) or "no answer in time", contested=isinstance(error, ConflictError))
        else:
            # What may not be written may still be read: that is no end of the trouble.
            self._log(self._logged[1] if self._refused else "")

    def _log(self, trouble: str, *, contested: bool = False) -> None:
        """Log what is new to somebody who watches: who holds the lease, and what stands between it and us."""
        before, self._logged = self._logged, (self.holder, trouble)
        if trouble and trouble != before[1]:
            level = logging.INFO if contested else logging.WARNING
            logger.log(level, "lease not reached", extra={"because": trouble, "leading": self.leading})
        if self.holder not in ("", before[0], self._state.identity):
            logger.info("standing by", extra={"holder": self.holder})

    async def _release(self) -> None:
        """Give the lease back, if it is ours, so that nobody waits for it to expire."""
        if self._state.renewed_at is None:
            return
        try:
            async with asyncio.timeout(self._state.timing.release):
                # A renewal that was cut off may still come through and change the lease once.
                while (record := await self._lease.read()) and record.holder == self._state.identity:
                    try:
                        await self._lease.write(release_record(record, self._clocks.utc()))
                    except ConflictError:
                        continue
                    logger.info("lease released")
                    return
        except (StoreError, TimeoutError) as error:
            logger.warning("lease not released", extra={"because": str(error) or "no answer in time"})
