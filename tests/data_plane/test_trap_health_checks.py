"""Trap 5: active health checks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.route import HttpCheck
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFTEN = HttpCheck(path="/healthz", interval=timedelta(milliseconds=300))


def usual_interval_without_traffic(cluster: Cluster) -> None:
    for check in cluster.health_checks:
        check.ClearField("no_traffic_interval")


def host_of_its_own(cluster: Cluster) -> None:
    for check in cluster.health_checks:
        if check.HasField("http_health_check"):
            check.http_health_check.ClearField("host")


@with_and_without(clusters(usual_interval_without_traffic))
async def test_a_standby_without_traffic_is_checked_as_often(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(check=OFTEN, change=change))
    await plane.healthy(model, 3)
    dead = plane.backends.local[0]

    with plane.backends.killed(dead):
        if held:
            await plane.healthy(model, 2)
        else:
            await asyncio.sleep(3)
            assert (await plane.envoy.hosts(model.local_cluster))[dead.host] == {}


@with_and_without(clusters(host_of_its_own))
async def test_a_server_that_refuses_a_slash_in_the_host_is_healthy(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(check=OFTEN, change=change))

    await plane.healthy(model, 3 if held else 0)

    assert (await plane.ask(model)).route == ("local" if held else "remote")


@with_and_without(clusters(lambda cluster: cluster.ClearField("ignore_health_on_host_removal")))
async def test_a_removed_replica_gets_nothing_though_it_is_healthy(plane: Plane, change: Change, held: bool) -> None:
    wanted = Wanted(check=OFTEN, change=change)
    model = await plane.serve(wanted)
    await plane.healthy(model, 3)
    removed = plane.backends.local[0]

    await plane.change(model, replace(wanted, replicas=plane.backends.replicas[1:]))
    before = removed.count()
    for _ in range(30):
        assert (await plane.ask(model)).status == 200

    got = removed.count() - before
    assert got == 0 if held else got > 0


async def test_a_remote_that_says_it_is_unhealthy_gets_nothing(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=100, remote_check=OFTEN))
    assert (await plane.ask(model)).route == "remote"
    plane.backends.remote.report_health(503)
    try:

        async def is_noticed() -> bool:
            reply = await plane.ask(model)
            assert reply.status == 200
            return reply.route == "local"

        await until(is_noticed, "the remote gets nothing")
        before = plane.backends.remote.count()
        replies = [await plane.ask(model) for _ in range(20)]
    finally:
        plane.backends.remote.report_health(200)

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}
    assert plane.backends.remote.count() == before
