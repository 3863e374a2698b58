"""What one candidate for a lease knows, and what it does next. Pure: seconds of a steady clock come in as arguments.

The rules are those of client-go's leader election:

* A lease is free when there is none, when nobody holds it, or when its record was not *seen to change* for as long as
  it says that it lasts. No clock is compared with another's: both sides measure times that passed, each on its own.
* Who holds it renews it all the time and counts from before it asked; who waits counts from after it looked. So the
  leader gives up (`renew_deadline`) before anybody else may begin (`lease`), whatever the network does in between.
* Every write names the version it replaces. Of two candidates that see a free lease, one gets it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from controller.api.timing import REAL, LeaseTiming
from controller.store.lease import Lease, LeaseRecord
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch, ConflictError, ObjectStore, StoreError

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


logger = logging.getLogger(__name__)


class NotLeaderError(StoreError):
    """The lease of the writer is too old for a write, or no longer its own."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds that pass whatever the time is set to, and the wall clock (UTC), which only people read.

    `steady` best also runs while the machine sleeps (CLOCK_BOOTTIME): asleep is when leaders are deposed.
    """

    steady: Callable[[], float]
    utc: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Leadership:
    """One time of leading, from the election to the loss. `remaining`: seconds it surely lasts; 0 or less: it ended."""

    remaining: Callable[[], float]


Work = Callable[[Leadership], Awaitable[None]]


class Leading(Protocol):
    """Somebody who works while leading: an `Election` or one who is `Unopposed`."""

    @property
    def leading(self) -> bool:
        """Whether the work may be done now."""
        ...

    async def run(self, work: Work) -> None:
        """Work while leading, until the work ends by itself or this is cancelled."""
        ...


class Unopposed:
    """Leads at once and for ever: the only replica, no election."""

    leading = True

    async def run(self, work: Work) -> None:
        """See `Leading`."""
        await work(Leadership(lambda: math.inf))


class Election:
    """One candidate. `identity` must be of this process alone: who finds its own name in the lease takes it."""

    def __init__(self, lease: Lease, identity: str, clocks: Clocks, timing: LeaseTiming = REAL.lease) -> None:
        self._lease = lease
        self._clocks = clocks
        self._state = Candidacy(identity, timing)
        self._at_work = False
        self._told = ("", "")

    @property
    def leading(self) -> bool:
        """Whether the work is done here now."""
        return self._at_work and self._remaining() > 0

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
        self._at_work = True
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
                self._at_work = False
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
        if step is Step.REST:
            await asyncio.sleep(state.rest(now))
            return
        self._state = state.failed(now)  # That is how it stands if this is cancelled on the way.
        try:
            async with asyncio.timeout(state.patience(now)):
                if step is Step.WRITE:
                    record = await self._lease.write(state.claim(self._clocks.utc()))
                    self._state = state.wrote(record, now, self._clocks.steady())
                else:
                    self._state = state.looked(await self._lease.read(), self._clocks.steady())
        except (StoreError, TimeoutError) as error:
            self._state = state.failed(self._clocks.steady())
            self._tell(str(error) or "no answer in time", contested=isinstance(error, ConflictError))
        else:
            self._tell("")

    def _tell(self, trouble: str, *, contested: bool = False) -> None:
        """Log what is new to somebody who watches: who holds the lease, and what stands between it and us."""
        before, self._told = self._told, (self.holder, trouble)
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
                        await self._lease.write(released(record, self._clocks.utc()))
                    except ConflictError:
                        continue
                    logger.info("lease released")
                    return
        except (StoreError, TimeoutError) as error:
            logger.warning("lease not released", extra={"because": str(error) or "no answer in time"})


class Fenced:
    """A store that lets nobody write who leads no longer. Reading is everybody's."""

    def __init__(self, store: ObjectStore, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership

    def watch(self, kinds: Collection[str]) -> AsyncIterator[Batch]:
        """See `ObjectStore`."""
        return self._store.watch(kinds)

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> None:
        """See `ObjectStore`. Raises NotLeaderError when the lease is too old, before the write or during it."""
        remaining = self._leadership.remaining()
        if remaining <= 0:
            raise NotLeaderError(f"{ref}: not written, for we lead no longer")
        # The store may try more than once. What it tries after the deadline is no longer ours to write.
        try:
            async with asyncio.timeout(remaining) as limit:
                await self._store.patch_status(ref, status, resource_version)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise NotLeaderError(f"{ref}: leadership ended during the write") from error
