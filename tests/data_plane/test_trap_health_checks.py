"""Trap 5: active health checks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from controller.api.contract.route import HttpCheck, ReplicaCheck
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import assignments, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFTEN = ReplicaCheck(path="/healthz", interval=timedelta(milliseconds=300))
REMOTE_OFTEN = HttpCheck(path="/healthz", interval=timedelta(milliseconds=300))


def usual_interval_without_traffic(cluster: Cluster) -> None:
    for check in cluster.health_checks:
        check.ClearField("no_traffic_interval")
        check.ClearField("no_traffic_healthy_interval")


def host_of_its_own(assignment: ClusterLoadAssignment) -> None:
    for side in assignment.endpoints:
        for one in side.lb_endpoints:
            one.endpoint.health_check_config.ClearField("hostname")


async def test_a_standby_without_traffic_is_checked_as_often(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(check=OFTEN), clusters(usual_interval_without_traffic))
    await models.at_once(lambda model: plane.healthy(model, 3))
    dead = plane.backends.local[0]

    async def failures(model: Model) -> int:
        return await plane.envoy.stat(f"cluster.{model.local_cluster}.health_check.failure")

    with plane.backends.killed(dead):
        await plane.healthy(models.held, 2)
        assert (await plane.envoy.hosts(models.removed.local_cluster))[dead.host] == {}
    await plane.healthy(models.held, 3)

    # One has seen it go and come back, when the other has yet to look.
    failed = await models.at_once(failures)
    assert failed.held > 0
    assert failed.removed == 0


async def test_a_server_that_refuses_a_slash_in_the_host_is_healthy(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(check=OFTEN), assignments(host_of_its_own))

    await plane.healthy(models.held, 3)
    await plane.healthy(models.removed, 0)

    replies = await models.at_once(plane.ask)
    assert (replies.held.route, replies.removed.route) == ("local", "remote")


async def test_a_removed_replica_gets_nothing_though_it_is_healthy(plane: Plane) -> None:
    without = clusters(lambda cluster: cluster.ClearField("ignore_health_on_host_removal"))
    models = await serve_both(plane, Wanted(check=OFTEN), without)
    await models.at_once(lambda model: plane.healthy(model, 3))
    removed = plane.backends.local[0]

    async def got_after_its_removal(model: Model) -> int:
        await plane.change(model, replace(model.wanted, replicas=plane.backends.replicas[1:]))
        before = removed.count(model)
        for _ in range(60):
            assert (await plane.ask(model)).status == 200
        return removed.count(model) - before

    got = await models.at_once(got_after_its_removal)
    assert got.held == 0
    assert got.removed > 0


async def test_a_remote_that_says_it_is_unhealthy_gets_nothing(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=100, remote_check=REMOTE_OFTEN))
    await plane.all_go(model, "remote")  # its first check may have taken too long
    plane.backends.remote.report_health(503)
    try:
        assert {reply.status for reply in await plane.all_go(model, "local")} == {200}
        await plane.remote_found_ill(model)
        before = plane.backends.remote.count()
        replies = [await plane.ask(model) for _ in range(20)]
    finally:
        plane.backends.remote.report_health(200)

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}
    assert plane.backends.remote.count() == before
