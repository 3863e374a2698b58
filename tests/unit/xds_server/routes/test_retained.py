"""What a model left behind is there for a moment more, for the requests that are still on their way to it."""

import contextlib

from controller.api.contract.route import RouteKey
from controller.api.timing import GatewayTiming
from tests.support.objects import a_model, a_secret, a_slice
from tests.support.publishing import publishing
from tests.support.routes import A, B, a_remote, a_route, with_key
from tests.support.store import settled
from tests.support.waiting import until
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.scope import Role
from xds_server.snapshot.snapshot import ENDPOINT, LISTENER, ROUTE, SECRET

KEY = a_secret("s").holding(apiKey="hush").stored()


def decided(model, route, version="1"):
    route = route.model_copy(update={"local": route.local.model_copy(update={"namespace": model.namespace})})
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    status = {"observedGeneration": 1, "route": raw}
    return a_model(model.name).in_namespace(model.namespace).stored(status=status, version=version)


@contextlib.asynccontextmanager
async def delivering(*objects, seconds=60.0, vacated=0.0):
    envoys = {Role.GATEWAY: EnvoySettings(timing=GatewayTiming(vacated=vacated, departed=seconds))}
    async with publishing(objects, ServingOptions(envoys)) as this:
        yield this.store, this.published, this.publisher


def on(port, remote=None):
    return a_route(remote or a_remote(), away=50, port=port)


def entrance(port):
    return {("LDS", f"port/{port}"), ("RDS", f"port/{port}/default")}


def owner(published, port):
    """Whose replicas are asked on a port."""
    return owner_of(published.snapshot.by_type[ROUTE][f"port/{port}/default"]).removeprefix("default/")


def owner_of(resource):
    (cluster,) = {one.name for one in resource.requires if one.type_url == ENDPOINT}
    return cluster.removesuffix("/local").removeprefix("model/")


DIRECT, GUARDED = a_route(a_remote(), away=50), a_route(a_remote(retries=1), away=50)
OF_THE_DIRECT_WAY = {("CDS", "model/default/a/fallback"), ("LDS", "local/model/default/a")}
OF_THE_GUARDED_WAY = ("CDS", "model/default/a/remote-first")


async def test_another_way_to_the_remote_leaves_the_one_before_for_a_while():
    async with delivering(decided(A, DIRECT)) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"))
        await settled()
        assert published.names >= OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY in published.names


async def test_after_a_while_it_is_gone():
    async with delivering(decided(A, DIRECT), seconds=0) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"))
        await settled()
        assert not published.names & OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY in published.names


async def test_what_came_back_stays():
    async with delivering(decided(A, DIRECT), decided(B, DIRECT), seconds=0.01) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"), decided(A, DIRECT, version="3"))
        await settled()
        # What is left later is gone later.
        store.put(decided(B, GUARDED, version="2"))
        await until(lambda: ("CDS", "model/default/b/fallback") not in published.names, "the other's is gone")
        assert published.names >= OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY not in published.names


async def test_of_a_removed_model_nobody_gets_in_and_everybody_gets_out():
    async with delivering(decided(A, DIRECT), decided(B, on(81))) as (store, published, publisher):
        store.remove(decided(A, DIRECT).ref)
        await settled()
        assert not published.names & entrance(80)
        assert published.names >= {
            ("CDS", "model/default/a/local"),
            ("EDS", "model/default/a/local"),
            *OF_THE_DIRECT_WAY,
        }
        assert list(publisher.routes()) == [B]
        assert publisher.routes_with(
            one.key for kind in published.snapshot.by_type.values() for one in kind.values()
        ) == {B}


async def test_no_secret_is_kept_and_nothing_that_needs_one():
    protected = a_route(a_remote(auth=with_key()), away=50)
    async with delivering(decided(A, protected), KEY) as (store, published, _):
        store.put(decided(A, a_route(), version="2"))
        await settled()
        assert not [name for type_, name in published.names if type_ == "SDS" or name.startswith("backend/")]
        assert OF_THE_GUARDED_WAY in published.names


