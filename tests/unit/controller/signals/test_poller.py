"""Asking once for all who look: what is told, what is kept, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from controller.api.timing import PollTiming
from controller.decision import Cause, Known, Unknown
from controller.signals.poller import Poller, SourceError
from controller.store.objects import ObjectRef
from tests.support.clock import Clock
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


@contextlib.asynccontextmanager
async def asking(fetch: Callable[[str], Awaitable[str]], timing: PollTiming = TIMING) -> AsyncIterator[Asked]:
    clock = Clock()
    asked = Asked(Poller(fetch, timing, clock, share_of=lambda key: key.partition("/")[0]), clock)
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

    async with asking(fetch, replace(TIMING, told_again_after=3.0)) as asked:
        asked.look("a/x")
        for number in range(1, 8):
            await until(lambda number=number: count >= number, "it is asked again")  # type: ignore[misc]
            asked.look("a/x")
            asked.clock.advance(1)
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
        assert asked.look("a/y") == Unknown("more than 1 different questions are asked already")
        await until(lambda: asked.told, "it is asked")
        asked.clock.advance(TIMING.forget_after + 1)
        # The other is taken once the first is forgotten.
        await until(lambda: isinstance(asked.look("a/y"), Known), "the place is free again")
