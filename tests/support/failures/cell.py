"""One case with one split: requests from many clients, the trouble in their midst, and what came of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from controller.api.route import HttpCheck
from tests.support.data_plane.backends import Backend
from tests.support.data_plane.ledger import REQUESTS
from tests.support.data_plane.model import Model
from tests.support.data_plane.mutation import Change, nothing
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.traffic import named_wrongly
from tests.support.failures.cases import Case, Cell
from tests.support.failures.promise import Outcome
from tests.support.failures.site import Site
from tests.support.failures.troubles import Scene
from tests.support.load import Report, Sample, Traffic, closed_loop, percentile
from tests.support.waiting import until

# As the kubelet's readiness probe has them checked (docs/adr/0004).
_CHECK = HttpCheck(path="/healthz", interval=timedelta(seconds=1))

# The parts of the requests that come before the trouble and after it.
_BEFORE = _AFTER = 0.15

# Seconds until whoever has a share of the requests gets some again: a name is asked for every five.
_BACK_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked: so many requests at least, within so many seconds."""

    requests: int
    seconds: float = 60.0
    clients: int = 32


async def come_of(site: Site, cell: Cell, size: Size, change: Change = nothing) -> Outcome:
    """Play a cell; `change` edits what Envoy is told. Everything is as before when this returns."""
    case, plane = cell.case, site.plane
    wanted = replace(case.wanted, away=cell.away, remote=not cell.is_kept, check=_CHECK, change=change)
    model = await plane.serve(site.wanted(case.way, wanted))
    await plane.healthy(model, len(site.replicas))
    await _reaches_remote(plane, model)
    for one in site.everyone:
        one.ledger.clear()
    load = Load(model.url, size, case.patience, case.good)
    scene = Scene(site, model, load.latest)
    try:
        stretch = await _played(load, scene, case, size.requests)
        not_back = () if stretch.cut else await _not_back(site, cell, load)
    finally:
        report = await load.end()
    await plane.withdraw(model)
    return replace(_outcome(site, cell, size, report, stretch), not_back=not_back)


async def _played(load: Load, scene: Scene, case: Case, requests: int) -> Stretch:
    begun = there = ending = over = 0.0
    with suppress(TookTooLongError):
        await load.more(int(requests * _BEFORE))
        begun = load.seconds
        async with case.trouble(scene):
            there = load.seconds
            await load.more(int(requests * (1 - _BEFORE - _AFTER)))
            await asyncio.sleep(there + case.lasts - load.seconds)
            ending = load.seconds
        await asyncio.sleep(case.settles)
        over = load.seconds
        await load.more(int(requests * _AFTER))
        return Stretch(begun, there, ending, over)
    return Stretch(begun, there, ending, over or load.seconds, cut=True)


@dataclass(frozen=True, slots=True)
class Stretch:
    """When the trouble was, in seconds from the start of the load."""

    begun: float
    there: float
    ending: float
    over: float
    cut: bool = False

    def met(self, request: Sample) -> bool:
        """Tell whether the trouble was there from the start of a request to its end."""
        return self.there <= request.start and request.end <= self.ending

    def may_have_met(self, request: Sample) -> bool:
        return self.begun < request.end and request.start < self.over


class TookTooLongError(Exception):
    """There were not enough answers in the time that there was."""


class Load:
    """The requests of one cell, each with its number in a header, until there are enough."""

    def __init__(self, url: str, size: Size, patience: float, good: frozenset[int]) -> None:
        self.sent = 0
        self._clients = size.clients
        self._answered = 0
        self._stop = asyncio.Event()
        self._begun = math.inf
        self._deadline = asyncio.get_running_loop().time() + size.seconds
        traffic = Traffic(headers=self._number, timeout=patience, good=good, fault=named_wrongly, on_sample=self._count)
        requests = closed_loop(url, clients=size.clients, requests=REQUESTS, traffic=traffic, stop=self._stop)
        self._task = asyncio.create_task(requests)

    @property
    def seconds(self) -> float:
        """How long ago it began, by the clock of its samples."""
        return asyncio.get_running_loop().time() - self._begun

    def latest(self, count: int) -> range:
        """Return the numbers of requests sent lately, of whom all but a few are answered."""
        end = max(0, self.sent - 2 * self._clients)
        return range(max(0, end - count), end)

    async def more(self, count: int) -> None:
        """Wait for so many answers and failures. Raises TookTooLongError."""
        goal = self._answered + count
        while self._answered < goal:
            if asyncio.get_running_loop().time() > self._deadline or self._task.done():
                raise TookTooLongError
            await asyncio.sleep(0.01)

    async def end(self) -> Report:
        """Send no more, and wait for what is on its way."""
        self._stop.set()
        return await self._task

    def _number(self, number: int) -> Mapping[str, str]:
        self.sent = number + 1
        return {"number": str(number)}

    def _count(self, sample: Sample) -> None:
        self._answered += 1
        # A sample is told as it ends, now and then a pause later: never earlier.
        self._begun = min(self._begun, asyncio.get_running_loop().time() - sample.end)


async def _not_back(site: Site, cell: Cell, load: Load) -> tuple[str, ...]:
    """Wait until the requests go on as the split has it; name the servers to which none came again."""
    since, deadline = load.sent, load.seconds + _BACK_WITHIN
    waiting: dict[str, tuple[Backend, ...]] = {}
    if cell.away < 100:
        waiting = {one.name: (one,) for one in site.replicas}
    if cell.away:
        waiting["the remote backend"] = site.remotes
    while waiting and load.seconds < deadline:
        await asyncio.sleep(0.01)
        lately = range(since, load.sent)
        waiting = {
            name: of_it for name, of_it in waiting.items() if not any(any(o.ledger.times(lately)) for o in of_it)
        }
    return tuple(waiting)


async def _reaches_remote(plane: Plane, model: Model) -> None:
    """Wait until the remote backend is used: found, believed well, and with a token if it needs one."""

    async def is_so() -> bool:
        return not model.wanted.away or (await plane.ask(model)).route == "remote"

    await until(is_so, f"requests of {model.key} reach the remote backend", within=20)


def _outcome(site: Site, cell: Cell, size: Size, report: Report, stretch: Stretch) -> Outcome:
    # Requests are numbered in the order of their start, which is the report's.
    lasting = [number for number, sample in enumerate(report.samples) if stretch.met(sample)]
    samples = [report.samples[number] for number in lasting]
    failed = [one for one in samples if one.error]
    asked = [sum(times) for times in zip(*(one.ledger.times() for one in site.everyone), strict=True)]
    counts = [asked[number] for number in lasting]
    return Outcome(
        requests=len(report.samples),
        failed=report.errors,
        failed_outside=sum(bool(one.error) and not stretch.may_have_met(one) for one in report.samples),
        clients=size.clients,
        away=cell.away,
        lasting=len(samples),
        failed_lasting=len(failed),
        remote=sum(one.route == "remote" for one in samples if not one.error),
        p99=percentile([one.latency for one in samples], 99),
        p99_failed=percentile([one.latency for one in failed], 99),
        asked=sum(counts),
        asked_range=(min(counts, default=0), max(counts, default=0)),
        left=sum(sum(one.ledger.times()) for one in site.remotes),
        cut=stretch.cut,
    )
