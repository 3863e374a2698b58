"""Events: what happened to a model, told to whoever looks at it with kubectl. Nothing waits for them or fails by them.

::

    Events.record -> SeriesOfEvents -> EventSink
     never waits      pure              I/O, one write at a time
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from controller.api.timing import REAL, EventTiming
from controller.reconcile.event_series import SeriesOfEvents, Write
from controller.store.events import Event, EventSink
from controller.store.protocol import ConflictError, ForbiddenError, NotFoundError, RefusedError, StoreError

__all__ = ["Event", "EventRecorder", "Events", "NoEvents"]

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
