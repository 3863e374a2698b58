"""A gateway that is stopped under load loses nothing: with the drain of `beamlit envoy`, and without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
import pytest_asyncio

from controller.api.endpoints import Replica
from controller.cli.envoy_admin import SOCKET, EnvoyAdmin, EnvoyAdminError
from controller.cli.envoy_process import ENVOY_FLAGS, envoy_binary
from tests.support.beamlit import Start, executed
from tests.support.data_plane.answering import CALL, GRPC_PORT, HTTP_PORT, STREAM, answering
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.client_list import ClientList
from tests.support.data_plane.gateway import Gateway
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import TOKEN, Plane
from tests.support.fork_server import Forked
from tests.support.load import closed_loop
from tests.support.load.answer import Answer, AnswerError
from tests.support.load.connection import Connection
from tests.support.network import Network
from tests.support.processes import Child
from tests.support.waiting import until

Entered = TypeVar("Entered")

DRAIN = ("--drain-delay-seconds", 1, "--drain-seconds", 15)


class Site:
    """Gateways with addresses of their own, before one replica in this process."""

    def __init__(self, backends: Backends, folder: Path) -> None:
        self.replica = Network.unused().host(20)
        self.gateways: list[Gateway] = []
        self.models: list[Model] = []
        self._backends = backends
        self._folder = folder
        self._planes: list[Plane] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Site:
        await self._stack.enter_async_context(answering(self.replica))
        return self

    async def __aexit__(self, *_: object) -> None:
        for gateway in self.gateways:
            gateway.stop()
        await self._stack.aclose()

    async def add(self, *options: object, port: int = HTTP_PORT, start: Start = Forked) -> Gateway:
        """Start one more gateway, on a control plane of its own since its address is."""
        plane = Plane(Network.unused(), self._backends, self._folder)
        await self._stack.enter_async_context(plane.running())
        self._planes.append(plane)
        gateway = self.join(len(self._planes) - 1, *options, start=start)
        model = await plane.serve(Wanted(remote=False, replicas=(Replica(self.replica, port, ready=True),)))
        self.models.append(model)
        await gateway.ready()
        return gateway

    def join(self, plane: int, *options: object, start: Start = Forked) -> Gateway:
        """Start one more gateway on one of the control planes."""
        name = f"gateway-{len(self.gateways)}"
        gateway = Gateway(name, self._planes[plane].xds, TOKEN, self._folder, *(options or DRAIN), start=start)
        self.gateways.append(gateway)
        return gateway

    def address(self, number: int) -> tuple[str, int]:
        host, _, port = self.models[number].url.removeprefix("http://").strip("/").partition(":")
        return host, int(port)

    async def enter(self, context: AbstractAsyncContextManager[Entered]) -> Entered:
        return await self._stack.enter_async_context(context)

    def clients(self) -> ClientList:
        return ClientList([(one, *self.address(number)) for number, one in enumerate(self.gateways)])


@pytest_asyncio.fixture
async def site(backends: Backends, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(backends, tmp_path) as site:
        yield site


def stopped(gateway: Gateway, drained: bool) -> None:
    """Stop a gateway, or its Envoy alone, which nobody drains then."""
    if drained:
        gateway.process.send(signal.SIGTERM)
    else:
        gateway.signal_envoy(signal.SIGTERM)


EITHER = pytest.mark.parametrize("drained", [True, False], ids=["drained", "envoy-alone"])


@EITHER
async def test_a_stop_under_load_fails_nobody(site: Site, drained: bool) -> None:
    """Connections kept and new, long requests and streams: Envoy by itself would drop them on SIGTERM."""
    leaving, _ = await site.add(), await site.add()
    clients, stop = site.clients(), asyncio.Event()
    async with clients.probing(), asyncio.TaskGroup() as load:
        for _ in range(8):
            load.create_task(clients.client("/?seconds=0.01", stop))
            load.create_task(clients.client("/?seconds=0.01", stop, keepalive=False))
            load.create_task(clients.client("/?seconds=2", stop))
            load.create_task(clients.client("/events?count=25&every=0.1", stop))
        await asyncio.sleep(1)
        stopped(leaving, drained)
        await leaving.ended()
        await asyncio.sleep(0.5)
        stop.set()
    assert min(clients.outcome.answered.values()) > 50
    assert (not clients.outcome.failed) == drained


@EITHER
async def test_a_stop_under_load_fails_no_call_of_grpc(site: Site, drained: bool) -> None:
    """Over HTTP/2 without TLS: GOAWAY in place of `connection: close`, with calls and streams in flight."""
    leaving, _ = await site.add(port=GRPC_PORT), await site.add(port=GRPC_PORT)
    addresses = ",".join(f"{host}:{port}" for host, port in map(site.address, (0, 1)))
    # What never left the client is sent elsewhere by gRPC itself ("transparent retries"), as to any other server.
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.use_local_subchannel_pool", 1)]
    failed, streams, stop = list[str](), list[int](), asyncio.Event()

    async def call(channel: grpc.aio.Channel) -> None:
        while not stop.is_set():
            try:
                await channel.unary_unary(CALL)(b"0.02")
            except grpc.aio.AioRpcError as error:
                failed.append(f"{error.code()}: {error.details()}")

    async def stream(channel: grpc.aio.Channel) -> None:
        try:
            streams.append(len([event async for event in channel.unary_stream(STREAM)(b"30 0.1")]))
        except grpc.aio.AioRpcError as error:
            failed.append(f"{error.code()}: {error.details()}")

    async with asyncio.TaskGroup() as load:
        for _ in range(4):
            channel = await site.enter(grpc.aio.insecure_channel(f"ipv4:{addresses}", options))
            await channel.channel_ready()
            for _ in range(2):
                load.create_task(call(channel))
                load.create_task(stream(channel))
        await asyncio.sleep(1)
        stopped(leaving, drained)
        await leaving.ended()
        await asyncio.sleep(0.5)
        stop.set()

    assert (not failed) == drained
    assert (streams == [30] * 8) == drained


async def test_of_two_on_one_port_one_goes(site: Site) -> None:
    """The kernel divides connections between them; clients that keep theirs notice nothing."""
    leaving, staying, stop = await site.add(), site.join(0), asyncio.Event()
    await staying.ready()
    host, port = site.address(0)
    load = asyncio.create_task(closed_loop(f"http://{host}:{port}/", 16, 100_000, stop=stop))
    await asyncio.sleep(0.5)
    leaving.process.send(signal.SIGTERM)
    assert await leaving.ended() == 0
    await asyncio.sleep(0.3)
    stop.set()
    report = await load
    assert report.errors == {}
    assert report.summary.local > 500


async def test_it_says_that_it_goes_and_serves_who_has_not_noticed(site: Site) -> None:
    """A readiness probe fails at once; a new connection is served until the delay is over, and refused then."""
    gateway = await site.add("--drain-delay-seconds", 2, "--drain-seconds", 15)
    waiting = asyncio.create_task(asked(site.address(0), "/?seconds=6"))
    await asyncio.sleep(0.5)
    gateway.process.send(signal.SIGTERM)
    await until(lambda: says(gateway, (503, "draining")), "it is not ready")

    served = await asked(site.address(0), "/")
    await asyncio.sleep(2.2)
    with pytest.raises(ConnectionRefusedError):
        await asked(site.address(0), "/")
    assert await gateway.readiness() == (503, "draining")

    answers = (served, await waiting)
    # It asks for another connection with every answer.
    assert [(answer.status, answer.reusable) for answer in answers] == [(200, False), (200, False)]
    assert await gateway.ended() == 0


async def says(gateway: Gateway, wanted: tuple[int, str]) -> bool:
    return await gateway.readiness() == wanted


async def asked(address: tuple[str, int], target: str) -> Answer:
    """Send one request on a connection of its own. Raises AnswerError and OSError."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    try:
        return await connection.exchange(f"GET {target} HTTP/1.1\r\nhost: model\r\n\r\n".encode())
    finally:
        connection.close()


