"""The loop over Services: each that is, was or shall be taken over is brought one step further; so is each that is made
for a model at the gateway.

::

    store -> ObjectIndex -> Queue -> facts_of -> next_step -> Applier -> store
    watch                   which    what is     what is      with its
                            is due   known       written      precondition

It runs in every replica. All of them would write the same, so nobody has to lead: but who leads writes at once, the
others only what stood other than it shall be for some seconds. What is wanted of a Service stands in the statuses of
models, which the leader writes; so it stays wanted while nobody leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import operator
import random
from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.api.kubernetes.fronting import FINALIZER, SHADOW_OF, is_narrowed
from controller.api.registry import KINDS as REGISTRY
from controller.api.registry import MODEL_DEPLOYMENT, SERVICE
from controller.frontend.gateway_service import gateway_service_step
from controller.frontend.service_facts import ServiceFacts, Steadiness, leads_clients_to, owner_of, selector_is_ours
from controller.frontend.takeover import TakeoverStep, finalizer_removal, next_step
from controller.observe.fronting import (
    Problem,
    TakeoverRules,
    facts_of,
    gateway_service_facts,
    service_of,
    services_in,
    shadow_of,
)
from controller.observe.index import KINDS, ObjectIndex
from controller.reconcile.applier import Applier
from controller.runtime.queue import Backoff, Queue
from controller.runtime.slots import Slots
from controller.runtime.writes import Verb, Write
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ObjectStore,
    StoreError,
)

logger = logging.getLogger(__name__)

_MODEL = MODEL_DEPLOYMENT.kind
NOT_PERMITTED = "NotPermitted"
_SERVICES_PER_TURN = 50
_DELETIONS_AT_ONCE = 10
ROLE = "beamlit-controller-takeover"


@dataclass(slots=True)
class ServiceCounts:
    """How many Services are taken over, and how many writes of which verb and kind went how."""

    taken_over: set[ObjectRef] = field(default_factory=set)
    writes: Counter[tuple[str, str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ServiceLoopDependencies:
    """A clock (UTC), whether this replica leads, and who is to look again at models whose Service had a problem.

    `problems` is where it says what keeps it from writing a Service. Models of another `controller_class` are left
    alone (None: none is).
    """

    clock: Callable[[], datetime]
    leads: Callable[[], bool]
    look_again: Callable[[frozenset[ObjectRef]], None]
    problems: MutableMapping[ObjectRef, Problem] = field(default_factory=dict)
    controller_class: str | None = None


class ServiceLoop:
    """Takes Services over, and gives them back, as the statuses of models want it."""

    def __init__(self, store: ObjectStore, rules: TakeoverRules, dependencies: ServiceLoopDependencies) -> None:
        self._store = store
        self._rules = rules
        self._dependencies = dependencies
        self._clock = dependencies.clock
        self._timing = rules.timing
        self._index = ObjectIndex(dependencies.controller_class)
        self._applier = Applier(leader=store, any_replica=store)
        rests = Backoff(timedelta(seconds=self._timing.first_rest), timedelta(seconds=self._timing.longest_rest))
        # Services, and models that have the finalizer or a Service at the gateway.
        self._queue: Queue[ObjectRef] = Queue(rests, random.random, operator.attrgetter("namespace"))
        self._steadiness = Steadiness()
        self._keys: set[ObjectRef] = set()
        self._shadows: dict[ObjectRef, ObjectRef] = {}
        self._services_of: dict[ObjectRef, frozenset[ObjectRef]] = {}
        # Models that ask for a Service at the gateway.
        self._at_gateway: set[ObjectRef] = set()
        self._problems = dependencies.problems
        # Since when something is other than it shall be, in the eyes of a replica that does not lead.
        self._wrong_since: dict[ObjectRef, datetime] = {}
        # What was deleted for whom, and until when the watch may take to say so.
        self._deleted: dict[ObjectRef, tuple[frozenset[tuple[ObjectRef, str]], datetime]] = {}
        # Services of which the last write that failed was the one that gives clients their pods.
        self._not_widened: set[ObjectRef] = set()
        # How often a replica that does not lead changed the selector of a Service, lately, and until when that counts.
        self._turned: dict[ObjectRef, tuple[int, datetime]] = {}
        # The Services and models that are being written. What is due waits unplanned until there is room: a step that
        # was planned when there was a gateway must not go before one that gives clients their pods back.
        share_of = operator.attrgetter("namespace")
        self._slots: Slots[ObjectRef] = Slots(self._timing.at_once, self._timing.of_one_namespace, share_of)
        self._woken = asyncio.Event()
        self.counts = ServiceCounts()

    async def run(self) -> None:
        """Work until cancelled, or until the store ends its watch."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            work = group.create_task(self._work(group))
            watch.add_done_callback(lambda _: work.cancel())

    async def _watch(self) -> None:
        async for batch in self._store.watch(KINDS):
            for ref in sorted(self._index.take(batch).objects):
                self._note(ref)
            self._woken.set()

    def _note(self, ref: ObjectRef) -> None:
        """Let what an object concerns be looked at."""
        if ref.kind == _MODEL:
            self._note_model(ref)
        elif ref == self._rules.gateway:
            for key in (*self._keys, *self._at_gateway):
                self._queue.add(key)
        elif ref.kind == SERVICE.kind:
            stored = self._index.stored(ref)
            for model in self._index.concerned(ref):
                if stored is None or model in self._at_gateway:
                    self._queue.add(model)
            if owner := owner_of(stored):
                self._queue.add(owner[0])
            of = (stored.metadata.get("labels") or {}).get(SHADOW_OF) if stored else None
            if of:
                self._add(ObjectRef(SERVICE.kind, ref.namespace, str(of)))
            elif ref in self._keys or self._has_traces(ref, stored):
                self._add(ref)
            elif shadowed := self._shadows.get(ref):
                # A shadow that is gone.
                self._queue.add(shadowed)

    def _has_traces(self, ref: ObjectRef, stored: StoredObject | None) -> bool:
        if stored and is_narrowed(stored.raw):
            return True
        if self._index.is_at_gateway(ref):
            # Its slices are no takeover's.
            return False
        return bool(ServiceFacts(ref, slices=self._index.stored_slices(ref)).own_slices)

    def _note_model(self, ref: ObjectRef) -> None:
        stored = self._index.stored(ref)
        before = self._services_of.pop(ref, frozenset())
        named = services_in(stored.status) if stored else frozenset()
        if named:
            self._services_of[ref] = named
        known = self._index.intent(ref)
        asked = known.intent.gateway_service if known and known.intent else None
        self._index.refers(ref, named | {asked} if asked else named)
        self._at_gateway.discard(ref)
        if asked:
            self._at_gateway.add(ref)
        if asked or self._index.owned_by(ref):
            self._queue.add(ref)
        takeover = stored.status.get("takeover") if stored else None
        wanted = services_in({"takeover": takeover})
        for key in before | named:
            if key in self._keys or key in wanted:
                self._add(key)
        if stored and FINALIZER in (stored.metadata.get("finalizers") or ()):
            self._queue.add(ref)

    def _add(self, key: ObjectRef) -> None:
        self._keys.add(key)
        self._shadows[shadow_of(key)] = key
        self._queue.add(key)

    async def _work(self, writes: asyncio.TaskGroup) -> None:
        while True:
            wakes = self._queue.wakes_at()
            wait = None if wakes is None else max((wakes - self._clock()).total_seconds(), 0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            self._woken.clear()
            for number in itertools.count(1):
                if self._slots.is_full or (ref := self._queue.take(self._clock())) is None:
                    break
                if number % _SERVICES_PER_TURN == 0:
                    # A change of the gateway concerns them all; the lease is renewed meanwhile.
                    await asyncio.sleep(0)
                if not self._slots.has_room(ref):
                    self._queue.release(ref)
                    self._slots.wait(ref)
                    continue
                try:
                    self._look_at(ref, writes)
                except Exception:
                    # A mistake of ours shows with one Service; the others go on.
                    logger.exception("service not reconciled", extra={"object": str(ref)})
                    self._queue.failed(ref, self._clock())
                self._let_next(ref)

    def _look_at(self, ref: ObjectRef, writes: asyncio.TaskGroup) -> None:
        now = self._clock()
        if until := self._deletions_awaited(ref, now):
            self._queue.release(ref)
            self._queue.add_at(ref, until)
            return
        step = self._part(self._step_of_model(ref) if ref.kind == _MODEL else self._step(ref, now))
        if not step.writes:
            self._wrong_since.pop(ref, None)
            self._succeeded(ref)
            if step.wait is not None:
                self._queue.add_at(ref, now + timedelta(seconds=step.wait))
            self._solved(ref)
            return
        if step.widens and ref not in self._not_widened:
            # Nobody answers its clients: whatever else could not be written, this is not to wait for it.
            self._queue.forgive(ref)
        since = self._wrong_since.setdefault(ref, now)
        acts_at = since if self._dependencies.leads() else since + self._patience(ref, now)
        rests_until = self._queue.rests_until(ref, now)
        if not since <= now or max(acts_at, rests_until or acts_at) <= now:
            self._slots.begin(ref)
            writes.create_task(self._do(ref, step)).add_done_callback(lambda _: self._have_room(ref))
            return
        self._queue.release(ref)
        self._queue.add_at(ref, max(acts_at, rests_until or acts_at))

    def _succeeded(self, ref: ObjectRef) -> None:
        self._not_widened.discard(ref)
        self._queue.succeeded(ref)

    def _have_room(self, ref: ObjectRef) -> None:
        self._slots.end(ref)
        self._let_next(ref)
        self._woken.set()

    def _let_next(self, ref: ObjectRef) -> None:
        """Let the next one of the same namespace be looked at, if one waits for room, and there is some."""
        if (waiting := self._slots.next_beside(ref)) is not None:
            self._queue.add(waiting)

    def _patience(self, ref: ObjectRef, now: datetime) -> timedelta:
        """Say how long a replica that does not lead watches a Service be other than it shall be.

        Who leads may see something else, or have another configuration: then what this one turns is turned back. So it
        waits four times as long after each time, until it has not done so for some minutes.
        """
        times, until = self._turned.get(ref, (0, now))
        if now >= until:
            self._turned.pop(ref, None)
            times = 0
        return timedelta(seconds=self._timing.others_act_after) * (1 << 2 * min(times, 4))

    def _note_turn(self, step: TakeoverStep, now: datetime) -> None:
        """Note that a replica which does not lead changed the selector of a Service."""
        for write in step.writes:
            if write.verb is Verb.PATCH and write.ref in self._keys and "spec" in write.content:
                times, _ = self._turned.get(write.ref, (0, now))
                self._turned[write.ref] = times + 1, now + timedelta(seconds=self._timing.turns_within)

    def _step(self, key: ObjectRef, now: datetime) -> TakeoverStep:
        facts = facts_of(self._index, key, self._rules)
        if self._index.is_at_gateway(key) and not facts.is_narrowed and facts.own_shadow is None:
            # It was made for a model, by a name that was taken over before.
            self._drop(key)
            return TakeoverStep("Idle", "")
        step = next_step(facts, self._steadiness.see(facts, now), self._timing)
        if step.is_taken_over and facts.is_narrowed:
            self.counts.taken_over.add(key)
        else:
            self.counts.taken_over.discard(key)
        if not facts.is_in_use and not facts.wanted and not step.writes:
            self._drop(key)
        return step

    def _drop(self, key: ObjectRef) -> None:
        self._keys.discard(key)
        self._shadows.pop(shadow_of(key), None)
        self._steadiness.forget(key)
        self.counts.taken_over.discard(key)

    def _step_of_model(self, ref: ObjectRef) -> TakeoverStep:
        """See to what a model has itself: its finalizer, and its Service at the gateway."""
        known, step = self._index.intent(ref), self._release(ref)
        if known is None or step.writes or step.wait is not None:
            return step
        if self._rules.controller and known.status.controller not in (None, "", self._rules.controller):
            # Another controller has the model: two that lead its clients to gateways of their own would never end.
            return step
        facts = gateway_service_facts(self._index, known, self._rules)
        return gateway_service_step(facts) if facts else step

    def _release(self, ref: ObjectRef) -> TakeoverStep:
        """Take the finalizer off a model that fronts nothing any more."""
        known = self._index.intent(ref)
        write = finalizer_removal(known.stored) if known else None
        if known is None or write is None:
            return TakeoverStep("Idle", "")
        route = known.status.route
        involved = [facts_of(self._index, key, self._rules) for key in services_in(known.stored.status)]
        if involved and all(one.service is None for one in involved):
            # In a namespace on its way out our rights there go next: a finalizer that is left then stays for ever.
            return TakeoverStep("Released", "the Service of the model is gone", (write,))
        is_deleted = "deletionTimestamp" in known.stored.metadata
        # The status of one that cannot be read stays as it is: what it asked for is no wish of a deleted one.
        if known.status.takeover is None or (is_deleted and known.intent is None):
            facts = facts_of(self._index, service_of(route.local), self._rules) if route else None
            if route is None or facts is None or not leads_clients_to(facts, route.port):
                return TakeoverStep("Released", "the model fronts nothing", (write,))
        if is_deleted and not any(one.is_in_use and not one.is_of_another_class for one in involved):
            return TakeoverStep("Released", "the Service of the model is as it was", (write,))
        if known.status.takeover is None or is_deleted:
            return TakeoverStep("Restoring", "", wait=self._timing.written_again_after)
        return TakeoverStep("Fronting", "")

    def _part(self, step: TakeoverStep) -> TakeoverStep:
        """Leave out of a step what is being deleted already, however long that takes, and what comes after many
        deletions. That is planned again once this is done: a step may end after any of its writes.
        """
        writes = [one for one in step.writes if not (one.verb is Verb.DELETE and self._is_going(one))]
        deletes = [number for number, one in enumerate(writes) if one.verb is Verb.DELETE]
        if len(deletes) > _DELETIONS_AT_ONCE:
            del writes[deletes[_DELETIONS_AT_ONCE] :]
        return replace(step, writes=tuple(writes))

    def _is_going(self, write: Write) -> bool:
        stored = self._index.stored(write.ref)
        return stored is not None and write.precondition.uid == stored.uid and "deletionTimestamp" in stored.metadata

    def _deletions_awaited(self, ref: ObjectRef, now: datetime) -> datetime | None:
        """Say until when it is waited that what was deleted is seen to go; None if nothing is waited for."""
        deleted, until = self._deleted.get(ref, (frozenset(), now))
        present = ((one, self._index.stored(one)) for one, _ in deleted)
        for one, stored in present:
            if now < until and stored and (one, stored.uid) in deleted and "deletionTimestamp" not in stored.metadata:
                return until
        self._deleted.pop(ref, None)
        return None

    def _note_deletions(self, ref: ObjectRef, step: TakeoverStep, now: datetime) -> None:
        deleted = frozenset((one.ref, one.precondition.uid) for one in step.writes if one.verb is Verb.DELETE)
        if deleted:
            self._deleted[ref] = (deleted, now + timedelta(seconds=self._timing.written_again_after))

    async def _do(self, ref: ObjectRef, step: TakeoverStep) -> None:
        """Do a step, and let the Service be looked at again when what was written comes back, or soon."""
        doing: Write | None = None
        try:
            if await self._is_confirmed(step):
                is_ours = bool(step.if_ours) and selector_is_ours(await self._store.read(ref))
                for doing in step.if_ours if is_ours else step.writes:
                    await self._applier.apply([doing])
                    self._count(doing, "done")
        except (ConflictError, NotFoundError) as error:
            # What it was planned from is on its way here; a name that others have taken stays taken.
            self._count(doing, "superseded")
            if isinstance(error, AlreadyExistsError) and not await self._was_created(doing):
                self._failed(ref, step, doing, error)
                return
        except Exception as error:
            self._count(doing, "failed")
            self._failed(ref, step, doing, error)
            return
        now = self._clock()
        self._note_deletions(ref, step, now)
        if not self._dependencies.leads():
            self._note_turn(step, now)
        self._wrong_since.pop(ref, None)
        self._solved(ref)
        self._succeeded(ref)
        self._queue.add_at(ref, now + timedelta(seconds=self._timing.written_again_after))
        self._woken.set()

    async def _was_created(self, write: Write | None) -> bool:
        """Whether what was to be created is there as ours: by another replica, or by us and the answer was lost."""
        if write is None:
            return False
        try:
            found = await self._store.read(write.ref)
        except StoreError:
            return False
        wanted = StoredObject(write.ref, write.content)
        labels, present = wanted.metadata.get("labels") or {}, found.metadata.get("labels") or {}
        is_ours = labels.items() <= present.items() and owner_of(found) == owner_of(wanted)
        return is_ours and "deletionTimestamp" not in found.metadata

    async def _is_confirmed(self, step: TakeoverStep) -> bool:
        """Whether what a step rests on is still what it was: a watch may be late."""
        for seen in step.confirmed:
            if not (await self._store.read(seen.ref)).same_as(seen):
                return False
        return True

    def _failed(self, ref: ObjectRef, step: TakeoverStep, write: Write | None, error: Exception) -> None:
        if step.widens:
            self._not_widened.add(ref)
        else:
            self._not_widened.discard(ref)
        again = self._queue.failed(ref, self._clock())
        known = isinstance(error, StoreError)
        told = {"object": str(ref), "because": str(error), "again": f"{again:%H:%M:%S}"}
        logger.warning("service not written", extra=told, exc_info=None if known else error)
        self._woken.set()
        if isinstance(error, ForbiddenError) and write is not None:
            problem = (NOT_PERMITTED, _words(write, error, _INSTEAD[ref.kind]))
        else:
            problem = ("NotWritten", f"{write.ref if write else ref} was not written: {error}")
        is_of_service = write is None or write.ref.kind != _MODEL or ref.kind != _MODEL
        if is_of_service and self._problems.get(ref, ("", ""))[0] != problem[0]:
            self._problems[ref] = problem
            self._look_again(ref)

    def _solved(self, ref: ObjectRef) -> None:
        if self._problems.pop(ref, None):
            self._look_again(ref)

    def _look_again(self, ref: ObjectRef) -> None:
        self._dependencies.look_again(frozenset((ref,)) if ref.kind == _MODEL else self._index.concerned(ref))

    def _count(self, write: Write | None, how: str) -> None:
        if write is not None:
            self.counts.writes[write.verb.value, write.ref.kind, how] += 1


_INSTEAD = {
    SERVICE.kind: "set spec.frontend to Gateway",
    _MODEL: "take spec.gatewayService away: the gateway itself can be called as well",
}


def _words(write: Write, error: ForbiddenError, instead: str) -> str:
    """Say which right is missing, on what, and how it is given; or in its own words what else does not let us write."""
    if " cannot " not in str(error):
        # A quota, a policy of the cluster, a namespace on its way out.
        return f"{write.ref} was not written: {error}; change that, or {instead}"
    verb = "patch" if write.verb is Verb.RELEASE_FIELDS else write.verb.value
    kind = REGISTRY[write.ref.kind].resource
    return (
        f"the controller may not {verb} {kind} {write.ref.namespace}/{write.ref.name}: bind the ClusterRole {ROLE} to "
        f"its ServiceAccount in namespace {write.ref.namespace}, or {instead} ({error})"
    )
