"""Asking somebody else from time to time: once for all objects that need the same, bounded in time and number.

A source says what it asks for (a key, such as a namespace with a selector) and how; the poller asks for every key that
somebody looked at lately, keeps the last good answer until it is too old, and tells whose answers are new, and whose
are old. Who needs a key looks at it when told: it is forgotten when nobody does. Few questions are under way at once,
and namespaces take turns. Where many keys of one namespace are asked for, and the source knows how, one question asks
for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from controller.api.timing import PollTiming
from controller.decision.facts import Cause, Known, Unknown
from controller.signals.shares import KeysByShare
from controller.signals.together import is_due
from controller.signals.turns import Turns
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

# Seconds: the loop is not left for less.
_BURST = 0.01

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")
Found = TypeVar("Found")

Tell = Callable[[frozenset[ObjectRef]], None]


def _tell_nobody(_: frozenset[ObjectRef]) -> None:
    """Nobody listens yet."""


NOT_ASKED_YET = Unknown("it is asked for the first time", pending=True, cause=Cause.NO_SAMPLE)


_LARGE_SHARE = "and no namespace has more of them than this one"


class SourceError(Exception):
    """A source gave no answer that can be used; the message says why, in words for a status: no secret, no address of
    this machine, and short. `cause` says it in one word.
    """

    def __init__(self, why: str, cause: Cause = Cause.NOT_USABLE) -> None:
        super().__init__(why)
        self.cause = cause


@dataclass(slots=True)
class _Question(Generic[Answer]):
    """What is known of one key: the last good answer, why the last question failed, and who looked at it when.

    `unheeded_since` is when somebody was told of it and nobody has looked since then.
    """

    since: datetime
    looked_at: float
    answer: Known[Answer] | None = None
    fault: Unknown | None = None
    objects: dict[ObjectRef, float] = field(default_factory=dict)
    next_at: float = 0.0
    failures: int = 0
    told_at: float = 0.0
    unheeded_since: float | None = None

    def take_back(self, now: datetime) -> None:
        """Take what was had before the clock was set back for something of now, or it would be new until then."""
        at = now.timestamp()
        self.since, self.looked_at, self.told_at = min(self.since, now), min(self.looked_at, at), min(self.told_at, at)
        if self.unheeded_since is not None:
            self.unheeded_since = min(self.unheeded_since, at)
        if self.answer and self.answer.at > now:
            self.answer = Known(self.answer.value, now)


@dataclass(frozen=True, slots=True)
class _All:
    """All keys of a share, as one question."""

    share: str


class Poller(Generic[Key, Answer]):
    """Asks `fetch` for each key about every `timing.every` seconds, while somebody looks at it; once at a time.

    `fetch` returns an answer or raises SourceError; it has `timing.answer` seconds. Whatever else it raises is a
    mistake of ours, is logged, and costs the others nothing. `clock` is UTC. `share_of` names on whose behalf a key is
    asked for, its namespace: when there is more to ask than there is time, each has its share, and none has more than
    half of the places. Without it all keys are alike.

    `fetch_all` asks for all keys of a share in one question, and returns the answers that it has: the others are asked
    for one by one. `together` says when it is used; what is kept and told is a matter of each key all the same.
    """

    def __init__(
        self,
        fetch: Callable[[Key], Awaitable[Answer]],
        timing: PollTiming,
        clock: Callable[[], datetime],
        share_of: Callable[[Key], str] | None = None,
        fetch_all: Callable[[str, AbstractSet[Key]], Awaitable[Mapping[Key, Answer]]] | None = None,
    ) -> None:
        self._fetch = fetch
        self._fetch_all = fetch_all
        self._timing = timing
        self._clock = clock
        self._share_of = share_of
        self._entries: dict[Key, _Question[Answer]] = {}
        self._longest = max(timing.every, timing.longest_pause)
        self._shares: KeysByShare[Key] = KeysByShare(self._longest)
        self._tell: Tell = _tell_nobody
        self._woken = asyncio.Event()

    def look(self, key: Key, ref: ObjectRef, now: datetime) -> Known[Answer] | Unknown:
        """Return the last answer for a key, with the time when it was had, and go on asking on behalf of `ref`."""
        at = now.timestamp()
        entry = self._entries.get(key)
        if entry is None:
            if not self._has_room(self._share(key)):
                return Unknown(
                    f"more than {self._timing.most_keys} different questions are asked already, {_LARGE_SHARE}"
                )
            entry = self._entries[key] = _Question(since=now, looked_at=at)
            self._shares.add(key, self._share(key))
            self._woken.set()
        entry.looked_at, entry.unheeded_since = at, None
        entry.objects[ref] = at
        if answer := self.answer(key, now):
            return answer
        if entry.fault:
            return entry.fault
        if entry.answer is None and at <= self._old_at(entry):
            return NOT_ASKED_YET
        what = "there was no answer for" if entry.answer is None else "the last answer is older than"
        return Unknown(f"{what} {self._timing.old_after:.0f} s", cause=Cause.NOT_ANSWERING)

    def answer(self, key: Key, now: datetime) -> Known[Answer] | None:
        """Return the last answer for a key unless it is too old, and ask for nothing."""
        entry = self._entries.get(key)
        answer = entry.answer if entry else None
        return answer if answer and (now - answer.at).total_seconds() <= self._timing.old_after else None

    def _old_at(self, entry: _Question[Answer]) -> float:
        return (entry.answer.at if entry.answer else entry.since).timestamp() + self._timing.old_after

    def _has_room(self, share: str) -> bool:
        """Say whether another key may be asked for, in the place of one of a larger share if there are too many."""
        if len(self._entries) < self._timing.most_keys:
            return True
        key = self._shares.gives_way(share)
        if key is None:
            return False
        objects = frozenset(self._entries[key].objects)
        self._forget(key)
        self._tell(objects)
        return True

    def _share(self, key: Key) -> str:
        return self._share_of(key) if self._share_of else ""

    async def run(self, tell: Tell) -> None:
        """Ask until cancelled; `tell` for which objects there is another answer, or none any more."""
        self._tell = tell
        places = self._timing.at_once
        # Who comes next finds a place at once, whatever another one asks for.
        turns: Turns[Key | _All] = Turns(places, max(places // 2, 1) if self._share_of else places)
        clock, looked, wait, may = asyncio.get_running_loop().time, 0.0, 0.0, 0.0
        async with asyncio.TaskGroup() as group:
            while True:
                if clock() >= looked + self._timing.least_pause:
                    wait, looked = self._add_due(turns), clock()
                if (asked := turns.take()) is not None:
                    work = self._ask_for_all(asked) if isinstance(asked, _All) else self._ask(asked)
                    group.create_task(work).add_done_callback(partial(self._ended, turns, asked))
                    may = max(may, clock()) + 1 / self._timing.a_second
                    if (ahead := may - clock()) > _BURST:
                        await asyncio.sleep(ahead)
                else:
                    await self._woken_within(wait)

    def _ended(self, turns: Turns[Key | _All], asked: Key | _All, _: asyncio.Task[None]) -> None:
        turns.end(asked)
        self._woken.set()

    def _add_due(self, turns: Turns[Key | _All]) -> float:
        """Let the keys wait that are to be asked for now, and forget those that nobody looked at when told.

        A key whose turn is late says nothing for long: who looked at it is told that its answer is old, and from time
        to time, for else a source that hangs would look like one that nobody needs. Returns the seconds until the next
        is due.
        """
        moment = self._clock()
        now, forget_after = moment.timestamp(), self._timing.forget_after
        for key, entry in list(self._entries.items()):
            entry.take_back(moment)
            if entry.unheeded_since is not None and now - entry.unheeded_since > forget_after:
                self._forget(key)
            elif entry.told_at <= self._old_at(entry) < now or now - max(entry.looked_at, entry.told_at) > forget_after:
                self._tell_of(entry, is_news=True)
        earliest = now + self._timing.every
        for key, entry in self._entries.items():
            if is_due(entry.next_at, now, self._longest):
                turns.add(self._asked_for(key, now), self._share(key))
            earliest = min(earliest, entry.next_at)
        return earliest - now

    def _asked_for(self, key: Key, now: float) -> Key | _All:
        """Say what is asked for a key that is due, and when it is due next."""
        name, next_at = self._share(key), now + self._timing.every
        share = self._shares[name]
        if self._fetch_all is None or not share.takes(key, now):
            self._entries[key].next_at = next_at
            return key
        for one in share.begin(next_at):
            entry = self._entries[one]
            if not entry.failures or is_due(entry.next_at, now, self._longest):  # What failed by itself rests.
                entry.next_at = next_at
        return _All(name)

    def _forget(self, key: Key) -> None:
        del self._entries[key]
        self._shares.forget(key, self._share(key))

    async def _woken_within(self, seconds: float) -> None:
        """Wait until there is another key, or a turn is over, or something is due."""
        was_woken = self._woken.is_set()
        self._woken.clear()
        try:
            async with asyncio.timeout(
                self._timing.least_pause if was_woken else max(seconds, self._timing.least_pause)
            ):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _ask(self, key: Key) -> None:
        answer = await self._outcome(self._fetch(key), str(key))
        if isinstance(answer, Unknown):
            self._failed(key, answer)
        else:
            self._answered(key, answer.value)

    async def _ask_for_all(self, asked: _All) -> None:
        share = self._shares.get(asked.share)
        if share is None or self._fetch_all is None:
            return
        keys = frozenset(share.keys)
        answers = await self._outcome(self._fetch_all(asked.share, keys), f"all of {asked.share}")
        if isinstance(answers, Known):
            for key, answer in answers.value.items():
                self._answered(key, answer)
            share.succeed(without=keys - answers.value.keys())
        elif share.fail(answers.cause, self._clock().timestamp()):
            for key in keys:
                self._failed(key, answers)
        else:
            more = {"namespace": asked.share, "keys": len(keys), "because": answers.why}
            logger.info("metrics of a namespace are asked for one by one", extra=more)
        for key in share.alone:
            if not (entry := self._entries[key]).failures:
                entry.next_at = 0.0

    async def _outcome(self, fetched: Awaitable[Found], asked: str) -> Known[Found] | Unknown:
        """Await an answer for as long as it may take, and say why there is none."""
        try:
            async with asyncio.timeout(self._timing.answer):
                return Known(await fetched, self._clock())
        except SourceError as error:
            return Unknown(str(error), cause=error.cause)
        except TimeoutError:
            return Unknown(f"no answer within {self._timing.answer:.0f} s", cause=Cause.NOT_ANSWERING)
        except Exception:
            logger.exception("metric not measured", extra={"key": asked})
            return Unknown("a mistake of the controller, which its log tells")

    def _answered(self, key: Key, answer: Answer) -> None:
        if entry := self._entries.get(key):
            is_news = entry.fault is not None or entry.answer is None or entry.answer.value != answer
            entry.answer, entry.fault, entry.failures = Known(answer, self._clock()), None, 0
            self._tell_of(entry, is_news)

    def _failed(self, key: Key, why: Unknown) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        is_news, entry.fault = entry.fault != why, why
        entry.failures += 1
        pause = min(self._timing.every * 2 ** min(entry.failures - 1, 10), self._longest)
        entry.next_at = self._clock().timestamp() + pause
        self._tell_of(entry, is_news)

    def _tell_of(self, entry: _Question[Answer], is_news: bool) -> None:
        """Tell those who look: what is the same as before only from time to time, because it grows old."""
        now = self._clock().timestamp()
        if not is_news and 0 <= now - entry.told_at < self._timing.told_again_after:
            return
        # Who was told before and has not looked since then, though there was time to, needs it no more.
        lately = min(now - self._timing.forget_after, entry.told_at)
        entry.objects = {ref: at for ref, at in entry.objects.items() if at >= lately}
        entry.told_at = now
        if entry.unheeded_since is None:
            entry.unheeded_since = now
        self._tell(frozenset(entry.objects))
