"""`behavior.maxRequestsPerReplica`: who has a place at the replicas, and for how long.

A place is held by what a replica has in flight, and by nothing else: not by what has left, however it left. And nothing
that changes around a request makes Envoy forget that it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.api.contract.credentials import RemoteAuth
from controller.api.contract.route import HttpCheck
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.flight import Flight, in_flight
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import routes
from tests.support.data_plane.plane import COUNTED, Plane
from tests.support.data_plane.sealed import api_key, bring
from tests.support.data_plane.trap import serve_both
from tests.support.load import Traffic, closed_loop
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, REPLICAS = 4, 3
CAPACITY = LIMIT * REPLICAS
PATIENCE = timedelta(milliseconds=200)
KEY = api_key("key", "x-key")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """An xDS server and one Envoy of one worker."""
    async with Plane(network, backends, folder, COUNTED).running() as plane:
        await plane.join(workers=1)
        yield plane


async def asked_side(plane: Plane, model: Model) -> str:
    """Ask once, and tell which side was asked: only one may be.

    All else that is in flight stays there until after, so that whoever waits for it has no answer.
    """
    reply = await plane.ask(model)
    (seen,) = plane.backends.seen(reply.probe)
    assert reply.status == 200
    assert seen["servedBy"].startswith(reply.route)
    return reply.route


async def test_what_is_asked_of_both_sides_holds_one_place(plane: Plane) -> None:
    """A request that waits for the first byte of its answer is at the remote backend as well, and counts once."""
    model = await plane.serve(Wanted(limit=LIMIT, first_byte_timeout=PATIENCE))

    async def are_at_both(count: int) -> bool:
        return plane.backends.remote.count(model) == count

    async with in_flight(plane, model, CAPACITY // 2):
        await until(lambda: are_at_both(CAPACITY // 2), "half of what there is room for is asked of both sides")
        async with in_flight(plane, model, CAPACITY - CAPACITY // 2):
            await until(lambda: are_at_both(CAPACITY), "all is asked of both sides")
            assert [await asked_side(plane, model) for _ in range(3)] == ["remote"] * 3


async def test_what_has_left_waits_for_the_remote_backend(plane: Plane) -> None:
    """`firstByteTimeout` is the replicas': it brings nothing back to them that found them full."""
    without = routes(lambda route: route.typed_per_filter_config.clear())
    models = await serve_both(plane, Wanted(limit=LIMIT, first_byte_timeout=PATIENCE), without)

    async def at_remote(model: Model, count: int) -> bool:
        return plane.backends.remote.count(model) == count

    async def come_back() -> bool:
        return plane.backends.count_local(models.removed) == 2 * CAPACITY

    async with contextlib.AsyncExitStack() as stack:
        for model in (models.removed, models.held):
            await stack.enter_async_context(in_flight(plane, model, CAPACITY))
            await until(
                partial(at_remote, model, CAPACITY), "what waits for the replicas is asked of the other as well"
            )
        began = asyncio.get_running_loop().time()
        await asyncio.gather(
            *(
                stack.enter_async_context(in_flight(plane, model, CAPACITY, "remote"))
                for model in (models.held, models.removed)
            )
        )
        await until(come_back, "without, they are asked of the replicas that were full")
        # As long as it takes for what came first to have waited, too.
        await asyncio.sleep(max(0, began + 2 * PATIENCE.total_seconds() - asyncio.get_running_loop().time()))
        assert plane.backends.count_local(models.held) == CAPACITY
        assert plane.backends.count_local(models.removed) == 2 * CAPACITY


async def test_with_a_limit_no_more_than_it_is_ever_there_however_slow_the_remote_backend_is(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT, first_byte_timeout=PATIENCE))
    flight = Flight(plane.backends.local, answered=True)
    traffic = Traffic(headers=lambda _: {"on-local": "delay=0.1", "on-remote": "delay=0.4"})

    report = await closed_loop(model.url, clients=3 * CAPACITY, requests=25 * CAPACITY, traffic=traffic)

    assert report.errors == {}
    assert report.summary.remote > 0
    async with in_flight(plane, model, CAPACITY):
        pass  # Every place is taken at one moment, however slowly this machine asks.
    assert flight.peaks()[0] == CAPACITY


