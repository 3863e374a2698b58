"""The event loop that says what takes longest."""

import asyncio
import gc

from benchmarks.attackers.steps import LongestSteps, MeasuredLoop


def run(work, longest):
    with asyncio.Runner(loop_factory=lambda: MeasuredLoop(longest)) as runner:
        runner.run(work)


async def quick():
    await asyncio.sleep(0)


async def slow(do):
    await asyncio.sleep(0)
    do()


async def both(do):
    await asyncio.gather(quick(), slow(do))


def test_the_longest_callback_is_named_by_its_task():
    longest = LongestSteps()
    run(both(lambda: sum(range(1_000_000))), longest)
    assert longest.name.decode().startswith("slow")
    assert "slow" in str(longest)
    longest.reset()
    assert str(longest) == "-"


def test_what_of_it_was_a_search_for_garbage_is_told():
    longest, others = LongestSteps(), tuple(gc.callbacks)
    run(both(lambda: [gc.collect() for _ in range(3)]), longest)
    assert tuple(gc.callbacks) == others
    assert 0 < longest.garbage <= longest.callback
