"""Asking once for all who look: what is told, what is kept, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import pytest

from controller.api.timing import PollTiming
from controller.decision import Cause, Known, Unknown
from controller.signals.poller import NOT_ASKED_YET, Poller, SourceError
from controller.signals.together import FROM
from controller.store.objects import ObjectRef
from tests.support.clock import Clock
from tests.support.store import settled
from tests.support.waiting import until

TIMING = PollTiming(
    every=1.0, answer=30.0, old_after=10.0, forget_after=20.0, least_pause=0.001, at_once=4, a_second=1e6
)
CHAT, OTHER = (ObjectRef("ModelDeployment", "default", name) for name in ("chat", "other"))


@dataclass
class Asked:
    """A poller whose answers a test gives, by key; `told` are the objects that were told."""

    poller: Poller[str, str]
    clock: Clock
    told: list[frozenset[ObjectRef]] = field(default_factory=list)

    def look(self, key: str, ref: ObjectRef = CHAT) -> Known[str] | Unknown:
        return self.poller.look(key, ref, self.clock())

    def known(self, *keys: str) -> list[str]:
        """Look at some keys, and return those that are known."""
        return [key for key in keys if isinstance(self.poller.look(key, CHAT, self.clock()), Known)]


@contextlib.asynccontextmanager
async def asking(
    fetch: Callable[[str], Awaitable[str]],
    timing: PollTiming = TIMING,
    fetch_all: Callable[[str, AbstractSet[str]], Awaitable[Mapping[str, str]]] | None = None,
) -> AsyncIterator[Asked]:
    clock = Clock()
    asked = Asked(Poller(fetch, timing, clock, lambda key: key.partition("/")[0], fetch_all), clock)
    task = asyncio.create_task(asked.poller.run(asked.told.append))
    try:
        yield asked
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_who_look_are_told_of_one_answer() -> None:
    asked_for: list[str] = []

    async def fetch(key: str) -> str:
        asked_for.append(key)
        return "answer"

    async with asking(fetch) as asked:
        assert isinstance(asked.look("a/x"), Unknown)
        assert isinstance(asked.look("a/x", OTHER), Unknown)
        await until(lambda: asked.told, "they are told")
        assert asked.told == [frozenset({CHAT, OTHER})]
        assert asked.look("a/x") == Known("answer", asked.clock())
    assert asked_for == ["a/x"]


async def test_an_answer_that_is_the_same_is_told_from_time_to_time() -> None:
    count = 0

    async def fetch(_: str) -> str:
        nonlocal count
        count += 1
        return "same"

    async with asking(fetch, replace(TIMING, every=0.1, told_again_after=0.3)) as asked:
        asked.look("a/x")
        for number in range(1, 8):
            await until(lambda number=number: count >= number, "it is asked again")  # type: ignore[misc]
            asked.look("a/x")
            asked.clock.advance(0.1)
        assert 2 <= len(asked.told) <= 3 < count


async def test_a_failure_keeps_the_last_answer_until_that_is_old_and_then_says_why() -> None:
    fails = False

    async def fetch(_: str) -> str:
        if fails:
            raise SourceError("it is down", Cause.NOT_PERMITTED)
        return "answer"

    async with asking(fetch) as asked:
        asked.look("a/x")
        await until(lambda: asked.told, "an answer")
        fails, told = True, len(asked.told)
        asked.clock.advance(1.5)
        await until(lambda: len(asked.told) > told, "the failure is told")
        assert isinstance(asked.look("a/x"), Known)
        asked.clock.advance(10)
        assert asked.look("a/x") == Unknown("it is down", cause=Cause.NOT_PERMITTED)


async def test_the_last_answer_grows_old_though_the_clock_was_set_back() -> None:
    fails = False

    async def fetch(_: str) -> str:
        if fails:
            raise SourceError("it is down")
        return "answer"

    async with asking(fetch) as asked:
        asked.look("a/x")
        await until(lambda: asked.told, "an answer")
        fails, told = True, len(asked.told)
        asked.clock.advance(-3600)
        await until(lambda: len(asked.told) > told, "the failure is told")
        assert isinstance(asked.look("a/x"), Known), "no gap for a source that is there"
        asked.clock.advance(TIMING.old_after + 1)
        assert asked.look("a/x") == Unknown("it is down", cause=Cause.NOT_USABLE)


async def test_a_mistake_of_ours_costs_the_others_nothing() -> None:
    async def fetch(key: str) -> str:
        if key == "a/bad":
            raise RuntimeError("a mistake")
        return "answer"

    async with asking(fetch) as asked:
        asked.look("a/bad")
        asked.look("a/good")
        await until(lambda: isinstance(asked.look("a/good"), Known), "the other is answered")
        said = asked.look("a/bad")
        assert isinstance(said, Unknown)
        assert "mistake of the controller" in said.why


async def test_a_namespace_in_which_nothing_answers_delays_no_other() -> None:
    never = asyncio.Event()
    under_way: set[str] = set()

    async def fetch(key: str) -> str:
        under_way.add(key)
        if key.startswith("dead/"):
            await never.wait()
        return "answer"

    async with asking(fetch) as asked:
        for number in range(1000):
            asked.look(f"dead/{number}")
        await until(lambda: len(under_way) == TIMING.at_once // 2, "its half of the places is taken")
        asked.look("well/x")
        await until(lambda: isinstance(asked.look("well/x"), Known), "the other namespace is answered")
        assert len(under_way) == TIMING.at_once // 2 + 1


async def test_what_nobody_looks_at_is_asked_for_no_more_and_there_is_a_most() -> None:
    async def fetch(_: str) -> str:
        return "answer"

    async with asking(fetch, replace(TIMING, most_keys=1)) as asked:
        asked.look("a/x")
        assert asked.look("a/y") == FULL
        await until(lambda: asked.told, "it is asked")
        asked.clock.advance(TIMING.forget_after + 1)
        # The other is taken once the first is forgotten.
        await until(lambda: isinstance(asked.look("a/y"), Known), "the place is free again")


async def test_who_looks_when_told_keeps_all_metrics_of_a_source_that_hangs() -> None:
    """There are more questions than get their turn until one is forgotten that nobody looks at."""
    back = asyncio.Event()
    models = {ObjectRef("ModelDeployment", "a", f"{number}"): f"a/{number}" for number in range(60)}
    said: dict[ObjectRef, Known[str] | Unknown] = {}

    async def fetch(_: str) -> str:
        await back.wait()
        return "answer"

    async with asking(fetch, replace(TIMING, every=0.01)) as asked:

        def heard() -> set[ObjectRef]:
            """Look on behalf of those who were told, and return them."""
            told = frozenset[ObjectRef]().union(*asked.told)
            asked.told.clear()
            said.update((ref, asked.look(models[ref], ref)) for ref in told)
            return {*told}

        async def all_heard(why: str) -> None:
            waiting = set(models)

            def is_over() -> bool:
                waiting.difference_update(heard())
                return not waiting

            await until(is_over, why)

        assert {asked.look(key, ref) for ref, key in models.items()} == {NOT_ASKED_YET}
        asked.clock.advance(TIMING.old_after + 1)
        await all_heard("each is told that it is not known, though most had no turn")
        assert set(said.values()) == {Unknown("there was no answer for 10 s", cause=Cause.NOT_ANSWERING)}
        for _ in range(3):
            asked.clock.advance(TIMING.forget_after + 1)
            await all_heard("each is told from time to time")
        back.set()
        await all_heard("each is asked for, and told of its answer")
        assert set(said.values()) == {Known("answer", asked.clock())}
        back.clear()
        asked.clock.advance(TIMING.old_after + 1)
        await all_heard("each is told that its answer is old")
        assert set(said.values()) == {Unknown("the last answer is older than 10 s", cause=Cause.NOT_ANSWERING)}


async def test_what_nobody_looks_at_when_told_is_forgotten_though_the_source_hangs() -> None:
    never = asyncio.Event()

    async def fetch(_: str) -> str:
        await never.wait()
        return "answer"

    async with asking(fetch, replace(TIMING, every=0.01, most_keys=1)) as asked:
        asked.look("a/x")
        asked.clock.advance(TIMING.old_after + 1)
        await until(lambda: asked.told, "it is told")
        asked.clock.advance(TIMING.forget_after + 1)
        await until(lambda: asked.look("a/y") != FULL, "the place is free again")


FULL = Unknown("more than 1 different questions are asked already, and no namespace has more of them than this one")


async def test_a_namespace_with_more_questions_than_may_be_leaves_others_their_share() -> None:
    async def fetch(key: str) -> str:
        return key

    async with asking(fetch, replace(TIMING, most_keys=10)) as asked:
        crowd = [f"a/{number}" for number in range(20)]
        refs = {key: ObjectRef("ModelDeployment", "a", key) for key in crowd}
        assert [isinstance(asked.look(key, refs[key]), Unknown) for key in crowd] == [True] * 20
        await until(lambda: asked.known(*crowd) == crowd[:10], "they are asked as long as nobody else asks")
        asked.told.clear()
        others = [f"b/{number}" for number in range(8)]
        for key in others:
            asked.look(key)
        await until(lambda: asked.known(*others) == others[:5], "as many of the others")
        # Who lost its place is told so, and has none again in its turn.
        assert set(asked.told[:5]) == {frozenset({refs[key], CHAT}) for key in crowd[5:10]}
        assert asked.known(*reversed(crowd)) == [*reversed(crowd[:5])]
        asked.look("c/0")
        asked.look("c/1")
        asked.look("c/2")
        await until(lambda: asked.known("c/0", "c/1", "c/2") == ["c/0", "c/1", "c/2"], "a third part")
        assert len(asked.known(*crowd, *others)) == 7


def test_to_find_who_gives_way_takes_no_longer_with_many_questions() -> None:
    """Whose they are is asked for each that is looked at."""
    asked_whose, clock = list[str](), Clock()

    def share_of(key: str) -> str:
        asked_whose.append(key)
        return key.partition("/")[0]

    async def fetch(key: str) -> str:
        return key

    poller: Poller[str, str] = Poller(fetch, replace(TIMING, most_keys=2_000), clock, share_of)
    for key in [f"large/{number}" for number in range(1_001)] + [f"{number}/x" for number in range(999)]:
        poller.look(key, CHAT, clock())
    asked_whose.clear()
    for number in range(10):
        assert poller.look(f"new-{number}/x", CHAT, clock()) == NOT_ASKED_YET
    assert len(asked_whose) <= 100


@dataclass
class Asks:
    """Answers questions for one key, and for all of a namespace; what was asked for is kept."""

    singly: list[str] = field(default_factory=list)
    together: list[AbstractSet[str]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    fault: SourceError | None = None
    fault_of_one: SourceError | None = None

    async def fetch(self, key: str) -> str:
        self.singly.append(key)
        if self.fault_of_one:
            raise self.fault_of_one
        return f"{key} alone"

    async def fetch_all(self, share: str, keys: AbstractSet[str]) -> Mapping[str, str]:
        assert {key.partition("/")[0] for key in keys} == {share}
        self.together.append(keys)
        if self.fault:
            raise self.fault
        return self.answers


MANY = [f"a/{number}" for number in range(FROM)]


def refs(*names: str) -> frozenset[ObjectRef]:
    return frozenset(ObjectRef("ModelDeployment", "default", name) for name in names)


@contextlib.asynccontextmanager
async def asking_for_many(asks: Asks) -> AsyncIterator[Asked]:
    """Each key is looked at by the object of its name."""
    async with asking(asks.fetch, fetch_all=asks.fetch_all) as asked:
        for key in MANY:
            asked.look(key, ObjectRef("ModelDeployment", "default", key))
        yield asked


async def test_many_keys_of_a_namespace_are_asked_for_as_one_and_each_has_its_answer() -> None:
    asks = Asks(answers={key: f"of {key}" for key in MANY})
    async with asking_for_many(asks) as asked:
        asked.look("b/0")
        await until(lambda: len(asked.told) > FROM, "all are told")
        assert [asked.look(key) for key in MANY] == [Known(f"of {key}", asked.clock()) for key in MANY]
    assert asks.together == [frozenset(MANY)]
    assert asks.singly == ["b/0"]


async def test_of_one_answer_for_all_they_are_told_whose_part_of_it_is_another() -> None:
    asks = Asks(answers=dict.fromkeys(MANY, "calm"))
    async with asking_for_many(asks) as asked:
        await until(lambda: len(asked.told) == FROM, "all are told")
        asks.answers = {**asks.answers, "a/3": "busy"}
        asked.clock.advance(TIMING.every)
        await until(lambda: len(asked.told) > FROM, "somebody is told")
        await until(lambda: len(asks.together) == 2, "that was the second question")
        assert asked.told[FROM:] == [refs("a/3")]


async def test_a_key_without_an_answer_in_that_for_all_is_asked_for_by_itself_each_time() -> None:
    asks = Asks(answers=dict.fromkeys(MANY[1:], "calm"))
    async with asking_for_many(asks) as asked:
        for times in range(1, 4):
            await until(lambda times=times: len(asks.singly) == times, "it is asked for")  # type: ignore[misc]
            await until(lambda: isinstance(asked.look("a/0"), Known), "it is answered")
            asked.clock.advance(TIMING.every)
        assert set(asks.singly) == {"a/0"}
        assert asked.look("a/1").value == "calm"  # type: ignore[union-attr]


async def test_a_key_that_fails_by_itself_rests_although_all_others_are_asked_for() -> None:
    asks = Asks(answers=dict.fromkeys(MANY[1:], "calm"), fault_of_one=SourceError("it is broken"))
    async with asking(asks.fetch, replace(TIMING, every=0.01), asks.fetch_all) as asked:
        for times in range(1, 20):
            for key in MANY:
                asked.look(key)
            await until(lambda times=times: len(asks.together) == times, "all are asked for")  # type: ignore[misc]
            await settled()
            asked.clock.advance(0.01)
    # After one, two, four and eight times as long.
    assert 3 <= len(asks.singly) <= 6


async def test_where_an_answer_for_all_cannot_be_used_each_is_asked_for_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asks = Asks(fault=SourceError("it is too large"))
    async with asking_for_many(asks) as asked:
        await until(lambda: len(asked.told) == FROM, "all are told")
        assert [asked.look(key) for key in MANY] == [Known(f"{key} alone", asked.clock()) for key in MANY]
        asked.clock.advance(TIMING.every)
        await until(lambda: len(asks.singly) == 2 * FROM, "so are they asked for later")
        assert len(asks.together) == 1
    assert [one.because for one in caplog.records] == ["it is too large"]  # type: ignore[attr-defined]


async def test_a_failure_of_the_question_for_all_is_told_to_all_until_it_is_over() -> None:
    asks = Asks(fault=SourceError("nobody serves it", Cause.NO_SOURCE))
    async with asking_for_many(asks) as asked:
        await until(lambda: len(asked.told) == FROM, "all are told")
        why = Unknown("nobody serves it", cause=Cause.NO_SOURCE)
        assert [asked.look(key) for key in MANY] == [why] * FROM
        asked.clock.advance(TIMING.every)
        await until(lambda: len(asks.together) == 2, "it is asked again")
        assert not asks.singly
        asks.fault, asks.answers = None, dict.fromkeys(MANY, "calm")
        asked.clock.advance(2 * TIMING.every)
        await until(lambda: len(asked.told) == 2 * FROM, "all are told that it is there")
