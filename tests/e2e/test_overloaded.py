"""`beamlit run`: requests leave while what is in flight is at its target, and return when the demand is below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from controller.api.timing import FolderTiming, ReportTiming, StatusTiming, StreamTiming
from tests.support.beamlit import Product, ask, eventually
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.load import Traffic, closed_loop
from tests.support.measured import in_flight_each
from tests.support.network import unused_port
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMING = replace(
    PATIENT,
    folder=FolderTiming(relist=3600.0),
    streams=StreamTiming(loads_every=0.25),
    reports=ReportTiming(reported_every=0.1, window=3.0),
    # What Envoy reports is looked at when it is told, and not because a second has passed.
    statuses=StatusTiming(loads_looked_at_every=3600.0),
)
HELD = Traffic(headers=lambda _: {"on-local": "held=all", "on-remote": "held=none"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    product = Product(tmp_path_factory.mktemp("run"), partial(Forked, context=TIMING))
    async with product.running("--envoy"):
        yield product


@pytest.mark.parametrize(("mode", "percentage"), [("Threshold", 50), ("Threshold", 100), ("Proportional", 100)])
async def test_requests_leave_at_the_target_and_return_below_it(
    product: Product, backends: Backends, mode: str, percentage: int
) -> None:
    name, port, replica = f"{mode.lower()}-{percentage}", unused_port(), backends.local[0]
    asked = model(name, backends.remote)
    asked["spec"]["offloadingConfig"]["behavior"] = {
        "mode": mode,
        "percentage": percentage,
        "restoreAfter": "2s",
    }
    asked["spec"]["offloadingConfig"]["metrics"] = [in_flight_each("3")]
    front = service(name, port)
    front["spec"]["ports"][0]["targetPort"] = replica.port
    product.save(f"{name}.yaml", text_of(asked, front, endpoints(name, replica)))
    await product.programmed(name)
    await eventually(lambda: ask(port), lambda reply: reply.side == "local")

    async def split(*reasons: str) -> dict[str, Any]:
        async def said() -> dict[str, Any]:
            return dict((await product.status(name))["split"])

        return await eventually(said, lambda seen: seen["reason"] in reasons, within=60)

    await split("Steady")
    waiting = asyncio.create_task(closed_loop(f"http://127.0.0.1:{port}/", 6, 6, HELD))
    left = await split("Overloaded")
    assert left["remote"] == percentage if mode == "Threshold" else 0 < left["remote"] <= percentage
    assert "Requests is " in left["message"]
    # Whoever asks now may go to the other side, and none fails.
    await eventually(lambda: ask(port), lambda reply: reply.side == "remote", within=60)
    await asyncio.to_thread(replica.release, "all")
    assert (await waiting).errors == {}
    assert (await split("Steady"))["summary"] == "100/0"
    decided = [entry["reason"] for entry in (await product.status(name))["history"]]
    assert "Overloaded" in decided

    async def sides() -> set[str]:
        return {(await ask(port)).side for _ in range(10)}

    # The status says it before Envoy follows.
    await eventually(sides, {"local"}.__eq__)


async def test_in_shadow_requests_stay_and_what_would_be_is_told(product: Product, backends: Backends) -> None:
    name, port, replica = "shadow", unused_port(), backends.local[0]
    asked = model(name, backends.remote)
    asked["spec"]["offloadingConfig"]["behavior"] = {"mode": "Shadow", "percentage": 100, "restoreAfter": "2s"}
    asked["spec"]["offloadingConfig"]["metrics"] = [in_flight_each("3")]
    front = service(name, port)
    front["spec"]["ports"][0]["targetPort"] = replica.port
    product.save(f"{name}.yaml", text_of(asked, front, endpoints(name, replica)))
    await product.programmed(name)
    await eventually(lambda: ask(port), lambda reply: reply.side == "local")

    async def would_be() -> str:
        return str((await product.status(name))["split"].get("wouldBe"))

    waiting = asyncio.create_task(closed_loop(f"http://127.0.0.1:{port}/", 6, 6, HELD))
    await eventually(would_be, lambda said: said == "0/100 Overloaded", within=60)
    assert (await product.status(name))["split"]["summary"] == "100/0"
    assert [(await ask(port)).side for _ in range(10)] == ["local"] * 10
    await asyncio.to_thread(replica.release, "all")
    assert (await waiting).errors == {}
    await eventually(would_be, lambda said: said == "100/0 Steady", within=60)


async def test_in_shadow_it_is_told_that_nothing_could_leave_without_its_secret(
    product: Product, backends: Backends
) -> None:
    name, port = "unprepared", unused_port()
    asked = model(name, backends.remote)
    key = {"secretRef": {"name": "later", "key": "key"}, "header": "x-key"}
    asked["spec"]["offloadingConfig"]["remoteBackend"]["authConfig"] = {"type": "apiKey", "apiKey": key}
    asked["spec"]["offloadingConfig"]["behavior"] = {"mode": "Shadow"}
    product.save(f"{name}.yaml", text_of(asked, service(name, port), endpoints(name, *backends.local)))
    await product.programmed(name)

    async def would_be() -> str:
        return str((await product.status(name))["split"].get("wouldBe"))

    await eventually(would_be, lambda said: said == "100/0 NoRemoteBackend", within=60)
    assert (await product.status(name))["remote"]["reason"] == "SecretNotFound"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"key": "k"}}
    product.save("later.yaml", text_of(secret))
    await eventually(would_be, lambda said: said == "100/0 Steady", within=60)