async def test_a_port_that_a_model_left_is_served_on_as_before_for_a_while():
    async with delivering(decided(A, on(80)), vacated=60) as (store, published, publisher):
        store.remove(decided(A, on(80)).ref)
        await settled()
        assert published.names >= entrance(80)
        published.snapshot.check()
        assert list(publisher.routes()) == []


async def test_then_nobody_gets_in_any_more_and_whoever_is_inside_gets_out():
    async with delivering(decided(A, on(80)), vacated=0) as (store, published, _):
        store.remove(decided(A, on(80)).ref)
        await settled()
        assert not published.names & entrance(80)
        assert ("CDS", "model/default/a/local") in published.names


async def test_a_model_that_takes_over_a_port_changes_what_is_there_and_removes_nothing():
    async with delivering(decided(A, on(80)), vacated=60) as (store, published, _):
        store.remove(decided(A, on(80)).ref)
        await settled()
        store.put(decided(B, on(80)))
        await settled()
        assert owner(published, 80) == "b"
        assert entrance(80) <= published.changes[-1]
        published.snapshot.check()


async def test_a_model_next_door_takes_over_a_port_and_not_those_who_are_inside():
    next_door = RouteKey.of_model("door", "next")
    async with delivering(decided(A, on(80)), vacated=60) as (store, published, _):
        store.remove(decided(A, on(80)).ref)
        store.put(decided(next_door, on(80)))
        await settled()
        assert owner_of(published.snapshot.by_type[LISTENER]["port/80"]) == "door/next"
        assert owner_of(published.snapshot.by_type[ROUTE]["port/80/door"]) == "door/next"
        assert owner_of(published.snapshot.by_type[ROUTE]["port/80/default"]) == "default/a"
        published.snapshot.check()


async def test_what_was_left_does_not_take_a_port_back_when_its_time_is_over():
    async with delivering(decided(A, on(80)), vacated=0.01) as (store, published, _):
        store.remove(decided(A, on(80)).ref)
        store.put(decided(B, on(80)))
        await settled()
        # What is left later is gone later.
        store.put(decided(A, on(82), version="2"))
        await settled()
        store.remove(decided(A, on(82)).ref)
        await until(lambda: not published.names & entrance(82), "that of another port is gone")
        assert owner(published, 80) == "b"


async def test_models_that_swap_their_ports_one_after_the_other_leave_none_without_a_model():
    async with delivering(decided(A, on(80)), decided(B, on(81)), vacated=60) as (store, published, _):
        store.put(decided(A, on(81), version="2"))
        await settled()
        assert [owner(published, port) for port in (80, 81)] == ["a", "a"]
        # Anything else of the one that has not moved yet.
        store.put(a_slice("b").ready("10.0.0.1").stored())
        await settled()
        assert owner(published, 81) == "a"
        store.put(decided(B, on(80), version="2"))
        await settled()
        assert [owner(published, port) for port in (80, 81)] == ["b", "a"]
        published.snapshot.check()


async def test_a_vacated_port_keeps_the_secrets_that_it_was_served_with():
    protected = on(80, a_remote(auth=with_key()))
    async with delivering(decided(A, protected), KEY, vacated=60) as (store, published, _):
        store.remove(decided(A, protected).ref)
        await settled()
        assert published.names >= entrance(80)
        assert [name for type_, name in published.names if type_ == "SDS"]
        published.snapshot.check()


async def test_a_new_value_of_a_secret_does_not_wait_for_what_another_model_left():
    def secrets(published):
        return [one.body for one in published.snapshot.by_type[SECRET].values()]

    auth = with_key()
    objects = decided(A, on(80, a_remote(auth=auth))), decided(B, on(81, a_remote(auth=auth)))
    async with delivering(*objects, KEY, vacated=60) as (store, published, _):
        store.remove(objects[0].ref)
        await settled()
        store.put(a_secret("s").holding(apiKey="renewed").stored(version="2"))
        await settled()
        (body,) = secrets(published)
        assert b"renewed" in body
