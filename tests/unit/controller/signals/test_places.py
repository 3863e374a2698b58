"""Who has a place, who waits for one, and whose turn is next."""

from __future__ import annotations

import asyncio

from controller.signals.places import Places
from tests.support.store import settled


class Crowd:
    """Who wants a place, each on behalf of the first letter of its name; `inside` are those who have one."""

    def __init__(self, at_once: int) -> None:
        self._places = Places(at_once)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.inside: list[str] = []

    async def come(self, *names: str) -> None:
        self.tasks |= {name: asyncio.create_task(self._stay(name)) for name in names}
        await settled()

    async def go(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await settled()

    async def _stay(self, name: str) -> None:
        async with self._places.taken(name[0]):
            self.inside.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.inside.remove(name)


async def test_one_namespace_has_half_of_the_places_however_many_it_wants() -> None:
    crowd = Crowd(4)
    await crowd.come(*(f"a{number}" for number in range(100)))
    assert crowd.inside == ["a0", "a1"]
    await crowd.come("b0", "c0")
    assert crowd.inside == ["a0", "a1", "b0", "c0"]
    await crowd.go("b0", "c0", "a1")
    assert crowd.inside == ["a0", "a2"]


async def test_the_next_place_is_for_whose_namespace_has_the_fewest() -> None:
    crowd = Crowd(4)
    await crowd.come(*(f"{share}{number}" for share in "ab" for number in range(3)))
    await crowd.come("c0", "c1", "d0")
    await crowd.go("a0")
    assert crowd.inside == ["a1", "b0", "b1", "c0"]
    await crowd.go("b0")
    assert crowd.inside == ["a1", "b1", "c0", "d0"]


async def test_who_waits_no_longer_is_passed_over_and_keeps_no_place() -> None:
    crowd = Crowd(2)
    await crowd.come("a0", "a1", "a2", "b0", "b1")
    await crowd.go("a1")
    await crowd.go("a0")
    assert crowd.inside == ["b0", "a2"]
    await crowd.go("a2", "b0", "b1")
    assert crowd.inside == []
    await crowd.come("c0", "d0")
    assert crowd.inside == ["c0", "d0"]


async def test_who_goes_in_the_moment_of_the_turn_gives_it_on() -> None:
    crowd = Crowd(1)
    await crowd.come("a0", "a1", "b0")
    crowd.tasks["a0"].cancel()
    await asyncio.sleep(0)  # the place is given to the next, who has not noticed it yet
    assert crowd.inside == []
    await crowd.go("a1")
    assert crowd.inside == ["b0"]
