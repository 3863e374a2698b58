"""An election over a lease in memory."""

import asyncio
import math
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.api.timing import LeaseTiming
from controller.runtime.election import Clocks, LeaderElector, NoElection
from controller.store.protocol import ConflictError, ForbiddenError, NotFoundError, RefusedError, UnavailableError
from tests.support.store import settled
from tests.support.waiting import until

CLOCKS = Clocks(time.monotonic, lambda: datetime(2026, 1, 1, tzinfo=UTC))
HURRIED = LeaseTiming(lease=2, renew_deadline=1.0, renew_every=0.02, look_every=0.01, request=0.5)
STEADY = LeaseTiming(lease=600, renew_deadline=300.0, renew_every=0.02, look_every=0.01, request=60.0)
"""Who leads goes on, also where the machine gives it no turn for a while."""


class MemoryLease:
    """Implements `Lease`; refuses while it is `away`."""

    def __init__(self):
        self.record = None
        self.away = False
        self.refusal = None
        self.is_read_only = False
        self.asked = asyncio.Semaphore(0)
        self.writes = 0
        self.written = asyncio.Event()

    async def read(self):
        await self._answering()
        return self.record

    async def write(self, record):
        await self._answering()
        if self.is_read_only:
            raise ForbiddenError("cannot update")
        if record.version and self.record is None:
            raise NotFoundError("gone")
        if record.version != (self.record.version if self.record else ""):
            raise ConflictError("changed")
        self.writes += 1
        self.record = replace(record, version=str(self.writes))
        self.written.set()
        return self.record

    async def was_asked(self, times):
        for _ in range(times):
            await self.asked.acquire()

    async def _answering(self):
        await asyncio.sleep(0)
        self.asked.release()
        if self.refusal:
            raise self.refusal
        if self.away:
            raise UnavailableError("away")


class Work:
    """Does nothing, for as long as it may."""

    def __init__(self, holder_at_end=lambda: None):
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.leaderships = []
        self._holder_at_end = holder_at_end

    async def __call__(self, leadership):
        self.leaderships.append(leadership)
        self.ended.clear()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await settled()  # It takes its time to end.
            self.begun.clear()
            self.ended.set()
            self.holder_at_end = self._holder_at_end()


def an_election(lease, identity="me", timing=STEADY):
    return LeaderElector(lease, identity, CLOCKS, timing)


@asynccontextmanager
async def standing(election, work):
    running = asyncio.create_task(election.run(work))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_finds_no_lease_leads_and_its_work_begins():
    lease, work = MemoryLease(), Work()
    election = an_election(lease)
    assert not election.leading
    async with standing(election, work):
        await work.begun.wait()
        assert (election.leading, election.holder) == (True, "me")
        assert lease.record.holder == "me"
    assert not election.leading


@pytest.mark.parametrize("refusal", [ForbiddenError("cannot get"), NotFoundError("no namespace"), RefusedError("bad")])
async def test_who_may_not_stand_is_not_ready_and_says_why(refusal):
    lease, work = MemoryLease(), Work()
    election, lease.refusal = an_election(lease), refusal
    async with standing(election, work):
        await lease.was_asked(times=2)
        assert election.not_ready() == f"lease: {refusal}"
        lease.refusal = None
        await work.begun.wait()
        assert election.not_ready() is None


async def test_that_the_lease_may_be_read_and_not_written_is_told_once_however_often_it_is_tried(caplog):
    lease, work = MemoryLease(), Work()
    election, lease.is_read_only = an_election(lease), True
    async with standing(election, work):
        await lease.was_asked(times=7)
        assert election.not_ready() == "lease: cannot update"
        assert [one.because for one in caplog.records if one.message == "lease not reached"] == ["cannot update"]
        lease.is_read_only = False
        await work.begun.wait()
        assert election.not_ready() is None


async def test_that_nobody_answers_for_now_is_no_reason_not_to_be_ready():
    lease, work = MemoryLease(), Work()
    election, lease.away = an_election(lease), True
    async with standing(election, work):
        await lease.was_asked(times=3)
        assert election.not_ready() is None


async def test_one_of_two_leads_and_the_other_follows_when_it_ends():
    lease, first, second = MemoryLease(), Work(), Work()
    async with standing(an_election(lease, "second"), second):
        async with standing(an_election(lease, "first"), first):
            done, _ = await asyncio.wait(
                [asyncio.create_task(one.begun.wait()) for one in (first, second)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert len(done) == 1
            assert first.begun.is_set() != second.begun.is_set()
        await second.begun.wait()
    assert lease.record.holder == ""


async def test_work_has_ended_before_the_lease_is_given_back():
    lease = MemoryLease()
    work = Work(lambda: lease.record.holder)
    async with standing(an_election(lease), work):
        await work.begun.wait()
    assert (work.holder_at_end, lease.record.holder) == ("me", "")


async def test_work_that_ends_by_itself_ends_the_candidacy():
    lease = MemoryLease()

    async def work(leadership):
        assert leadership.remaining() > 0

    await an_election(lease).run(work)
    assert lease.record.holder == ""


async def test_work_that_fails_is_heard_of_and_another_may_lead():
    lease = MemoryLease()

    async def work(leadership):
        raise RuntimeError("of the work")

    with pytest.raises(RuntimeError, match="of the work"):
        await an_election(lease).run(work)
    assert lease.record.holder == ""


async def test_who_cannot_renew_stops_and_begins_again_when_it_can():
    lease, work = MemoryLease(), Work()
    election = an_election(lease, timing=HURRIED)
    async with standing(election, work):
        await work.begun.wait()
        lease.away = True
        await work.ended.wait()
        assert not election.leading
        lease.away = False
        # A pause of the machine ends that one, too, and it begins again.
        await until(lambda: election.leading and work.leaderships[-1].remaining() > 0, "it leads again")
        first, *_, last = work.leaderships
        assert last is not first
        assert first.remaining() == -math.inf, "a time of leading that ended does not come back"


async def test_who_finds_another_in_its_lease_stops():
    lease, work = MemoryLease(), Work()
    async with standing(an_election(lease), work):
        await work.begun.wait()
        lease.record = replace(lease.record, holder="other", version="by hand")
        await work.ended.wait()
        assert lease.record.holder == "other"
    assert lease.record.holder == "other", "what is another's is not given back"


async def test_a_lease_that_was_deleted_is_made_again_without_a_pause():
    lease, work = MemoryLease(), Work()
    async with standing(an_election(lease), work):
        await work.begun.wait()
        lease.record = None
        lease.written.clear()
        await lease.written.wait()
        assert not work.ended.is_set()
        assert len(work.leaderships) == 1


async def test_a_lease_that_cannot_be_given_back_holds_nobody_up():
    lease, work = MemoryLease(), Work()
    async with standing(an_election(lease), work):
        await work.begun.wait()
        lease.away = True
    assert work.ended.is_set()


async def test_who_has_no_other_replicas_works_at_once_and_leads_for_ever():
    remaining = []

    async def work(leadership):
        remaining.append(leadership.remaining())

    assert NoElection.leading
    await NoElection().run(work)
    assert remaining == [math.inf]
