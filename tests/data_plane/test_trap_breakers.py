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
from tests.support.load import Report, Sample, Traffic, closed_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def default_retries(cluster: Cluster) -> None:
    for thresholds in cluster.circuit_breakers.thresholds:
        thresholds.ClearField("max_retries")


def sends(**headers: str) -> Callable[[int], Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: named


async def test_any_number_of_requests_may_fail_over_at_once(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(), clusters(default_retries))

    reports = await models.at_once(lambda model: _failed_over_at_once(plane, model, 100))

    assert reports.held.errors == {}
    assert reports.removed.errors["status 503"] >= 50


async def _failed_over_at_once(plane: Plane, model: Model, count: int) -> Report:
    """All wait at a replica when it fails, and all that are sent again wait at the remote backend until each is there
    or refused.
    """
    name, answered = model.key.name, list[Sample]()
    headers = sends(on_local=f"held={name};status=503", on_remote=f"held={name}")
    traffic = Traffic(headers=headers, on_sample=answered.append)
    load = asyncio.create_task(closed_loop(model.url, clients=count, requests=count, traffic=traffic))

    async def are_at_replicas() -> bool:
        return plane.backends.count_local(model) == count

    async def are_sent_again() -> bool:
        return plane.backends.remote.count(model) + len(answered) == count

    await until(are_at_replicas, "all are at a replica at once")
    for one in plane.backends.local:
        one.release(name)
    await until(are_sent_again, "each is at the remote backend, or refused")
    plane.backends.remote.release(name)
    return await load


async def test_no_breaker_trips_with_thousands_of_requests_at_once(plane: Plane) -> None:
    without = clusters(lambda cluster: cluster.ClearField("circuit_breakers"))
    models = await serve_both(plane, Wanted(), without)
    requests = 2_200  # By default 1,024 connections and as many requests that wait for one.
    traffic = Traffic(headers=sends(on_local="held=all"))

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
