"""Leader election: of all replicas one works, and what a deposed one still writes is refused.

`Election` stands for a lease and runs work while it holds it. A lease alone does not fence: a leader may be stopped
(by a debugger, by a machine that sleeps) between looking at its watch and writing. So there are two bolts. `Fenced`
lets a write pass only while the lease is younger than its deadline, and ends one that takes longer. And each write
carries the resourceVersion that its author read, so that a write that was under way when its author was stopped is
refused as soon as the successor wrote anything to the same object; before that, it is what the successor would read.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from controller.api.timing import REAL, LeaseTiming
from controller.reconcile.candidacy import Candidacy, Step, released
from controller.store.lease import Lease
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch, ConflictError, ObjectStore, StoreError

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
