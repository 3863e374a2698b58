"""The controller at work over a store: object in, status out."""

import math
from decimal import Decimal

import pytest

from controller.decision import Known, Measurement, SentRequests, Unknown
from controller.frontend.ports import AllocatedPorts
from controller.observe.proxies import Programmed
from controller.signals.load_reports import NO_LOAD, NoLoads
from controller.signals.poller import NOT_ASKED_YET
from controller.store.objects import ObjectRef
from tests.support.clock import Clock
from tests.support.controlled import IN_A_CLUSTER, SERVICES, condition, controlled, split, stored
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled


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


async def test_telemetry_is_told_every_decision_and_who_is_gone():
    store = MemoryStore(stored(a_model("a"), *SERVICES))
    async with controlled(store) as running:
        told = [(model, str(decision.split)) for model, decision in running.decisions[:1]]
        assert told == [(a_model("a").ref, "100/0")]
        store.remove(a_model("a").ref)
        await settled()
        assert running.decisions[-1] == (a_model("a").ref, None)


async def test_an_object_that_is_changed_meanwhile_is_looked_at_again():
    class Racing(MemoryStore):
        async def patch_status(self, ref, status, precondition):
            if precondition.resource_version == "1":
                self.put(a_model("a").with_remote("r").stored(version="2"))
            await super().patch_status(ref, status, precondition)

    store = Racing(stored(a_model("a"), *SERVICES))
    async with controlled(store):
        assert store[a_model("a").ref].status["remote"] == {"host": "r"}


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
        assert changed == {"conditions", "observedGeneration", "reason"}
        assert [one["reason"] for one in after["conditions"][1:-1]] == [
            one["reason"] for one in before["conditions"][1:-1]
        ]
        assert running.events[-1].reason == "Invalid"
        assert (a_model().ref, None) not in running.decisions
    writes = store.status_writes
    async with controlled(store):
        assert store.status_writes == writes
        store.remove(a_model().ref)
        await settled()


