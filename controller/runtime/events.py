"""Recording events: which of them are worth writing, and writing those in the background.

Repetitions are counted, similar events combined, and no object may have too many. The rules and numbers are those of
client-go's EventCorrelator. Two differ: what a token pays for is a write and not an occurrence, so that counts stay
right however often something happens; and what goes on and on leaves a few writes to what was not told lately
(docs/adr/0081).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Protocol

from controller.api.timing import REAL, EventTiming
from controller.store.events import Event, EventSeries, event_object, series_changes
from controller.store.objects import ObjectRef
from controller.store.protocol import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ObjectWriter,
    RefusedError,
    StoreError,
)

_SIMILAR = 10  # Different messages for one reason; those that follow are combined.
_BURST = 25  # Writes for one object at once.
_FOR_NEWS = 5  # Of these, the last are for reasons that were not told lately: what repeats does not hide them.
_CAPACITY = 4096  # Series, and objects, that are remembered.
_ATTEMPTS = 5
_LONGEST_NAME = 200  # The API allows 253, to the object as to its event, whose name is longer.

Topic = tuple[ObjectRef, str, str, str]


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What is one series: object, uid, type and reason, and the message; None for those that are combined."""

    topic: Topic
    message: str | None


@dataclass(frozen=True, slots=True)
class EventWrite:
    """One thing to be written: a new event, or the count of one that was written before."""

    key: SeriesKey
    series: EventSeries
    new: bool


@dataclass(slots=True)
class _Entry:
    series: EventSeries
    written: int = 0  # The count that was written last.
    written_at: datetime | None = None
    failures: int = 0


class EventCorrelator:
    """All series of the last minutes, and what of them is to be written when. Pure: `now` is an argument."""

    def __init__(self, timing: EventTiming) -> None:
        self._window = timedelta(seconds=timing.window)
        self._update_every = timedelta(seconds=timing.update_every)
        self._refill = timedelta(seconds=timing.refill)
        self._first_retry = timedelta(seconds=timing.first_retry)
        self._entries: dict[SeriesKey, _Entry] = {}
        self._messages: Counter[Topic] = Counter()
        # When a series is to be written, those that wait for a token of their object, and those that are written.
        self._due: dict[SeriesKey, datetime] = {}
        self._by_time: list[tuple[datetime, int, SeriesKey]] = []
        self._number = itertools.count()
        self._postponed: OrderedDict[SeriesKey, None] = OrderedDict()
        self._written: OrderedDict[SeriesKey, None] = OrderedDict()
        self._buckets: OrderedDict[ObjectRef, tuple[float, datetime]] = OrderedDict()

    def add(self, event: Event, now: datetime) -> int:
        """Add an event. Give how many events are lost by it: its object had too many, or too much is unwritten."""
        self._forget_old(now)
        key = self._key_of(event)
        if key in self._written and self._is_over(key, now):
            self._forget(key)
            key = self._key_of(event)
        entry = self._entries.get(key)
        if entry is None:
            return self._begin(key, event, now)
        entry.series = replace(entry.series, count=entry.series.count + 1, last_at=event.at)
        if key not in self._due:
            self._write_at(key, max(now, (entry.written_at or now) + self._update_every))
        return 0

    def due_at(self) -> datetime | None:
        """When something is next to be written."""
        key = self._earliest()
        return self._due[key] if key else None

    def next_write(self, now: datetime, *, hurry: bool = False) -> EventWrite | None:
        """What is to be written first; in a hurry also what might wait for others to join it."""
        found: EventWrite | None = None
        postponed: list[SeriesKey] = []
        while found is None and (key := self._earliest()) and (hurry or self._due[key] <= now):
            entry = self._entries[key]
            new = not entry.written
            # A new one paid when it began.
            if new or entry.failures or self._take_token(key.topic[0], now, leaving=_FOR_NEWS):
                self._postponed.pop(key, None)
                found = EventWrite(key, entry.series, new)
            else:
                heapq.heappop(self._by_time)
                postponed.append(key)
        for key in postponed:
            self._write_at(key, now + self._refill)
            self._postponed[key] = None
        return found

    def on_success(self, write: EventWrite, now: datetime) -> None:
        """A write was done; what happened meanwhile is written later."""
        entry = self._entries[write.key]
        entry.written, entry.written_at, entry.failures = write.series.count, now, 0
        if entry.series.count > write.series.count:
            self._write_at(write.key, now + self._update_every)
        else:
            del self._due[write.key]
            self._written[write.key] = None

    def on_already_exists(self, write: EventWrite, now: datetime) -> None:
        """A new event was there already: from an attempt whose answer was lost, with the count of then."""
        self.on_success(replace(write, series=replace(write.series, count=1)), now)

    def on_expired(self, write: EventWrite, now: datetime) -> None:
        """The event that was to be updated is gone, as all are after a while: it is to be written as a new one."""
        self._entries[write.key].written = 0
        self._write_at(write.key, now)

    def on_failure(self, write: EventWrite, now: datetime, *, for_good: bool) -> int:
        """A write failed, and is tried again unless that was often enough. Give how many events are lost with it."""
        entry = self._entries[write.key]
        entry.failures += 1
        if for_good or entry.failures >= _ATTEMPTS:
            return self._forget(write.key)
        self._write_at(write.key, now + self._first_retry * 2 ** (entry.failures - 1))
        return 0

    def _begin(self, key: SeriesKey, event: Event, now: datetime) -> int:
        # One that is written makes room, or else a count that waits for a token: maybe for long, and others shall not.
        room = None
        if len(self._entries) >= _CAPACITY and not (room := next(chain(self._written, self._postponed), None)):
            return 1
        is_news = not self._messages[key.topic]
        if not self._take_token(event.object, now, leaving=0 if is_news else _FOR_NEWS):
            return 1
        lost = self._forget(room) if room else 0
        if key.message is None:
            event = replace(event, message=f"(combined from similar events): {event.message}")
        self._entries[key] = _Entry(EventSeries(_name(event), event, 1, event.at))
        self._messages[key.topic] += 1
        self._write_at(key, now)
        return lost

    def _write_at(self, key: SeriesKey, at: datetime) -> None:
        self._written.pop(key, None)
        self._due[key] = at
        heapq.heappush(self._by_time, (at, next(self._number), key))
        if len(self._by_time) > 2 * _CAPACITY:
            self._by_time = [(at, next(self._number), key) for key, at in self._due.items()]
            heapq.heapify(self._by_time)

    def _earliest(self) -> SeriesKey | None:
        while self._by_time and self._due.get(self._by_time[0][2]) != self._by_time[0][0]:
            heapq.heappop(self._by_time)
        return self._by_time[0][2] if self._by_time else None

    def _key_of(self, event: Event) -> SeriesKey:
        topic = (event.object, event.uid, event.type, event.reason)
        own, combined = SeriesKey(topic, event.message), SeriesKey(topic, None)
        if own not in self._entries and (combined in self._entries or self._messages[topic] >= _SIMILAR):
            return combined
        return own

    def _take_token(self, ref: ObjectRef, now: datetime, *, leaving: int) -> bool:
        """Take a token of this object's, if it has one and as many as are to be left."""
        tokens, since = self._buckets.pop(ref, (float(_BURST), now))
        tokens = min(tokens + max(now - since, timedelta()) / self._refill, float(_BURST))
        enough = tokens >= 1 + leaving
        self._buckets[ref] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > _CAPACITY:
            self._buckets.popitem(last=False)
        return enough

    def _forget_old(self, now: datetime) -> None:
        while self._written and self._is_over(oldest := next(iter(self._written)), now):
            self._forget(oldest)

    def _is_over(self, key: SeriesKey, now: datetime) -> bool:
        return now - self._entries[key].series.last_at > self._window

    def _forget(self, key: SeriesKey) -> int:
        """Forget a series, and give how many of its events were not written."""
        entry = self._entries.pop(key)
        for keys in (self._due, self._postponed, self._written):
            keys.pop(key, None)
        self._messages[key.topic] -= 1
        if not self._messages[key.topic]:
            del self._messages[key.topic]
        return entry.series.count - entry.written


