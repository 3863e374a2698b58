"""Envoy checks replicas as the kubelet does, and never more strictly (docs/adr/0022)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import grpc
import pytest
import trustme
from aiohttp import web
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from controller.api.contract.route import Header, ReplicaCheck
from controller.api.kubernetes.endpoints import Replica
from tests.support.connections import accepting
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = timedelta(milliseconds=300)
# What answers does so in time, however long the machine has something else to do.
CHECK = ReplicaCheck(path="/up", interval=SOON, timeout=timedelta(seconds=20))
PROBE_PORT = 8500
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(50)


@pytest.fixture
def host(network: Network, numbers: Iterator[int]) -> str:
    """An address that no test before had: what a model let go of is checked for a while longer."""
    return network.host(next(numbers))


@dataclass
class Probed:
    """A replica that notes how it was asked for its health, and says what the test wants of it."""

    host: str
    asked: list[web.Request] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)
    protocols: list[str | None] = field(default_factory=list)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return (Replica(self.host, BACKEND_PORT, ready=True),)


@contextlib.asynccontextmanager
async def probed(
    host: str, health: Answer, port: int = BACKEND_PORT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Probed]:
    """Serve requests at the usual port and, at `port`, `/up` as `health` has it."""
    replica = Probed(host)

    async def up(request: web.Request) -> web.StreamResponse:
        replica.asked.append(request)
        replica.peers.append(request.transport and request.transport.get_extra_info("peername"))
        tls_of = request.transport and request.transport.get_extra_info("ssl_object")
        replica.protocols.append(tls_of and tls_of.selected_alpn_protocol())
        return await health(request)

    async def serve(*routes: web.RouteDef, port: int, tls: ssl.SSLContext | None = None) -> web.AppRunner:
        app = web.Application()
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        return runner

    usual = web.route("*", "/{any:(?!up$).*}", _answer)
    if port == BACKEND_PORT:
        runners = [await serve(usual, web.get("/up", up), port=port)]
    else:
        runners = [await serve(usual, port=BACKEND_PORT), await serve(web.get("/up", up), port=port, tls=tls)]
    try:
        yield replica
    finally:
        for one in runners:
            await one.cleanup()


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="local")


def saying(status: int) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/elsewhere"} if 300 <= status < 400 else None)

    return answer


async def checks(plane: Plane, model: Model, kind: str = "success") -> int:
    return await plane.envoy.stat(f"cluster.{model.local_cluster}.health_check.{kind}")


async def checked(plane: Plane, model: Model, number: int, kind: str = "success") -> None:
    """Wait for so many checks more."""
    before = await checks(plane, model, kind)

    async def are_there() -> bool:
        return await checks(plane, model, kind) >= before + number

    await until(are_there, f"{number} checks end with {kind}", within=30)


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_what_the_kubelet_takes_for_success_is_success(plane: Plane, host: str, status: int) -> None:
    def two_hundred_alone(cluster: Cluster) -> None:
        for check in cluster.health_checks:
            check.http_health_check.ClearField("expected_statuses")

    async with probed(host, saying(status)) as replica:
        models = await serve_both(
            plane, Wanted(check=CHECK, replicas=replica.replicas), clusters(replicas_alone(two_hundred_alone))
        )
        await plane.healthy(models.held, 1)
        await plane.healthy(models.removed, int(status == 200))
        assert (await plane.ask(models.held)).route == "local"
        await models.at_once(plane.withdraw)


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_what_the_kubelet_takes_for_failure_is_failure(plane: Plane, host: str, status: int) -> None:
    async with probed(host, saying(status)) as replica:
        model = await plane.serve(Wanted(check=CHECK, replicas=replica.replicas))
        await checked(plane, model, 2, "failure")
        assert (await plane.ask(model)).route == "remote"
        await plane.withdraw(model)


async def test_a_probe_may_take_as_long_as_the_kubelet_gives_it(plane: Plane, host: str) -> None:
    """A server under load may take seconds; with the half of one that is usual between proxies it would get nothing."""

    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.8)
        return web.Response()

    def half_a_second(cluster: Cluster) -> None:
        for check in cluster.health_checks:
            check.timeout.FromTimedelta(timedelta(seconds=0.5))

    async with probed(host, slowly) as replica:
        wanted = Wanted(check=CHECK, replicas=replica.replicas)
        models = await serve_both(plane, wanted, clusters(replicas_alone(half_a_second)))
        await plane.healthy(models.held, 1)
        await plane.healthy(models.removed, 0)
        assert (await plane.ask(models.held)).route == "local"
        await models.at_once(plane.withdraw)


async def test_the_headers_and_the_host_are_those_of_the_probe(plane: Plane, host: str) -> None:
    headers = (
        Header(name="x-probe", value="50% %REQ(host)%"),
        Header(name="x-probe", value="again"),
        Header(name="user-agent", value="of-the-probe"),
    )
    async with probed(host, saying(200)) as replica:
        wanted = Wanted(replicas=replica.replicas)
        named = await plane.serve(
            replace(wanted, check=CHECK.model_copy(update={"host": "m.test", "headers": headers}))
        )
        await plane.healthy(named, 1)
        (with_all,) = [one for one in replica.asked if one.host == "m.test"][:1]
        assert with_all.headers.getall("x-probe") in (["50% %REQ(host)%", "again"], ["50% %REQ(host)%,again"])
        assert with_all.headers.getall("user-agent") == ["of-the-probe"]
        unnamed = await plane.serve(replace(wanted, check=CHECK))
        await plane.healthy(unnamed, 1)
        assert {one.host for one in replica.asked} == {"m.test", f"{replica.host}:{BACKEND_PORT}"}
        for model in (named, unnamed):
            await plane.withdraw(model)


async def test_a_server_is_asked_on_a_new_connection_each_time(plane: Plane, host: str) -> None:
    """A server that closes a connection which rests is none that fails."""
    async with probed(host, saying(200)) as replica:
        model = await plane.serve(Wanted(check=CHECK, replicas=replica.replicas))
        await checked(plane, model, 3)
        assert len(set(replica.peers)) == len(replica.peers) >= 3
        await plane.withdraw(model)


async def test_fewer_failures_than_the_threshold_do_not_matter(plane: Plane, host: str) -> None:
    """Two of three fail, and three in a row would have to."""

    def at_the_first(cluster: Cluster) -> None:
        for check in cluster.health_checks:
            check.http_health_check.ClearField("retriable_statuses")

    turn: dict[str, int] = {}

    async def seldom(request: web.Request) -> web.Response:
        who = request.headers["x-model"]
        turn[who] = turn.get(who, -1) + 1
        return web.Response(status=503 if turn[who] % 3 else 200)

    def asking(who: str) -> ReplicaCheck:
        return CHECK.model_copy(update={"headers": (Header(name="x-model", value=who),)})

    async with probed(host, seldom) as replica:
        wanted = Wanted(replicas=replica.replicas)
        models = Variants(
            await plane.serve(replace(wanted, check=asking("held"))),
            await plane.serve(replace(wanted, check=asking("removed"), change=clusters(replicas_alone(at_the_first)))),
        )
        await plane.healthy(models.held, 1)
        routes = set()

        async def is_disbelieved() -> bool:
            reply = await plane.ask(models.held)
            routes.add(reply.route)
            return (await plane.ask(models.removed)).route == "remote"

        await until(is_disbelieved, "one answer is enough", within=30)
        await checked(plane, models.held, 6, "failure")
        routes.add((await plane.ask(models.held)).route)
        assert routes == {"local"}
        await models.at_once(plane.withdraw)


async def failures_of(plane: Plane, models: Variants[Model]) -> Variants[int]:
    """How many checks of each have failed, at one moment."""
    counts = await plane.envoy.stats(r"\.health_check\.failure$")
    return models.each(lambda model: counts[f"cluster.{model.local_cluster}.health_check.failure"])


async def test_the_threshold_takes_as_long_as_the_kubelet_does(plane: Plane, host: str) -> None:
    """By `unhealthy_edge_interval`: between the first failure and the last, nobody is in more of a hurry than it is."""

    def in_a_hurry(cluster: Cluster) -> None:
        for check in cluster.health_checks:
            check.ClearField("unhealthy_edge_interval")

    failing = False

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503 if failing else 200)

    slow = CHECK.model_copy(update={"interval": timedelta(seconds=4)})
    async with probed(host, answer) as replica:
        models = await serve_both(
            plane, Wanted(check=slow, replicas=replica.replicas), clusters(replicas_alone(in_a_hurry))
        )
        await models.at_once(lambda model: plane.healthy(model, 1))
        assert {(await plane.ask(model)).route for model in (models.held, models.removed)} == {"local"}
        await checked(plane, models.removed, 1)
        # Three more checks of this one take three intervals; the other is out after one and two seconds.
        await checked(plane, models.held, 1)
        failing = True
        await plane.healthy(models.removed, 0)
        route = (await plane.ask(models.held)).route
        failures = await failures_of(plane, models)
        assert 2 * failures.held <= failures.removed
        # If the machine had a pause, this one is out by now as well.
        assert route == "local" or failures.held >= 3
        await models.at_once(plane.withdraw)


async def test_an_idle_model_is_disbelieved_no_sooner(plane: Plane, host: str) -> None:
    """By `no_traffic_interval`: it is the one that Envoy has after a failure while there never was a request."""

    def in_a_hurry(cluster: Cluster) -> None:
        for check in cluster.health_checks:
            check.no_traffic_interval.FromMilliseconds(300)

    failing = False

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503 if failing else 200)

    slow = CHECK.model_copy(update={"interval": timedelta(seconds=4)})
    async with probed(host, answer) as replica:
        models = await serve_both(
            plane, Wanted(check=slow, replicas=replica.replicas), clusters(replicas_alone(in_a_hurry))
        )
        await models.at_once(lambda model: plane.healthy(model, 1))
        failing = True
        await checked(plane, models.removed, 24, "failure")
        failures = await failures_of(plane, models)
        assert 2 * failures.held < failures.removed
        await models.at_once(plane.withdraw)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_probe_over_tls_asks_at_its_port_and_verifies_nobody(
    plane: Plane, host: str, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    trustme.CA().issue_cert("somebody.else.test").configure_cert(context)
    check = CHECK.model_copy(update={"tls": True, "port": PROBE_PORT})
    async with probed(host, saying(200), PROBE_PORT, context) as replica:
        model = await plane.serve(Wanted(check=check, replicas=replica.replicas))
        await plane.healthy(model, 1)
        assert (await plane.ask(model)).body == b"local"
        assert replica.asked[0].scheme == "https"
        assert replica.protocols[0] == "http/1.1"
        assert replica.asked[0].host == f"{replica.host}:{PROBE_PORT}"
        await plane.withdraw(model)


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """A gRPC health service; what it says of a service is what the test wrote down, `None` for never anything."""

    def __init__(self) -> None:
        self.of: dict[str, int | None] = {}
        self.asked: list[str] = []

    async def Check(self, request: health_pb2.HealthCheckRequest, _: object) -> health_pb2.HealthCheckResponse:  # noqa: N802
        self.asked.append(request.service)
        status = self.of.get(request.service, health_pb2.HealthCheckResponse.SERVING)
        if status is None:
            await asyncio.sleep(600)
        return health_pb2.HealthCheckResponse(status=status)


@contextlib.asynccontextmanager
async def health_service(host: str) -> AsyncIterator[Health]:
    server, health = grpc.aio.server(), Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"{host}:{PROBE_PORT}")
    await server.start()
    try:
        yield health
    finally:
        await server.stop(0)


@pytest.mark.parametrize("service", ["", "llm.v1.Chat", "x" * 200])
@pytest.mark.parametrize("failures", [1, 3])
async def test_a_grpc_probe_asks_for_its_service(plane: Plane, host: str, service: str, failures: int) -> None:
    check = ReplicaCheck(grpc_service=service, interval=SOON, port=PROBE_PORT, failures=failures)
    async with probed(host, saying(200)) as replica, health_service(replica.host) as health:
        model = await plane.serve(Wanted(check=check, replicas=replica.replicas))
        await plane.healthy(model, 1)
        assert set(health.asked) == {service}
        await plane.withdraw(model)


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_grpc_probe_says_the_address_that_it_asks(plane: Plane, host: str, failures: int) -> None:
    """As the kubelet's does; by default Envoy says the name of the cluster, which a strict server refuses."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    said.extend(value for name, value in event.headers if name == b":authority")
                    connection.reset_stream(event.stream_id)
            writer.write(connection.data_to_send())

    check = ReplicaCheck(grpc_service="", interval=SOON, failures=failures)
    async with accepting(serve, host, BACKEND_PORT):
        model = await plane.serve(Wanted(check=check, replicas=(Replica(host, BACKEND_PORT, ready=True),)))
        await checked(plane, model, 1, "failure")
        await plane.withdraw(model)
    assert set(said) == {f"{host}:{BACKEND_PORT}".encode()}


