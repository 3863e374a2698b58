"""What the replicas take is shared by the Envoys that are ready: the routes follow both, and nothing else does."""

import asyncio
import contextlib

import pytest

from controller.api.contract.route import Route
from controller.api.timing import GatewayTiming
from tests.support.objects import a_model, a_slice
from tests.support.publishing import publishing
from tests.support.routes import a_remote, a_route
from tests.support.store import settled
from tests.support.waiting import PATIENCE, time_limit
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.scope import Role
from xds_server.snapshot.snapshot import ROUTE


class Limits:
    """The limits in what is published."""

    def __init__(self, published):
        self.published = published

    @property
    def changes(self):
        return self.published.changes

    def limit_of(self, port):
        _, counted, rest = self.published.snapshot.by_type[ROUTE][port].body.partition(b"numPendingRequests() >= ")
        return int(rest.partition(b" then")[0]) if counted else None

    async def until_limit(self, port, limit):
        async with time_limit(PATIENCE):
            while self.limit_of(port) != limit:
                await self.published.wait_for_next()


def decided(name, route: Route):
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model(name).stored(status={"observedGeneration": 1, "route": raw})


def limited(**more):
    route = a_route(a_remote(), **more)
    return route.model_copy(update={"local": route.local.model_copy(update={"max_requests_per_replica": 4})})


def gateway_of(*ready, version="1"):
    return a_slice("gateway").in_namespace("system").ready(*ready).not_ready("10.1.0.9").stored(version=version)


THREE = a_slice().ready("10.0.0.1", "10.0.0.2", "10.0.0.3").stored()


@contextlib.asynccontextmanager
async def delivering(*objects, gateway_service=("system", "gateway"), resized_every=600.0):
    envoys = {
        Role.GATEWAY: EnvoySettings(envoys=2, checks_shared_by=4, timing=GatewayTiming(resized_every=resized_every))
    }
    async with publishing(objects, ServingOptions(envoys, gateway_service=gateway_service)) as this:
        yield this.store, Limits(this.published), this.publisher


@pytest.mark.parametrize(("envoys", "limit"), [((), 12), (("10.1.0.1",), 12), (("10.1.0.1", "10.1.0.2"), 6)])
async def test_the_ready_envoys_share_the_limit(envoys, limit):
    async with delivering(decided("a", limited()), THREE, gateway_of(*envoys)) as (_, published, _):
        assert published.limit_of("port/80/default") == limit


async def test_without_a_service_of_theirs_they_are_as_many_as_is_said():
    async with delivering(decided("a", limited()), THREE, gateway_service=None) as (_, published, _):
        assert published.limit_of("port/80/default") == 6


async def test_an_envoy_that_comes_touches_the_routes_of_limited_models_and_nothing_else():
    objects = decided("a", limited()), decided("b", limited(port=81)), decided("c", a_route(a_remote(), port=82))
    async with delivering(*objects, THREE, gateway_of("10.1.0.1")) as (store, published, _):
        store.put(gateway_of("10.1.0.1", "10.1.0.2", version="2"))
        await settled()
        assert published.changes[1:] == [{("RDS", "port/80/default"), ("RDS", "port/81/default")}]
        assert published.limit_of("port/81/default") == 6


async def follows_a_gateway_that_rolls(resized_every):
    """Play it; return whether it was over before anything was due again, without which it shows nothing."""
    clock = asyncio.get_running_loop().time
    one, two, three = (tuple(f"10.1.0.{number}" for number in range(1, count)) for count in (2, 3, 4))
    models = decided("a", limited()), decided("b", limited(port=81))
    async with delivering(*models, THREE, gateway_of(*one), resized_every=resized_every) as (store, published, _):
        began = clock()
        for version, envoys in enumerate((two, three, two, three, two, three), start=2):
            store.put(gateway_of(*envoys, version=str(version)))
            await settled()
        limits = [published.limit_of("port/80/default"), published.limit_of("port/81/default")]
        if clock() - began >= resized_every:
            return False
        assert limits == [6, 6]
        await published.until_limit("port/81/default", 4)
        assert published.limit_of("port/80/default") == 4
        assert published.changes[1:] == [{("RDS", "port/80/default"), ("RDS", "port/81/default")}] * 2
        store.put(gateway_of(*one, version="9"))
        await published.until_limit("port/81/default", 12)
        return True


