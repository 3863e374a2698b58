"""When a model is served, and when it no longer is."""

import asyncio
from contextlib import asynccontextmanager

from controller.api.contract.route import RouteKey
from controller.api.contract.status import Condition, ModelDeploymentStatus
from tests.support.objects import a_model, a_slice
from tests.support.routes import a_remote, a_route
from tests.support.store import MemoryStore, settled
from xds_server.resources.settings import EnvoySettings
from xds_server.routes.delivery import Delivery

A = RouteKey.of_model("default", "a")


class Nobody:
    def publish(self, snapshot, changed):
        """Takes the snapshot."""


@asynccontextmanager
async def delivering(store):
    delivery = Delivery(store, Nobody(), EnvoySettings())
    task = asyncio.create_task(delivery.run())
    try:
        await settled()
        yield delivery
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def stored(version="1", **status):
    whole = ModelDeploymentStatus(observed_generation=1, **status).as_object() if status else {}
    return a_model().stored(status=whole, version=version)


def not_accepted(reason):
    return (Condition(type="Accepted", status="False", reason=reason, message="", observed_generation=1),)


async def test_a_route_that_vanished_is_served_as_it_was():
    store = MemoryStore([stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()])
    async with delivering(store) as delivery:
        store.put(stored("2"))
        store.put(stored("3", conditions=not_accepted("Invalid")))
        await settled()
        assert delivery.delivered(A).route == a_route(a_remote())


async def test_a_route_that_was_taken_away_is_served_no_longer():
    for reason in ("Conflict", "NoPort"):
        store = MemoryStore([stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()])
        async with delivering(store) as delivery:
            assert delivery.delivered(A)
            store.put(stored("2", conditions=not_accepted(reason)))
            await settled()
            assert delivery.delivered(A) is None
            store.put(stored("3", route=a_route(a_remote()), conditions=not_accepted(reason)))
            await settled()
            assert delivery.delivered(A)


async def test_what_was_created_anew_under_a_name_keeps_the_route_of_before_until_it_is_decided_on():
    anew = a_model()._with("another", "metadata", "uid")
    store = MemoryStore([stored(route=a_route(a_remote())), a_slice().ready("10.0.0.1").stored()])
    async with delivering(store) as delivery:
        # Deleted and created at once comes as one change.
        store.put(anew.stored(version="2"))
        await settled()
        assert delivery.delivered(A)
        store.put(anew.stored(version="3", status=stored(conditions=not_accepted("Invalid")).status))
        await settled()
        assert delivery.delivered(A) is None
        store.put(anew.stored(version="4", status=stored(route=a_route()).status))
        store.put(anew.stored(version="5", status=stored(conditions=not_accepted("Invalid")).status))
        await settled()
        assert delivery.delivered(A).route == a_route()