async def test_one_word_of_a_grpc_service_is_enough_only_where_it_is_for_the_kubelet(plane: Plane, host: str) -> None:
    check = ReplicaCheck(interval=SOON, port=PROBE_PORT)
    async with probed(host, saying(200)) as replica, health_service(replica.host) as health:
        wanted = Wanted(replicas=replica.replicas)
        once, thrice = [
            await plane.serve(
                replace(wanted, check=check.model_copy(update={"grpc_service": str(failures), "failures": failures}))
            )
            for failures in (1, 3)
        ]
        await plane.healthy(once, 1)
        await plane.healthy(thrice, 1)
        for service in "13":
            health.of[service] = health_pb2.HealthCheckResponse.NOT_SERVING
        await plane.healthy(once, 0)
        assert (await plane.ask(thrice)).route == "local"
        health.of["3"] = None
        slow = await plane.serve(
            replace(
                wanted, check=check.model_copy(update={"grpc_service": "3", "timeout": timedelta(milliseconds=100)})
            )
        )
        await checked(plane, slow, 2, "failure")
        await plane.healthy(slow, 0)
        for model in (once, thrice, slow):
            await plane.withdraw(model)


async def test_envoys_that_share_the_checks_ask_together_as_often_as_one(
    plane: Plane, network: Network, host: str
) -> None:
    """Two of two ask a replica as often as one of them asks another that it checks alone."""
    often, other = CHECK.model_copy(update={"interval": timedelta(milliseconds=200)}), network.host(49)
    second = await plane.join("second")
    try:
        async with probed(host, saying(200)) as replica, probed(other, saying(200)) as of_its_own:
            shared = await plane.serve(Wanted(check=often, replicas=replica.replicas, checks_shared_by=2))
            alone = await plane.serve(Wanted(check=often, replicas=of_its_own.replicas))
            for model in (alone, shared):
                await plane.healthy(model, 1)
            before, once = len(replica.asked), await checks(plane, alone)
            await checked(plane, alone, 20)
            asked, once = len(replica.asked) - before, await checks(plane, alone) - once
            # Not half as often, as by one of the two; nor twice, as by two that share nothing.
            assert once * 0.6 < asked < once * 1.6
            for model in (alone, shared):
                await plane.withdraw(model)
    finally:
        plane.envoys.remove(second)
        await second.stop()


async def test_a_replica_that_leaves_is_the_last_choice(plane: Plane) -> None:
    """It gets what nobody else answers, and nothing while somebody is ready."""
    first, second, _ = plane.backends.replicas
    leaving = first._replace(ready=False, leaving=True)
    alone = await plane.serve(Wanted(remote=False, replicas=(leaving,)))
    behind = await plane.serve(Wanted(away=100, replicas=(leaving,)))
    beside = await plane.serve(Wanted(remote=False, replicas=(leaving, second)))
    assert {(await plane.ask(alone)).status for _ in range(10)} == {200}
    assert {(await plane.ask(behind)).route for _ in range(10)} == {"remote"}
    assert {(await plane.ask(beside)).status for _ in range(20)} == {200}
    assert plane.backends.local[0].count(beside) == 0
    with plane.backends.killed(plane.backends.remote):
        replies = [await plane.ask(behind) for _ in range(10)]
    assert {(one.status, one.route) for one in replies} == {(200, "local")}


def replicas_alone(edit: Callable[[Cluster], None]) -> Callable[[Cluster], None]:
    """Edit the cluster of the replicas, no other."""
    return lambda cluster: edit(cluster) if cluster.name.endswith("/local") else None
