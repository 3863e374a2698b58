"""The controller: one task that looks again at every object that something happened to.

::

    store -> ObjectIndex -> Queue -> Observer -> plan -> Writer -> store
    watch                   which    what is     what    who may   writes
                            is due   known       shall   write
                                                 be      when

What changed is registered before anything is decided (`registration`), and namespaces take turns. One task does all
but the writes themselves (`writes_under_way`), whose results come back to it: so no state needs a lock, and the loop
alone drives the queue. An object is computed as often as anything happens, for that costs a fraction of a millisecond;
it is written when the status it shall have differs from the one it has. What must outlive this process is in the
statuses: it may be cancelled at any moment, and another one started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
import random
from datetime import datetime, timedelta

from controller.observe.index import KINDS, ObjectIndex
from controller.observe.observation import Defaults, Measured, Observation, Observer
from controller.plan.plan import Plan, plan
from controller.plan.transitions import goes_elsewhere, log_transitions, transitions
from controller.reconcile.applier import Applier
from controller.reconcile.dependencies import Dependencies
from controller.reconcile.load_watch import LoadTurns, LoadWatch
from controller.reconcile.registration import Registration
from controller.reconcile.rivals import Rivals, status_manager
from controller.reconcile.triage import Triage
from controller.reconcile.writer import Turn, Writer, WriteResult
from controller.reconcile.writes_under_way import WritesUnderWay
from controller.runtime.queue import Backoff, Queue
from controller.signals.requests_in_flight import RequestsInFlight
from controller.signals.source import Sampler
from controller.store.events import Event
from controller.store.objects import ObjectRef
from controller.store.protocol import ObjectStore

logger = logging.getLogger(__name__)

# So many objects are computed before whatever else this process does has its turn.
_OBJECTS_PER_TURN = 5
# So many at most before more is registered, and loads are looked at.
_OBJECTS_IN_A_ROW = 20


class Controller:
    """Watches a store and keeps the status of every object that can be served in it current.

    Level-triggered: what an object shall be follows from what there is, whatever happened on the way.
    """

    def __init__(self, store: ObjectStore, dependencies: Dependencies) -> None:
        self._store = store
        self._dependencies = dependencies
        self._clock = dependencies.clock
        self._index = ObjectIndex(dependencies.controller_class)
        self._sampler = Sampler({**dependencies.sources, "Requests": RequestsInFlight(dependencies.loads)})
        defaults = Defaults(
            dependencies.default_remote,
            dependencies.ports,
            dependencies.guard,
            dependencies.gateway_place,
            expects_workloads=dependencies.expects_workloads,
            needs_consent=dependencies.needs_consent,
            controller=dependencies.controller,
            takeover=dependencies.takeover,
        )
        timing = dependencies.timing
        measured = Measured(self._sampler, dependencies.loads, timedelta(seconds=timing.split_followed_within))
        self._observer = Observer(self._index, dependencies.proxies, measured, defaults)
        self._load_watch = LoadWatch(self._index, self._observer, self._sampler, dependencies.loads)
        self._triage = Triage(self._index, self._observer)
        rests = Backoff(timedelta(seconds=timing.first_rest), timedelta(seconds=timing.longest_rest))
        self._queue: Queue[ObjectRef] = Queue(rests, random.random, operator.attrgetter("namespace"))
        applier = Applier(leader=store, any_replica=dependencies.any_replica or store)
        self._writer = Writer(applier, dependencies.limits, timing)
        self._registration = Registration(self._index, self._observer, self._clock, dependencies.telemetry, self._queue)
        self._rivals = Rivals(dependencies.controller, timing)
        # Objects to look at again for what is not in the store.
        self._requested: set[ObjectRef] = set()
        # Since when an object is due that may have to be written.
        self._due_since: dict[ObjectRef, datetime] = {}
        self._load_turns = LoadTurns(timing.loads_apart, timing.loads_looked_at_every)
        self._woken = asyncio.Event()
        self._writes = WritesUnderWay(self._writer.write, self._woken.set)

    def look_again(self, refs: frozenset[ObjectRef] | None) -> None:
        """Reconcile these objects soon, or (None) all: something that is not in the store changed for them."""
        self._requested |= set(self._index.models()) if refs is None else refs
        self._woken.set()

    def look_at_loads(self) -> None:
        """Look at what Envoys report soon: they said something new."""
        self._load_turns.tell()
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled, or until the store ends its watch."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                work = group.create_task(self._work())
                sources = [group.create_task(one.run(self.look_again)) for one in self._sampler.polled]
                watch.add_done_callback(lambda _: [one.cancel() for one in (work, *sources)])
        finally:
            await self._end_writes()

    async def _watch(self) -> None:
        async for batch in self._store.watch(KINDS):
            changes, now = self._index.take(batch), self._clock()
            for ref in changes.models:
                self._due_since.setdefault(ref, now)
            self._registration.take(changes)
            self._woken.set()

    async def _work(self) -> None:
        while True:
            await self._something_due()
            self._finish_writes()
            now = self._clock()
            if looks_at := self._load_turns.begins(now):
                self._requested |= self._load_watch.look(now, looks_at)
            self._queue_requested()
            await self._registration.run()
            await self._look_at_due()
            if self._queue.is_empty:
                # What followed from the last look is planned.
                self._load_turns.ends(self._clock())

    def _queue_requested(self) -> None:
        """Queue what was asked for: an answer about a whole namespace is news of all its models at once."""
        requested, self._requested = self._requested, set()
        new = [ref for ref in sorted(requested) if not self._queue.waits(ref)]
        for ref in new:
            self._queue.add(ref, urgent=False)
        self._triage.add(new)

    def _ask_about(self, ref: ObjectRef) -> None:
        """Let an object go first, if it is overloaded now and still waits."""
        if self._queue.waits(ref) and self._triage.goes_first(ref, self._clock()):
            self._queue.add(ref)

    async def _something_due(self) -> None:
        now = self._clock()
        queue, loads = self._queue.wakes_at(), self._load_turns.at
        moments = (queue, self._writer.next_turn(now), loads, self._observer.sees_at(now))
        earliest = min((at for at in moments if at), default=None)
        wait = None if earliest is None else max((earliest - now).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._woken.wait()
        self._woken.clear()

    async def _look_at_due(self) -> None:
        for turn in self._writer.turns(self._clock()):
            # Others wait for their turn until this one is taken.
            self._queue.add(turn, first=True)
        for done in range(1, _OBJECTS_IN_A_ROW + 1):
            now = self._clock()
            if self._registration.goes_first or (done > _OBJECTS_PER_TURN and self._registration.goes_soon):
                break
            # What is urgent waits for no such question, and what it finds is planned before the next one.
            if not self._queue.hurries(now) and (unasked := self._triage.take()):
                self._ask_about(unasked)
            elif (ref := self._queue.take(now)) is not None:
                self._look_at_one(ref)
            else:
                break
            if done % _OBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)
                self._finish_writes()
        if self._registration.waits or not self._queue.is_empty:
            self._woken.set()

    def _look_at_one(self, ref: ObjectRef) -> None:
        try:
            self._look_at(ref)
        except Exception:
            # A mistake of ours shows with one object; the others go on.
            logger.exception("model not reconciled", extra={"object": str(ref)})
            self._dependencies.telemetry.failed("plan")
            self._writer.withdraw(ref)
            self._queue.failed(ref, self._clock())

    def _look_at(self, ref: ObjectRef) -> None:
        self._registration.finish(ref)
        known, now = self._index.intent(ref), self._clock()
        if known is None:
            self._forget(ref)
            return
        if done := self._writes.was_done(known.stored, known.status):
            self._tell(done, now)
        if until := self._writer.awaited_until(known.stored, now):
            self._writer.withdraw(ref)
            self._queue.release(ref)
            # A write that changed nothing in the store never comes back.
            self._queue.add_at(ref, until)
        elif observed := self._observer.observe(ref, now):
            observation, affected = observed
            for other in self._registration.in_order(affected):
                self._queue.add(other)
            self._note_rival(observation, now)
            self._carry_out(self._planned(observation))

    @property
    def yielded(self) -> int:
        """How many objects are left to another controller for now."""
        return self._rivals.yielded(self._clock())

    def _note_rival(self, observation: Observation, now: datetime) -> None:
        """Tell of another controller that wrote the status that an object has."""
        stored, writer = observation.stored, observation.before.controller or ""
        if words := self._rivals.see(stored.ref, writer, now, status_manager(stored)):
            logger.warning("status written by another controller", extra={"object": str(stored.ref), "because": words})
            uid = str(stored.metadata["uid"])
            self._dependencies.events.record(Event(stored.ref, uid, "Warning", "ForeignWriter", words, now))

    def _forget(self, ref: ObjectRef) -> None:
        self._writer.forget(ref)
        self._writes.forget(ref)
        self._rivals.forget(ref)
        self._queue.succeeded(ref)
        self._queue.forget(ref)
        self._due_since.pop(ref, None)
        self._load_watch.follows(ref, requests=False)
        self._dependencies.telemetry.forgotten(ref)

    def _planned(self, observation: Observation) -> Plan:
        """Plan what shall be of an object, and say when to look at it again."""
        now, ref = self._clock(), observation.stored.ref
        planned = plan(observation, now)
        self._dependencies.telemetry.planned(planned)
        if planned.wake_at:
            self._queue.add_at(ref, planned.wake_at)
        self._load_watch.follows(ref, requests=_follows_requests(observation))
        if goes_elsewhere(planned.status):
            # What of them is written is a matter of the budget.
            self._queue.add_at(ref, now + timedelta(seconds=self._dependencies.timing.loads_looked_at_every))
        return planned

    def _carry_out(self, planned: Plan) -> None:
        ref, now = planned.ref, self._clock()
        if until := self._rivals.yields_until(ref, now):
            self._due_since.pop(ref, None)
            self._writer.withdraw(ref)
            self._queue.release(ref)
            self._queue.add_at(ref, until)
            return
        self._due_since.setdefault(ref, now)
        rests_until = self._queue.rests_until(ref, now)
        admission = self._writer.admit(planned, rests_until, now)
        match admission.turn:
            case Turn.UNCHANGED:
                self._due_since.pop(ref, None)
                self._queue.succeeded(ref)
            case Turn.LATER if admission.at:
                if rests_until is None:
                    # What waits on purpose, such as numbers alone, is not late.
                    self._due_since.pop(ref, None)
                self._queue.add_at(ref, admission.at)
                self._queue.release(ref)
            case Turn.NOW:
                self._writes.begin(planned)
            case _:
                self._queue.release(ref)

    def _finish_writes(self) -> None:
        for result in self._writes.take_results():
            self._finish(result)

    async def _end_writes(self) -> None:
        """Tell what was written also when this ends meanwhile: whoever follows finds nothing new in the statuses."""
        within = self._dependencies.timing.answered_within
        try:
            await self._writes.end(within)
        finally:
            self._finish_writes()
        for done in await self._writes.find_done(self._store, within):
            self._tell(done, self._clock())

    def _finish(self, result: WriteResult) -> None:
        now, written = self._clock(), result.plan
        longest_rest = self._writer.finish(result, now)
        comes_back = now + timedelta(seconds=self._dependencies.timing.comes_back_within)
        if result.error is None:
            self._rivals.wrote(written.ref, written.before.controller or "", now)
            since = self._due_since.pop(written.ref, now)
            self._dependencies.telemetry.written(written, max((now - since).total_seconds(), 0.0))
            self._queue.add_at(written.ref, comes_back)
            self._queue.succeeded(written.ref)
            self._tell(written, now)
        elif result.superseded:
            # The newer object is on its way here, and brings this one back; if not, it is looked at all the same.
            self._queue.add_at(written.ref, comes_back)
            self._queue.release(written.ref)
        else:
            self._dependencies.telemetry.failed("write")
            self._writer.log_failure(result, self._queue.failed(written.ref, now, longest_rest))

    def _tell(self, written: Plan, now: datetime) -> None:
        log_transitions(written.stored, written.before, written.status)
        for event in transitions(written.stored, written.before, written.status, now):
            self._dependencies.events.record(event)


def _follows_requests(observation: Observation) -> bool:
    """Whether what leaves follows the requests that Envoys report: those in flight, or how many arrive."""
    intent, types = observation.intent, {metric.type for metric, _ in observation.samples}
    return "Requests" in types or bool(types and intent and intent.terms.behavior.mode == "Proportional")
