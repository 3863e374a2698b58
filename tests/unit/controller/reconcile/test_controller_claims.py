"""The controller at work over a store: who gets a port, a Service and the name of a model, and keeps it."""

from controller.api.contract.status import is_withdrawn
from controller.frontend.ports import AllocatedPorts
from tests.support.controlled import IN_A_CLUSTER, SERVICES, accepted, condition, controlled, stored
from tests.support.objects import a_model, a_service, a_slice
from tests.support.store import MemoryStore, settled


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
        store.remove(a_model("a").ref)
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
        store.remove(a_model("a").ref)
        await settled()
        assert accepted(store, "b") == "Accepted"
        assert store[a_model("b").ref].status["servingPort"] == 80


async def test_a_model_whose_service_is_missing_keeps_its_port_through_a_restart():
    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        store.remove(SERVICES[0].ref)
        await settled()
    store.put(*stored(a_model("b").created("2020-01-01T00:00:00Z")))
    async with controlled(store):
        assert store[a_model("a").ref].status["servingPort"] == 80
        assert accepted(store, "b") == "Conflict"


def sharing(name, **more):
    """A model that fronts the Service "a"."""
    return a_model(name).fronting("a", **more)


async def test_two_that_claim_one_service_the_older_wins_and_the_other_says_so():
    younger = sharing("b").created("2026-01-02T00:00:00Z")
    store = MemoryStore(stored(younger, sharing("a"), SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        assert condition(store, "Accepted")[:2] == ("True", "Accepted")
        assert condition(store, "Accepted", "b") == (
            "False",
            "Conflict",
            "spec.serviceRef: port 80 of Service default/a is that of ModelDeployment default/a, which is older",
        )
        assert "route" not in store[younger.ref].status
        assert [event.reason for event in running.events if event.object == younger.ref] == ["Conflict"]
        store.remove(a_model("a").ref)
        await settled()
        assert condition(store, "Accepted", "b")[1] == "Accepted"
        assert store[younger.ref].status["route"]["local"]["service"] == "a"


def a_crowd(number):
    """Models of one namespace in front of one Service there, which has a replica."""
    front = [a_service().port(80), a_slice().ready("10.0.0.1")]
    return [one.in_namespace("crowd") for one in (*front, *(sharing(f"m{each:03}") for each in range(number)))]


def touched(version):
    """The replicas of the Service that the crowd is in front of, changed again."""
    return a_slice().in_namespace("crowd").ready(f"10.0.0.{version % 250 + 1}").stored(version=str(version))


async def test_who_goes_by_the_crowd_at_one_service_is_decided_after_a_few_of_them():
    store = MemoryStore(stored(*a_crowd(300), a_model("z").with_remote("r").fronting("a"), SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        await settled(rounds=500)
        running.order.clear()
        store.put(touched(2))
        await settled(rounds=2)  # The first of the crowd are at work.
        store.put(a_slice().ready("10.0.0.1").stored())
        await settled(rounds=500)
        crowd = [name for name in running.order if name != "z"]
        assert set(crowd) == {f"m{each:03}" for each in range(300)}
        assert running.order.index("z") < 50


async def test_a_crowd_at_one_service_that_changes_all_the_time_keeps_nobody_from_being_decided():
    store = MemoryStore(stored(*a_crowd(100), a_model("z").with_remote("r").fronting("a"), SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        await settled(rounds=500)
        running.order.clear()
        store.put(a_slice().ready("10.0.0.1").stored())
        for version in range(2, 200):
            store.put(touched(version))
            await settled(rounds=1)
        assert "z" in running.order
        assert {f"m{each:03}" for each in range(100)} <= set(running.order)


async def test_a_crowd_that_is_edited_all_the_time_keeps_nobody_from_being_decided():
    crowd = [sharing(f"m{each:03}").in_namespace("crowd") for each in range(100)]
    store = MemoryStore(stored(*a_crowd(100), a_model("z").with_remote("r").fronting("a"), SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        await settled(rounds=500)
        running.order.clear()
        store.put(a_slice().ready("10.0.0.1").stored())
        for version in range(2, 200):
            # More than are registered at a time.
            edited = [crowd[(version * 6 + each) % 100].with_remote(f"r{version}") for each in range(6)]
            store.put(*(one.stored(version=f"{version}0", status=store[one.ref].status) for one in edited))
            await settled(rounds=1)
        assert "z" in running.order
        assert {f"m{each:03}" for each in range(100)} <= set(running.order)


async def test_when_the_winner_of_a_crowd_goes_the_next_is_served_and_all_others_hear_of_it():
    store = MemoryStore(stored(*a_crowd(300)))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        for _ in range(10):
            await running.pass_time(10)
        running.order.clear()
        first, second, last = (sharing(name).in_namespace("crowd").ref for name in ("m000", "m001", "m299"))
        store.remove(first)
        await settled(rounds=500)
        assert store[second].status["servingPort"] == 10001
        assert len(running.order) < 2 * 300
        for _ in range(10):
            await running.pass_time(10)
        accepted_last = next(one for one in store[last].status["conditions"] if one["type"] == "Accepted")
        assert str(second) in accepted_last["message"]


async def test_prior_fault_16_two_that_claim_one_model_the_older_wins_and_the_other_says_so():
    one, other = a_model("a"), a_model("b").created("2026-01-02T00:00:00Z")._with("a", "spec", "model")
    elsewhere = other.in_namespace("team").named("c").fronting("a", namespace="default")
    store = MemoryStore(stored(one, other, elsewhere._with("staging", "spec", "environment"), *SERVICES))
    async with controlled(store, ports=IN_A_CLUSTER):
        assert condition(store, "Accepted", "b") == (
            "False",
            "Conflict",
            'spec.model: model "a" of environment "production" is that of ModelDeployment default/a, which is older',
        )
        assert "route" not in store[other.ref].status
        store.put(a_model("a")._with("another", "spec", "model").stored(version="9", generation=2))
        await settled()
        assert condition(store, "Accepted", "b")[1] == "Accepted"


async def test_an_older_object_that_takes_over_a_service_ends_the_route_of_the_younger():
    younger, older = sharing("b").created("2026-01-02T00:00:00Z"), sharing("a")
    store = MemoryStore(stored(younger, SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER):
        assert store[younger.ref].status["servingPort"] == 10000
        store.put(older.stored())
        await settled()
        assert condition(store, "Accepted", "b")[1] == "Conflict"
        status = store[younger.ref].status
        assert is_withdrawn(status)
        assert status["servingPort"] == 10000
        assert store[older.ref].status["servingPort"] == 10001
        store.remove(older.ref)
        await settled()
        assert store[younger.ref].status["route"]["port"] == 10000


async def test_who_asks_for_another_s_service_keeps_what_it_serves():
    younger = a_model("b").created("2026-01-02T00:00:00Z")
    store = MemoryStore(stored(a_model("a"), younger, *SERVICES))
    async with controlled(store, ports=IN_A_CLUSTER):
        store.put(younger.fronting("a").stored(version="9", generation=2, status=store[younger.ref].status))
        await settled()
        assert condition(store, "Accepted", "b")[1] == "Conflict"
        assert store[younger.ref].status["route"]["local"]["service"] == "b"


async def test_a_port_is_kept_through_a_restart_and_not_given_to_a_new_model():
    a, b = a_model("a").created("2026-01-02T00:00:00Z"), a_model("b").created("2026-01-01T00:00:00Z")
    store = MemoryStore(stored(a, SERVICES[0]))
    async with controlled(store, ports=IN_A_CLUSTER):
        assert store[a.ref].status["servingPort"] == 10000
    store.put(*stored(b, SERVICES[1]))
    async with controlled(store, ports=IN_A_CLUSTER):
        assert store[a.ref].status["servingPort"] == 10000
        assert store[b.ref].status["servingPort"] == 10001


async def test_two_statuses_that_say_one_port_are_told_apart():
    a, b = a_model("a"), a_model("b").created("2026-01-02T00:00:00Z")
    store = MemoryStore(stored(a, b, *SERVICES))
    async with controlled(store, ports=IN_A_CLUSTER):
        written = store[b.ref].status
    other = MemoryStore([*stored(*SERVICES), a.stored(status=written), b.stored(status=written)])
    async with controlled(other, ports=IN_A_CLUSTER):
        assert [other[model.ref].status["servingPort"] for model in (a, b)] == [10001, 10002]


async def test_without_a_port_left_a_model_says_so_until_one_is_free():
    store = MemoryStore(stored(a_model("a"), a_model("b"), *SERVICES))
    async with controlled(store, ports=AllocatedPorts(10000, 10000)):
        assert condition(store, "Accepted", "b")[:2] == ("False", "NoPort")
        store.remove(a_model("a").ref)
        await settled()
        assert store[a_model("b").ref].status["servingPort"] == 10000


async def test_a_port_that_the_original_wrote_into_a_status_is_none_of_the_gateway():
    store = MemoryStore([*stored(*SERVICES), a_model("a").stored(status={"servingPort": 8080})])
    async with controlled(store, ports=IN_A_CLUSTER):
        assert store[a_model("a").ref].status["servingPort"] == 10000