async def test_what_steers_the_way_of_a_request_reaches_no_server(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT, first_byte_timeout=timedelta(seconds=20)))

    replies = [await plane.ask(model)]
    async with in_flight(plane, model, CAPACITY):
        replies.append(await plane.ask(model))

    assert [reply.route for reply in replies] == ["local", "remote"]
    for reply in replies:
        (seen,) = plane.backends.seen(reply.probe)
        assert not [name for name, _ in seen["headers"] if "timeout" in name or "retry" in name]


@pytest.mark.parametrize("auth", [None, KEY], ids=["", "guarded"])
@pytest.mark.parametrize("how", ["no-replicas", "dead-replicas", "by-the-split"])
async def test_what_is_at_the_remote_backend_holds_no_place(plane: Plane, how: str, auth: RemoteAuth | None) -> None:
    """However it got there: its replicas are back, and every place is free."""
    wanted = Wanted(limit=LIMIT, auth=auth)
    changed: dict[str, Any] = {"no-replicas": {"replicas": ()}, "dead-replicas": {}, "by-the-split": {"away": 100}}[how]
    bring(plane, {KEY: "hush"})
    model = await plane.serve(replace(wanted, **changed))

    async with contextlib.AsyncExitStack() as stack:
        with plane.backends.killed(*(plane.backends.local if how == "dead-replicas" else ())):
            await stack.enter_async_context(in_flight(plane, model, CAPACITY, "remote"))
        await plane.change(model, wanted)
        await plane.healthy(model, REPLICAS)

        async with in_flight(plane, model, CAPACITY):
            assert [await asked_side(plane, model) for _ in range(3)] == ["remote"] * 3


CHANGES: Mapping[str, dict[str, Any]] = {
    "no-limit": {"limit": None},
    "a-higher-limit": {"limit": 2 * LIMIT},
    "a-lower-limit": {"limit": 1},
    "a-first-byte-timeout": {"first_byte_timeout": timedelta(seconds=30)},
    "a-split": {"away": 50},
    "everything-away": {"away": 100},
    "another-remote-backend": {"authority": "another.remote.test", "path_prefix": "/another"},
    "a-guarded-remote-backend": {"auth": KEY},
    "a-check-of-the-remote-backend": {"remote_check": HttpCheck(path="/healthz", interval=timedelta(seconds=1))},
    "more-gateways": {"envoys": 3},
    "a-replica-less": {"replicas": 2},
    "no-replicas": {"replicas": 0},
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_forgets_nobody(plane: Plane, what: str) -> None:
    """Changed with every place taken, and changed back: whoever comes then finds them taken."""
    wanted = Wanted(limit=LIMIT)
    changed = dict(CHANGES[what])
    if "replicas" in changed:
        changed["replicas"] = plane.backends.replicas[: changed["replicas"]]
    bring(plane, {KEY: "hush"})
    model = await plane.serve(wanted)

    async with in_flight(plane, model, CAPACITY):
        await plane.change(model, replace(wanted, **changed))
        await plane.change(model, wanted)
        assert [await asked_side(plane, model) for _ in range(3)] == ["remote"] * 3
    assert await asked_side(plane, model) == "local"


async def test_a_control_plane_that_is_started_again_forgets_nobody(plane: Plane) -> None:
    """Nor does anything change while it is away."""
    model = await plane.serve(Wanted(limit=LIMIT))

    async with in_flight(plane, model, CAPACITY):
        restarting = asyncio.create_task(plane.restart(pause=1))
        while not restarting.done():
            assert await asked_side(plane, model) == "remote"
            await asyncio.sleep(0.1)
        await restarting
        assert await asked_side(plane, model) == "remote"
    assert await asked_side(plane, model) == "local"
