"""The controller: one task that looks again at every model that something happened to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.api.model import ModelDeployment, RemoteBackend
from controller.decision import Decision
from controller.reconcile.claims import Claims
from controller.reconcile.model import Outcome, Subject, previous_status, reconcile
from controller.reconcile.proxies import ProxyReports
from controller.reconcile.resolve import kept_front, resolve, service_ref, workload_ref
from controller.reconcile.world import KINDS, World
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, ConflictError, NotFoundError, ObjectStore, StoreError

logger = logging.getLogger(__name__)

# After a write that failed for a reason that may pass.
_RETRY_AFTER = timedelta(seconds=1)

Clock = Callable[[], datetime]
Observer = Callable[[ObjectRef, Decision | None], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the controller works with: the proxies' reports, the default remote backend, a clock (UTC), an observer.

    The observer is told every decision made, and None for a model that is gone.
    """

    proxies: ProxyReports
    clock: Clock
    observer: Observer
    default_remote: RemoteBackend | None = None


class Controller:
    """Watches a store and keeps the status of every ModelDeployment in it current. Level-triggered: no event counts."""

    def __init__(self, store: ObjectStore, surroundings: Surroundings) -> None:
        self._store = store
        self._around = surroundings
        self._world = World()
        self._claims = Claims()
        self._due: set[ObjectRef] = set()
        self._wake_at: dict[ObjectRef, datetime] = {}
        self._told: dict[ObjectRef, tuple[str, str, str]] = {}
        self._changed = asyncio.Event()

    def look_again(self, models: frozenset[ObjectRef]) -> None:
        """Reconcile these models soon: something that is not in the store changed for them."""
        if models:
            self._due |= models
            self._changed.set()

    async def run(self) -> None:
        """Work until cancelled, or until the store ends its watch."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            work = group.create_task(self._work())
            watch.add_done_callback(lambda _: work.cancel())

    async def _watch(self) -> None:
        async for batch in self._store.watch(KINDS):
            self._take_in(batch)

    def _take_in(self, batch: Batch) -> None:
        self.look_again(self._world.apply(batch))

    async def _work(self) -> None:
        while True:
            await self._something_due()
            now = self._around.clock()
            woken = {ref for ref, at in self._wake_at.items() if at <= now}
            due, self._due = self._due | woken, set()
            for ref in sorted(due, key=self._seniority):
                await self._reconcile(ref)

    async def _something_due(self) -> None:
        earliest = min(self._wake_at.values(), default=None)
        wait = None if earliest is None else max((earliest - self._around.clock()).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        self._changed.clear()

    def _seniority(self, ref: ObjectRef) -> tuple[bool, str, ObjectRef]:
        """Order models by who wins a port that several ask for: who serves already, then the older object."""
        stored = self._world.stored(ref)
        if stored is None:
            return (False, "", ref)
        return ("route" not in stored.status, str(stored.metadata["creationTimestamp"]), ref)

    async def _reconcile(self, ref: ObjectRef) -> None:
        self._wake_at.pop(ref, None)
        stored, model = self._world.stored(ref), self._world.model(ref)
        if stored is None or model is None:
            self._forget(ref)
            return
        outcome = reconcile(self._subject(stored, model), self._around.proxies, self._around.clock())
        self._around.observer(ref, outcome.decision)
        try:
            await self._store.patch_status(ref, outcome.status.as_object(), stored.resource_version)
        except (ConflictError, NotFoundError):
            # The newer object is on its way here, and brings this model back.
            return
        except StoreError:
            logger.exception("status not written", extra={"object": str(ref)})
            self._wake_at[ref] = self._around.clock() + _RETRY_AFTER
            return
        self._tell(ref, outcome)
        if outcome.decision and outcome.decision.wake_at:
            self._wake_at[ref] = outcome.decision.wake_at

    def _subject(self, stored: StoredObject, model: ModelDeployment) -> Subject:
        """Follow the references of a model; where they lead nowhere or to another's port, stay with what it has."""
        present = previous_status(stored).route
        resolved = resolve(model, self._world, self._around.default_remote)
        named = (
            service_ref(model),
            workload_ref(model),
            present and _service_of(present.local.namespace, present.local.service),
        )
        self._world.refers(stored.ref, [ref for ref in named if ref])
        kept = kept_front(present, self._world) if present else None
        if present:
            # Before anything else, and also when the references lead nowhere: what a model serves is its own.
            self.look_again(self._claims.ask(stored.ref, present.port))
        if resolved.front is None:
            return Subject(stored, model, replace(resolved, front=kept))
        conflict = self._conflict(stored.ref, resolved.front.port)
        if conflict:
            return Subject(stored, model, replace(resolved, front=kept), conflict)
        return Subject(stored, model, resolved)

    def _conflict(self, ref: ObjectRef, port: int) -> str | None:
        """Claim a port; say whose it is, if it is not free."""
        self.look_again(self._claims.ask(ref, port))
        holder = self._claims.holder(port)
        return None if holder == ref else f"port {port} is already that of {holder}"

    def _forget(self, ref: ObjectRef) -> None:
        self._world.refers(ref, ())
        self.look_again(self._claims.give_up(ref))
        self._told.pop(ref, None)
        self._around.observer(ref, None)

    def _tell(self, ref: ObjectRef, outcome: Outcome) -> None:
        """Log what is new to somebody who watches: another split, ready or no longer. The rest is in the status."""
        model, decision = f"{ref.namespace}/{ref.name}", outcome.decision
        ready = next(one for one in outcome.status.conditions if one.type == "Ready")
        told = self._told.get(ref, ("", "", ""))
        self._told[ref] = new = (str(decision and decision.split), ready.status, ready.message)
        if decision and new[0] != told[0]:
            why = {"split": new[0], "reason": decision.reason.value, "because": decision.message}
            logger.info("split changed", extra={"model": model, **why})
        if new[1:] != told[1:]:
            logger.info(
                "model ready" if ready.status == "True" else "model not ready",
                extra={"model": model, "reason": ready.reason, "because": ready.message},
            )


def _service_of(namespace: str, name: str) -> ObjectRef:
    return ObjectRef("Service", namespace, name)
