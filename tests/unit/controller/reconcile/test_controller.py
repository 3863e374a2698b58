"""The controller at work over a store: object in, status out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from controller.api.status import is_withdrawn
from controller.reconcile.budget import Limits, Rate
from controller.reconcile.controller import Controller, Surroundings
from controller.reconcile.events import Event
from controller.reconcile.gateway_ports import AllocatedPorts
from controller.reconcile.loads import NO_LOAD
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef
from controller.store.protocol import RefusedError, UnavailableError
from tests.support.clock import Clock
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled

SERVICES = tuple(a_service(name).port(80) for name in "ab")
# The namespaces of a cluster: every Service has a port 80 of its own, and the gateway its own ports.
IN_A_CLUSTER = AllocatedPorts(10000, 10009)


@dataclass
class Running:
    """A controller at work, and what it told."""

    controller: Controller
    clock: Clock
    decisions: list = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def record(self, event: Event) -> None:
        self.events.append(event)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.controller.look_again(frozenset())
        await settled()


@asynccontextmanager
async def controlled(store, clock=None, **around) -> AsyncIterator[Running]:
    running = Running(None, clock or Clock())
    surroundings = Surroundings(
        proxies=around.pop("proxies", AllProgrammed()),
        clock=running.clock,
        observer=lambda model, decision: running.decisions.append((model, decision)),
        events=running,
    )
    running.controller = Controller(store, replace(surroundings, **around))
    task = asyncio.create_task(running.controller.run())
    try:
        await settled()
        yield running
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
    async with controlled(store) as running:
        told = [(model, str(decision.split)) for model, decision in running.decisions[:1]]
        assert told == [(a_model("a").ref, "100/0")]
        store.delete(a_model("a").ref)
        await settled()
        assert running.decisions[-1] == (a_model("a").ref, None)


async def test_an_object_that_is_changed_meanwhile_is_looked_at_again():
    class Racing(MemoryStore):
        async def patch_status(self, ref, status, resource_version):
            if resource_version == "1":
                self.put(a_model("a").with_remote("r").stored(version="2"))
            await super().patch_status(ref, status, resource_version)

    store = Racing(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        assert store[a_model("a").ref].status["remote"] == {"host": "r"}


def condition(store, type_, name="a"):
    conditions = store[a_model(name).ref].status["conditions"]
    return next((one["status"], one["reason"], one["message"]) for one in conditions if one["type"] == type_)


def sharing(name, **more):
    """A model that fronts the Service "a"."""
    return a_model(name).fronting("a", **more)


class Counting(MemoryStore):
    """A store that tells how many writes were under way at once, and fails when it shall."""

    def __init__(self, objects=()):
        super().__init__(objects)
        self.under_way = self.most_at_once = self.attempts = 0
        self.trouble = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def patch_status(self, ref, status, resource_version):
        self.attempts += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.answers.wait()
            if self.trouble:
                raise self.trouble
            await super().patch_status(ref, status, resource_version)
        finally:
            self.under_way -= 1


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
        store.delete(a_model("a").ref)
        await settled()
        assert condition(store, "Accepted", "b")[1] == "Accepted"
        assert store[younger.ref].status["route"]["local"]["service"] == "a"


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
        store.delete(older.ref)
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


async def test_an_object_that_cannot_be_read_keeps_its_route_and_says_why():
    store = MemoryStore(stored(a_model().with_remote("r"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store) as running:
        before = store[a_model().ref].status
        strange = a_model().with_remote("r")._with("yes", "spec", "enabled")._with(7, "spec", "model")
        store.put(strange.stored(version="9", generation=2, status=before))
        await settled()
        after = store[a_model().ref].status
        assert condition(store, "Accepted") == (
            "False",
            "Invalid",
            "spec.model: must be a string, is a number, write it in quotes; "
            "spec.enabled: must be true or false, is a string",
        )
        assert condition(store, "Ready")[:2] == ("False", "NotAccepted")
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"conditions", "observedGeneration"}
        assert [one["reason"] for one in after["conditions"][1:-1]] == [
            one["reason"] for one in before["conditions"][1:-1]
        ]
        assert running.events[-1].reason == "Invalid"
        assert (a_model().ref, None) not in running.decisions
    writes = store.status_writes
    async with controlled(store):
        assert store.status_writes == writes
        store.delete(a_model().ref)
        await settled()


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
        assert [other[model.ref].status["servingPort"] for model in (a, b)] == [10001, 10000]


async def test_without_a_port_left_a_model_says_so_until_one_is_free():
    store = MemoryStore(stored(a_model("a"), a_model("b"), *SERVICES))
    async with controlled(store, ports=AllocatedPorts(10000, 10000)):
        assert condition(store, "Accepted", "b")[:2] == ("False", "NoPort")
        store.delete(a_model("a").ref)
        await settled()
        assert store[a_model("b").ref].status["servingPort"] == 10000


async def test_a_restart_with_everything_as_it_was_writes_nothing_and_tells_nothing():
    class Silent(AllProgrammed):
        def report(self, model, route):
            return None

    store = MemoryStore(stored(a_model("a").with_remote("r"), a_model("b"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store):
        pass
    writes = store.status_writes
    async with controlled(store, proxies=Silent()) as running:
        assert store.status_writes == writes
        assert running.events == []


async def test_nothing_heard_of_any_envoy_is_not_that_there_is_none():
    class Silent(AllProgrammed):
        def report(self, model, route):
            return None

    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store, proxies=Silent()):
        assert condition(store, "Programmed")[:2] == ("Unknown", "NotReported")
        assert condition(store, "Ready")[:2] == ("Unknown", "NotProgrammed")


async def test_what_the_envoys_say_is_written_when_it_is_heard():
    class Fleet(AllProgrammed):
        said = ProxyReport(connected=2, programmed=1)

        def report(self, model, route):
            return self.said

    fleet, store = Fleet(), MemoryStore(stored(a_model("a"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store, proxies=fleet) as running:
        assert condition(store, "Programmed")[:2] == ("False", "Pending")
        writes = store.status_writes
        fleet.said = ProxyReport(connected=3, programmed=1)
        running.controller.look_again(frozenset({a_model("a").ref}))
        await settled()
        assert store.status_writes == writes
        fleet.said = ProxyReport(connected=3, programmed=3)
        running.controller.look_again(frozenset({a_model("a").ref}))
        await settled()
        assert condition(store, "Ready")[0] == "True"
        assert store.status_writes == writes + 1
        assert [event.reason for event in running.events] == ["Ready"]


async def test_a_model_that_flaps_is_written_once_a_second_and_others_at_once():
    store = MemoryStore(stored(a_model("a"), a_model("b"), *SERVICES))
    async with controlled(store, ports=IN_A_CLUSTER) as running:
        writes = store.status_writes
        for tick in range(100):
            slices = a_slice().ready("10.0.0.1") if tick % 2 else a_slice().not_ready("10.0.0.1")
            store.put(slices.stored(version=f"9{tick}"))
            await running.pass_time(0.1)
        assert 9 <= store.status_writes - writes <= 11
        store.put(a_slice("b").ready("10.0.0.2").stored())
        await settled()
        assert condition(store, "LocalHealthy", "b")[0] == "True"
        await running.pass_time(1)
        assert condition(store, "LocalHealthy")[0] == "True"


async def test_numbers_that_are_merely_newer_are_written_a_few_times_and_then_every_fifteen_seconds():
    store = MemoryStore(stored(a_model("a"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store) as running:
        writes = store.status_writes
        for number in range(2, 12):
            store.put(a_slice().ready(*(f"10.0.0.{one}" for one in range(number))).stored(version=f"9{number}"))
            await running.pass_time(1)
        assert store[a_model("a").ref].status["local"]["ready"] == 5
        assert store.status_writes == writes + 4
        await running.pass_time(7)
        assert store[a_model("a").ref].status["local"]["ready"] == 11
        assert store.status_writes == writes + 5


async def test_many_models_write_within_the_budget_and_the_route_of_one_goes_before():
    names = [f"m{number}" for number in range(30)]
    objects = [one for name in names for one in (a_model(name).with_remote("r"), a_service(name).port(80))]
    ready = [a_slice(name).ready("10.0.0.1") for name in names]
    limits = Limits(others=Rate(5, 5))
    store = Counting(stored(*objects, *ready))
    async with controlled(store, ports=AllocatedPorts(), limits=limits) as running:
        writes = store.status_writes
        assert writes == 30
        paused = [a_model(name).with_remote("r").paused() for name in names]
        for model in paused:
            store.put(model.stored(version="9", status=store[model.ref].status))
        await settled()
        assert store.status_writes == writes + 5
        store.put(a_model("m29").with_remote("r").overridden("remote=30").stored(version="99"))
        await settled()
        assert split(store, "m29") == "70/30 Override"
        for _ in range(5):
            await running.pass_time(1)
        assert all(condition(store, "Paused", name)[0] == "True" for name in names[:29])
        assert store.status_writes <= writes + 31


async def test_at_most_eight_writes_are_under_way_and_one_of_each_model():
    names = [f"m{number}" for number in range(20)]
    store = Counting(stored(*(one for name in names for one in (a_model(name), a_service(name).port(80)))))
    store.answers.clear()
    async with controlled(store, ports=AllocatedPorts()):
        assert store.under_way == 8
        for name in names:
            store.put(a_slice(name).ready("10.0.0.1").stored())
        await settled()
        assert store.under_way == 8
        store.answers.set()
        await settled(200)
        assert store.most_at_once == 8
        assert all(condition(store, "LocalHealthy", name)[0] == "True" for name in names)


async def test_a_model_whose_write_is_refused_is_tried_less_and_less_often_and_the_others_go_on():
    store = Counting(stored(a_model("a"), *SERVICES))
    store.trouble = RefusedError("too long")
    async with controlled(store) as running:
        for _ in range(100):
            await running.pass_time(1)
        assert 6 <= store.attempts <= 8
        store.trouble = None
        store.put(a_model("b").fronting("b").stored())
        await settled()
        assert "conditions" in store[a_model("b").ref].status
        for _ in range(80):
            await running.pass_time(1)
        assert "conditions" in store[a_model("a").ref].status


async def test_what_was_refused_is_not_tried_again_by_a_change_that_leaves_the_route():
    store = Counting(stored(a_model("a").with_remote("r"), *SERVICES, a_slice().ready("10.0.0.1")))
    store.trouble = RefusedError("too long")
    async with controlled(store):
        store.put(a_slice().ready("10.0.0.1").not_ready("10.0.0.2").stored(version="2"))
        await settled()
        assert store.attempts == 1
        store.trouble = None
        store.put(a_slice().not_ready("10.0.0.1").stored(version="3"))
        await settled()
        assert split(store) == "0/100 LocalDown"


async def test_when_the_store_was_away_everything_is_written_soon_after_it_is_back():
    store = Counting(stored(a_model("a"), *SERVICES))
    store.trouble = UnavailableError("no answer")
    async with controlled(store) as running:
        for _ in range(600):
            await running.pass_time(1)
        store.trouble = None
        for _ in range(18):
            await running.pass_time(1)
        assert "conditions" in store[a_model("a").ref].status


async def test_a_model_that_breaks_the_controller_breaks_no_other():
    class Broken(AllProgrammed):
        def report(self, model, route):
            if model.name == "a":
                raise RuntimeError("a mistake of ours")
            return super().report(model, route)

    store = MemoryStore(stored(a_model("a"), *SERVICES, a_model("b").fronting("b")))
    async with controlled(store, proxies=Broken(), ports=IN_A_CLUSTER):
        assert "conditions" not in store[a_model("a").ref].status
        assert condition(store, "Accepted", "b")[0] == "True"


async def test_a_model_that_breaks_when_its_turn_to_write_comes_gives_it_to_the_next():
    class Breaking(AllProgrammed):
        broken = False

        def report(self, model, route):
            if self.broken and model.name == "m1":
                raise RuntimeError("a mistake of ours")
            return super().report(model, route)

    names = [f"m{number}" for number in range(4)]
    objects = stored(*(one for name in names for one in (a_model(name), a_service(name).port(80))))
    store, proxies = MemoryStore(objects), Breaking()
    limits = Limits(others=Rate(1, 1), at_once=2, kept_for_routes=1)
    async with controlled(store, proxies=proxies, ports=AllocatedPorts(), limits=limits) as running:
        for name in names:
            store.put(a_model(name).paused().stored(version="9", status=store[a_model(name).ref].status))
        await settled()
        proxies.broken = True
        for _ in range(4):
            await running.pass_time(1)
        assert [condition(store, "Paused", name)[0] for name in names] == ["True", "False", "True", "True"]


async def test_events_carry_what_was_seen():
    store = MemoryStore(stored(a_model().with_remote("r"), SERVICES[0], a_slice().ready("10.0.0.1", "10.0.0.2")))
    async with controlled(store) as running:
        store.put(a_slice().not_ready("10.0.0.1", "10.0.0.2").stored(version="2"))
        await settled()
        assert [(event.type, event.reason, event.message) for event in running.events] == [
            ("Normal", "Ready", "split 100/0: 2 of 2 local replicas are ready; no request is sent away"),
            (
                "Warning",
                "LocalDown",
                "split 100/0 -> 0/100: none of 2 local replicas is ready, so every request goes to the remote backend",
            ),
        ]


async def test_a_controller_that_is_stopped_in_the_middle_of_a_write_leaves_the_rest_to_the_next():
    store = Counting(stored(a_model("a").with_remote("r"), *SERVICES))
    store.answers.clear()
    async with controlled(store, Clock()):
        assert store.under_way == 1
    assert store.under_way == 0
    store.answers.set()
    async with controlled(store):
        assert split(store) == "0/100 LocalDown"


async def test_a_write_that_the_store_keeps_nothing_of_delays_what_comes_next_by_seconds_only():
    class Pruning(MemoryStore):
        """Keeps nothing of what it is sent, as an API server whose schema is older than ours, and says nothing."""

        said = None

        async def patch_status(self, ref, status, resource_version):
            self.said = status

    store = Pruning(stored(a_model().with_remote("r"), SERVICES[0], a_slice().ready("10.0.0.1")))
    async with controlled(store) as running:
        await running.pass_time(1)
        store.put(a_slice().not_ready("10.0.0.1").stored(version="2"))
        await running.pass_time(0.5)
        await running.pass_time(0.5)
        assert store.said["split"]["reason"] == "LocalDown"


async def test_a_clock_that_is_set_back_after_a_write_does_not_stop_a_model():
    class Silent(MemoryStore):
        attempts = 0

        async def patch_status(self, ref, status, resource_version):
            self.attempts += 1

    store = Silent(stored(a_model().with_remote("r"), SERVICES[0], a_slice().ready("10.0.0.1")))
    async with controlled(store) as running:
        assert store.attempts == 1
        await running.pass_time(-3600)
        await running.pass_time(1)
        assert store.attempts == 2


async def test_a_port_that_the_original_wrote_into_a_status_is_none_of_the_gateway():
    store = MemoryStore([*stored(*SERVICES), a_model("a").stored(status={"servingPort": 8080})])
    async with controlled(store, ports=IN_A_CLUSTER):
        assert store[a_model("a").ref].status["servingPort"] == 10000


class Loaded:
    """As many requests in flight as was said last, or nobody who says so."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.asked: set[ObjectRef] = set()

    def load(self, model, now):
        self.asked.add(model)
        return NO_LOAD if self.number is None else in_flight(self.number, now)


