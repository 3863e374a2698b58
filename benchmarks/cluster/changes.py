"""One change of one model, from the request that makes it until a request of a client feels it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.cluster.crowd import ENVOY, Crowd
from benchmarks.cluster.figures import Changes, Timing
from benchmarks.cluster.objects import model_name, override, route_away
from benchmarks.proxies.envoys import CannotRunError
from controller.store.kube.client import MERGE
from tests.support.load.connection import Connections

_WITHIN = 15.0
"""Seconds that a change may take."""
_PAUSE = 0.12
"""Seconds between two changes: what follows a change, such as its event, is done by then."""
_BETWEEN_REQUESTS = 0.0005
CHANGED = 10
"""Models that change, whatever their number: a model that changed before costs less than one that did not, for its
events are counted together, and what it writes beyond its route is held by the budget of one model."""


class Changing:
    """Makes changes of some models of one crowd, spread over all of them: each leaves altogether, and comes back with
    the next one. With one `seed` the order is the same in every crowd.
    """

    def __init__(self, crowd: Crowd, *, by_hand: bool, seed: int) -> None:
        self._crowd = crowd
        self._by_hand = by_hand
        self._chance = random.Random(seed)
        self._number = 0
        self._away = 0
        self._timings: list[Timing] = []
        # CPU of the programs and seconds that passed, while this crowd changed and while the other one did.
        self._used = {changed: defaultdict[str, float](float) for changed in (True, False)}
        self._passed = dict.fromkeys((True, False), 0.0)
        self._before: Mapping[str, float] = {}
        self._writes_before: Mapping[str, float] = {}

    async def begin(self) -> None:
        """Count writes from here."""
        self._writes_before = await self._crowd.writes()

    def turn_begins(self) -> None:
        """Count CPU from here: a turn begins, of this crowd or of the other one."""
        self._before = self._crowd.cpu()

    def turn_ends(self, seconds: float, *, changed: bool) -> None:
        """Count what the programs used in a turn of so many seconds; `changed` says whether it was this crowd's."""
        self._passed[changed] += seconds
        for name, used in self._crowd.cpu().items():
            self._used[changed][name] += used - self._before[name]

    async def next(self) -> Timing:
        """Make one change and wait until it is effective. Raises CannotRunError."""
        if self._away == 0:
            self._number = self._chance.randrange(CHANGED) * self._crowd.models // CHANGED
        self._away = 100 - self._away
        try:
            async with asyncio.timeout(_WITHIN):
                timing = await self._change()
        except TimeoutError:
            words = f"{model_name(self._number)} is not effective at {self._away} % after {_WITHIN} s"
            raise CannotRunError(words) from None
        self._timings.append(timing)
        await asyncio.sleep(_PAUSE)
        return timing

    async def end(self) -> Changes:
        """Tell what was measured."""
        cpu = {
            name: (used - self._used[False][name] * self._passed[True] / self._passed[False]) / len(self._timings)
            for name, used in self._used[True].items()
            if name != ENVOY
        }
        writes = {
            name: (count - self._writes_before[name]) / len(self._timings)
            for name, count in (await self._crowd.writes()).items()
        }
        return Changes(tuple(self._timings), cpu, writes)

    async def _change(self) -> Timing:
        crowd, name = self._crowd, model_name(self._number)
        connections = Connections(crowd.site.gateway, crowd.seen.ports[name], keepalive=True)
        try:
            await _until_answered_by(connections, "local" if self._away else "remote")
            routed = crowd.seen.split(name, self._away)
            sent, answered = crowd.tap.next_routes()
            begun = time.perf_counter()
            path, body = self._request()
            writing = asyncio.create_task(crowd.client.request("PATCH", path, body=body, content_type=MERGE))
            writing_ended = asyncio.create_task(_moment_of(writing))
            decided = await routed
            effective = await _until_answered_by(connections, "remote" if self._away else "local")
            return Timing(
                written=await writing_ended - begun,
                decided=decided - begun,
                sent=await sent - begun,
                acknowledged=await answered - begun,
                effective=effective - begun,
            )
        finally:
            connections.close()

    def _request(self) -> tuple[str, Mapping[str, object]]:
        path = self._crowd.path(self._number)
        return (f"{path}/status", route_away(self._away)) if self._by_hand else (path, override(self._away))


async def _moment_of(task: asyncio.Task[object]) -> float:
    await task
    return time.perf_counter()


async def _until_answered_by(connections: Connections, side: str) -> float:
    """Send one request after another until this side answers; return when it did. None may fail."""
    request = b"GET / HTTP/1.1\r\nhost: benchmark\r\n\r\n"
    while True:
        answer = await connections.exchange(request)
        if answer.status != 200:
            raise CannotRunError(f"a request was answered with {answer.status}")
        if answer.route == side:
            return time.perf_counter()
        await asyncio.sleep(_BETWEEN_REQUESTS)


async def alternate(changing: Sequence[Changing], changes: int) -> Sequence[Changes]:
    """Make so many changes with each, in turns: what disturbs the machine disturbs all of them.

    What a crowd uses at rest is what it uses in the turns of the others, on a machine that is as busy.
    """
    for turn in range(changes):
        for one in changing if turn % 2 else reversed(changing):
            for each in changing:
                each.turn_begins()
            begun = time.perf_counter()
            await one.next()
            passed = time.perf_counter() - begun
            for each in changing:
                each.turn_ends(passed, changed=each is one)
    return [await one.end() for one in changing]
