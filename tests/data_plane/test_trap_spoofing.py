"""Trap 10: what a client writes into headers that are not its to write."""

from __future__ import annotations

import pytest
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.model import Reply, Wanted
from tests.support.data_plane.mutation import Change, both, managers, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without

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


@with_and_without(managers(headers_kept), "early_header_mutation_extensions")
async def test_headers_of_ours_are_taken_off(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))

    reply = await plane.ask(model, headers=[("x-beamlit-anything", "forged")])

    assert ("x-beamlit-anything" in upstream_headers(plane, reply)) is not held


@with_and_without(both(managers(headers_kept), managers(nobody_excluded)), "early mutation and internal address")
async def test_a_client_cannot_set_the_timeout(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))

    reply = await plane.ask(model, headers=[("x-envoy-upstream-rq-timeout-ms", "50"), ("on-local", "delay=0.5")])

    assert reply.status == (200 if held else 504)


@with_and_without(managers(nobody_excluded), "internal_address_config range")
async def test_a_client_on_loopback_is_not_internal(plane: Plane, change: Change, held: bool) -> None:
    """An empty `internal_address_config` trusts loopback still."""
    model = await plane.serve(Wanted(change=change))

    reply = await plane.ask(model)

    assert ("x-envoy-internal" in upstream_headers(plane, reply)) is not held


@with_and_without(managers(client_believed), "use_remote_address")
async def test_a_client_cannot_say_where_it_comes_from(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))

    reply = await plane.ask(model, headers=[("x-forwarded-for", "203.0.113.7")])

    last = upstream_headers(plane, reply)["x-forwarded-for"].rpartition(",")[2].strip()
    assert (last == "203.0.113.7") is not held


@with_and_without(routes(appended), "append_action")
async def test_a_backend_cannot_say_which_side_it_is(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(change=change))

    reply = await plane.ask(model, headers=[("on-local", "header=x-beamlit-route: forged")])

    assert (reply.header("x-beamlit-route") == ["local"]) is held
