"""The load, and everything that happens during it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from demo.cluster import READINESS_PERIOD, Cluster
from demo.completion import fault_of, name_of, request_body
from demo.console import Console
from demo.outcome import Kill, Outcome, Tally
from demo.product import Decision, decisions
from demo.timeline import Plan, arrivals
from tests.support.load import Sample, Step, TracedRequest, Traffic, most, open_loop
from tests.support.processes import Child

_TICK = 0.5
"""Seconds between two lines of the live view."""
_LOOK = 0.02
"""Seconds between two looks at how much is in flight."""
_PATIENCE = 3.0
"""Seconds to wait until it is enough for a kill to show something."""
_GIVES_UP = 30.0
"""Seconds that a client waits for its answer."""
_RETURNS_WITHIN = 60.0
"""Seconds to wait until a replica that is ready again is asked again."""
_EXCESS = 3
"""Requests at the remote backend when it is killed, at least."""


@dataclass(frozen=True, slots=True)
class _Events:
    killed: Kill
    back: float
    remote_killed: Kill


class Play:
    """One run of the load through Envoy, told on the console as it goes."""

    def __init__(self, cluster: Cluster, product: Child, console: Console) -> None:
        self._cluster = cluster
        self._product = product
        self._console = console
        self._begin = 0.0
        self._sent: list[TracedRequest] = []
        self._is_back = False
        self._places = self._told_places = cluster.capacity
        self._told_at = 0.0
        self._ended: list[Sample] = []
        self._kills: list[Kill] = []
        self._decisions: list[tuple[float, Decision]] = []

    async def load(self, plan: Plan) -> Outcome:
        """Send the requests; kill servers and start them again meanwhile. Raises ProcessEndedError."""
        self._console.header()
        self._begin = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_decisions())
                telling = group.create_task(self._tell())
                happening = group.create_task(self._events(plan))
                report = await open_loop(self._cluster.url, self._arrivals(plan), self._traffic())
                events = await happening
                watching.cancel()
                telling.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._tick()
        return Outcome(
            report=report,
            capacity=self._cluster.capacity,
            burst=plan.burst,
            killed=events.killed,
            back=events.back,
            remote_killed=events.remote_killed,
            decisions=tuple(self._decisions),
            local_flight=self._local_flight(),
            begun=self._begun(),
            local_answers={
                name: (begin - self._begin, end - self._begin)
                for name, (begin, end) in self._cluster.local_answers().items()
            },
        )

    @property
    def sent(self) -> tuple[TracedRequest, ...]:
        """The requests that were sent, each at its moment: where servers took long to start, more than the plan has."""
        return tuple(self._sent)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._begin

    @property
    def _local_names(self) -> str:
        return ", ".join(replica.name for replica in self._cluster.replicas)

    async def _at(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._now))

    def _arrivals(self, plan: Plan) -> Iterator[float]:
        for one in arrivals(plan, lambda: self._is_back):
            self._sent.append(one)
            yield one.at

    def _traffic(self) -> Traffic:
        return Traffic(
            body=lambda number: request_body(self._sent[number]),
            fault=fault_of,
            note=name_of,
            timeout=_GIVES_UP,
            on_sample=self._ended.append,
        )

    def _local_flight(self) -> tuple[Step, ...]:
        """What the replicas wrote down, on the clock of the load."""
        return tuple(Step(step.at - self._begin, step.number) for step in self._cluster.local_flight())

    def _begun(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """When requests came to each side, on the clock of the load."""
        local, remote = self._cluster.begun()
        return tuple(at - self._begin for at in local), tuple(at - self._begin for at in remote)

    async def _events(self, plan: Plan) -> _Events:
        """Play the failures, and the kubelet that notices them."""
        await self._at(plan.burst)
        self._console.event(self._now, "the busiest minute of the trace begins, three times as fast")
        await self._at(plan.kill)
        await self._until_in_flight(self._cluster.capacity // 2)
        killed = self._killed(self._cluster.kill_locals(), "Envoy alone keeps the rest going")
        self._places = 0
        await self._at(killed.at + READINESS_PERIOD)
        self._cluster.mark(ready=False)
        self._console.event(self._now, "kubelet: the readiness probes fail, the EndpointSlice says ready: false")
        await self._at(plan.revive)
        self._console.event(self._now, f"{self._local_names} start again")
        await self._cluster.start_locals()
        back = self._now
        self._cluster.mark(ready=True)
        self._places = self._cluster.capacity
        self._console.event(back, "kubelet: the readiness probes pass, the EndpointSlice says ready: true")
        await self._until_in_flight(1, within=_RETURNS_WITHIN)
        self._is_back = True
        await self._at(plan.full)
        await self._until_in_flight(self._cluster.capacity, _EXCESS)
        gone = self._killed(self._cluster.kill_remote(), "the replicas are full, and take the rest too")
        return _Events(killed, back, gone)

    def _killed(self, kill: Kill, and_now: str) -> Kill:
        """Note what was killed, and tell it."""
        known = kill.since(self._begin)
        self._kills.append(known)
        names = self._local_names if known.side == "local" else known.side
        self._console.event(known.at, f"SIGKILL to {names} with {known.in_flight} requests in flight; {and_now}")
        return known

    async def _until_in_flight(self, local: int, remote: int = 0, *, within: float = _PATIENCE) -> None:
        """Wait until the servers of both sides have so much in flight; not for ever: the outcome tells."""
        for _ in range(round(within / _LOOK)):
            now = self._cluster.in_flight()
            if now[0] >= local and now[1] >= remote:
                return
            await asyncio.sleep(_LOOK)

    async def _watch_decisions(self) -> None:
        async with aclosing(decisions(self._cluster.addresses.admin)) as changes:
            async for decision in changes:
                before = self._decisions[-1][1].split if self._decisions else decision.split
                self._decisions.append((self._now, decision))
                change = decision.split if before == decision.split else f"{before} -> {decision.split}"
                self._console.decision(self._now, f"decision {change}, {decision.reason}: {decision.message}")

    async def _tell(self) -> None:
        for number in itertools.count(1):
            await self._at(number * _TICK)
            self._product.check()
            self._tick()

    def _tick(self) -> None:
        """Tell what ended since the last time."""
        now, ended = self._now, tuple(self._ended)
        self._ended.clear()
        flight = f"{most(self._local_flight(), self._told_at, now)}/{max(self._places, self._told_places)}"
        decision = str(self._decisions[-1][1]) if self._decisions else ""
        self._console.tick(now, Tally.of(ended, self._kills), flight, decision)
        self._told_at, self._told_places = now, self._places
