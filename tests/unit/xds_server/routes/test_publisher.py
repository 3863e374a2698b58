"""When a model is served, and when it no longer is."""

import asyncio

from controller.api.contract.status import Condition, ModelDeploymentStatus
from controller.api.kubernetes.endpoints import MOST
from tests.support.objects import a_model, a_slice
from tests.support.publishing import publishing
from tests.support.routes import A, a_remote, a_route, a_route_with
from tests.support.store import settled
from xds_server.snapshot.snapshot import ENDPOINT


def stored(version="1", **status):
    whole = ModelDeploymentStatus(observed_generation=1, **status).as_object() if status else {}
    return a_model().stored(status=whole, version=version)


def not_accepted(reason, of="Accepted"):
    return (Condition(type=of, status="False", reason=reason, message="", observed_generation=1),)


async def test_a_route_that_vanished_is_served_as_it_was():
    objects = [stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()]
    async with publishing(objects) as this:
        this.store.put(stored("2"))
        this.store.put(stored("3", conditions=not_accepted("Invalid")))
        await settled()
        assert this.publisher.route(A) == a_route(a_remote())


async def test_a_route_that_was_taken_away_is_served_no_longer():
    for said in (
        not_accepted("Conflict"),
        not_accepted("NoPort"),
        not_accepted("RefNotPermitted"),
        not_accepted("RefNotPermitted", of="ResolvedRefs"),
    ):
        objects = [stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()]
        async with publishing(objects) as this:
            assert this.publisher.route(A)
            this.store.put(stored("2", conditions=said))
            await settled()
            assert this.publisher.route(A) is None
            this.store.put(stored("3", route=a_route(a_remote()), conditions=said))
            await settled()
            assert this.publisher.route(A)


async def test_a_route_that_was_taken_away_stays_so_when_only_a_later_status_is_seen():
    objects = [stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()]
    async with publishing(objects) as this:
        this.store.put(stored("2", withdrawn=True, conditions=not_accepted("Invalid")))
        await settled()
        assert this.publisher.route(A) is None


async def test_what_was_created_anew_under_a_name_keeps_the_route_of_before_until_it_is_decided_on():
    anew = a_model()._with("another", "metadata", "uid")
    objects = [stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()]
    async with publishing(objects) as this:
        # Deleted and created at once comes as one change.
        this.store.put(anew.stored(version="2"))
        await settled()
        assert this.publisher.route(A)
        this.store.put(anew.stored(version="3", status=stored(conditions=not_accepted("Invalid")).status))
        await settled()
        assert this.publisher.route(A) is None
        this.store.put(anew.stored(version="4", status=stored(route=a_route()).status))
        this.store.put(anew.stored(version="5", status=stored(conditions=not_accepted("Invalid")).status))
        await settled()
        assert this.publisher.route(A) == a_route()


async def test_of_a_service_with_very_many_endpoints_envoys_are_told_some():
    """Each Envoy connects to each of them every few seconds, and any author may write them."""
    many = [{"addresses": [f"10.0.{number // 250}.{number % 250}"]} for number in range(MOST + 200)]
    async with publishing((stored(route=a_route()), a_slice()._with(many, "endpoints").stored())) as this:
        body = this.published.snapshot.by_type[ENDPOINT]["model/default/a/local"].body
        assert body.count(b"10.0.") == MOST


def of_a_crowd(version, **local):
    """Many models of one namespace."""
    for number in range(300):
        route = a_route_with(port=1_000 + number, **local)
        route = route.model_copy(update={"local": route.local.model_copy(update={"namespace": "crowd"})})
        status = ModelDeploymentStatus(observed_generation=1, route=route).as_object()
        yield a_model(f"m{number:03}").in_namespace("crowd").stored(status=status, version=version)


async def test_what_many_models_of_one_namespace_make_due_keeps_no_endpoint_of_another_waiting():
    objects = [stored(route=a_route()), a_slice().ready("10.0.0.1").stored(), *of_a_crowd("1")]
    async with publishing(objects) as this:
        while not this.looked_at:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert this.looked_at == [frozenset(this.publisher.routes())], "the first snapshot is whole"
        this.looked_at.clear()
        this.store.put(*of_a_crowd("2", max_requests_per_replica=3))
        while not this.looked_at:  # noqa: ASYNC110
            await asyncio.sleep(0)
        this.store.put(a_slice().ready("10.0.0.2").stored(version="2"))
        while not any(A in some for some in this.looked_at):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert b"10.0.0.2" in this.published.snapshot.by_type[ENDPOINT]["model/default/a/local"].body
        assert sum(map(len, this.looked_at)) <= 60
        while sum(map(len, this.looked_at)) < 301:  # noqa: ASYNC110
            await asyncio.sleep(0)
        this.published.snapshot.check()
