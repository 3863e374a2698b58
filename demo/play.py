"""The load, and everything that happens during it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from benchmarks.load import Answer, Report, Sample, TracedRequest, Traffic, open_loop, summary_of
from demo.cluster import READINESS_PERIOD, Cluster
from demo.console import Console
from demo.process import Process
from demo.product import Decision, decisions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened. Times are seconds from the start of the load."""

    report: Report
    killed: float
    """When the local servers were killed."""
    back: float
    """When they were ready again."""
    decisions: tuple[tuple[float, Decision], ...]
    """The decision at the start, and each change of it."""

    @property
    def phases(self) -> tuple[tuple[str, Report], ...]:
        """The load in its three parts, by the arrival of the requests."""
        end = max((sample.start for sample in self.report.samples), default=0.0) + 1.0
        return (
            ("all replicas up", self.report.between(0.0, self.killed)),
            ("all replicas killed", self.report.between(self.killed, self.back)),
            ("replicas back", self.report.between(self.back, end)),
        )


class Play:
    """One run of the load through Envoy, told on the console as it goes."""

    def __init__(self, cluster: Cluster, product: Process, console: Console) -> None:
        self._cluster = cluster
        self._product = product
        self._console = console
        self._begin = 0.0
        self._ended: list[Sample] = []
        self._decisions: list[tuple[float, Decision]] = []

    async def load(self, requests: Sequence[TracedRequest], kill: float, revive: float) -> Outcome:
        """Send the requests; kill the local servers and start them again meanwhile. Raises DemoError."""
        traffic = Traffic(body=lambda number: body_for(requests[number]), fault=fault_of, on_sample=self._ended.append)
        self._console.header()
        self._begin = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_decisions())
                telling = group.create_task(self._tell_seconds())
                servers = group.create_task(self._kill_and_revive(kill, revive))
                report = await open_loop(self._cluster.url, [request.at for request in requests], traffic)
                killed, back = await servers
                watching.cancel()
                telling.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._tell_second(math.ceil(self._now))
        return Outcome(report, killed, back, tuple(self._decisions))

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._begin

    async def _at(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._now))

    async def _kill_and_revive(self, kill: float, revive: float) -> tuple[float, float]:
        """Play the failure and the kubelet that notices it; return when they were killed and ready again."""
        names = ", ".join(replica.name for replica in self._cluster.replicas)
        await self._at(kill)
        killed = self._now
        self._cluster.kill_locals()
        self._console.event(killed, f"SIGKILL to {names}; Envoy alone keeps the requests going")
        await self._at(killed + READINESS_PERIOD)
        self._cluster.mark(ready=False)
        self._console.event(self._now, "kubelet: the readiness probes fail, the EndpointSlice says ready: false")
        await self._at(revive)
        self._console.event(self._now, f"{names} start again")
        await self._cluster.start_locals()
        self._cluster.mark(ready=True)
        back = self._now
        self._console.event(back, "kubelet: the readiness probes pass, the EndpointSlice says ready: true")
        return killed, back

    async def _watch_decisions(self) -> None:
        async with aclosing(decisions(self._cluster.addresses.admin)) as changes:
            async for decision in changes:
                before = f"{self._decisions[-1][1].split} -> " if self._decisions else ""
                self._decisions.append((self._now, decision))
                words = f"decision {before}{decision.split}, {decision.reason}: {decision.message}"
                self._console.decision(self._now, words)

    async def _tell_seconds(self) -> None:
        while True:
            second = int(self._now) + 1
            await self._at(second)
            self._product.check()
            self._tell_second(second)

    def _tell_second(self, second: int) -> None:
        ended = tuple(self._ended)
        self._ended.clear()
        decision = self._decisions[-1][1] if self._decisions else ""
        self._console.second(second, summary_of(ended), str(decision))


def body_for(request: TracedRequest) -> bytes:
    """Return a completion request of the traced size: a character per token of the prompt."""
    return json.dumps({"prompt": "x" * request.context_tokens, "max_tokens": request.generated_tokens}).encode()


def fault_of(answer: Answer) -> str:
    """Return what is wrong with a model server's answer: not its JSON, or not from where the route header says."""
    try:
        server = str(json.loads(answer.body)["servedBy"])
    except (ValueError, KeyError, TypeError):
        return "wrong body"
    side = server.partition("-")[0]
    return "" if side == answer.route else f"x-beamlit-route is {answer.route or 'absent'} but {side} answered"
