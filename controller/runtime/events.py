"""Which events are worth writing: repetitions are counted, similar ones combined, and no object may tell too many.

The rules and numbers are those of client-go's event correlator. One differs: what a token pays for is a write and not
an occurrence, so that counts stay right however often something happens. Pure: `now` is an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from controller.api.timing import REAL, EventTiming
from controller.store.events import Event, EventSeries, EventSink
from controller.store.objects import ObjectRef
from controller.store.protocol import ConflictError, ForbiddenError, NotFoundError, RefusedError, StoreError

_SIMILAR = 10  # Different messages for one reason; those that follow are combined.
_BURST = 25  # Writes for one object at once.
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
class Write:
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


class SeriesOfEvents:
    """All series of the last minutes, and what of them is to be written when."""

    def __init__(self, timing: EventTiming) -> None:
        self._window = timedelta(seconds=timing.window)
        self._update_every = timedelta(seconds=timing.update_every)
        self._refill = timedelta(seconds=timing.refill)
        self._first_retry = timedelta(seconds=timing.first_retry)
        self._entries: OrderedDict[SeriesKey, _Entry] = OrderedDict()  # The one that happened last is last.
        self._messages: Counter[Topic] = Counter()
        self._due: dict[SeriesKey, datetime] = {}
        self._allowances: OrderedDict[ObjectRef, tuple[float, datetime]] = OrderedDict()

    def add(self, event: Event, now: datetime) -> bool:
        """Take in an event; False when it is dropped, for its object told too much or too much is unwritten."""
        self._forget_old(now)
        key = self._key_of(event)
        entry = self._entries.get(key)
        if entry is None:
            return self._begin(key, event, now)
        entry.series = replace(entry.series, count=entry.series.count + 1, last_at=event.at)
        self._entries.move_to_end(key)
        if key not in self._due:
            self._due[key] = max(now, (entry.written_at or now) + self._update_every)
        return True

    def due_at(self) -> datetime | None:
        """When something is next to be written."""
        return min(self._due.values(), default=None)

    def next(self, now: datetime, *, hurry: bool = False) -> Write | None:
        """What is to be written first; in a hurry also what might wait for others to join it."""
        for key in sorted(self._due, key=self._due.__getitem__):
            if self._due[key] > now and not hurry:
                return None
            entry = self._entries[key]
            new = not entry.written
            # A new one paid when it began.
            if new or entry.failures or self._pay(key.topic[0], now):
                return Write(key, entry.series, new)
            self._due[key] = now + self._refill
        return None

    def wrote(self, write: Write, now: datetime) -> None:
        """A write was done; what happened meanwhile is written later."""
        entry = self._entries[write.key]
        entry.written, entry.written_at, entry.failures = write.series.count, now, 0
        if entry.series.count > write.series.count:
            self._due[write.key] = now + self._update_every
        else:
            del self._due[write.key]

    def found(self, write: Write, now: datetime) -> None:
        """A new one was there already: from an attempt whose answer was lost, with the count of then."""
        self.wrote(replace(write, series=replace(write.series, count=1)), now)

    def vanished(self, write: Write, now: datetime) -> None:
        """The event is gone that was to be updated: it is to be written as a new one."""
        self._entries[write.key].written = 0
        self._due[write.key] = now

    def failed(self, write: Write, now: datetime, *, for_good: bool) -> int:
        """A write failed, and is tried again unless that was often enough. Give how many events are lost with it."""
        entry = self._entries[write.key]
        entry.failures += 1
        if for_good or entry.failures >= _ATTEMPTS:
            self._forget(write.key)
            return entry.series.count - entry.written
        self._due[write.key] = now + self._first_retry * 2 ** (entry.failures - 1)
        return 0

    def _begin(self, key: SeriesKey, event: Event, now: datetime) -> bool:
        if len(self._entries) >= _CAPACITY:
            oldest = next(iter(self._entries))
            if oldest in self._due:
                return False
            self._forget(oldest)
        if not self._pay(event.object, now):
            return False
        if key.message is None:
            event = replace(event, message=f"(combined from similar events): {event.message}")
        self._entries[key] = _Entry(EventSeries(_name(event), event, 1, event.at))
        self._messages[key.topic] += 1
        self._due[key] = now
        return True

    def _key_of(self, event: Event) -> SeriesKey:
        topic = (event.object, event.uid, event.type, event.reason)
        own, combined = SeriesKey(topic, event.message), SeriesKey(topic, None)
        if own not in self._entries and (combined in self._entries or self._messages[topic] >= _SIMILAR):
            return combined
        return own

    def _pay(self, ref: ObjectRef, now: datetime) -> bool:
        """Take a token of this object's, if it has one."""
        tokens, since = self._allowances.pop(ref, (float(_BURST), now))
        tokens = min(tokens + max(now - since, timedelta()) / self._refill, float(_BURST))
        self._allowances[ref] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._allowances) > _CAPACITY:
            self._allowances.popitem(last=False)
        return tokens >= 1

    def _forget_old(self, now: datetime) -> None:
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if key in self._due or now - entry.series.last_at <= self._window:
                return
            self._forget(key)

    def _forget(self, key: SeriesKey) -> None:
        del self._entries[key]
        self._due.pop(key, None)
        self._messages[key.topic] -= 1
        if not self._messages[key.topic]:
            del self._messages[key.topic]


