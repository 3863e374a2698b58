"""Traps 1 and 9: circuit breakers. Ours never trip; a tripped one fails requests instead of failing over."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.load import Traffic, closed_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")


def default_retries(cluster: Cluster) -> None:
    for thresholds in cluster.circuit_breakers.thresholds:
        thresholds.ClearField("max_retries")


def sends(**headers: str) -> Callable[[int], Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: named


@with_and_without(clusters(default_retries))
async def test_any_number_of_requests_may_fail_over_at_once(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))
    # All of them wait at a replica when it fails, and all of them are sent again while the remote takes its time.
    traffic = Traffic(headers=sends(on_local="delay=0.5;status=503", on_remote="delay=0.5"))

    report = await closed_loop(model.url, clients=100, requests=100, traffic=traffic)

    if held:
        assert report.errors == {}
    else:
        assert report.errors["status 503"] >= 50


@with_and_without(clusters(lambda cluster: cluster.ClearField("circuit_breakers")))
@pytest.mark.timeout(60)
async def test_no_breaker_trips_with_thousands_of_requests_at_once(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))
    overflows = f"cluster.{model.local_cluster}.upstream_rq_pending_overflow"

    # By default 1,024 connections and as many requests that wait for one.
    report = await closed_loop(
        model.url, clients=2_600, requests=2_600, traffic=Traffic(headers=sends(on_local="delay=4"), timeout=50)
    )

    if held:
        assert report.errors == {}
        assert await plane.envoy.stat(overflows) == 0
    else:
        # What overflows is refused, though the remote side has nothing to do.
        assert report.errors["status 503"] > 0
        assert await plane.envoy.stat(overflows) > 0
        assert report.summary.remote == 0
