"""What a change touches: weights RDS only, pods EDS only, other models nothing; and no request fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.contract.route import ReplicaCheck
from controller.api.timing import Timing
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.load import Report, Traffic, closed_loop
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, MAKE_BEFORE_BREAK, ROUTE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timing() -> Timing:
    """However long this machine takes to let Envoy acknowledge, nothing goes out before: what waits in vain is seen."""
    return replace(AT_ONCE, streams=replace(AT_ONCE.streams, make_before_break=600.0))


async def updates(plane: Plane, model: Model) -> Mapping[str, int]:
    """How often Envoy took in something new, by type of resource."""
    return {
        CLUSTER: await plane.envoy.stat("cluster_manager.cds.update_success"),
        LISTENER: await plane.envoy.stat("listener_manager.lds.update_success"),
        ENDPOINT: await plane.envoy.stat(f"cluster.{model.local_cluster}.update_success"),
        ROUTE: await plane.envoy.stat(f"http.{model.key}.rds.port/{model.port}/{model.key.namespace}.update_success"),
    }


def versions(plane: Plane) -> Mapping[str, Mapping[str, str]]:
    return {type_url: plane.versions(type_url) for type_url in MAKE_BEFORE_BREAK}


def touched(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    return {type_url for type_url, value in after.items() if value != before[type_url]}


async def test_a_change_of_weights_touches_rds_only_and_fails_no_request(plane: Plane) -> None:
    wanted = Wanted(away=20)
    model = await plane.serve(wanted)
    versions_before, updates_before = versions(plane), await updates(plane, model)
    load, stop = _load(model)

    for away in (50, 0, 80):
        await plane.change(model, replace(wanted, away=away))
        await _some_more(model, load)
    report = await _ended(load, stop)

    assert report.errors == {}
    assert touched(versions_before, versions(plane)) == {ROUTE}
    updates_after = await updates(plane, model)
    assert touched(updates_before, updates_after) == {ROUTE}
    assert updates_after[ROUTE] - updates_before[ROUTE] == 3


@pytest.mark.parametrize("away", [0, 50])
async def test_pods_that_come_and_go_touch_eds_only_and_fail_no_request(plane: Plane, away: int) -> None:
    wanted = Wanted(away=away)
    model = await plane.serve(wanted)
    all_of_them = plane.backends.replicas
    not_ready = tuple(replica._replace(ready=False) for replica in all_of_them)
    versions_before, updates_before = versions(plane), await updates(plane, model)
    load, stop = _load(model)

    for replicas in (all_of_them[:2], all_of_them, all_of_them[1:], (), all_of_them, not_ready, all_of_them):
        await plane.change(model, replace(wanted, replicas=replicas))
        await _some_more(model, load)
    report = await _ended(load, stop)

    assert report.errors == {}
    assert touched(versions_before, versions(plane)) <= {ENDPOINT}
    assert touched(updates_before, await updates(plane, model)) == {ENDPOINT}


async def test_equal_content_is_not_sent_again(plane: Plane) -> None:
    wanted = Wanted(away=20)
    model = await plane.serve(wanted)

    assert plane.publish(model, replace(wanted)) == frozenset()


def awaited_for_long(cluster: Cluster) -> None:
    """Let Envoy wait for endpoints as long as the server would: by default it goes on without them in 15 seconds."""
    if cluster.HasField("eds_cluster_config"):
        cluster.eds_cluster_config.eds_config.initial_fetch_timeout.FromSeconds(600)


async def test_nothing_waits_for_what_envoy_acknowledges_later(plane: Plane) -> None:
    """Envoy acknowledges a cluster once it is warm, so that nothing it needs for that may wait for the cluster."""
    before = len(plane.overdue)
    for_long = Wanted(change=clusters(awaited_for_long))
    for different in ({"away": 50}, {"remote": False}, {"away": 100, "replicas": ()}):
        wanted = replace(for_long, **different)
        model = await plane.serve(wanted)
        await plane.change(model, replace(wanted, check=ReplicaCheck(path="/healthz", interval=timedelta(seconds=1))))
        await plane.change(model, replace(wanted, remote=not wanted.remote, away=0))
        await plane.withdraw(model)

    assert plane.overdue[before:] == []


async def test_changes_of_clusters_and_listeners_fail_no_request(plane: Plane) -> None:
    wanted = Wanted(away=50)
    model = await plane.serve(wanted)
    checked = replace(wanted, check=ReplicaCheck(path="/healthz", interval=timedelta(seconds=1)))
    elsewhere = replace(checked, path_prefix="/another", headers_to_add=(("x-key", "new"),))
    load, stop = _load(model)

    for change in (checked, elsewhere, replace(elsewhere, remote=False, away=0), wanted):
        await plane.change(model, change)
        await _some_more(model, load)
    report = await _ended(load, stop)

    assert report.errors == {}


async def test_models_that_come_and_go_fail_no_request_of_the_others(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))
    load, stop = _load(model)

    for _ in range(3):
        other = await plane.serve(Wanted(away=50))
        assert (await plane.ask(other)).status == 200
        await plane.withdraw(other)
        await _some_more(model, load)
    report = await _ended(load, stop)

    assert report.errors == {}


Load = tuple[asyncio.Task[Report], list[int]]


def _load(model: Model) -> tuple[Load, asyncio.Event]:
    """Begin requests from 16 clients that go on until the event is set."""
    stop, answered = asyncio.Event(), [0]

    def count(_: object) -> None:
        answered[0] += 1

    traffic = Traffic(on_sample=count)
    requests = closed_loop(model.url, clients=16, requests=100_000, traffic=traffic, stop=stop, every=0.01)
    return (asyncio.create_task(requests), answered), stop


async def _some_more(model: Model, load: Load) -> None:
    """Wait for two hundred more answers."""
    task, answered = load
    goal = answered[0] + 200

    async def reached() -> bool:
        return answered[0] >= goal or task.done()

    await until(reached, f"200 more answers of {model.key}")


async def _ended(load: Load, stop: asyncio.Event) -> Report:
    stop.set()
    return await load[0]
