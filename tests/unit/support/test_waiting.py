"""Who waits for something that is broken gives up; who has no turns on a busy machine waits on."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.waiting import TURNS, Deadline, eventually, in_time, time_limit, until, until_now


def test_a_deadline_passes_after_its_seconds() -> None:
    deadline = Deadline(now=100.0, within=2.0)
    assert not any(deadline.has_passed(100.0 + number / 100) for number in range(200))
    assert deadline.has_passed(102.0)


def test_seconds_without_turns_do_not_count() -> None:
    deadline = Deadline(now=100.0, within=2.0)
    assert [deadline.has_passed(110.0 + number) for number in range(2 * TURNS + 1)] == [False] * 2 * TURNS + [True]


def test_who_waits_longer_looks_less_often_but_always_often_enough_for_his_turns() -> None:
    deadline = Deadline(now=100.0, within=60.0)
    assert [deadline.pause(100.0 + waited) for waited in (0.0, 0.5, 1.0, 50.0)] == [0.02, 0.05, 0.1, 0.1]
    assert deadline.pause(150.0) < 1 / TURNS


async def test_what_never_becomes_true_fails_with_words() -> None:
    async def nothing() -> int:
        return 0

    with pytest.raises(AssertionError, match=r"^not within 0.0 s: a miracle"):
        await until(lambda: False, "a miracle", within=0.0)
    with pytest.raises(AssertionError, match=r"^not within 0.0 s: a miracle"):
        until_now(lambda: False, "a miracle", within=0.0)
    with pytest.raises(AssertionError, match=r"^after 0.0 s still: 0"):
        await eventually(nothing, bool, within=0.0)


async def test_a_task_is_waited_for_and_cancelled_if_it_takes_too_long() -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, 7)
    assert await in_time(done, "a number") == 7
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(AssertionError, match=r"^not within 0.0 s: an answer"):
        await in_time(never, "an answer", within=0.0)
    assert never.cancelled()


async def test_a_block_that_takes_too_long_is_cancelled_and_one_that_does_not_leaves_nothing() -> None:
    with pytest.raises(TimeoutError):
        async with time_limit(0.0):
            await asyncio.Event().wait()
    async with time_limit():
        pass
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
