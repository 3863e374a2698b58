"""The recorder at work: events in, writes out, and never a word to whoever recorded them."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from controller.api.timing import REAL, EventTiming
from controller.runtime.events import EventRecorder, NoEvents
from controller.store.events import Event
from controller.store.objects import ObjectRef
from controller.store.protocol import AlreadyExistsError, ForbiddenError, NotFoundError, RefusedError, UnavailableError
from tests.support.store import settled
from tests.support.waiting import PATIENCE, time_limit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def an_event(message="one"):
    return Event(ObjectRef("ModelDeployment", "default", "a"), "u", "Normal", "Ready", message, NOON)


class Writer:
    """Implements what a recorder needs of `ObjectWriter`. Keeps what it is given, or raises what it is told to."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.written = []
        self.attempts = 0

    async def create(self, raw):
        assert raw["reportingInstance"] == "replica-0"
        self._take(("create", raw["note"], raw.get("series", {"count": 1})["count"]))
        self.ref = ObjectRef.of(raw)

    async def patch(self, ref, changes):
        assert ref == self.ref
        self._take(("patch", changes["series"]["count"]))

    def _take(self, write):
        self.attempts += 1
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.written.append(write)


class Silent(Writer):
    """Never answers."""

    async def create(self, raw):
        self.attempts += 1
        await asyncio.Event().wait()


@asynccontextmanager
async def recording(writer, timing=REAL.events):
    recorder = EventRecorder(writer, "replica-0", lambda: NOON, timing)
    running = asyncio.create_task(recorder.run())
    await settled()
    yield recorder
    await settled()
    assert not running.done()
    running.cancel()
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], asyncio.CancelledError)


async def test_an_event_is_written_in_the_background():
    writer = Writer()
    async with recording(writer) as recorder:
        recorder.record(an_event())
        assert writer.written == []
        await settled()
        assert writer.written == [("create", "one", 1)]


async def test_what_is_left_is_written_at_the_end():
    writer = Writer()
    async with recording(writer) as recorder:
        recorder.record(an_event())
        await settled()
        recorder.record(an_event())
        await settled()
        assert writer.written == [("create", "one", 1)]
    assert writer.written[1:] == [("patch", 2)]


async def test_an_event_that_was_written_though_its_answer_was_lost_is_not_written_again():
    writer = Writer(AlreadyExistsError("exists"))
    async with recording(writer) as recorder:
        recorder.record(an_event())
    assert (writer.attempts, recorder.dropped) == (1, 0)


class Late(Writer):
    """Takes the first event, and answers when nobody listens any more."""

    async def create(self, raw):
        if self.written:
            self._take(("exists", raw["note"], raw["series"]["count"]))
            raise AlreadyExistsError("exists")
        await super().create(raw)
        await asyncio.Event().wait()


async def test_what_happened_again_while_the_answer_was_lost_is_counted_all_the_same():
    writer = Late()
    async with recording(writer) as recorder:
        recorder.record(an_event())
        await settled()
        recorder.record(an_event())
    assert writer.written == [("create", "one", 1), ("exists", "one", 2), ("patch", 2)]


@pytest.mark.parametrize("failure", [ForbiddenError("no"), RefusedError("no"), NotFoundError("no"), KeyError("a bug")])
async def test_what_will_never_be_taken_is_dropped_and_the_next_one_is_written(failure):
    writer = Writer(failure)
    async with recording(writer) as recorder:
        recorder.record(an_event("one"))
        recorder.record(an_event("two"))
    assert writer.written == [("create", "two", 1)]
    assert recorder.dropped == 1


async def test_what_may_be_taken_later_is_kept_and_holds_up_nothing():
    writer = Writer(UnavailableError("away"))
    async with recording(writer) as recorder:
        recorder.record(an_event("one"))
        recorder.record(an_event("two"))
        await settled()
        assert writer.written == [("create", "two", 1)]
    assert writer.written == [("create", "two", 1), ("create", "one", 1)]
    assert recorder.dropped == 0


async def test_an_event_whose_count_cannot_be_written_for_it_is_gone_is_written_anew():
    writer = Writer(None, NotFoundError("expired"))
    async with recording(writer) as recorder:
        recorder.record(an_event())
        await settled()
        recorder.record(an_event())
    assert writer.written == [("create", "one", 1), ("create", "one", 2)]


async def test_the_end_waits_a_moment_for_an_api_server_that_does_not_answer():
    writer = Silent()
    async with time_limit(PATIENCE), recording(writer, EventTiming(flush=0.05)) as recorder:
        recorder.record(an_event())
        await settled()
    assert writer.attempts == 2
    assert REAL.events.flush <= 1


async def test_nobody_needs_to_listen():
    NoEvents().record(an_event())
