"""The controller at work over a store: how often it writes a status, and what becomes of a write that fails."""

import asyncio

import pytest

from controller.api.timing import Limits, RateLimit, StatusTiming
from controller.decision import Cause, SentRequests, Unknown
from controller.frontend.ports import AllocatedPorts
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.reconcile.writer import WriteResult
from controller.signals.load_reports import NO_LOAD, NoLoads, SentTo
from controller.store.protocol import (
    UNCONDITIONAL,
    AlreadyExistsError,
    ConflictError,
    FieldConflictError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from tests.support.clock import Clock
from tests.support.controlled import IN_A_CLUSTER, SERVICES, condition, controlled, split, stored
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled


async def test_its_own_writes_lead_to_no_more_writes():
    store = MemoryStore(stored(a_model().with_remote("r"), *SERVICES, a_model("b")))
    async with controlled(store):
        assert store.status_writes <= 3
        written = store.status_writes
        store.put(SERVICES[0].stored(version="9"))
        await settled()
        assert store.status_writes == written


class Sent(NoLoads):
    """The same requests to both sides of every model, in each second."""

    def traffic(self, model, remotes, since, now):
        return SentRequests(70, 30, 8.0) if model.name == "a" and now > since else NO_LOAD

    def news(self, now):
        return frozenset(SentTo(a_model(name).ref, local) for name in "ab" for local in (True, False))


async def test_where_requests_went_is_written_once_for_a_split_and_not_with_each_sample():
    models = a_model("a").with_remote("r").overridden("remote=30"), a_model("b").with_remote("r")
    store = MemoryStore(stored(*models, *SERVICES, a_slice().ready("10.0.0.1"), a_slice("b").ready("10.0.0.1")))
    async with controlled(store, loads=Sent(), ports=IN_A_CLUSTER) as running:
        await running.pass_time(1)
        written = store.status_writes
        assert "traffic" not in store[models[0].ref].status
        for _ in range(100):
            await running.pass_time(1)
        counted = store[models[0].ref].status["traffic"]
        assert (counted["local"], counted["remote"]) == (70, 30)
        assert store.status_writes == written + 1


class Shared(Sent):
    """Those at the remote backend may be of several models together."""

    is_shared = False

    def traffic(self, model, remotes, since, now):
        if self.is_shared:
            return Unknown("they are of several models", cause=Cause.SHARED)
        return super().traffic(model, remotes, since, now)


async def test_that_requests_cannot_be_told_from_those_of_another_model_is_said_while_it_is_so():
    loads, model = Shared(), a_model("a").with_remote("r").overridden("remote=30")
    store = MemoryStore(stored(model, *SERVICES, a_slice("a").ready("10.0.0.1")))

    async with controlled(store, loads=loads, ports=IN_A_CLUSTER) as running:
        await running.pass_time(310)  # the first that are counted are looked at anyway
        for loads.is_shared in (False, True, False):
            await running.pass_time(2)
            status, reason, message = condition(store, "FailingOver")
            assert (status, reason) == (("Unknown", "SharedBackend") if loads.is_shared else ("False", "AsDecided"))
            assert not loads.is_shared or message == "where requests go is not known: they are of several models"


class Counting(MemoryStore):
    """A store that tells how many writes were under way at once, and fails when it shall."""

    def __init__(self, objects=()):
        super().__init__(objects)
        self.under_way = self.most_at_once = self.attempts = 0
        self.trouble = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def patch_status(self, ref, status, precondition):
        self.attempts += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.answers.wait()
            if self.trouble:
                raise self.trouble
            await super().patch_status(ref, status, precondition)
        finally:
            self.under_way -= 1


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
    limits = Limits(others=RateLimit(5, 5))
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
    limits = Limits(others=RateLimit(1, 1), at_once=2, reserved_for_routes=1)
    async with controlled(store, proxies=proxies, ports=AllocatedPorts(), limits=limits) as running:
        for name in names:
            store.put(a_model(name).paused().stored(version="9", status=store[a_model(name).ref].status))
        await settled()
        proxies.broken = True
        for _ in range(4):
            await running.pass_time(1)
        assert [condition(store, "Paused", name)[0] for name in names] == ["True", "False", "True", "True"]


async def test_a_controller_that_is_stopped_in_the_middle_of_a_write_leaves_the_rest_to_the_next():
    store = Counting(stored(a_model("a").with_remote("r"), *SERVICES))
    store.answers.clear()
    async with controlled(store, Clock(), timing=AT_ONCE):
        assert store.under_way == 1
    assert store.under_way == 0
    store.answers.set()
    async with controlled(store):
        assert split(store) == "0/100 LocalDown"


AT_ONCE = StatusTiming(answered_within=0.0)
"""A controller that ends waits for no answer."""


async def test_a_write_that_the_store_keeps_nothing_of_delays_what_comes_next_by_seconds_only():
    class Pruning(MemoryStore):
        """Keeps nothing of what it is sent, as an API server whose schema is older than ours, and says nothing."""

        said = None

        async def patch_status(self, ref, status, precondition):
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

        async def patch_status(self, ref, status, precondition):
            self.attempts += 1

    store = Silent(stored(a_model().with_remote("r"), SERVICES[0], a_slice().ready("10.0.0.1")))
    async with controlled(store) as running:
        assert store.attempts == 1
        await running.pass_time(-3600)
        await running.pass_time(1)
        assert store.attempts == 2


class Recording:
    def __init__(self):
        self.events = []

    def record(self, event):
        self.events.append(event)


class Stopping(MemoryStore):
    """A store at which the controller is stopped as soon as it has written."""

    task = None

    async def patch_status(self, ref, status, precondition=UNCONDITIONAL):
        written = await super().patch_status(ref, status, precondition)
        self.task.cancel()
        return written


async def test_what_was_written_is_told_by_who_is_stopped_right_after_it():
    store, recording = Stopping(stored(a_model("a").fronting("a", "nothing"), *SERVICES)), Recording()
    controller = Controller(store, Dependencies(AllProgrammed(), Clock(), events=recording))
    store.task = asyncio.create_task(controller.run())
    await asyncio.gather(store.task, return_exceptions=True)
    assert store.status_writes == 1
    assert [event.reason for event in recording.events] == ["PortNotFound"]


class Forgetful(MemoryStore):
    """A store that writes, and whose answer is lost: it says `answer` instead, or (None) nothing at all."""

    answer = None

    async def patch_status(self, ref, status, precondition=UNCONDITIONAL):
        await super().patch_status(ref, status, precondition)
        if self.answer is None:
            await asyncio.Event().wait()
        raise self.answer


def without_its_port():
    return stored(a_model("a").fronting("a", "nothing"), *SERVICES)


def told(running):
    return [event.reason for event in running.events]


async def test_a_write_that_is_under_way_when_the_controller_is_stopped_is_told_when_it_is_answered():
    store, recording = Counting(without_its_port()), Recording()
    store.answers.clear()
    controller = Controller(store, Dependencies(AllProgrammed(), Clock(), events=recording))
    running = asyncio.create_task(controller.run())
    await settled()
    running.cancel()
    await settled()
    assert store.under_way == 1
    store.answers.set()
    await asyncio.gather(running, return_exceptions=True)
    assert [event.reason for event in recording.events] == ["PortNotFound"]


async def test_a_write_whose_answer_does_not_come_is_told_by_who_ends_if_it_is_found_done():
    store = Forgetful(without_its_port())
    async with controlled(store, timing=StatusTiming(answered_within=0.05)) as running:
        assert store.status_writes == 1
    assert told(running) == ["PortNotFound"]


async def test_of_a_status_that_somebody_else_wrote_meanwhile_who_ends_tells_nothing():
    store = Forgetful(without_its_port())
    async with controlled(store, timing=StatusTiming(answered_within=0.05)) as running:
        (model,) = (one.ref for one in stored(a_model("a")))
        await MemoryStore.patch_status(store, model, store[model].status | {"servingPort": 1})
    assert told(running) == []


@pytest.mark.parametrize("answer", [UnavailableError("no answer"), ConflictError("it was sent twice")])
async def test_a_write_whose_answer_is_lost_is_told_once_when_the_object_comes_back(answer):
    store = Forgetful(without_its_port())
    store.answer = answer
    async with controlled(store) as running:
        assert told(running) == ["PortNotFound"]
        for _ in range(5):
            await running.pass_time(1)
    assert told(running) == ["PortNotFound"]
    assert store.status_writes == 1


@pytest.mark.parametrize("answer", [UnavailableError("no answer"), None])
async def test_of_writes_of_which_the_first_was_not_done_the_one_that_was_is_told(answer):
    class AwayAtFirst(Forgetful):
        away = True

        async def patch_status(self, ref, status, precondition=UNCONDITIONAL):
            if self.away:
                raise UnavailableError("away")
            await super().patch_status(ref, status, precondition)

    store = AwayAtFirst(stored(a_model("a"), *SERVICES))
    store.answer = answer
    async with controlled(store, timing=StatusTiming(answered_within=0.05)) as running:
        store.away = False
        store.remove(SERVICES[0].ref)
        for _ in range(5):
            await running.pass_time(1)
        assert store.status_writes == 1
    assert told(running) == ["ServiceNotFound"]


async def test_a_write_that_was_not_done_is_told_when_it_is():
    store = Counting(without_its_port())
    store.trouble = UnavailableError("away")
    async with controlled(store) as running:
        store.put(a_model("a").fronting("a", "nothing").stored(version="7"))
        await settled()
        assert told(running) == []
        store.trouble = None
        for _ in range(5):
            await running.pass_time(1)
        assert told(running) == ["PortNotFound"]


def test_only_what_a_newer_object_mends_is_left_to_it():
    a_plan = None
    for error in (ConflictError("changed"), NotFoundError("gone")):
        assert WriteResult(a_plan, error).superseded
    for error in (
        FieldConflictError("another manager's", ()),
        AlreadyExistsError("there"),
        UnavailableError("away"),
        None,
    ):
        assert not WriteResult(a_plan, error).superseded


async def test_telemetry_is_told_how_long_it_took_until_a_change_was_written_with_what_kept_it():
    store = Counting(stored(a_model("a"), *SERVICES))
    async with controlled(store) as running:
        del running.seconds[:]
        store.answers.clear()
        store.put(a_slice().ready("10.0.0.1").stored())
        await settled()
        running.clock.advance(3)
        store.answers.set()
        await settled()
        assert running.seconds == [3]
        await running.pass_time(60)
        assert running.seconds == [3], "what is as it shall be is not written, and not late"


async def test_telemetry_is_told_of_a_write_that_fails_and_not_of_one_that_is_superseded():
    store = Counting(stored(a_model("a"), *SERVICES))
    async with controlled(store) as running:
        store.trouble = ConflictError("newer")
        store.put(a_slice().ready("10.0.0.1").stored())
        await settled()
        assert running.failures == []
        store.trouble = RefusedError("no")
        await running.pass_time(10)
        assert set(running.failures) == {"write"}


async def test_to_a_controller_that_drops_who_wrote_a_status_ours_yields_and_says_so():
    class Contested(MemoryStore):
        """Another controller takes each status back, and writes no name into it."""

        async def patch_status(self, ref, status, precondition):
            await super().patch_status(ref, status, precondition)
            kept = {name: value for name, value in self[ref].status.items() if name not in ("controller", "split")}
            if "controller" in status:
                await super().patch_status(ref, kept, UNCONDITIONAL)

    store = Contested(stored(a_model("a"), *SERVICES))
    async with controlled(store, controller="home/ours") as running:
        for _ in range(20):
            await running.pass_time(1)
        assert store.status_writes == 2 * 3
        told = [event.message for event in running.events if event.reason == "ForeignWriter"]
        assert [words.partition(" writes")[0] for words in told] == ["another controller"]
        assert running.controller.yielded == 1
