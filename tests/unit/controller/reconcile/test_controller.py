"""The controller at work over a store: object in, status out."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from controller.reconcile.controller import Controller, Surroundings
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = tuple(a_service(name).port(80) for name in "ab")


@asynccontextmanager
async def controlled(store):
    told = []
    around = Surroundings(AllProgrammed(), lambda: NOW, lambda model, decision: told.append((model, decision)))
    running = asyncio.create_task(Controller(store, around).run())
    try:
        await settled()
        yield told
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def stored(*objects):
    return [one.stored() for one in objects]


def accepted(store, name):
    conditions = store[a_model(name).ref].status["conditions"]
    return next(one["reason"] for one in conditions if one["type"] == "Accepted")


def split(store, name="a"):
    status = store[a_model(name).ref].status
    return f"{status['split']['local']}/{status['split']['remote']} {status['split']['reason']}"


async def test_replicas_that_go_and_come_move_the_split():
    store = MemoryStore(stored(a_model().with_remote("r"), SERVICES[0], a_slice().ready("10.0.0.1")))
    async with controlled(store):
        assert split(store) == "100/0 Steady"
        store.put(a_slice().not_ready("10.0.0.1").stored(version="2"))
        await settled()
        assert split(store) == "0/100 LocalDown"
        store.put(a_slice().ready("10.0.0.1").stored(version="3"))
        await settled()
        assert split(store) == "17/83 Recovering"


async def test_a_service_may_come_after_its_model():
    store = MemoryStore(stored(a_model().with_remote("r")))
    async with controlled(store):
        assert "route" not in store[a_model().ref].status
        store.put(*stored(SERVICES[0]))
        await settled()
        assert split(store) == "0/100 LocalDown"


async def test_its_own_writes_lead_to_no_more_writes():
    store = MemoryStore(stored(a_model().with_remote("r"), *SERVICES, a_model("b")))
    async with controlled(store):
        assert store.status_writes <= 3
        written = store.status_writes
        store.put(SERVICES[0].stored(version="9"))
        await settled()
        assert store.status_writes == written


async def test_the_older_of_two_newcomers_wins():
    younger = a_model("a").created("2026-01-02T00:00:00Z")
    store = MemoryStore(stored(younger, a_model("b"), *SERVICES))
    async with controlled(store):
        assert (accepted(store, "a"), accepted(store, "b")) == ("Conflict", "Accepted")


async def test_who_serves_already_keeps_its_port_against_an_older_object():
    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        store.put(*stored(a_model("b").created("2020-01-01T00:00:00Z")))
        await settled()
        assert (accepted(store, "a"), accepted(store, "b")) == ("Accepted", "Conflict")
    async with controlled(store):
        assert (accepted(store, "a"), accepted(store, "b")) == ("Accepted", "Conflict")


async def test_a_port_that_becomes_free_goes_to_whoever_waits():
    store = MemoryStore(stored(a_model("a"), *SERVICES, a_model("b")))
    async with controlled(store):
        store.delete(a_model("a").ref)
        await settled()
        assert accepted(store, "b") == "Accepted"
        assert store[a_model("b").ref].status["servingPort"] == 80


async def test_who_moves_to_a_taken_port_keeps_the_one_it_has():
    store = MemoryStore(stored(a_model("a"), a_service("a").port(80), a_model("b"), a_service("b").port(81)))
    async with controlled(store):
        store.put(a_service("b").port(80).stored(version="2"))
        await settled()
        assert accepted(store, "b") == "Conflict"
        assert store[a_model("b").ref].status["servingPort"] == 81
        store.delete(a_model("a").ref)
        await settled()
        assert accepted(store, "b") == "Accepted"
        assert store[a_model("b").ref].status["servingPort"] == 80


async def test_a_model_whose_service_is_missing_keeps_its_port_through_a_restart():
    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        store.delete(SERVICES[0].ref)
        await settled()
    store.put(*stored(a_model("b").created("2020-01-01T00:00:00Z")))
    async with controlled(store):
        assert store[a_model("a").ref].status["servingPort"] == 80
        assert accepted(store, "b") == "Conflict"


async def test_the_observer_is_told_every_decision_and_who_is_gone():
    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store) as told:
        assert [(model, str(decision.split)) for model, decision in told[:1]] == [(a_model("a").ref, "100/0")]
        store.delete(a_model("a").ref)
        await settled()
        assert told[-1] == (a_model("a").ref, None)


async def test_an_object_that_is_changed_meanwhile_is_looked_at_again():
    class Racing(MemoryStore):
        async def patch_status(self, ref, status, resource_version):
            if resource_version == "1":
                self.put(a_model("a").with_remote("r").stored(version="2"))
            await super().patch_status(ref, status, resource_version)

    store = Racing(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        assert store[a_model("a").ref].status["remote"] == {"host": "r"}