def _name(event: Event) -> str:
    """The name of the Event object: of its own, the same for another attempt at the same event."""
    identity = repr((event.uid, event.type, event.reason, event.message, event.at))
    digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    return f"{event.object.name[:_LONGEST_NAME].rstrip('-.')}.{digest}"


logger = logging.getLogger(__name__)


class Events(Protocol):
    """Where events are recorded."""

    def record(self, event: Event) -> None:
        """Record an event. Never waits, never raises."""
        ...


class NoEvents:
    """Records nothing: nobody would read it."""

    def record(self, event: Event) -> None:
        """See `Events`."""


class EventRecorder:
    """Writes events in the background, while `run` runs. `dropped` counts those that nobody will see.

    `instance` names this replica. Writes of events are not fenced by a lease: an event says what its author did while
    it was leading, and stays true when it leads no longer.
    """

    def __init__(
        self, writer: ObjectWriter, instance: str, clock: Callable[[], datetime], timing: EventTiming = REAL.events
    ) -> None:
        self._writer = writer
        self._instance = instance
        self._clock = clock
        self._timing = timing
        self._correlator = EventCorrelator(timing)
        self._news = asyncio.Event()
        self._trouble = ""
        self.dropped = 0

    def record(self, event: Event) -> None:
        """See `Events`."""
        self.dropped += self._correlator.add(event, self._clock())
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled; then what is left, within a moment."""
        try:
            while True:
                self._news.clear()
                if write := self._correlator.next_write(self._clock()):
                    await self._write(write)
                else:
                    await self._until_due()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.flush):
                    while write := self._correlator.next_write(self._clock(), hurry=True):
                        await self._write(write)

    async def _until_due(self) -> None:
        due_at = self._correlator.due_at()
        wait = None if due_at is None else max((due_at - self._clock()).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()

    async def _write(self, write: EventWrite) -> None:
        try:
            async with asyncio.timeout(self._timing.write):
                await self._send(write)
        except NotFoundError as error:
            if write.new:  # The namespace is gone, and with it who might read this.
                self._failed(write, error, for_good=True)
            else:
                self._correlator.on_expired(write, self._clock())
        except ConflictError as error:
            if write.new:  # It was written, only the answer was lost.
                self._correlator.on_already_exists(write, self._clock())
            else:
                self._failed(write, error)
        except (ForbiddenError, RefusedError) as error:
            self._failed(write, error, for_good=True)
        except (StoreError, TimeoutError) as error:
            self._failed(write, error)
        except Exception as error:
            logger.exception("event not written", extra={"event": write.series.name})
            self._failed(write, error, for_good=True)
        else:
            self._trouble = ""
            self._correlator.on_success(write, self._clock())

    async def _send(self, write: EventWrite) -> None:
        if write.new:
            await self._writer.create(event_object(write.series, self._instance))
        else:
            await self._writer.patch(write.series.ref, series_changes(write.series))

    def _failed(self, write: EventWrite, error: Exception, *, for_good: bool = False) -> None:
        """Log the first failure after a success: what follows is more of the same."""
        trouble = str(error) or "no answer in time"
        if not self._trouble:
            logger.warning("events not written", extra={"because": trouble})
        self._trouble = trouble
        self.dropped += self._correlator.on_failure(write, self._clock(), for_good=for_good)
