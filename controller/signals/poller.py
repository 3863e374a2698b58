"""Asking somebody else from time to time: once for all objects that need the same, bounded in time and number.

A source says what it asks for (a key, such as a namespace with a selector) and how; the poller asks for every key that
somebody looked at lately, keeps the last good answer until it is too old, and tells whose answers are new.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from controller.api.timing import PollTiming
from controller.decision.facts import Known, Unknown
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

Tell = Callable[[frozenset[ObjectRef]], None]


def _tell_nobody(_: frozenset[ObjectRef]) -> None:
    """Nobody listens yet."""


NOT_ASKED_YET = Unknown("it is asked for the first time")


class SourceError(Exception):
    """A source gave no answer that can be used; the message says why, in words for a status: no secret, no address of
    this machine, and short.
    """


@dataclass(slots=True)
class _Question(Generic[Answer]):
    """What is known of one key: the last good answer, why the last question failed, and who looks at it until when."""

    looked_at: float
    answer: Known[Answer] | None = None
    fault: str = ""
    objects: dict[ObjectRef, float] = field(default_factory=dict)
    next_at: float = 0.0
    failures: int = 0
    under_way: bool = False


class Poller(Generic[Key, Answer]):
    """Asks `fetch` for each key about every `timing.every` seconds, while somebody looks at it; once at a time.

    `fetch` returns an answer or raises SourceError; it has `timing.answer` seconds. Whatever else it raises is a
    mistake of ours, is logged, and costs the others nothing. `clock` is UTC.
    """

    def __init__(
        self,
        fetch: Callable[[Key], Awaitable[Answer]],
        timing: PollTiming,
        clock: Callable[[], datetime],
    ) -> None:
        self._fetch = fetch
        self._timing = timing
        self._clock = clock
        self._entries: dict[Key, _Question[Answer]] = {}
        self._tell: Tell = _tell_nobody
        self._woken = asyncio.Event()

    def look(self, key: Key, ref: ObjectRef, now: datetime) -> Known[Answer] | Unknown:
        """Return the last answer for a key, with the time when it was had, and go on asking on behalf of `ref`."""
        at = now.timestamp()
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._timing.most_keys:
                return Unknown(f"more than {self._timing.most_keys} different questions are asked already")
            entry = self._entries[key] = _Question(looked_at=at)
            self._woken.set()
        entry.looked_at = at
        entry.objects[ref] = at
        answer = entry.answer
        if answer is not None and (now - answer.at).total_seconds() <= self._timing.old_after:
            return answer
        return Unknown(entry.fault) if entry.fault else NOT_ASKED_YET

    async def run(self, tell: Tell) -> None:
        """Ask until cancelled; `tell` for which objects there is another answer, or none any more."""
        self._tell = tell
        for entry in self._entries.values():
            # Of those that were cut off, some had not begun.
            entry.under_way = False
        places = asyncio.Semaphore(self._timing.at_once)
        async with asyncio.TaskGroup() as group:
            while True:
                for key in self._due():
                    await places.acquire()
                    group.create_task(self._ask(key)).add_done_callback(lambda _: places.release())
                await self._next_due()

    def _due(self) -> list[Key]:
        """Return the keys to ask for now, and forget those that nobody looked at."""
        now = self._clock().timestamp()
        for key in [key for key, entry in self._entries.items() if now - entry.looked_at > self._timing.forget_after]:
            del self._entries[key]
        due = [key for key, entry in self._entries.items() if not entry.under_way and self._is_due(entry, now)]
        for key in due:
            self._entries[key].next_at = now + self._timing.every
            self._entries[key].under_way = True
        return due

    def _is_due(self, entry: _Question[Answer], now: float) -> bool:
        return entry.next_at <= now or entry.next_at > now + self._longest

    @property
    def _longest(self) -> float:
        """No question is further ahead, unless the clock was set back."""
        return max(self._timing.every, self._timing.longest_pause)

    async def _next_due(self) -> None:
        now = self._clock().timestamp()
        # One that is still under way when it is due again wakes us when it ends.
        moments = (entry.next_at for entry in self._entries.values() if not (entry.under_way and entry.next_at <= now))
        earliest = min(moments, default=now + self._timing.every)
        self._woken.clear()
        try:
            async with asyncio.timeout(max(earliest - now, self._timing.least_pause)):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._timing.least_pause)

    async def _ask(self, key: Key) -> None:
        try:
            async with asyncio.timeout(self._timing.answer):
                answer = await self._fetch(key)
        except SourceError as error:
            self._failed(key, str(error))
        except TimeoutError:
            self._failed(key, f"no answer within {self._timing.answer:.0f} s")
        except Exception:
            logger.exception("metric not measured", extra={"key": str(key)})
            self._failed(key, "a mistake of the controller, which its log tells")
        else:
            if entry := self._entries.get(key):
                entry.answer, entry.fault, entry.failures = Known(answer, self._clock()), "", 0
                self._tell_of(entry)
        finally:
            self._ended(key)

    def _ended(self, key: Key) -> None:
        if entry := self._entries.get(key):
            entry.under_way = False
            if entry.next_at <= self._clock().timestamp():
                self._woken.set()

    def _failed(self, key: Key, why: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.fault = why
        entry.failures += 1
        pause = min(self._timing.every * 2 ** min(entry.failures - 1, 10), self._longest)
        entry.next_at = self._clock().timestamp() + pause
        self._tell_of(entry)

    def _tell_of(self, entry: _Question[Answer]) -> None:
        since = self._clock().timestamp() - self._timing.forget_after
        entry.objects = {ref: at for ref, at in entry.objects.items() if at >= since}
        self._tell(frozenset(entry.objects))
