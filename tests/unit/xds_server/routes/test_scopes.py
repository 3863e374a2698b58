"""Each scope has a snapshot of its own: the gateway's has every route, a sidecar's those of its namespace."""

import contextlib

import pytest

from controller.api.contract.route import RouteKey
from controller.api.timing import GatewayTiming
from tests.support.objects import a_model, a_slice
from tests.support.publishing import publishing
from tests.support.resources import decoded
from tests.support.routes import A, B, a_remote, a_route
from tests.support.store import settled
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.translation import ServingOptions, scopes_of
from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.snapshot.snapshot import LISTENER, SHORT
from xds_server.translate import translate

ELSEWHERE = RouteKey.of_model("other", "c")
PORTS = {A: 80, B: 81, ELSEWHERE: 82}
OWN, OTHER = (Scope(Role.SIDECAR, namespace) for namespace in ("default", "other"))


def options(departed=60.0):
    timing = GatewayTiming(vacated=0, departed=departed)
    return ServingOptions(
        {
            Role.GATEWAY: EnvoySettings("10.1.0.1", timing=timing),
            Role.SIDECAR: EnvoySettings("127.0.0.1", timing=timing),
        }
    )


def decided(key, away=30, version="1"):
    route = a_route(a_remote(), away=away, port=PORTS[key])
    route = route.model_copy(update={"local": route.local.model_copy(update={"namespace": key.namespace})})
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    model = a_model(key.name).in_namespace(key.namespace)
    return model.stored(status={"observedGeneration": 1, "route": raw}, version=version)


OBJECTS = decided(A), decided(B), decided(ELSEWHERE), a_slice().ready("10.0.0.1").stored()


@contextlib.asynccontextmanager
async def delivering(*objects, **how):
    async with publishing(objects, options(**how)) as this:
        yield this.store, this.published, this.publisher


def listeners(snapshot):
    return {name for name in snapshot.by_type[LISTENER] if name.startswith("port/")}


def test_a_route_is_served_by_the_gateway_and_by_the_sidecars_of_its_namespace():
    assert scopes_of(A, [Role.GATEWAY]) == (GATEWAY,)
    assert scopes_of(A, [Role.GATEWAY, Role.SIDECAR]) == (GATEWAY, OWN)
    assert scopes_of(ELSEWHERE, [Role.SIDECAR]) == (OTHER,)


async def test_each_scope_has_its_own_routes_and_its_own_settings():
    async with delivering(*OBJECTS) as (_, published, publisher):
        found = {scope: listeners(snapshot) for scope, snapshot in published.snapshots.items()}
        assert found == {
            GATEWAY: {"port/80", "port/81", "port/82"},
            OWN: {"port/80", "port/81"},
            OTHER: {"port/82"},
        }
        addresses = [
            decoded(published.snapshots[scope].by_type[LISTENER]["port/80"])["address"]["socket_address"]
            for scope in (GATEWAY, OWN)
        ]
        assert [one["address"] for one in addresses] == ["10.1.0.1", "127.0.0.1"]
        assert publisher.versions(ELSEWHERE, OWN) == ()
        assert publisher.versions(A, OWN) != publisher.versions(A)
        for snapshot in published.snapshots.values():
            snapshot.check()


async def test_a_change_is_published_where_its_route_is_served():
    async with delivering(*OBJECTS) as (store, published, publisher):
        published.publications.clear()
        store.put(decided(ELSEWHERE, away=40, version="2"))
        await settled()
        changed = {("RDS", "port/82/other")}
        assert published.publications == [(GATEWAY, changed), (OTHER, changed)]
        keys = [
            key
            for of_type in published.snapshots[OTHER].by_type.values()
            for key in (one.key for one in of_type.values())
        ]
        assert publisher.routes_with(keys) >= {ELSEWHERE}


async def test_what_departs_is_retained_in_every_scope():
    async with delivering(*OBJECTS) as (store, published, _):
        store.remove(decided(A).ref)
        await settled()
        for scope in (GATEWAY, OWN):
            names = names_of(published.snapshots[scope])
            assert ("CDS", "model/default/a/local") in names
            assert ("LDS", "port/80") not in names
    async with delivering(*OBJECTS, departed=0) as (store, published, _):
        store.remove(decided(A).ref)
        await settled()
        for scope in (GATEWAY, OWN):
            assert ("CDS", "model/default/a/local") not in names_of(published.snapshots[scope])


async def test_a_namespace_that_is_new_gets_a_snapshot_with_its_first_route():
    async with delivering(decided(A), *OBJECTS[3:]) as (store, published, _):
        assert published.snapshots.keys() == {GATEWAY, OWN}
        store.put(decided(ELSEWHERE))
        await settled()
        assert listeners(published.snapshots[OTHER]) == {"port/82"}


@pytest.mark.parametrize("objects", [(), OBJECTS], ids=["nothing", "three routes"])
async def test_what_is_translated_is_what_is_published(objects):
    async with delivering(*objects) as (_, published, _):
        translated = translate(objects, options())
        assert {scope: one.by_type for scope, one in published.snapshots.items()} == {
            scope: one.by_type for scope, one in translated.snapshots.items()
        }


def names_of(snapshot):
    return {(SHORT[type_url], name) for type_url, of_type in snapshot.by_type.items() for name in of_type}


def test_routes_of_another_class_are_not_served():
    stored = decided(B)
    blue = type(stored)(stored.ref, {**stored.raw, "spec": {**stored.raw["spec"], "controllerClass": "blue"}})
    objects = decided(A), blue, a_slice().ready("10.0.0.1").stored()
    for whose, ports in ((None, {"port/80", "port/81"}), ("", {"port/80"}), ("blue", {"port/81"})):
        assert listeners(translate(objects, ServingOptions(controller_class=whose)).gateway) == ports
