"""Traps 3, 7 and 15: the leg to the remote backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import answers, both, managers, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.sealed import api_key, bring
from tests.support.data_plane.trap import serve_both
from tests.support.envoy import Bootstrap
from tests.support.network import Network
from tests.support.waiting import until
from xds_server.resources import names
from xds_server.snapshot.snapshot import LISTENER, ResourceKey

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = api_key("key", "x-key")


def same_path(route: Route) -> None:
    route.route.ClearField("prefix_rewrite")


def same_host(route: Route) -> None:
    route.route.ClearField("host_rewrite_literal")


def client_headers(route: Route) -> None:
    del route.request_headers_to_remove[:]


async def test_the_remote_gets_its_path(plane: Plane) -> None:
    """By `prefix_rewrite`."""
    models = await serve_both(plane, Wanted(away=100, path_prefix="/ws/models/m"), routes(same_path))

    replies = await models.at_once(lambda model: plane.ask(model, path="v1/chat"))

    (held,), (removed,) = (plane.backends.seen(reply.probe) for reply in (replies.held, replies.removed))
    assert held["target"] == "/ws/models/m/v1/chat"
    assert removed["target"] == "/v1/chat"


async def test_the_remote_gets_its_host(plane: Plane) -> None:
    """By `host_rewrite_literal`."""
    models = await serve_both(plane, Wanted(away=100), routes(same_host))

    replies = await models.at_once(lambda model: plane.ask(model, headers=[("host", "chat.example")]))

    (held,), (removed,) = (plane.backends.seen(reply.probe) for reply in (replies.held, replies.removed))
    assert dict(held["headers"])["host"] == models.held.authority
    assert dict(removed["headers"])["host"] == "chat.example"


def unresolved(manager: HttpConnectionManager) -> None:
    manager.ClearField("normalize_path")


def unrefused(route: Route) -> None:
    route.match.safe_regex.regex = "nothing"


@pytest.mark.parametrize("away", [0, 100])
async def test_dot_segments_are_resolved_and_not_refused(plane: Plane, away: int) -> None:
    """By `normalize_path`."""
    models = await serve_both(plane, Wanted(away=away, path_prefix="/ws"), managers(unresolved))

    # Escaped, since the client library of these tests resolves dot segments itself.
    replies = await models.at_once(lambda model: plane.ask(model, path="a/%2e%2e/b"))

    got = replies.each(lambda one: (one.status, [record["target"] for record in plane.backends.seen(one.probe)]))
    assert (got.held, got.removed) == {
        0: ((200, ["/b"]), (200, ["/a/%2e%2e/b"])),
        100: ((200, ["/ws/b"]), (400, [])),
    }[away]


@pytest.mark.parametrize("leg", ["direct", "after a replica", "with a credential"])
async def test_what_may_be_read_as_dot_segments_does_not_leave(plane: Plane, leg: str) -> None:
    """By the route that refuses it."""
    bring(plane, {KEY: "secret"})
    auth = KEY if leg == "with a credential" else None
    away = 0 if leg == "after a replica" else 100
    models = await serve_both(plane, Wanted(away=away, path_prefix="/ws", auth=auth), answers(unrefused))

    replies = await models.at_once(lambda model: plane.ask(model, path="..%2fb", headers=[("on-local", "status=503")]))

    at_remote = replies.each(
        lambda reply: [one["target"] for one in plane.backends.seen(reply.probe) if one["servedBy"] == "remote"]
    )
    assert (replies.held.status, at_remote.held) == (400, [])
    assert (replies.removed.status, at_remote.removed) == (200, ["/ws/..%2fb"])


async def test_a_client_stays_behind_the_prefix(plane: Plane) -> None:
    """By `normalize_path` and the refusal."""
    without = both(managers(unresolved), answers(unrefused))
    models = await serve_both(plane, Wanted(away=100, path_prefix="/ws"), without)

    replies = await models.at_once(lambda model: plane.ask(model, path="%2e%2e/b"))

    (held,), (removed,) = (plane.backends.seen(reply.probe) for reply in (replies.held, replies.removed))
    assert held["target"] == "/ws/b"
    assert removed["target"] == "/ws/%2e%2e/b"


def path_by_mutation(manager: HttpConnectionManager) -> None:
    added = HeaderMutation()
    append = added.mutations.add().append
    append.header.key, append.header.value = ":path", "/rewritten"
    extension = manager.early_header_mutation_extensions.add(name="path")
    extension.typed_config.Pack(added)


async def test_a_header_mutation_may_not_write_the_path(plane: Plane) -> None:
    """Why the path is rewritten by routes."""
    model = await plane.serve(Wanted(change=managers(path_by_mutation)), ready=False)

    front = ResourceKey(LISTENER, names.entrance(model.port))

    async def is_refused() -> bool:
        return front in plane.refused()

    await until(is_refused, "the refusal of the mutation")
    assert ":-prefixed or host headers may not be modified" in plane.refused()[front]


async def test_credentials_of_the_client_stay_inside(plane: Plane) -> None:
    """By `request_headers_to_remove`."""
    models = await serve_both(plane, Wanted(away=100), routes(client_headers))
    headers = [("authorization", "Bearer of-the-client")]

    replies = await models.at_once(lambda model: plane.ask(model, headers=headers))

    (held,), (removed,) = (plane.backends.seen(reply.probe) for reply in (replies.held, replies.removed))
    assert "authorization" not in dict(held["headers"])
    assert "authorization" in dict(removed["headers"])


@pytest_asyncio.fixture(loop_scope="module")
async def lonely_plane(network: Network, backends: Backends, tmp_path: Path) -> AsyncIterator[Plane]:
    """A plane that no Envoy has joined yet."""
    async with Plane(network, backends, tmp_path).running() as plane:
        yield plane


# The bootstrap is one for all models of an Envoy, so that these two need an Envoy each.
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
