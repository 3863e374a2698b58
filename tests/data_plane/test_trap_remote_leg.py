"""Traps 3 and 7: the leg to the remote backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.route.v3.route_components_pb2 import Route

from tests.data_plane.support.backends import Backends
from tests.data_plane.support.envoy import Bootstrap
from tests.data_plane.support.loopback import Network
from tests.data_plane.support.mutation import Change, routes
from tests.data_plane.support.plane import Plane, Wanted
from tests.data_plane.support.trap import with_and_without
from tests.data_plane.support.waiting import until
from xds_server.resources import names
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.snapshot.types import LISTENER

pytestmark = pytest.mark.asyncio(loop_scope="module")


def same_path(route: Route) -> None:
    route.route.ClearField("prefix_rewrite")


def same_host(route: Route) -> None:
    route.route.ClearField("host_rewrite_literal")


def client_headers(route: Route) -> None:
    del route.request_headers_to_remove[:]


@with_and_without(routes(same_path), "prefix_rewrite")
async def test_the_remote_gets_its_path(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=100, path_prefix="/ws/models/m", change=change))

    reply = await plane.ask(model, path="v1/chat")

    (record,) = plane.backends.seen(reply.probe)
    assert record["target"] == ("/ws/models/m/v1/chat" if held else "/v1/chat")


@with_and_without(routes(same_host), "host_rewrite_literal")
async def test_the_remote_gets_its_host(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=100, change=change))

    reply = await plane.ask(model, headers=[("host", "chat.example")])

    (record,) = plane.backends.seen(reply.probe)
    assert dict(record["headers"])["host"] == (model.authority if held else "chat.example")


@with_and_without(routes(client_headers), "request_headers_to_remove")
async def test_credentials_of_the_client_stay_inside(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=100, change=change))

    reply = await plane.ask(model, headers=[("authorization", "Bearer of-the-client")])

    (record,) = plane.backends.seen(reply.probe)
    assert ("authorization" in dict(record["headers"])) is not held


@pytest_asyncio.fixture(loop_scope="module")
async def lonely_plane(network: Network, backends: Backends, tmp_path: Path) -> AsyncIterator[Plane]:
    """A plane that no Envoy has joined yet."""
    async with Plane(network, backends, tmp_path).running() as plane:
        yield plane


async def test_internal_listeners_work_with_the_bootstrap_extension(lonely_plane: Plane) -> None:
    await lonely_plane.join()
    model = await lonely_plane.serve(Wanted(away=100))

    assert (await lonely_plane.ask(model)).route == "remote"
    assert lonely_plane.refused() == {}


async def test_internal_listeners_are_refused_without_the_bootstrap_extension(lonely_plane: Plane) -> None:
    def without_extension(bootstrap: Bootstrap) -> None:
        del bootstrap["bootstrap_extensions"]

    await lonely_plane.join(change=without_extension)
    model = await lonely_plane.serve(Wanted(away=0), ready=False)
    refused = ResourceKey(LISTENER, names.remote_listener(model.key))

    async def is_told() -> bool:
        return refused in lonely_plane.refused()

    await until(is_told, "the refusal of the internal listener")
    assert "internal" in lonely_plane.refused()[refused].lower()