async def test_nothing_heard_of_any_envoy_is_not_that_there_is_none():
    class Silent(AllProgrammed):
        def report(self, model, route):
            return None

    store = MemoryStore(stored(a_model("a"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store, proxies=Silent()):
        assert condition(store, "Programmed")[:2] == ("Unknown", "NotReported")
        assert condition(store, "Ready")[:2] == ("Unknown", "NotProgrammed")


async def test_what_the_envoys_say_is_written_when_it_is_heard():
    class Fleet(AllProgrammed):
        said = Programmed(connected=2, programmed=1)

        def report(self, model, route):
            return self.said

    fleet, store = Fleet(), MemoryStore(stored(a_model("a"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store, proxies=fleet) as running:
        assert condition(store, "Programmed")[:2] == ("False", "Pending")
        writes = store.status_writes
        fleet.said = Programmed(connected=3, programmed=1)
        running.controller.look_again(frozenset({a_model("a").ref}))
        await settled()
        assert store.status_writes == writes
        fleet.said = Programmed(connected=3, programmed=3)
        running.controller.look_again(frozenset({a_model("a").ref}))
        await settled()
        assert condition(store, "Ready")[0] == "True"
        assert store.status_writes == writes + 1
        assert [event.reason for event in running.events] == ["Ready"]


async def test_an_edit_that_no_envoy_acknowledges_is_told_after_a_while_and_once():
    class Stopped(AllProgrammed):
        said = Programmed(connected=1, programmed=1)

        def report(self, model, route):
            return self.said

    fleet, store = Stopped(), MemoryStore(stored(a_model("a"), *SERVICES, a_slice().ready("10.0.0.1")))
    async with controlled(store, proxies=fleet) as running:
        fleet.said = Programmed(connected=1, programmed=0, waiting=("envoy-0",))
        status = store[a_model("a").ref].status
        store.put(a_model("a").with_remote("r").stored(version="7", generation=2, status=status))
        await settled()
        assert condition(store, "Ready")[:2] == ("False", "Updating")
        told = len(running.events)
        # Nothing happens to the model, and nobody says a word: the time alone is what makes it late.
        await running.pass_time(29)
        assert condition(store, "Ready")[:2] == ("False", "Updating")
        assert len(running.events) == told
        await running.pass_time(1)
        assert condition(store, "Ready")[:2] == ("False", "NotProgrammed")
        await running.pass_time(300)
        (event,) = running.events[told:]
        assert (event.type, event.reason) == ("Warning", "NotReady")
        assert event.message.startswith("NotProgrammed: not every connected Envoy has acknowledged")
        assert event.message.endswith("waiting for envoy-0")
        fleet.said = Programmed(connected=1, programmed=1)
        running.controller.look_again(frozenset({a_model("a").ref}))
        await settled()
        assert running.events[-1].reason == "Ready"


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


class Loaded(NoLoads):
    """As many requests in flight as was said last, or nobody who says so."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.asked: set[ObjectRef] = set()
        self.told: set[ObjectRef] = set()
        self.forgotten: set[ObjectRef] = set()
        self.sent: SentRequests | Unknown = NO_LOAD

    def traffic(self, model, remotes, since, now):
        return self.sent

    def load(self, model, now):
        self.asked.add(model)
        return NO_LOAD if self.number is None else in_flight(self.number, now)

    def changed(self, now):
        told, self.told = frozenset(self.told), set()
        return told

    def forget(self, model):
        self.forgotten.add(model)


def signal(store, name="a"):
    (said,) = store[a_model(name).ref].status["signals"]
    return said["state"], said.get("current")


async def test_a_number_that_means_nothing_costs_no_decision():
    models = [a_model(name).with_remote("r").measuring(in_flight_each("4")) for name in "ab"]
    store = MemoryStore(stored(*models, *SERVICES, a_slice().ready("10.0.0.1")))
    loads = Loaded()
    loads.number = 1
    async with controlled(store, loads=loads) as running:
        await running.pass_time(2)
        decided = len(running.decisions)
        for loads.number in (2, 3, 0, 1):
            await running.pass_time(1)
        assert len(running.decisions) == decided
        loads.number = 4
        await running.pass_time(1)
        assert len(running.decisions) > decided
        assert store[models[0].ref].status["split"]["reason"] == "Overloaded"


async def test_what_was_counted_of_a_model_goes_with_it():
    models = [a_model(name).with_remote("r") for name in "ab"]
    store, loads = MemoryStore(stored(*models, *SERVICES)), Loaded()
    async with controlled(store, loads=loads):
        assert not loads.forgotten
        store.remove(models[0].ref)
        await settled()
        assert loads.forgotten == {models[0].ref}


class Asked:
    """A source that is asked from time to time: it has no number before its first answer."""

    def __init__(self, number: float | None) -> None:
        self.number = number

    def sample(self, subject, metric, now):
        return NOT_ASKED_YET if self.number is None else Known(Measurement(Decimal(self.number)), now)


@pytest.mark.parametrize("mode", ["Threshold", "Proportional"])
@pytest.mark.parametrize("on_unknown", ["Hold", "Local", "Remote"])
@pytest.mark.parametrize(("number", "reason"), [(5, "Overloaded"), (math.nan, "SignalsUnknown")])
async def test_a_restart_in_the_midst_of_an_overload_changes_nothing(mode, on_unknown, number, reason):
    queue = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "4"}}}
    model = a_model().with_remote("r").offloading(mode=mode, onUnknown=on_unknown, percentage=60).measuring(queue)
    store, clock = MemoryStore(stored(model, *SERVICES, a_slice().ready("10.0.0.1"))), Clock()
    source = Asked(5)
    async with controlled(store, clock, sources={"External": source}) as running:
        await running.pass_time(2)
        assert split(store).endswith("Overloaded")
        source.number = number
        for _ in range(5):
            running.controller.look_again(None)
            await running.pass_time(1)
        assert split(store).endswith(reason)
    before, writes = store[model.ref].status, store.status_writes
    after = Asked(None)
    async with controlled(store, clock, sources={"External": after}) as running:
        for _ in range(5):
            await running.pass_time(1)
        after_start = store[model.ref].status
        for name in ("summary", "reason", "since"):
            assert after_start["split"][name] == before["split"][name]
        assert after_start["history"] == before["history"]
        # Why no metric can be read is told anew.
        assert reason == "SignalsUnknown" or (after_start, store.status_writes) == (before, writes)
        after.number = 5
        running.controller.look_again(None)
        await settled()
        if reason == "Overloaded":
            assert split(store).endswith(reason)


class OverloadedOne:
    """A source of which all models have the same number, but for one."""

    def __init__(self):
        self.overloaded = ""

    def sample(self, subject, metric, now):
        return Known(Measurement(Decimal(5 if subject.ref.name == self.overloaded else 1)), now)


QUEUE = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "4"}}}
NAMES = [f"m-{number:02}" for number in range(40)]


def many(last):
    """Many models, of which the last one is this."""
    models = [a_model(one).with_remote("r").offloading().measuring(QUEUE) for one in NAMES[:-1]]
    endpoints = [a_slice(one).ready("10.0.0.1") for one in NAMES]
    return MemoryStore(stored(*models, last, *(a_service(one).port(80) for one in NAMES), *endpoints))


THE_LAST = a_model(NAMES[-1]).with_remote("r").offloading().measuring(QUEUE)


@pytest.mark.parametrize(
    ("last", "is_first"),
    [
        (THE_LAST, True),
        (THE_LAST.measuring(in_flight_each("4")), True),
        (THE_LAST.offloading(percentage=0), False),
        (THE_LAST.fronting("elsewhere", namespace="other"), False),
    ],
    ids=["elsewhere", "requests", "nothing leaves", "not served"],
)
async def test_of_many_models_with_new_numbers_the_one_that_is_overloaded_goes_first(last, is_first):
    store = many(last)
    source, loads = OverloadedOne(), Loaded()
    around = {"sources": {"External": source}, "ports": AllocatedPorts(10000, 10099), "loads": loads}
    async with controlled(store, **around) as running:
        await running.pass_time(2)
        running.order.clear()
        source.overloaded, loads.number = NAMES[-1], 5
        running.controller.look_again(None)
        await settled()
        # After much that was urgent, one that is not goes before it.
        assert (NAMES[-1] in running.order[:2]) == is_first
        assert set(running.order) == set(NAMES)


async def test_an_edit_does_not_wait_until_of_many_models_is_known_who_goes_first():
    class Edited(OverloadedOne):
        def sample(self, subject, metric, now):
            if self.asked == []:
                store.put(THE_LAST.stored(version="7", generation=2, status=store[THE_LAST.ref].status))
            if self.asked is not None:
                self.asked.append(subject.ref.name)
            return super().sample(subject, metric, now)

        asked = None

    store, source = many(THE_LAST), Edited()
    async with controlled(store, sources={"External": source}, ports=AllocatedPorts(10000, 10099)) as running:
        await running.pass_time(2)
        source.asked = []
        running.controller.look_again(None)
        await settled()
        assert source.asked.index(NAMES[-1]) < len(NAMES) / 2
        # Each was asked who goes first, and planned.
        assert min(map(source.asked.count, NAMES[:-1])) == 2


class Unreadable(Loaded):
    """Breaks for one model, and for all that is new."""

    broken = False

    def load(self, model, now):
        if self.broken and model.name == "a":
            raise RuntimeError("a mistake of ours")
        return super().load(model, now)

    def news(self, now):
        if self.broken:
            raise RuntimeError("a mistake of ours")
        return super().news(now)


async def test_a_load_that_cannot_be_compared_ends_nothing_and_others_are():
    models = [a_model(name).with_remote("r").measuring(in_flight_each("4")) for name in "ab"]
    store = MemoryStore(stored(*models, *SERVICES, a_slice().ready("10.0.0.1"), a_slice("b").ready("10.0.0.2")))
    loads = Unreadable()
    loads.number = 1
    async with controlled(store, loads=loads, ports=IN_A_CLUSTER) as running:
        await running.pass_time(2)
        assert (signal(store, "a"), signal(store, "b")) == (("Clear", "1"), ("Clear", "1"))
        loads.broken, loads.number = True, 4
        await running.pass_time(2)
        assert (signal(store, "a"), signal(store, "b")) == (("Clear", "1"), ("Breached", "4"))
        assert "plan" in running.failures
        loads.broken = False
        await running.pass_time(60)
        assert signal(store, "a") == ("Breached", "4")


class Trap(frozenset):
    """Ports of our own, one of which nobody may ask about."""

    def __contains__(self, port):
        if port == 10005:
            raise RuntimeError("a mistake of ours")
        return False


async def test_a_model_that_cannot_be_registered_breaks_no_other():
    broken = a_model("a").stored(status={"servingPort": 10005, "observedGeneration": 1})
    store = MemoryStore([broken, *stored(*SERVICES, a_model("b").fronting("b"))])
    async with controlled(store, ports=AllocatedPorts(10000, 10009, reserved=Trap())) as running:
        assert condition(store, "Accepted", "b")[0] == "True"
        assert "plan" in running.failures


async def test_what_envoys_report_is_looked_at_when_it_is_told():
    model = a_model().with_remote("r").measuring(in_flight_each("4"))
    store = MemoryStore(stored(model, *SERVICES, a_slice().ready("10.0.0.1")))
    loads = Loaded()
    loads.number = 1
    async with controlled(store, loads=loads) as running:
        await running.pass_time(2)
        loads.number = 4
        await running.pass_time(0.2)
        assert signal(store) == ("Clear", "1"), "nobody said that there is anything new"
        loads.asked.clear()
        running.controller.look_at_loads()
        await settled()
        assert not loads.asked, "it was of another model"
        await running.pass_time(0.2)
        loads.told.add(model.ref)
        running.controller.look_at_loads()
        await settled()
        assert signal(store) == ("Breached", "4")


@pytest.mark.parametrize(("mode", "looks"), [("Proportional", True), ("Threshold", False)])
async def test_a_report_is_looked_at_when_it_tells_how_many_requests_there_are_and_no_more_after_that(mode, looks):
    queue = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "4"}}}
    model = a_model().with_remote("r").offloading(mode=mode).measuring(queue)
    store, source, loads = MemoryStore(stored(model, *SERVICES, a_slice().ready("10.0.0.1"))), Asked(3), Loaded()

    async def report(running, sent=NO_LOAD):
        await running.pass_time(0.2)  # every load is looked at each second, and a look rests
        decided, loads.sent = len(running.decisions), sent
        loads.told.add(model.ref)
        running.controller.look_at_loads()
        await settled()
        return len(running.decisions) > decided

    async with controlled(store, sources={"External": source}, loads=loads) as running:
        for source.number, reason in ((3, "Steady"), (5, "Overloaded")):
            running.controller.look_again(None)
            await running.pass_time(2)
            assert split(store).endswith(reason)
            assert not await report(running), "it says nothing"
        assert await report(running, SentRequests(50, 50, 10.0)) == looks
        assert not await report(running, SentRequests(60, 40, 10.0)), "which is known"


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