def signal(store, name="a"):
    (said,) = store[a_model(name).ref].status["signals"]
    return said["state"], said.get("current")


async def test_requests_in_flight_are_looked_at_every_second_and_written_when_they_mean_something():
    model = a_model().with_remote("r").measuring(in_flight_each("4"))
    store = MemoryStore(stored(model, a_model("b"), *SERVICES, a_slice().ready("10.0.0.1")))
    loads = Loaded()
    async with controlled(store, loads=loads) as running:
        await running.pass_time(5)
        assert signal(store) == ("Unknown", None)
        assert loads.asked == {model.ref}, "nobody else has to know"
        assert "signals" not in store[a_model("b").ref].status

        loads.number = 1
        await running.pass_time(2)
        assert signal(store) == ("Clear", "1")
        written = store.status_writes
        for loads.number in (2, 3, 0):
            await running.pass_time(2)
        assert store.status_writes == written, "numbers that mean nothing are not written"

        loads.number = 4
        await running.pass_time(2)
        assert signal(store) == ("Breached", "4")
        for loads.number in range(5, 65):
            await running.pass_time(1)
        assert store.status_writes - written <= 1 + 4 + 60 / 15 + 1, "while it is breached, every 15 s"
        assert store.status_writes - written >= 60 / 15

        loads.number = None
        await running.pass_time(2)
        assert signal(store) == ("Unknown", None)
