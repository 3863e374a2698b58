"""A controller in this process that takes Services over in a real cluster, and that may be killed at any write.

All Envoys are said to have acknowledged everything: what they do with it is a matter of other tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.api.kubernetes.endpoints import PodsOnly
from controller.api.registry import SERVICE
from controller.api.timing import StatusTiming, TakeoverTiming
from controller.frontend.ports import AllocatedPorts
from controller.observe.fronting import Problem, TakeoverRules
from controller.observe.index import KINDS
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.reconcile.services import ServiceLoop, ServiceLoopDependencies
from controller.store.events import Event
from controller.store.kube import KubeClient, KubeStore
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import FIELD_MANAGER, UNCONDITIONAL, Precondition
from tests.support.kube.endpoint_controllers import GATEWAY
from tests.support.proxies import AllProgrammed
from tests.support.waiting import until

QUICK = TakeoverTiming(
    kube_proxy_within=0.1, gateway_steady_for=0.1, others_act_after=0.2, first_rest=0.05, written_again_after=0.3
)


@dataclass
class Killing:
    """Kills the process before or after its n-th write about a Service; `writes` are those that were done.

    `with_statuses` says that those of statuses are counted, too.
    """

    before: int | None = None
    after: int | None = None
    writes: list[str] = field(default_factory=list)
    with_statuses: bool = False
    begun: int = 0
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, what: str, writing: Awaitable[Any]) -> Any:
        self.begun += 1
        number = self.begun
        if self.dead.is_set() or number == self.before:
            self.dead.set()
            if hasattr(writing, "close"):
                writing.close()
            await asyncio.Event().wait()
        try:
            written = await writing
        except Exception:
            self.begun -= 1  # It was not done, such as one of an object that changed meanwhile.
            raise
        self.writes.append(what)
        if len(self.writes) == self.after:
            self.dead.set()
            await asyncio.Event().wait()
        return written

    async def at_rest(self) -> None:
        """Wait until each write that was begun is done here, too: others may see it before its answer is back."""
        await until(lambda: self.begun == len(self.writes), "every write is answered")


class MortalStore:
    """A store whose writer may be killed."""

    def __init__(self, store: KubeStore, killing: Killing) -> None:
        self._store = store
        self._killing = killing

    def watch(self, kinds: Any) -> Any:
        return self._store.watch(kinds)

    async def read(self, ref: ObjectRef) -> StoredObject:
        return await self._store.read(ref)

    async def create(self, raw: Mapping[str, Any]) -> Any:
        return await self._killing.write(f"create {raw['kind']}", self._store.create(raw))

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> Any:
        return await self._killing.write(f"update {raw['kind']}", self._store.update(raw, precondition))

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> Any:
        writing = self._store.apply(raw, manager, force=force, precondition=precondition)
        return await self._killing.write(f"apply {raw['kind']}", writing)

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> Any:
        return await self._killing.write(f"patch {ref.kind}", self._store.patch(ref, changes, precondition))

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> Any:
        return await self._killing.write(f"delete {ref.kind}", self._store.delete(ref, precondition))

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> Any:
        return await self._killing.write(f"release {ref.kind}", self._store.release_fields(ref, precondition))

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> Any:
        writing = self._store.patch_status(ref, status, precondition)
        if self._killing.with_statuses:
            return await self._killing.write(f"status {ref.kind}", writing)
        if self._killing.dead.is_set():
            writing.close()
            await asyncio.Event().wait()
        return await writing


@dataclass
class TakingOver:
    """The controller while it runs: its events, and what it wrote."""

    killing: Killing
    loop: ServiceLoop
    events: list[Event] = field(default_factory=list)

    def record(self, event: Event) -> None:
        self.events.append(event)


@asynccontextmanager
async def taking_over(
    kubeconfig: Path,
    namespace: str,
    killing: Killing | None = None,
    *,
    gateway: str | None = GATEWAY,
    leads: bool = True,
    timing: TakeoverTiming = QUICK,
    namespaces: tuple[str, ...] = (),
    proxies: AllProgrammed = AllProgrammed(),  # noqa: B008 - has no state
) -> AsyncIterator[TakingOver]:
    """Run a controller, which decides if it `leads`, and sees to Services in any case."""
    killing = killing or Killing()
    async with (
        KubeClient.from_environment(kubeconfig) as client,
        KubeStore(client, KINDS, (namespace, *namespaces)) as watched,
    ):
        store, problems = MortalStore(watched, killing), dict[ObjectRef, Problem]()
        rules = TakeoverRules(
            gateway=ObjectRef(SERVICE.kind, namespace, gateway) if gateway else None,
            problems=problems.get,
            timing=timing,
        )
        controllers: list[Controller] = []
        loop = ServiceLoop(
            store,
            rules,
            ServiceLoopDependencies(
                clock=_now,
                leads=lambda: leads,
                look_again=lambda models: [one.look_again(models) for one in controllers] and None,
                problems=problems,
                controller_class="",
            ),
        )
        running = TakingOver(killing, loop)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop.run())]
            if leads:
                controllers.append(
                    Controller(
                        store,
                        Dependencies(
                            proxies=proxies,
                            clock=_now,
                            events=running,
                            guard=PodsOnly(),
                            needs_consent=True,
                            controller="test",
                            controller_class="",
                            ports=AllocatedPorts(),
                            takeover=rules,
                            timing=StatusTiming(first_rest=0.1),
                        ),
                    )
                )
                tasks.append(group.create_task(controllers[0].run()))
            try:
                yield running
            finally:
                for task in tasks:
                    task.cancel()


def _now() -> datetime:
    return datetime.now(UTC)
