"""The controller over a real API server: what it writes, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.frontend.ports import AllocatedPorts
from controller.observe.index import KINDS
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.store.cache import Cache
from controller.store.kube import KubeStore
from controller.store.objects import ObjectRef
from tests.support.kube.cluster import Cluster
from tests.support.kube.user import UserHand
from tests.support.kube.watched import running_store
from tests.support.objects import AModel, KubeObject, a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.reader import Reader
from tests.support.waiting import PATIENCE, time_limit


class Controlled:
    """A namespace, a user who changes objects in it, and what the statuses of its models say."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._hand = UserHand(cluster)
        self._reader: Reader | None = None
        self._around: Reader | None = None

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[KubeStore]:
        """Run a controller here, as one of a cluster runs."""
        async with running_store(self._cluster.kubeconfig, KINDS, self._namespace) as store:
            around = Dependencies(
                proxies=AllProgrammed(),
                clock=lambda: datetime.now(UTC),
                ports=AllocatedPorts(),
            )
            self._reader = Reader(store, "ModelDeployment")
            self._around = Reader(store, "Service", "EndpointSlice")
            task = asyncio.create_task(Controller(store, around).run())
            try:
                yield store
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def apply(self, *objects: KubeObject) -> None:
        await self._hand.apply(*(one.in_namespace(self._namespace).raw for one in objects))

    async def apply_before(self, *objects: KubeObject) -> None:
        """Apply what a model refers to, and wait until the controller is told: kinds are watched one by one."""
        await self.apply(*objects)
        refs = [one.in_namespace(self._namespace).ref for one in objects]
        assert self._around, "no controller is running"
        async with time_limit(PATIENCE):
            await self._around.until(lambda cache: all(cache.find(ref) for ref in refs))

    async def remove(self, *objects: KubeObject) -> None:
        await self._hand.remove(*(one.in_namespace(self._namespace).raw for one in objects))

    def status(self, model: AModel) -> dict[str, Any]:
        """The status as it was when something was last waited for."""
        return self._status_in(self.reader.cache, model)

    def reason(self, model: AModel, type_: str) -> str:
        return _reason(self.status(model), type_)

    async def until(self, model: AModel, type_: str, reason: str) -> None:
        async with time_limit(PATIENCE):
            await self.reader.until(lambda cache: _reason(self._status_in(cache, model), type_) == reason)

    @property
    def reader(self) -> Reader:
        assert self._reader, "no controller is running"
        return self._reader

    def _status_in(self, cache: Cache, model: AModel) -> dict[str, Any]:
        found = cache.find(ObjectRef("ModelDeployment", self._namespace, model.ref.name))
        return dict(found.status) if found else {}


def _reason(status: Mapping[str, Any], type_: str) -> str:
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == type_), "")


@pytest.fixture
def controlled(crds: None, api_server: Cluster, namespace: str) -> Controlled:
    return Controlled(api_server, namespace)


def a_whole(name: str) -> tuple[KubeObject, ...]:
    """A model with everything it refers to before it."""
    return (a_service(name).port(80), a_slice(name).ready("10.0.0.1", "10.0.0.2"), a_model(name).with_remote())


async def test_a_controller_that_starts_on_what_another_wrote_writes_nothing(controlled: Controlled) -> None:
    models = [a_model(f"m{number}") for number in range(10)]
    for model in models:
        await controlled.apply(*a_whole(model.ref.name))
    async with controlled.controller() as store:
        for model in models:
            await controlled.until(model, "Ready", "Ready")
        assert store.status_writes == len(models)
        ports = sorted(controlled.status(model)["servingPort"] for model in models)
        assert ports == list(range(10000, 10010))
    async with controlled.controller() as store:
        *around, new = a_whole("new")
        await controlled.apply_before(*around)
        await controlled.apply(new)
        await controlled.until(a_model("new"), "Ready", "Ready")
        assert store.status_writes == 1
        assert controlled.status(a_model("new"))["servingPort"] == 10010


async def test_prior_fault_16_of_two_that_claim_one_service_one_has_it_and_then_the_other(
    controlled: Controlled,
) -> None:
    one, other = a_model("one").fronting("s"), a_model("other").fronting("s")
    await controlled.apply(a_service("s").port(80), a_slice("s").ready("10.0.0.1"), one)
    async with controlled.controller() as store:
        await controlled.until(one, "Ready", "Ready")
        await controlled.apply(other)
        await controlled.until(other, "Accepted", "Conflict")
        assert "route" not in controlled.status(other)
        assert controlled.reason(one, "Accepted") == "Accepted"
        await controlled.remove(one)
        await controlled.until(other, "Ready", "Ready")
        assert store.status_writes == 3


async def test_a_storm_of_changes_is_no_storm_of_writes(controlled: Controlled) -> None:
    model, service, slices = a_model("a"), a_service("a").port(80), a_slice("a")
    await controlled.apply(service, slices.ready("10.0.0.1"), model)
    async with controlled.controller() as store:
        await controlled.until(model, "Ready", "Ready")
        writes, begin = store.status_writes, asyncio.get_running_loop().time()
        for number in range(200):
            await controlled.apply(slices.ready("10.0.0.1") if number % 2 else slices.not_ready("10.0.0.1"))
        await controlled.until(model, "LocalHealthy", "ReplicasReady")
        passed = asyncio.get_running_loop().time() - begin
        assert store.status_writes - writes <= passed + 2
