"""Trap 10: what a client writes into headers that are not its to write."""

from __future__ import annotations

import asyncio

import pytest
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.model import Reply, Wanted
from tests.support.data_plane.mutation import both, managers, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def headers_kept(manager: HttpConnectionManager) -> None:
    del manager.early_header_mutation_extensions[:]


def nobody_excluded(manager: HttpConnectionManager) -> None:
    if manager.HasField("internal_address_config"):
        del manager.internal_address_config.cidr_ranges[:]


def client_believed(manager: HttpConnectionManager) -> None:
    manager.ClearField("use_remote_address")


def appended(route: Route) -> None:
    for option in route.response_headers_to_add:
        option.ClearField("append_action")


def upstream_headers(plane: Plane, reply: Reply) -> dict[str, str]:
    (record,) = plane.backends.seen(reply.probe)
    return dict(record["headers"])


async def test_headers_of_ours_are_taken_off(plane: Plane) -> None:
    """By `early_header_mutation_extensions`."""
    models = await serve_both(plane, Wanted(), managers(headers_kept))

    replies = await models.at_once(lambda model: plane.ask(model, headers=[("x-beamlit-anything", "forged")]))

    assert "x-beamlit-anything" not in upstream_headers(plane, replies.held)
    assert "x-beamlit-anything" in upstream_headers(plane, replies.removed)


async def test_a_client_cannot_set_the_timeout(plane: Plane) -> None:
    """By early mutation and the internal address."""
    models = await serve_both(plane, Wanted(), both(managers(headers_kept), managers(nobody_excluded)))
    headers = [("x-envoy-upstream-rq-timeout-ms", "50"), ("on-local", "held=late")]

    asked = models.each(lambda model: asyncio.create_task(plane.ask(model, headers=headers)))
    removed = await asked.removed
    await until(lambda: plane.backends.count_local(models.held), "a replica has the request")
    await asyncio.sleep(0.5)  # ten times as long as the client says
    assert not asked.held.done()
    for one in plane.backends.local:
        one.release("late")
    held = await asked.held

    assert (held.status, removed.status) == (200, 504)


async def test_a_client_on_loopback_is_not_internal(plane: Plane) -> None:
    """An empty `internal_address_config` trusts loopback still."""
    models = await serve_both(plane, Wanted(), managers(nobody_excluded))

    replies = await models.at_once(plane.ask)

    assert "x-envoy-internal" not in upstream_headers(plane, replies.held)
    assert "x-envoy-internal" in upstream_headers(plane, replies.removed)


async def test_a_client_cannot_say_where_it_comes_from(plane: Plane) -> None:
    """By `use_remote_address`."""
    models = await serve_both(plane, Wanted(), managers(client_believed))

    replies = await models.at_once(lambda model: plane.ask(model, headers=[("x-forwarded-for", "203.0.113.7")]))

    last = replies.each(lambda one: upstream_headers(plane, one)["x-forwarded-for"].rpartition(",")[2].strip())
    assert last.held != "203.0.113.7"
    assert last.removed == "203.0.113.7"


async def test_a_backend_cannot_say_which_side_it_is(plane: Plane) -> None:
    """By the `append_action` of what is added."""
    models = await serve_both(plane, Wanted(), routes(appended))
    headers = [("on-local", "header=x-beamlit-route: forged")]

    replies = await models.at_once(lambda model: plane.ask(model, headers=headers))

    assert replies.held.header("x-beamlit-route") == ["local"]
    assert replies.removed.header("x-beamlit-route") != ["local"]