@pytest.mark.parametrize("again", [True, False], ids=["a-second-signal", "the-time-is-up"])
async def test_it_ends_before_its_requests_do(site: Site, again: bool) -> None:
    gateway = await site.add("--drain-delay-seconds", 0, "--drain-seconds", 60 if again else 1)
    waiting = asyncio.create_task(asked(site.address(0), "/?seconds=30"))
    await asyncio.sleep(0.5)
    gateway.process.send(signal.SIGTERM)
    await asyncio.sleep(0.5)
    if again:
        gateway.process.send(signal.SIGTERM)

    assert await gateway.ended(within=10) == 0
    with pytest.raises(AnswerError):
        await waiting
    told = (
        "a second signal ends the drain" if again else "envoy ends with requests in flight: the time is up in_flight=1"
    )
    assert told in gateway.process.log.read_text()


async def test_an_answer_that_a_slow_client_still_reads_is_in_flight(site: Site) -> None:
    """Its end is in the buffer of Envoy, where the request counts as answered."""
    gateway = await site.add("--drain-delay-seconds", 0, "--drain-seconds", 15)
    loop, size, body = asyncio.get_running_loop(), 7_000_000, b""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await loop.sock_connect(client, site.address(0))
        await loop.sock_sendall(client, f"GET /?size={size} HTTP/1.1\r\nhost: model\r\n\r\n".encode())
        await asyncio.sleep(0.5)
        gateway.process.send(signal.SIGTERM)
        slow_until = loop.time() + 2.5  # longer than it takes to find nothing in flight
        while more := await loop.sock_recv(client, 65536):
            body += more
            if len(body.partition(b"\r\n\r\n")[2]) == size:
                break
            if loop.time() < slow_until:
                await asyncio.sleep(0.05)
    assert len(body.partition(b"\r\n\r\n")[2]) == size
    assert await gateway.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_an_envoy_that_dies_ends_the_command_with_its_code(site: Site, number: signal.Signals) -> None:
    # As a user starts it.
    gateway = await site.add(start=executed)
    gateway.signal_envoy(number)
    assert await gateway.ended() == 128 + number
    assert "envoy ended by itself" in gateway.process.log.read_text()


async def test_the_envoy_of_a_killed_command_ends(site: Site) -> None:
    """Or the container would go on without anybody to drain it."""
    gateway = await site.add()
    pid = gateway.envoy_pid
    gateway.process.send(signal.SIGKILL)

    async def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await until(is_gone, "Envoy ends")


async def test_an_envoy_that_was_told_nothing_is_not_ready(tmp_path: Path) -> None:
    """One that waits for its control plane in vain calls itself live after half a minute."""
    config = tmp_path / "bootstrap.yaml"
    config.write_text(f"admin: {{address: {{pipe: {{path: {tmp_path / SOCKET}}}}}}}")
    envoy = Child((envoy_binary(), "--config-path", config, *ENVOY_FLAGS), tmp_path / "envoy.log")
    try:
        async with EnvoyAdmin.of(tmp_path) as admin:

            async def is_live() -> bool:
                with contextlib.suppress(EnvoyAdminError):
                    return await admin.not_ready() == "Envoy has not been told its clusters and listeners yet"
                return False

            await until(is_live, f"Envoy is live:\n{envoy.last_words()}")
    finally:
        envoy.kill()
