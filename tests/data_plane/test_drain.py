"""A gateway that is stopped under load loses nothing: with the drain of `beamlit envoy`, and without it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.endpoints import Replica
from tests.data_plane.support.answering import HTTP_PORT, answering
from tests.data_plane.support.backends import Backends
from tests.data_plane.support.client_list import ClientList
from tests.data_plane.support.gateway import Gateway
from tests.data_plane.support.loopback import Network
from tests.data_plane.support.model import Model, Wanted
from tests.data_plane.support.plane import TOKEN, Plane

DRAIN = ("--drain-delay-seconds", 1, "--drain-seconds", 15)


class Site:
    """Gateways with addresses of their own, before one replica in this process."""

    def __init__(self, backends: Backends, folder: Path) -> None:
        self.replica = Network.unused().host(20)
        self.gateways: list[Gateway] = []
        self.models: list[Model] = []
        self._backends = backends
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Site:
        await self._stack.enter_async_context(answering(self.replica))
        return self

    async def __aexit__(self, *_: object) -> None:
        for gateway in self.gateways:
            gateway.stop()
        await self._stack.aclose()

    async def add(self, *options: object, port: int = HTTP_PORT) -> Gateway:
        """Start one more gateway, on a control plane of its own since its address is."""
        plane = Plane(Network.unused(), self._backends, self._folder)
        await self._stack.enter_async_context(plane.running())
        name = f"gateway-{len(self.gateways)}"
        gateway = Gateway(name, plane.xds, TOKEN, self._folder, *(options or DRAIN))
        self.gateways.append(gateway)
        model = await plane.serve(Wanted(remote=False, replicas=(Replica(self.replica, port, ready=True),)))
        self.models.append(model)
        await gateway.ready()
        return gateway

    def address(self, number: int) -> tuple[str, int]:
        host, _, port = self.models[number].url.removeprefix("http://").strip("/").partition(":")
        return host, int(port)

    def clients(self) -> ClientList:
        return ClientList([(one, *self.address(number)) for number, one in enumerate(self.gateways)])


@pytest_asyncio.fixture
async def site(backends: Backends, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(backends, tmp_path) as site:
        yield site


@pytest.mark.parametrize("drained", [True, False], ids=["drained", "envoy-alone"])
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
        if drained:
            leaving.process.send(signal.SIGTERM)
        else:
            leaving.signal_envoy(signal.SIGTERM)
        code = await leaving.ended()
        await asyncio.sleep(1)
        stop.set()
    print(
        code,
        clients.outcome.answered,
        clients.outcome.failed[:3],
        len(clients.outcome.failed),
        leaving.process.last_words(),
    )
    assert min(clients.outcome.answered.values()) > 50
    assert (not clients.outcome.failed) == drained
