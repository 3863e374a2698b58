"""Traps 1 and 9: circuit breakers. Ours never trip; a tripped one fails requests instead of failing over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both
from tests.support.load import Traffic, closed_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def default_retries(cluster: Cluster) -> None:
    for thresholds in cluster.circuit_breakers.thresholds:
        thresholds.ClearField("max_retries")


def patient(cluster: Cluster) -> None:
    cluster.connect_timeout.FromSeconds(60)


def sends(**headers: str) -> Callable[[int], Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: named


async def test_any_number_of_requests_may_fail_over_at_once(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(), clusters(default_retries))
    # All of them wait at a replica when it fails, and all of them are sent again while the remote takes its time.
    traffic = Traffic(headers=sends(on_local="delay=0.5;status=503", on_remote="delay=0.5"))

    reports = await models.at_once(lambda model: closed_loop(model.url, clients=100, requests=100, traffic=traffic))

    assert reports.held.errors == {}
    assert reports.removed.errors["status 503"] >= 50


async def test_no_breaker_trips_with_thousands_of_requests_at_once(plane: Plane) -> None:
    without = clusters(lambda cluster: cluster.ClearField("circuit_breakers"))
    # However long it takes them all to connect: who cannot in time is sent to the remote side.
    models = await serve_both(plane, Wanted(change=clusters(patient)), without)
    requests = 2_200  # By default 1,024 connections and as many requests that wait for one.
    traffic = Traffic(headers=sends(on_local="held=all"), timeout=100)

    async def overflows(model: Model) -> int:
        return await plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_rq_pending_overflow")

    async def are_there() -> bool:
        return plane.backends.count_local(models.held) == requests and await overflows(models.removed) > 0

    loads = asyncio.ensure_future(
        models.at_once(lambda model: closed_loop(model.url, clients=requests, requests=requests, traffic=traffic))
    )
    await until(are_there, "of one model all are at a replica at once, of the other some are refused", within=60)
    while not loads.done():  # what waited for a connection comes when others have their answer
        for one in plane.backends.local:
            one.release("all")
        await asyncio.sleep(0.05)
    reports = await loads

    assert reports.held.errors == {}
    assert await overflows(models.held) == 0
    # What overflows is refused, though the remote side has nothing to do.
    assert reports.removed.errors["status 503"] > 0
    assert await overflows(models.removed) > 0
    assert reports.removed.summary.remote == 0
