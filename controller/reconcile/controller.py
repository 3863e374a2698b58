"""The controller: one task that looks again at every model that something happened to.

::

    store -> World -> Queue -> Subjects -> reconcile -> StatusWriter -> store
    watch             who is   who has     what shall   who writes      status
                      due      what        be           when

One task does all of it but the writes, so no state needs a lock. A model is computed as often as anything happens, for
that costs a fraction of a millisecond; it is written when the status it shall have differs from the one it has.
What must outlive this process is in the statuses: it may be cancelled at any moment, and another one started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from controller.api.resources.model import ModelDeployment
from controller.decision import Known, Unknown
from controller.frontend.claims import Refusal
from controller.observe.index import KINDS, Seen, World
from controller.plan.model import Outcome, reconcile, refused
from controller.plan.signals import requests_metrics
from controller.reconcile.subjects import Defaults, Subjects, seniority
from controller.reconcile.surroundings import Surroundings
from controller.reconcile.writer import Start, StatusWriter, Wish
from controller.runtime.queue import Backoff, Queue
from controller.signals.load_reports import NO_LOAD, Load
from controller.store.objects import ObjectRef
from controller.store.protocol import ObjectStore

__all__ = ["Controller", "Surroundings"]

logger = logging.getLogger(__name__)

# So many models are computed before whatever else this process does has its turn.
_MODELS_PER_TURN = 5


class Controller:
    """Watches a store and keeps the status of every ModelDeployment in it current. Level-triggered: no event counts."""

    def __init__(self, store: ObjectStore, surroundings: Surroundings) -> None:
        self._store = store
        self._around = surroundings
        self._world = World()
        defaults = Defaults(surroundings.default_remote, surroundings.guard, surroundings.ports)
        self._subjects = Subjects(self._world, defaults)
        timing = surroundings.timing
        rests = Backoff(timedelta(seconds=timing.first_rest), timedelta(seconds=timing.longest_rest))
        self._queue: Queue[ObjectRef] = Queue(rests)
        self._writer = StatusWriter(store, self._queue, surroundings)
        # Models that changed themselves, or whose references did, and that were not observed since.
        self._news: set[ObjectRef] = set()
        self._changed = asyncio.Event()

    def look_again(self, models: frozenset[ObjectRef] | None) -> None:
        """Reconcile these models soon, or (None) all: something that is not in the store changed for them."""
        for ref in sorted(self._world.models() if models is None else models):
            self._queue.add(ref, urgent=False)
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled, or until the store ends its watch."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            work = group.create_task(self._work(group))
            watch.add_done_callback(lambda _: work.cancel())

    async def _watch(self) -> None:
        async for batch in self._store.watch(KINDS):
            self._news |= self._world.apply(batch)
            self._changed.set()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        def start(write: Coroutine[Any, Any, None]) -> None:
            group.create_task(write).add_done_callback(lambda _: self._changed.set())

        while True:
            await self._something_due()
            await self._observe_news()
            await self._look_at_due(start)

    async def _something_due(self) -> None:
        now = self._around.clock()
        moments = (self._queue.wakes_at(), self._writer.next_turn(now))
        earliest = min((at for at in moments if at), default=None)
        wait = None if earliest is None else max((earliest - now).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        self._changed.clear()

    async def _observe_news(self) -> None:
        """Take in all that changed before anything is decided: who has what is a matter of all models together."""
        done = 0
        while self._news:
            news, self._news = self._news, set()
            for ref in sorted(news, key=self._precedence):
                self._queue.add(ref)
                for other in sorted(self._subjects.observe(ref), key=self._precedence):
                    self._queue.add(other)
                done += 1
                if done % _MODELS_PER_TURN == 0:
                    await asyncio.sleep(0)

    async def _look_at_due(self, start: Start) -> None:
        done = 0
        for turn in self._writer.turns(self._around.clock()):
            self._queue.add(turn)
        while not self._news and (ref := self._queue.take(self._around.clock())) is not None:
            try:
                self._look_at(ref, start)
            except Exception:
                # A mistake of ours shows with one object; the others go on.
                logger.exception("model not reconciled", extra={"object": str(ref)})
                self._writer.pass_over(ref)
                self._queue.failed(ref, self._around.clock())
            done += 1
            if done % _MODELS_PER_TURN == 0:
                await asyncio.sleep(0)
        if self._news or len(self._queue):
            self._changed.set()

    def _look_at(self, ref: ObjectRef, start: Start) -> None:
        seen, now = self._world.model(ref), self._around.clock()
        if seen is None:
            self._writer.forget(ref)
            self._queue.succeeded(ref)
            self._queue.forget(ref)
            self._around.observer(ref, None)
        elif until := self._writer.expected_until(seen, now):
            self._writer.pass_over(ref)
            # A write that changed nothing in the store never comes back.
            self._queue.add_at(ref, until)
        else:
            self._writer.write(Wish(seen, self._outcome(seen).status), start, now)

    def _outcome(self, seen: Seen) -> Outcome:
        now, ref = self._around.clock(), seen.stored.ref
        if seen.model is None:
            lost = self._subjects.lost_route(seen)
            mistakes = "; ".join(map(str, seen.errors))
            refusal = Refusal("Conflict", f"{lost.message}; {mistakes}") if lost else Refusal("Invalid", mistakes)
            return refused(seen.stored, refusal, is_served=lost is None, now=now)
        subject, again = self._subjects.subject(seen, seen.model)
        for other in sorted(again, key=self._precedence):
            self._queue.add(other)
        outcome = reconcile(subject, self._around.proxies, now, self._load(seen.model, ref, now))
        self._around.observer(ref, outcome.decision)
        if outcome.decision and outcome.decision.wake_at:
            self._queue.add_at(ref, outcome.decision.wake_at)
        return outcome

    def _load(self, model: ModelDeployment, ref: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has, if one of its metrics asks for that, and look again soon."""
        if not requests_metrics(model):
            return NO_LOAD
        # What of it is written is a matter of the budget.
        self._queue.add_at(ref, now + timedelta(seconds=self._around.timing.loads_looked_at_every))
        return self._around.loads.load(ref, now)

    def _precedence(self, ref: ObjectRef) -> tuple[bool, str, str, str]:
        """Order models by who asks first for what several want: who serves already, then the older object."""
        seen = self._world.model(ref)
        if seen is None:
            return (False, "", ref.namespace, ref.name)
        return (seen.status.route is None, *seniority(seen))