def _name(event: Event) -> str:
    """The name of the Event object: of its own, the same for another attempt at the same event."""
    said = repr((event.uid, event.type, event.reason, event.message, event.at))
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return f"{event.object.name[:_LONGEST_NAME].rstrip('-.')}.{digest}"


logger = logging.getLogger(__name__)


class Events(Protocol):
    """Who is told of events."""

    def record(self, event: Event) -> None:
        """Take in an event. Never waits, never raises."""
        ...


class NoEvents:
    """Tells nobody."""

    def record(self, event: Event) -> None:
        """See `Events`."""


class EventRecorder:
    """Writes events to a sink in the background, while `run` runs. `dropped` counts those that nobody will see."""

    def __init__(self, sink: EventSink, clock: Callable[[], datetime], timing: EventTiming = REAL.events) -> None:
        self._sink = sink
        self._clock = clock
        self._timing = timing
        self._series = SeriesOfEvents(timing)
        self._news = asyncio.Event()
        self._trouble = ""
        self.dropped = 0

    def record(self, event: Event) -> None:
        """See `Events`."""
        if self._series.add(event, self._clock()):
            self._news.set()
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled; then what is left, within a moment."""
        try:
            while True:
                self._news.clear()
                if write := self._series.next(self._clock()):
                    await self._write(write)
                else:
                    await self._something_due()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.flush):
                    while write := self._series.next(self._clock(), hurry=True):
                        await self._write(write)

    async def _something_due(self) -> None:
        due_at = self._series.due_at()
        wait = None if due_at is None else max((due_at - self._clock()).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()

    async def _write(self, write: Write) -> None:
        try:
            async with asyncio.timeout(self._timing.write):
                await (self._sink.create if write.new else self._sink.update)(write.series)
        except NotFoundError as error:
            if write.new:  # The namespace is gone, and with it who might read this.
                self._failed(write, error, for_good=True)
            else:
                self._series.vanished(write, self._clock())
        except ConflictError as error:
            if write.new:  # It was written, only the answer was lost.
                self._series.found(write, self._clock())
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
            self._series.wrote(write, self._clock())

    def _failed(self, write: Write, error: Exception, *, for_good: bool = False) -> None:
        """Log the first failure after a success: what follows is more of the same."""
        trouble = str(error) or "no answer in time"
        if not self._trouble:
            logger.warning("events not written", extra={"because": trouble})
        self._trouble = trouble
        self.dropped += self._series.failed(write, self._clock(), for_good=for_good)
