"""`behavior.maxRequestsPerReplica` while servers come, go and fail, and with several Envoys before them.

What a replica has in flight is measured there. `workers` of one Envoy, and several Envoys, look at the same moment at
the same count, so each of them may let one more pass.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.flight import Flight, in_flight
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters
from tests.support.data_plane.plane import COUNTED, Plane
from tests.support.data_plane.traffic import named_wrongly
from tests.support.data_plane.trap import serve_both
from tests.support.load import Report, Sample, Traffic, closed_loop
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, REPLICAS = 4, 3
CAPACITY = LIMIT * REPLICAS
SLOW = Traffic(headers=lambda _: {"on-local": "delay=0.2", "on-remote": "delay=0.2"}, fault=named_wrongly)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """An xDS server and one Envoy of one worker."""
    async with Plane(network, backends, folder, COUNTED).running() as plane:
        await plane.join(workers=1)
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three_planes(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sequence[Plane]]:
    """Three Envoys of two workers each at addresses of their own, before the same replicas."""
    async with contextlib.AsyncExitStack() as stack:
        planes = []
        for number in range(3):
            plane = Plane(Network.unused(), backends, tmp_path_factory.mktemp(f"plane{number}"))
            planes.append(await stack.enter_async_context(plane.running()))
            await plane.join(f"envoy-{number}")
        yield planes


async def test_the_limit_follows_the_replicas_under_load(plane: Plane) -> None:
    wanted = Wanted(limit=LIMIT)
    model = await plane.serve(wanted)
    answered, stop = [0] * 20, asyncio.Event()

    async def client(number: int) -> Report:
        def count_it(_: Sample) -> None:
            answered[number] += 1

        traffic = replace(SLOW, on_sample=count_it)
        return await closed_loop(model.url, clients=1, requests=1_000, traffic=traffic, stop=stop)

    async def of_each_client(number: int) -> None:
        goals = [one + number for one in answered]

        async def reached() -> bool:
            return load.done() or all(one >= goal for one, goal in zip(answered, goals, strict=True))

        await until(reached, "the clients have their answers", within=60)

    load = asyncio.gather(*map(client, range(20)))

    try:
        for count in (3, 2, 1, 0, 1, 2, 3):
            await plane.change(model, replace(wanted, replicas=plane.backends.replicas[:count]))
            await of_each_client(2)  # what was in flight before has its answer
            flight = Flight(plane.backends.local, model)

            def all_were_taken(flight: Flight = flight, count: int = count) -> bool:
                return flight.peaks()[0] >= LIMIT * count

            await until(all_were_taken, f"all places of {count} replicas are taken at one moment")
            await of_each_client(2)
            assert flight.peaks()[0] == LIMIT * count
    finally:
        stop.set()
        reports = await load

    assert [report.errors for report in reports] == [{}] * 20


def never_left_alone(cluster: Cluster) -> None:
    cluster.ClearField("outlier_detection")


async def test_of_a_replica_that_fails_fast_hardly_anything_leaves(plane: Plane) -> None:
    """Its place is always free, so it is asked first, until it is left alone: the others have its places then."""
    # For longer than the requests take on any machine: each time that it is over, some leave until the next.
    for_long = replace(COUNTED.gateway, first_ejection=600.0, longest_ejection=600.0)
    wanted = Wanted(limit=4 * LIMIT, timing=for_long)
    models = await serve_both(plane, wanted, clusters(never_left_alone))
    # Envoy does not count for a replica what still waits for a connection to it: here are more than it will need.
    async with in_flight(plane, models.held, 4 * CAPACITY):
        pass
    await models.at_once(lambda model: plane.change(model, replace(model.wanted, limit=LIMIT)))
    failing, *others = plane.backends.local
    flight = Flight(others, models.held)
    for one in plane.backends.all:
        # The remote backend takes its time as well: until a worker of Envoy hears of an ejection, nobody asks often.
        one.behave("status=503" if one is failing else "delay=0.1")
    try:
        traffic = Traffic(on_sample=flight.after(120))
        held, removed = await asyncio.gather(
            closed_loop(models.held.url, clients=CAPACITY, requests=600, traffic=traffic),
            closed_loop(models.removed.url, clients=CAPACITY, requests=600),
        )
    finally:
        for one in plane.backends.all:
            one.behave("")

    assert (held.errors, removed.errors) == ({}, {})
    together, each = flight.peaks()
    assert together <= CAPACITY
    assert max(each) <= CAPACITY / len(others)
    assert 10 * held.summary.remote < removed.summary.remote


async def test_with_the_remote_gone_everything_stays(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT))

    with plane.backends.killed(plane.backends.remote):
        report = await closed_loop(model.url, clients=3 * CAPACITY, requests=300, traffic=SLOW)

    assert (report.errors, report.summary.remote) == ({}, 0)


async def test_with_a_failing_remote_everything_stays(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT))
    traffic = replace(SLOW, headers=lambda _: {"on-local": "delay=0.2", "on-remote": "status=503"})

    report = await closed_loop(model.url, clients=3 * CAPACITY, requests=300, traffic=traffic)

    assert (report.errors, report.summary.remote) == ({}, 0)


async def test_with_the_replicas_gone_everything_leaves(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT))

    with plane.backends.killed(*plane.backends.local):
        report = await closed_loop(model.url, clients=3 * CAPACITY, requests=300, traffic=SLOW)

    assert (report.errors, report.summary.local) == ({}, 0)


# A client may have its answer, and ask again, before the worker of Envoy that sent it has counted that. There are two.
@pytest.mark.parametrize("clients", [(12, 12, 12), (30, 2, 1)], ids=["even", "skewed"])
async def test_three_envoys_share_the_limit(three_planes: Sequence[Plane], clients: Sequence[int]) -> None:
    """Each has a third of it: what they let pass together is never more, however the load is spread."""
    wanted = Wanted(limit=LIMIT, envoys=3)
    models = [await plane.serve(wanted) for plane in three_planes]
    backends = three_planes[0].backends
    flight = Flight(backends.local)

    async def load(model: Model, clients: int) -> Report:
        return await closed_loop(model.url, clients=clients, requests=15 * clients, traffic=SLOW)

    reports = await asyncio.gather(*map(load, models, clients))

    assert [report.errors for report in reports] == [{}, {}, {}]
    together, each = flight.peaks()
    # Of the two workers of each, one may not have seen what the other lets pass.
    assert together <= CAPACITY + len(models), f"of the replicas: {each}"
    # An Envoy with less than its share sends nothing away.
    for report, count in zip(reports, clients, strict=True):
        assert (report.summary.remote == 0) == (count <= CAPACITY / 3)
