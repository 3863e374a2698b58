"""Gateways that are stopped: each with an address of its own, before one replica in this process."""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from controller.api.kubernetes.endpoints import Replica
from tests.support.beamlit import Start
from tests.support.data_plane.answering import HTTP_PORT, Answering, answering
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.client_list import ClientList
from tests.support.data_plane.gateway import Gateway
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import TOKEN, Plane
from tests.support.forked import Forked
from tests.support.network import Network

Entered = TypeVar("Entered")


class Site:
    """Gateways with addresses of their own, before one replica in this process."""

    def __init__(self, backends: Backends, folder: Path) -> None:
        self.host = Network.unused().host(20)
        self.replica = Answering()
        self.gateways: list[Gateway] = []
        self.models: list[Model] = []
        self._backends = backends
        self._folder = folder
        self._planes: list[Plane] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Site:
        self.replica = await self._stack.enter_async_context(answering(self.host))
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
        model = await plane.serve(Wanted(remote=False, replicas=(Replica(self.host, port, ready=True),)))
        self.models.append(model)
        await gateway.ready()
        return gateway

    def join(self, plane: int, *options: object, start: Start = Forked) -> Gateway:
        """Start one more gateway on one of the control planes."""
        name = f"gateway-{len(self.gateways)}"
        gateway = Gateway(name, self._planes[plane].xds, TOKEN, self._folder, *options, start=start)
        self.gateways.append(gateway)
        return gateway

    def address(self, number: int) -> tuple[str, int]:
        host, _, port = self.models[number].url.removeprefix("http://").strip("/").partition(":")
        return host, int(port)

    async def enter(self, context: AbstractAsyncContextManager[Entered]) -> Entered:
        return await self._stack.enter_async_context(context)

    def clients(self) -> ClientList:
        return ClientList([(one, *self.address(number)) for number, one in enumerate(self.gateways)])
