"""Whose turn it is to be checked."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.health.turns import FairTurns


class Checks:
    """Checks that wait for their turn, and run until they are ended by name."""

    def __init__(self, at_once=4, of_one=2):
        self.turns = FairTurns(at_once, of_one)
        self.running = []
        self.tasks = {}
        self._ends = {}

    async def begin(self, name, *namespaces):
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._check(name, namespaces))
        await settled()

    async def end(self, name):
        self._ends[name].set()
        await self.tasks[name]
        await settled()

    async def cancel(self, name):
        self.tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settled()

    async def end_all(self):
        while self.running:
            await self.end(self.running[0])
        assert all(task.done() for task in self.tasks.values())

    async def _check(self, name, namespaces):
        async with self.turns.turn(namespaces):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_namespace_that_has_many_waiting_leaves_turns_to_others():
    checks = Checks(at_once=4, of_one=2)
    for number in range(100):
        await checks.begin(f"many-{number}", "many")
    assert checks.running == ["many-0", "many-1"]
    await checks.begin("one", "one")
    assert checks.running == ["many-0", "many-1", "one"]
    await checks.end("many-0")
    assert checks.running == ["many-1", "one", "many-2"]
    await checks.end_all()


async def test_a_turn_goes_to_the_namespace_that_has_the_fewest_and_then_to_the_one_that_waited_longest():
    checks = Checks(at_once=2, of_one=2)
    for name, namespace in {"a1": "a", "a2": "a", "a3": "a", "a4": "a", "b1": "b", "b2": "b", "c1": "c"}.items():
        await checks.begin(name, namespace)
    order = []
    for _ in range(6):
        order.append(checks.running[0])
        await checks.end(checks.running[0])
    assert order == ["a1", "a2", "b1", "a3", "c1", "b2"]
    await checks.end_all()


async def test_a_backend_of_several_namespaces_has_the_turn_of_any_of_them_once():
    checks = Checks(at_once=4, of_one=1)
    await checks.begin("a1", "a")
    await checks.begin("a2", "a")
    await checks.begin("both", "a", "b")
    assert checks.running == ["a1", "both"]
    await checks.begin("b1", "b")
    assert checks.running == ["a1", "both"]
    await checks.end("a1")
    assert checks.running == ["both", "a2"]
    await checks.end("both")
    assert checks.running == ["a2", "b1"]
    await checks.end_all()


@pytest.mark.parametrize("which", ["running", "waiting"])
async def test_who_is_cancelled_leaves_its_turn_to_the_next(which):
    checks = Checks(at_once=1, of_one=1)
    for name in ("running", "waiting", "next"):
        await checks.begin(name, "a")
    await checks.cancel(which)
    if which == "waiting":
        await checks.end("running")
        assert checks.running == ["next"]
    else:
        assert checks.running == ["waiting"]
    await checks.end_all()


async def test_who_is_cancelled_in_the_moment_of_its_turn_leaves_it_to_the_next():
    checks = Checks(at_once=1, of_one=1)
    for name in ("first", "second", "third"):
        await checks.begin(name, "a")
    checks._ends["first"].set()
    await checks.tasks["first"]
    await checks.cancel("second")
    assert checks.running == ["third"]
    await checks.end_all()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_no_turn_is_lost_and_none_is_given_twice(steps):
    async def play():
        checks = Checks(at_once=3, of_one=2)
        for number, (namespace, ends) in enumerate(steps):
            await checks.begin(f"{namespace}{number}", namespace)
            if ends:
                await checks.end(checks.running[0])
            assert len(checks.running) <= 3
            assert all(sum(name[0] == one for name in checks.running) <= 2 for one in "abc")
        await checks.end_all()
        assert checks.turns._free == 3
        assert not checks.turns._taken

    asyncio.run(play())
