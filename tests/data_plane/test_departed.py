"""What a model let go of stays for the requests that are on their way to it, and then is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER

pytestmark = pytest.mark.asyncio(loop_scope="module")

# For longer than any of these tests, and for no time at all.
KEPT, LET_GO = (replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0, departed=seconds)) for seconds in (600, 0))
BRIEFLY_KEPT = replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0, departed=0.2))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[KEPT, LET_GO], ids=["with", "without"])
async def plane(
    request: pytest.FixtureRequest, network: Network, backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Plane]:
    async with Plane(network, backends, tmp_path_factory.mktemp("plane"), request.param).running() as plane:
        await plane.join()
        yield plane


@pytest.mark.parametrize("limit", [None, 4], ids=["", "limited"])
@pytest.mark.parametrize("side", ["local", "remote"])
async def test_a_request_finds_the_other_side_though_nothing_may_leave_since(
    plane: Plane, side: str, limit: int | None
) -> None:
    wanted = Wanted(away=100 if side == "remote" else 0, limit=limit)
    model = await plane.serve(wanted)
    backends = plane.backends
    kept = plane.timing == KEPT
    before = sum(one.count() for one in backends.all)
    asked = asyncio.create_task(plane.ask(model, headers=[(f"on-{side}", "held=x;status=503")]))

    async def is_there() -> bool:
        return sum(one.count() for one in backends.all) > before

    async def is_gone() -> bool:
        return not await plane.envoy.hosts(f"{model.key}/remote")

    try:
        await until(is_there, "a server has it")
        await plane.change(model, replace(wanted, away=0, remote=False))
        if not kept:
            await until(is_gone, "the way to the other side is gone")
    finally:
        for one in backends.all:
            one.release("x")
    reply = await asked

    other = "local" if side == "remote" else "remote"
    assert (reply.status, reply.route) == ((200, other) if kept else (503, side))


@pytest.mark.parametrize("plane", [LET_GO, BRIEFLY_KEPT], ids=["without", "briefly"], indirect=True)
async def test_what_belonged_to_a_removed_model_is_gone(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))
    assert model.local_cluster in " ".join(await plane.envoy.stats("cluster.*membership_total"))

    withdrawing = asyncio.create_task(plane.withdraw(model))
    await asyncio.sleep(0)  # it has begun, and no timer has run since
    assert model.local_cluster in plane.versions(CLUSTER)
    await withdrawing

    async def is_gone() -> bool:
        left = await plane.envoy.stats(f"{model.key}(/|\\.)")
        return not [name for name in left if "membership_total" in name]

    await until(is_gone, f"nothing of {model.key} is left")
