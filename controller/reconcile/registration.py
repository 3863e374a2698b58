"""Objects that changed, before anything is decided: who has what is a matter of all objects together.

First it is seen where Services lead, for a port to which clients are led is not free; then all that changed is
registered, those first who ask first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controller.api.registry import SERVICE
from controller.frontend.claims import Seniority
from controller.observe.index import IndexChanges, ObjectIndex
from controller.observe.observation import Observer
from controller.reconcile.dependencies import Clock, Telemetry
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

# So many are seen, or registered, before whatever else this process does has its turn.
_SERVICES_PER_TURN = 100
_OBJECTS_PER_TURN = 5


@dataclass(slots=True)
class Registration:
    """Registers objects with the observer. `look_again` is called for each object that is to be looked at for it."""

    index: ObjectIndex
    observer: Observer
    clock: Clock
    telemetry: Telemetry
    look_again: Callable[[ObjectRef], None]
    # Objects that changed, or whose references did, and that were not registered since.
    _unregistered: set[ObjectRef] = field(default_factory=set)
    # Services that changed, and whose slices were not looked at since.
    _unseen: set[ObjectRef] = field(default_factory=set)

    def take(self, changes: IndexChanges) -> None:
        """Take in what changed."""
        self._unregistered |= changes.models
        self._unseen.update(ref for ref in changes.objects if ref.kind == SERVICE.kind)

    @property
    def waits(self) -> bool:
        """Whether an object changed and is not registered yet."""
        return bool(self._unregistered)

    async def run(self) -> None:
        """See and register all that changed until now, and meanwhile."""
        await self._see_services()
        await self._register_changed()

    def in_order(self, refs: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Order objects by who asks first for what several want: who serves already, then the older object."""
        return sorted(refs, key=self._precedence)

    async def _see_services(self) -> None:
        self._unseen.update(self.observer.services_to_see(self.clock()))
        while self._unseen:
            unseen, self._unseen = self._unseen, set()
            for number, service in enumerate(sorted(unseen), 1):
                for ref in self.in_order(self._seen(service)):
                    self.look_again(ref)
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
        done = 0
        while self._unregistered:
            changed, self._unregistered = self._unregistered, set()
            for ref in self.in_order(changed):
                self.look_again(ref)
                for other in self._registered(ref):
                    self.look_again(other)
                done += 1
                if done % _OBJECTS_PER_TURN == 0:
                    await asyncio.sleep(0)

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
