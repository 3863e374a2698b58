"""A port that passes to a model of another namespace: who called the model before is not answered by the next one.

New connections are the next model's. One that was opened before stays with the model that it was opened for, and so
does a host (docs/adr/0060). Within a namespace a connection that is kept meets the next model (`test_ports_pass`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from http.client import HTTPConnection, NotConnected
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.contract.route import RouteKey
from controller.api.timing import Timing
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Answer = tuple[int, str]
"""The status, and the model that answered."""


@pytest.fixture(scope="module")
def timing() -> Timing:
    """What a model lets go of is gone at once."""
    return replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0, departed=0))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path, timing: Timing) -> AsyncIterator[Plane]:
    """An xDS server and one Envoy, which drains as those of the product do (`ENVOY_FLAGS`)."""
    async with Plane(network, backends, folder, timing).running() as plane:
        await plane.join(flags=("--drain-strategy", "immediate"))
        yield plane


class Kept:
    """A client that keeps its one connection, and never opens another one."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._connection.connect()
        self._connection.auto_open = 0

    async def ask(self, host: str = "") -> Answer:
        """Ask once. Raises NotConnected once the connection was closed."""
        return await asyncio.to_thread(self._ask, {"host": host} if host else {})

    def _ask(self, headers: dict[str, str]) -> Answer:
        self._connection.request("GET", "/", headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("x-model", "")


@asynccontextmanager
async def kept(plane: Plane, port: int, count: int = 1) -> AsyncIterator[list[Kept]]:
    async with AsyncExitStack() as stack:
        found = [HTTPConnection(plane.network.host(1), port, timeout=60) for _ in range(count)]
        yield [Kept(stack.enter_context(closing(one))) for one in found]


async def asked_anew(plane: Plane, port: int, host: str = "") -> Answer:
    async with kept(plane, port) as (client,):
        return await client.ask(host)


async def serve(plane: Plane, namespace: str, name: str, port: int, *hosts: str) -> Model:
    """Serve a model that is named by its answers."""
    key = RouteKey.of_model(namespace, name)
    wanted = Wanted(away=100, hosts=hosts, headers_to_add=(("on-remote", f"header=x-model:{namespace}/{name}"),))
    return await plane.change(Model(key, f"http://{plane.network.host(1)}:{port}/", wanted), wanted)


async def passes(plane: Plane, port: int, namespace: str, name: str) -> Model:
    """Serve a model on a port of another one, until new connections meet it."""
    model = await serve(plane, namespace, name, port)

    async def is_met() -> bool:
        return await asked_anew(plane, port) == (200, f"{namespace}/{name}")

    await until(is_met, f"{namespace}/{name} is served on {port}")
    return model


async def test_who_keeps_a_connection_stays_with_a_model_that_moved_to_another_port(plane: Plane) -> None:
    before = await serve(plane, "one", "moved", 9101)
    async with kept(plane, before.port, 2) as clients:
        assert [await one.ask() for one in clients] == [(200, "one/moved")] * 2
        await plane.change(replace(before, url=f"http://{plane.network.host(1)}:9102/"), before.wanted)
        await passes(plane, before.port, "two", "next-to-moved")
        assert [await one.ask() for one in clients] == [(200, "one/moved")] * 2
        # And is asked to connect anew.
        for one in clients:
            with pytest.raises(NotConnected):
                await one.ask()
    assert plane.refused() == {}


async def test_who_keeps_a_connection_to_a_model_that_is_gone_gets_an_error_and_no_other_model(plane: Plane) -> None:
    before = await serve(plane, "one", "gone", 9103)
    async with kept(plane, before.port) as (client,):
        assert await client.ask() == (200, "one/gone")
        plane.remove(before)

        async def has_nothing_left() -> bool:
            return not await plane.envoy.hosts(before.local_cluster)

        await passes(plane, before.port, "two", "next-to-gone")
        await until(has_nothing_left, "Envoy lets go of what the model had")
        assert await client.ask() == (503, "")
    assert plane.refused() == {}


async def test_a_host_leads_to_its_model_whoever_has_the_port(plane: Plane) -> None:
    before = await serve(plane, "one", "called", 9104, "called.one")
    await plane.acknowledged(before)
    async with kept(plane, SHARED_PORT, 2) as (first, second):
        assert await first.ask("called.one") == (200, "one/called")
        assert await second.ask("called.one") == (200, "one/called")
        # Its hosts have not moved on yet.
        after = await passes(plane, before.port, "two", "next-to-called")
        assert await first.ask("called.one") == (200, "one/called")
        await plane.change(replace(before, url=f"http://{plane.network.host(1)}:9105/"), before.wanted)
        await plane.acknowledged(before)
        assert await second.ask("called.one") == (200, "one/called")
        assert await asked_anew(plane, after.port) == (200, "two/next-to-called")
    assert plane.refused() == {}


async def test_within_a_namespace_who_keeps_a_connection_meets_the_next_model(plane: Plane) -> None:
    before = await serve(plane, "one", "renamed", 9106)
    async with kept(plane, before.port) as (client,):
        assert await client.ask() == (200, "one/renamed")
        plane.remove(before)
        await passes(plane, before.port, "one", "anew")
        assert await client.ask() == (200, "one/anew")
    assert plane.refused() == {}
