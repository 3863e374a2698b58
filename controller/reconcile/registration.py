"""Objects that changed, before anything is decided: who has what is a matter of all objects together.

First it is seen where Services lead, for a port to which clients are led is not free; then all that changed itself is
registered, those first who ask first. So a status that says what an object has counts before anything is given away.

What changed of objects that models refer to may concern any number of them, again and again; and models are edited as
often as anybody likes. Of such models some are registered at a time, namespaces take turns, and in between the others
are decided. So are losers told of a winner. What a status says that was not registered before can wait for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.api.registry import SERVICE
from controller.frontend.claims import Seniority
from controller.observe.index import IndexChanges, ObjectIndex
from controller.observe.observation import Observer
from controller.reconcile.dependencies import Clock, Telemetry
from controller.runtime.line import WaitingLine
from controller.runtime.queue import Queue
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

# So many are seen, or registered, before whatever else this process does has its turn.
_SERVICES_PER_TURN = 100
_OBJECTS_PER_TURN = 5
# So many of those that were edited, and of those that something else concerns, are registered before any is decided.
_AT_ONCE = 20


@dataclass(slots=True)
class Registration:
    """Registers objects with the observer. Each that is to be looked at for it is queued."""

    index: ObjectIndex
    observer: Observer
    clock: Clock
    telemetry: Telemetry
    queue: Queue[ObjectRef]
    # Objects that changed and were not registered since: those that are new or gone or have another status, those of
    # which only the rest was edited, and such whose references changed.
    _changed: set[ObjectRef] = field(default_factory=set)
    _edited: WaitingLine[ObjectRef] = field(default_factory=lambda: WaitingLine(operator.attrgetter("namespace")))
    _concerned: WaitingLine[ObjectRef] = field(default_factory=lambda: WaitingLine(operator.attrgetter("namespace")))
    # Of each object that is registered the uid, and the status that it had then.
    _statuses: dict[ObjectRef, tuple[str, Mapping[str, object]]] = field(default_factory=dict)
    # Services that changed, and whose slices were not looked at since.
    _unseen: set[ObjectRef] = field(default_factory=set)

    def take(self, changes: IndexChanges) -> None:
        """Take in what changed."""
        edited = {ref for ref in changes.models & changes.objects if self._is_only_edited(ref)}
        self._changed |= (changes.models & changes.objects) - edited
        for line, refs in ((self._edited, edited), (self._concerned, changes.models - changes.objects)):
            for ref in self.in_order(ref for ref in refs if ref not in line):
                line.add(ref)
        self._unseen.update(ref for ref in changes.objects if ref.kind == SERVICE.kind)

    def _is_only_edited(self, ref: ObjectRef) -> bool:
        """Whether an object is registered with the status that it has."""
        stored = self.index.stored(ref)
        return stored is not None and self._statuses.get(ref) == (stored.uid, stored.status)

    @property
    def goes_first(self) -> bool:
        """Whether an object changed that is to be registered before any other is decided."""
        return bool(self._changed)

    @property
    def goes_soon(self) -> bool:
        """Whether an object was edited that is to be registered once a few others are decided."""
        return bool(self._edited)

    @property
    def waits(self) -> bool:
        """Whether there is more to register, or to tell."""
        return bool(self._changed or self._edited or self._concerned or self.observer.tells)

    async def run(self) -> None:
        """See and register all that changed until now, and meanwhile; and a part of what that concerns."""
        await self._see_services()
        await self._register_changed()
        self._tell_losers()

    def finish(self, ref: ObjectRef) -> None:
        """Register an object that is about to be decided, if that is still to be done."""
        if ref in self._edited or ref in self._concerned:
            self._register(ref)

    def in_order(self, refs: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Order objects by who asks first for what several want: who serves already, then the older object."""
        return sorted(refs, key=self._precedence)

    async def _see_services(self) -> None:
        self._unseen.update(self.observer.services_to_see(self.clock()))
        while self._unseen:
            unseen, self._unseen = self._unseen, set()
            for number, service in enumerate(sorted(unseen), 1):
                for ref in self.in_order(self._seen(service)):
                    self.queue.add(ref)
                if number % _SERVICES_PER_TURN == 0:
                    await asyncio.sleep(0)

    def _seen(self, service: ObjectRef) -> frozenset[ObjectRef]:
        """See where a Service leads, and return objects to look at again."""
        try:
            return self.observer.see_service(service, self.clock())
        except Exception:
            # What was kept for its clients stays so, and the others go on.
            logger.exception("service not seen", extra={"object": str(service)})
            self.telemetry.failed("plan")
            return frozenset()

    async def _register_changed(self) -> None:
        part = self._changed.union(self._part())
        done = 0
        while part:
            for ref in self.in_order(part):
                self.queue.add(ref)
                self._register(ref)
                done += 1
                if done % _OBJECTS_PER_TURN == 0:
                    await asyncio.sleep(0)
            part = set(self._changed)

    def _part(self) -> Iterator[ObjectRef]:
        for line in (self._edited, self._concerned):
            for _ in range(_AT_ONCE):
                if (ref := line.take()) is None:
                    break
                yield ref

    def _register(self, ref: ObjectRef) -> None:
        self._changed.discard(ref)
        self._edited.discard(ref)
        self._concerned.discard(ref)
        self._statuses.pop(ref, None)
        if stored := self.index.stored(ref):
            self._statuses[ref] = stored.uid, stored.status
        for other in self._registered(ref):
            self.queue.add(other)

    def _tell_losers(self) -> None:
        """Let those who lose something be looked at that another one has now: what is to be written can wait."""
        for _ in range(_AT_ONCE):
            if (loser := self.observer.next_to_tell()) is None:
                return
            self.queue.add(loser, urgent=False)

    def _registered(self, ref: ObjectRef) -> Iterable[ObjectRef]:
        """Register an object, and return others to look at again."""
        try:
            affected, services = self.observer.register(ref), self.observer.services_of(ref)
        except Exception:
            logger.exception("model not registered", extra={"object": str(ref)})
            self.telemetry.failed("plan")
            return ()
        return self.in_order(affected.union(*map(self._seen, services)))

    def _precedence(self, ref: ObjectRef) -> tuple[bool, Seniority]:
        known = self.index.intent(ref)
        if known is None:
            return (False, Seniority("", ref.namespace, ref.name))
        return (known.status.route is None, known.seniority)
