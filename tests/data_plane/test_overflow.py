"""`behavior.maxRequestsPerReplica`: what is more than the replicas take leaves at once, and nothing else does.

What a replica has in flight is measured there. The workers of one Envoy look at the same moment at the same count, so
each of them may let one more pass: this one has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2 import LeastRequest
from envoy.extensions.router.cluster_specifiers.lua.v3.lua_pb2 import LuaConfig

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.flight import Flight, in_flight
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters, routes
from tests.support.data_plane.plane import COUNTED, Plane
from tests.support.data_plane.traffic import named_wrongly
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.load import Report, Sample, Traffic, closed_loop, most, open_loop, steps_of
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, REPLICAS = 4, 3
CAPACITY = LIMIT * REPLICAS
SIDES = ("local", "remote")
SLOW = Traffic(headers=lambda _: {"on-local": "delay=0.2", "on-remote": "delay=0.2"}, fault=named_wrongly)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """An xDS server and one Envoy of one worker."""
    async with Plane(network, backends, folder, COUNTED).running() as plane:
        await plane.join(workers=1)
        yield plane


def without_pending(route: Route) -> None:
    specifier = route.route.inline_cluster_specifier_plugin.extension.typed_config
    config = LuaConfig()
    if specifier.Unpack(config):
        script = config.source_code.inline_string
        config.source_code.inline_string = script.replace(" + replicas:numPendingRequests()", "")
        specifier.Pack(config)


def by_chance(cluster: Cluster) -> None:
    for policy in cluster.load_balancing_policy.policies:
        policy.typed_extension_config.typed_config.Pack(LeastRequest())


async def test_below_the_limit_nothing_leaves_and_no_replica_has_more_than_its_limit(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT))
    flight = Flight(plane.backends.local)
    traffic = replace(SLOW, on_sample=flight.after(5 * CAPACITY))

    report = await closed_loop(model.url, clients=CAPACITY, requests=150, traffic=traffic)

    assert (report.errors, report.summary.remote) == ({}, 0)
    async with in_flight(plane, model, CAPACITY):
        pass  # Every place is taken at one moment, however slowly this machine asks.
    assert flight.peaks() == (CAPACITY, [LIMIT] * REPLICAS)


async def test_above_the_limit_only_the_excess_leaves(plane: Plane) -> None:
    """Three times as many clients as there is room for: a third of the work stays, to the last place."""
    models = await serve_both(plane, Wanted(limit=LIMIT), clusters(by_chance))

    async def loaded(model: Model) -> tuple[Report, tuple[int, list[int]]]:
        flight = Flight(plane.backends.local, model)
        traffic = replace(SLOW, on_sample=flight.after(3 * 3 * CAPACITY))
        report = await closed_loop(model.url, clients=3 * CAPACITY, requests=600, traffic=traffic)
        return report, flight.peaks()

    loads = await models.at_once(loaded)
    for report, (together, _) in (loads.held, loads.removed):
        assert report.errors == {}
        assert together <= CAPACITY
        # Each place is taken again as soon as it is free: of those who wait for an answer, a third waits for the
        # replicas, however long these take, or the other side.
        waited = {route: sum(one.latency for one in report.samples if one.route == route) for route in SIDES}
        assert waited["local"] >= 0.9 / 3 * sum(waited.values()), report.summary
    assert max(loads.held[1][1]) <= LIMIT
    assert max(loads.removed[1][1]) > LIMIT


async def test_of_a_cold_burst_only_the_excess_leaves(plane: Plane) -> None:
    """A hundred first requests at once: no connection to a replica is there yet.

    Which replica gets how many of those that stay is then a matter of chance: Envoy does not count for a replica what
    still waits for a connection to it.
    """
    differed = [False, False]

    async def both_have_differed() -> bool:
        # Not in each burst: if this machine sends slowly, some connections are there before the others are asked for.
        burst = await _cold_bursts(plane)
        assert burst.held == (CAPACITY, CAPACITY)
        differed[:] = (before or one != CAPACITY for before, one in zip(differed, burst.removed, strict=True))
        return all(differed)

    await until(both_have_differed, "without, others stay, and others are there at one moment", within=60)


async def _cold_bursts(plane: Plane) -> Variants[tuple[int, int]]:
    """How many stayed, and how many of them were at the replicas at one moment."""
    models = await serve_both(plane, Wanted(limit=LIMIT), routes(without_pending))
    flights = models.each(lambda model: Flight(plane.backends.local, model))

    reports = await models.at_once(lambda model: _burst(plane, model, 100))
    assert (reports.held.errors, reports.removed.errors) == ({}, {})
    return Variants(
        (reports.held.summary.local, flights.held.peaks()[0]),
        (reports.removed.summary.local, flights.removed.peaks()[0]),
    )


async def _burst(plane: Plane, model: Model, count: int) -> Report:
    """Send so many requests at once. Those that stay are answered when all others are."""
    before, answered = plane.backends.count_local(model), list[Sample]()
    traffic = Traffic(
        headers=lambda _: {"on-local": f"held={model.key.name}"}, fault=named_wrongly, on_sample=answered.append
    )
    load = asyncio.create_task(closed_loop(model.url, clients=count, requests=count, traffic=traffic))

    async def are_there() -> bool:
        return len(answered) + plane.backends.count_local(model) - before == count

    await until(are_there, "those that leave have their answer, those that stay are at a replica", within=30)
    for one in plane.backends.local:
        one.release(model.key.name)
    return await load


async def test_what_leaves_waits_for_nothing(plane: Plane) -> None:
    """The replicas are full all the time; what comes then is answered by the remote backend."""
    model = await plane.serve(Wanted(limit=LIMIT))
    traffic = Traffic(headers=lambda _: {"on-local": "held=full"})
    fillers = asyncio.create_task(closed_loop(model.url, clients=CAPACITY, requests=CAPACITY, traffic=traffic))
    await plane.until_in_flight(model, CAPACITY)

    replies = [await plane.ask(model) for _ in range(50)]

    assert {(reply.status, reply.route) for reply in replies} == {(200, "remote")}
    assert not fillers.done()
    for one in plane.backends.local:
        one.release("full")
    report = await fillers
    assert (report.errors, report.summary.local) == ({}, CAPACITY)


async def test_requests_of_uneven_length_share_the_places(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT))
    flight = Flight(plane.backends.local)

    def uneven(number: int) -> dict[str, str]:
        return {"on-local": f"delay={(0.02, 0.05, 0.1, 1)[number % 4]}", "on-remote": "delay=0.05"}

    traffic = Traffic(headers=uneven, on_sample=flight.after(200))
    report = await closed_loop(model.url, clients=2 * CAPACITY, requests=600, traffic=traffic)

    assert report.errors == {}
    async with in_flight(plane, model, CAPACITY):
        pass  # Every place is taken at one moment, however slowly this machine asks.
    assert flight.peaks() == (CAPACITY, [LIMIT] * REPLICAS)
    assert report.summary.local and report.summary.remote


async def test_a_split_goes_before_the_limit(plane: Plane) -> None:
    """Half leaves by the split; of the other half, what finds no place."""
    model = await plane.serve(Wanted(limit=LIMIT, away=50))
    flight = Flight(plane.backends.local)

    below = await closed_loop(model.url, clients=CAPACITY, requests=200, traffic=SLOW)
    above = await _burst(plane, model, 6 * CAPACITY)

    assert (below.errors, above.errors) == ({}, {})
    assert 58 <= below.summary.local <= 142  # of 200, six sigma
    assert flight.peaks()[0] <= CAPACITY
    assert above.summary.local == CAPACITY


async def test_without_a_remote_there_is_no_limit(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=LIMIT, remote=False))
    before = plane.backends.remote.count()

    report = await closed_loop(model.url, clients=3 * CAPACITY, requests=300, traffic=SLOW)

    assert (report.errors, report.summary.local) == ({}, 300)
    assert plane.backends.remote.count() == before


async def test_a_burst_of_a_trace_leaves_only_what_is_too_much(plane: Plane) -> None:
    """Twenty arrivals a second and then 400: below the limit nothing leaves, above it what is too much and no more."""
    model = await plane.serve(Wanted(limit=LIMIT))
    calm = [number / 20 for number in range(20)]
    burst = [1 + number / 400 for number in range(400)]
    clock, ends = asyncio.get_running_loop().time, []
    flight = Flight(plane.backends.local, model)

    def note_the_end(sample: Sample) -> None:
        ends.append((clock(), sample))

    report = await open_loop(model.url, [*calm, *burst], replace(SLOW, on_sample=note_the_end))

    assert report.errors == {}
    # Of those who come calmly nobody leaves. If the machine had a pause, they did not come calmly but all at once.
    there = steps_of(span_of(end, sample) for end, sample in ends)
    calm_ones = [
        (sample.route, most(there, *span_of(end, sample)) <= CAPACITY) for end, sample in ends if sample.start < 1
    ]
    assert len(calm_ones) == len(calm)
    assert [route for route, has_room in calm_ones if has_room and route != "local"] == []
    # A replica that has answered is free before Envoy has passed the answer on: they need not all be busy at once.
    assert flight.peaks()[0] <= CAPACITY
    # Whoever left did so while every place was taken: Envoy counts a request until it has passed on the answer, so at
    # the most from when it was sent until its end was seen.
    left = [span_of(end, sample) for end, sample in ends if sample.route == "remote"]
    assert left
    taken = steps_of(span_of(end, sample) for end, sample in ends if sample.route == "local")
    assert min(most(taken, sent, end) for sent, end in left) >= CAPACITY
    # And places are taken again, for as long as there are arrivals: who came when the last had its answer would stay.
    came = [span_of(end, sample)[0] for end, sample in ends if sample.start >= 1]
    stayed = [end for end, sample in ends if sample.start >= 1 and sample.route == "local"]
    assert max(stayed) > max(came)
    # Each of them once in the time that an answer takes.
    assert 0.2 * len(stayed) <= CAPACITY * (max(stayed) - min(came))


def span_of(end: float, sample: Sample) -> tuple[float, float]:
    """When a request was sent and when it ended, on the clock of that end."""
    return end - sample.latency + sample.late, end
