"""A model that moves to another port is served on the one before as long as its Service at the gateway leads there."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager

from controller.api.kubernetes.fronting import SLICES_OF
from controller.api.timing import GatewayTiming
from controller.intent.remotes import remotes_of
from tests.support.objects import AModel, a_model, a_slice
from tests.support.publishing import Publishing, publishing
from tests.support.routes import A, a_route
from tests.support.store import settled
from tests.unit.xds_server.routes.test_retained import owner
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.translation import ServingOptions
from xds_server.routes.validation import asked_with
from xds_server.snapshot.scope import Role
from xds_server.snapshot.snapshot import LISTENER, ROUTE

BEFORE, NEXT, AFTER = 10_000, 10_001, 10_002
ASKING = a_model("a").with_remote("remote.example:80").saying("Gateway", "spec", "frontend")
AT_GATEWAY = ASKING.saying({"name": "a-gw"}, "spec", "gatewayService")
A_REF = ASKING.ref
COLLEAGUE = a_model("b")
STRANGER = a_model("b").in_namespace("next-door")
(REMOTE,) = remotes_of(ASKING.intent(), None)
OPTIONS = ServingOptions(
    {Role.GATEWAY: EnvoySettings(timing=GatewayTiming(vacated=0, departed=0))}, ask=asked_with(None)
)


def on(port: int, model: AModel = AT_GATEWAY, version: int = 1, *, away: int = 0):
    route = a_route(REMOTE if away else None, away=away, port=port)
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["local"]["namespace"] = model.ref.namespace
    return model.stored(status={"observedGeneration": 1, "route": raw}, version=str(version))


def leading_to(port: int, version: int = 1, writer: str = SLICES_OF):
    return a_slice("a-gw").written_by(writer).ready("10.9.0.1").port(port, "http").stored(version=str(version))


@asynccontextmanager
async def moved(model: AModel, writer: str = SLICES_OF):
    """A model that has moved from one port to the next, and what its Service at the gateway leads to."""
    async with publishing([on(BEFORE, model), leading_to(BEFORE, writer=writer)], OPTIONS) as this:
        await put(this, on(NEXT, model, 2))
        yield this


async def put(this: Publishing, stored) -> None:
    this.store.put(stored)
    await settled()


def ports(this: Publishing) -> set[int]:
    """Where clients come in."""
    names = this.published.snapshot.by_type[LISTENER]
    return {int(name.removeprefix("port/")) for name in names if name.startswith("port/")}


async def test_the_port_before_is_served_until_the_service_leads_to_the_next_one():
    async with moved(AT_GATEWAY) as this:
        assert ports(this) == {BEFORE, NEXT}
        # Whatever is decided meanwhile holds for all clients; and a second move has nothing to do with the first.
        await put(this, on(AFTER, AT_GATEWAY, 3, away=100))
        assert ports(this) == {BEFORE, AFTER}
        routes = this.published.snapshot.by_type[ROUTE]
        assert all(b"remote" in routes[f"port/{port}/default"].body for port in (BEFORE, AFTER))
        await put(this, leading_to(AFTER, 2))
        assert ports(this) == {AFTER}
        # That it is led there again brings nothing back.
        await put(this, leading_to(BEFORE, 3))
        assert ports(this) == {AFTER}


async def test_a_model_without_such_a_service_leaves_its_port_as_ever():
    async with moved(ASKING) as this:
        assert ports(this) == {NEXT}


async def test_slices_of_others_keep_no_port():
    async with moved(AT_GATEWAY, "somebody") as this:
        assert ports(this) == {NEXT}


async def test_slices_give_nobody_a_port_that_it_never_had():
    async with publishing([on(NEXT), leading_to(BEFORE)], OPTIONS) as this:
        await put(this, leading_to(AFTER, 2))
        assert ports(this) == {NEXT}


async def test_whoever_is_given_the_port_has_it_at_once():
    async with moved(AT_GATEWAY) as this:
        await put(this, on(BEFORE, COLLEAGUE))
        assert ports(this) == {BEFORE, NEXT}
        assert (owner(this.published, BEFORE), owner(this.published, NEXT)) == ("b", "a")
        assert this.publisher.problems(A) == ()
        this.store.remove(COLLEAGUE.ref)
        await settled()
        assert ports(this) == {NEXT}


def served_on(this: Publishing, port: int) -> set[str]:
    """Of which namespaces the models are whose clients come in on a port."""
    prefix = f"port/{port}/"
    listener = this.published.snapshot.by_type[LISTENER][f"port/{port}"].body
    names = (one for one in this.published.snapshot.by_type[ROUTE] if one.startswith(prefix))
    return {one.removeprefix(prefix) for one in names if one.encode() in listener}


async def test_a_status_of_another_namespace_brings_it_no_clients():
    """The controller gives nobody there such a port: somebody else wrote it."""
    async with moved(AT_GATEWAY) as this:
        await put(this, on(BEFORE, STRANGER))
        assert served_on(this, BEFORE) == {"default"}
        # When nobody is led there any more, the port is as good as any other. Who is served there then has it.
        await put(this, leading_to(NEXT, 2))
        assert served_on(this, BEFORE) == {"next-door"}
        await put(this, leading_to(BEFORE, 3))
        assert served_on(this, BEFORE) == {"next-door"}
        assert served_on(this, NEXT) == {"default"}


async def test_nor_does_one_that_was_there_before_the_port_was_left():
    async with publishing([on(BEFORE), leading_to(BEFORE)], OPTIONS) as this:
        await put(this, on(BEFORE, STRANGER))
        await put(this, on(NEXT, version=2))
        assert served_on(this, BEFORE) == served_on(this, NEXT) == {"default"}


async def test_a_successor_of_its_name_has_nothing_of_it():
    async with moved(AT_GATEWAY) as this:
        another = on(AFTER, AT_GATEWAY, 3)
        metadata = {**another.metadata, "uid": "another"}
        await put(this, dataclasses.replace(another, raw={**another.raw, "metadata": metadata}))
        assert ports(this) == {AFTER}


async def test_a_service_that_is_named_while_there_is_no_route_is_known_to_the_one_that_stays():
    async with publishing([on(BEFORE, ASKING), leading_to(BEFORE)], OPTIONS) as this:
        # A writer that knows nothing of routes has left it out, after the Service was named.
        await put(this, AT_GATEWAY.stored(status={"observedGeneration": 1}, version="2"))
        assert ports(this) == {BEFORE}
        this.store.remove(A_REF)
        await settled()
        assert ports(this) == set()
        await put(this, on(NEXT, AT_GATEWAY, 4))
        assert ports(this) == {NEXT}