async def test_a_gateway_that_rolls_is_followed_at_once_and_then_no_faster_than_it_should():
    for resized_every in (0.5, 5.0, 15.0):
        if await follows_a_gateway_that_rolls(resized_every):
            return
    raise AssertionError("this machine is too slow to tell")


async def test_a_model_that_changes_meanwhile_does_not_wait_for_the_gateway():
    async with delivering(decided("a", limited()), THREE, gateway_of("10.1.0.1")) as (store, published, _):
        for version, envoys in enumerate((("10.1.0.1", "10.1.0.2"), ("10.1.0.1",)), start=2):
            store.put(gateway_of(*envoys, version=str(version)))
            await settled()
        store.put(a_slice().ready("10.0.0.1", "10.0.0.2").stored(version="2"))
        await settled()
        assert published.limit_of("port/80/default") == 4


async def test_a_replica_that_goes_touches_the_endpoints_and_the_route():
    async with delivering(decided("a", limited()), THREE, gateway_of("10.1.0.1")) as (store, published, _):
        store.put(a_slice().ready("10.0.0.1").stored(version="2"))
        await settled()
        assert published.changes[1:] == [{("EDS", "model/default/a/local"), ("RDS", "port/80/default")}]
        assert published.limit_of("port/80/default") == 4


async def test_a_change_of_the_gateway_that_changes_no_count_is_silent():
    async with delivering(decided("a", limited()), THREE, gateway_of("10.1.0.1")) as (store, published, _):
        store.put(gateway_of("10.1.0.7", version="2"))
        await settled()
        assert published.changes[1:] == []


@pytest.mark.parametrize("limit_first", [True, False])
async def test_more_envoys_than_share_the_limit_are_told_of_once(limit_first, caplog):
    at_first = (decided("a", limited()),) if limit_first else ()
    async with delivering(*at_first, THREE, gateway_service=None) as (store, _, publisher):
        for connected in (2, 3, 4, 3):
            publisher.gateway_size.set_connected(connected)
        store.put(decided("a", limited()))
        await settled()
        (record,) = caplog.records
        assert record.message == "more Envoys are connected than share what replicas take"
        assert (record.connected, record.share) == (3, 2)


@pytest.mark.parametrize("by", ["connected", "ready"])
async def test_more_envoys_than_share_the_checks_are_told_of_once(by, caplog):
    async with delivering(decided("a", a_route(a_remote())), THREE, gateway_service=None) as (_, _, publisher):
        for envoys in (3, 4, 5, 6, 5):
            getattr(publisher.gateway_size, f"set_{by}")(envoys)
        (record,) = caplog.records
        assert record.message == "more Envoys check replicas than share the checks"
        assert (record.envoys, record.share) == (5, 4)


async def test_more_envoys_than_are_ready_are_nothing_to_tell_of(caplog):
    async with delivering(decided("a", limited()), THREE, gateway_of("10.1.0.1")) as (_, _, publisher):
        publisher.gateway_size.set_connected(3)
        assert caplog.records == []


async def test_without_a_limit_it_does_not_matter_how_many_there_are(caplog):
    async with delivering(decided("a", a_route(a_remote())), THREE, gateway_service=None) as (_, _, publisher):
        publisher.gateway_size.set_connected(3)
        assert caplog.records == []


async def test_a_followed_service_that_is_not_there_does_not_hide_them(caplog):
    async with delivering(decided("a", limited()), THREE) as (_, _, publisher):
        publisher.gateway_size.set_connected(3)
        assert len(caplog.records) == 1
