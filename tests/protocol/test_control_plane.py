"""The whole xDS server over a store in memory: what a client is sent, and what others hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from prometheus_client import CollectorRegistry

from controller.api.contract.route import HttpCheck, Route, RouteKey
from controller.api.timing import CheckTiming, Timing
from controller.store.objects import StoredObject
from tests.support.checked_servers import Talker, answer
from tests.support.loads import hears, load, to_local
from tests.support.objects import a_model, a_slice
from tests.support.protocol.xds_client import TOKEN, DeltaClient
from tests.support.routes import A, B, a_remote, a_route
from tests.support.store import MemoryStore
from tests.support.waiting import until
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER
from xds_server.stream.load_reporting.wire import LoadStream

TIMING = Timing(checks=CheckTiming(connect=600.0, longest=600.0))
"""A check waits for its answer however busy the machine is."""
REPLICAS = a_slice().ready("10.0.0.1").stored()


def decided(route: Route, version: str = "1") -> StoredObject:
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model().stored(status={"observedGeneration": 1, "route": raw}, version=version)


@dataclass
class Running:
    control_plane: ControlPlane
    store: MemoryStore
    client: DeltaClient
    port: int
    registry: CollectorRegistry
    changes: list[frozenset[RouteKey] | None] = field(default_factory=list)


@asynccontextmanager
async def running(*objects: StoredObject, health_checks: bool = False) -> AsyncIterator[Running]:
    store, registry = MemoryStore(objects), CollectorRegistry()
    options = ControlPlaneOptions(node_token=TOKEN, health_checks=health_checks, timing=TIMING)
    control_plane = ControlPlane(store, options, registry)
    port = await control_plane.start("127.0.0.1:0")
    this = Running(control_plane, store, DeltaClient(port, "envoy-1", TOKEN), port, registry)
    control_plane.subscribe(this.changes.append)
    task = asyncio.create_task(control_plane.run())
    try:
        yield this
        assert not task.done(), task.result()
    finally:
        await this.client.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await control_plane.stop(0)


async def test_who_subscribes_hears_of_what_is_published_connected_and_acknowledged() -> None:
    async with running(decided(a_route()), REPLICAS) as this:
        await until(lambda: this.control_plane.published, "there is a snapshot")
        assert this.changes == [{A}]
        await this.client.subscribe(ENDPOINT, "*")
        await this.client.expect(ENDPOINT, "model/default/a/local")
        await until(lambda: this.changes[1:] == [None], "a client came, which is of interest to all")
        await this.client.ack()
        await until(lambda: this.changes[2:] == [None, {A}], "it counts for all, and has what is of this one")
        this.store.put(a_slice().ready("10.0.0.2").stored(version="2"))
        await this.client.expect(ENDPOINT, "model/default/a/local")
        assert this.changes[4:] == [{A}]
        report = this.control_plane.reports.report(A)
        assert (report.route, report.connected) == (a_route().digest, 1)


async def test_x15_an_envoy_that_comes_back_and_refuses_all_that_it_lacks_is_in_the_reports() -> None:
    status = decided(a_route(port=81)).raw["status"]
    async with running(decided(a_route()), a_model("b").stored(status=status), REPLICAS) as this:
        await until(lambda: this.control_plane.published, "there is a snapshot")
        versions = this.control_plane.publisher.versions(A)
        has = {key.name: version for key, version in versions if key.type_url == LISTENER}
        await this.client.subscribe(LISTENER, "*", claims=has)
        await this.client.receive()
        (bad,) = (one.name for one in this.client.last.resources)
        await this.client.nack("cannot bind: it is taken")
        await until(lambda: this.changes.count(None) == 2, "it came, and counts, which is of interest to all")
        refusal = f"envoy-1 refuses LDS {bad}: cannot bind: it is taken"
        reports = [this.control_plane.reports.report(key) for key in (A, B)]
        assert [(one.connected, one.refusals) for one in reports] == [(1, ()), (1, (refusal,))]
        assert this.control_plane.reports.replica(0.0).known_as == ("127.0.0.1", "envoy-1")


async def test_before_the_first_snapshot_nothing_is_published_and_an_empty_store_is_one() -> None:
    async with running() as this:
        assert not this.control_plane.published
        await until(lambda: this.control_plane.published, "there is a snapshot")
        assert this.changes == []


async def test_the_health_of_a_remote_backend_is_a_change_of_its_route() -> None:
    async with Talker(answer(503)).listening() as port:
        check = HttpCheck(path="/healthz", interval=timedelta(seconds=5))
        route = a_route(a_remote("127.0.0.1", port=port, health_check=check), away=50)
        async with running(decided(route), REPLICAS, health_checks=True) as this:

            def reason() -> str | None:
                remote = this.control_plane.reports.report(A).remote("remote")
                return remote.reason if remote else None

            await until(lambda: reason() == "ErrorAnswer", "it is found to be down")
            assert this.changes == [{A}, {A}]
            this.store.remove(a_model().ref)
            await until(lambda: reason() is None, "nobody checks it any more")
            assert this.control_plane.reports.report(A).route == ""


async def test_loads_are_counted_for_the_routes_that_are_published() -> None:
    async with running(decided(a_route(a_remote(), away=50)), REPLICAS) as this:
        await this.client.subscribe(CLUSTER, "*")
        await this.client.receive()
        backend = next(one.name for one in this.client.last.resources if one.name.startswith("backend/"))
        loads, now = this.control_plane.loads, asyncio.get_running_loop().time()
        hears(loads, LoadStream("envoy-1", 1.0), (to_local(A, sent=2, now=2), load(backend, sent=3, ok=3)), now)
        counted = {"namespace": "default", "name": "a", "side": "remote", "outcome": "succeeded"}
        assert this.registry.get_sample_value("beamlit_model_requests_total", counted) == 3
        assert this.control_plane.reports.replica(now).silent == ()
        this.store.remove(a_model().ref)
        await until(lambda: not loads.in_flight(now), "the route is forgotten")


async def test_x60_a_stranger_is_in_no_report_of_a_route() -> None:
    async with running(decided(a_route()), REPLICAS) as this:
        stranger = DeltaClient(this.port, "your gateway is broken: pay here", "another token")
        try:
            for client in (stranger, this.client):
                await client.subscribe(CLUSTER)
                await client.receive()
            await stranger.nack("call 555 now")
            await stranger.subscribe(ENDPOINT, "nothing")
            await stranger.expect(ENDPOINT, removed=("nothing",))
            await this.client.ack()
            await until(lambda: this.control_plane.reports.report(A).connected, "the Envoy counts")
            report = this.control_plane.reports.report(A)
            now = asyncio.get_running_loop().time()
            assert (report.connected, report.refusals) == (1, ())
            replica = this.control_plane.reports.replica(now)
            assert replica.silent == ("envoy-1",)
            why = "it does not carry the node token"
            assert replica.refused == f"the client at 127.0.0.1 is no Envoy of ours: {why}", "none of its own words"
            counted = ("acks_total", "nacks_total", "push_seconds_count")
            values = [this.registry.get_sample_value(f"beamlit_xds_{one}", {"type": "CDS"}) for one in counted]
            assert values == [1, 0, 1], "the Envoy's answer alone"
            assert None not in this.changes[:1]
            assert this.changes.count(None) == 2, "the Envoy came, and counts; nobody was told of the stranger"
        finally:
            await stranger.close()
