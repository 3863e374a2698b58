"""One case with some of its splits at once: requests to each, the trouble in their midst, and what came of them.

Each split is a model of its own on the one Envoy, and so is each that has a setting taken out; they share the servers
and nothing else. One more model has a server to which nothing happens: what is to be said of it is the machine's doing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from controller.api.contract.route import ReplicaCheck
from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model
from tests.support.data_plane.mutation import Change, nothing
from tests.support.data_plane.plane import Plane
from tests.support.failures.cases import Cell
from tests.support.failures.clients import Clients, Size
from tests.support.failures.promise import ENOUGH_CHECKS, Control, Notice, Outcome
from tests.support.failures.site import Site
from tests.support.failures.troubles import Scene, found_ill
from tests.support.failures.troubles import replicas as all_replicas
from tests.support.load import Report, Sample, percentile
from tests.support.waiting import Deadline, until

# As the kubelet's readiness probe has them checked (docs/adr/0004).
# As a readiness probe with `periodSeconds: 1` and `failureThreshold: 1` has it.
_CHECK = ReplicaCheck(path="/healthz", interval=timedelta(seconds=1), failures=1)

# Nothing happens to the server of the control: one check that it answers late is the machine's doing.
_CHECK_OF_CONTROL = _CHECK.model_copy(update={"failures": 3})

# The parts of the requests that come before the trouble and after it.
_BEFORE = _AFTER = 0.15

# Seconds until whoever has a share of the requests gets some again: a name is asked for every five.
_BACK_WITHIN = 30.0

# The clients of the model whose server is well: at any moment some wait for an answer.
_OF_CONTROL = 4


@dataclass(frozen=True)
class Part:
    """A cell; `change` edits what Envoy is told of its model."""

    cell: Cell
    change: Change = nothing

    @property
    def is_whole(self) -> bool:
        """Whether it is as the product has it."""
        return self.change is nothing


async def come_of(site: Site, parts: Sequence[Part], size: Size) -> Sequence[Outcome]:
    """Play parts of the same case at the same time. Everything is as before when this returns."""
    case = parts[0].cell.case
    assert all(part.cell.case is case for part in parts)
    wanted = [
        replace(case.wanted, away=part.cell.away, remote=not part.cell.is_kept, check=_CHECK, change=part.change)
        for part in parts
    ]
    well = replace(case.wanted, replicas=(site.well_replica,), check=_CHECK_OF_CONTROL)
    plane = site.plane
    *models, control = await asyncio.gather(
        *(plane.serve(site.wanted(case.way, one)) for one in wanted), plane.serve(well)
    )
    try:
        await asyncio.gather(
            *(plane.healthy(one, len(site.replicas)) for one in models),
            plane.healthy(control, 1),
            *(_reaches_remote(plane, one) for one in models),
        )
        return await _Play(site, parts, tuple(models), control, size).outcomes()
    finally:
        await asyncio.gather(*(plane.withdraw(one) for one in (*models, control)))


class TookTooLongError(Exception):
    """There were not enough answers in the time that there was."""


class _Play:
    def __init__(
        self, site: Site, parts: Sequence[Part], models: tuple[Model, ...], control: Model, size: Size
    ) -> None:
        self._site, self._parts, self._of_control = site, parts, control
        self._case = case = parts[0].cell.case
        self._size = size = size.crowded if case.in_crowds else size
        for one in site.everyone:
            one.ledger.clear()
        self._clients = [
            Clients(model.url, place, size, case.patience, case.good) for place, model in enumerate(models)
        ]
        few = replace(size, clients=min(_OF_CONTROL, size.clients))
        self._control = Clients(control.url, len(models), few, case.patience, frozenset({200}))
        self._scene = Scene(site, models, lambda count: [one.latest(count) for one in self._clients])
        self._deadline = Deadline(_now(), size.seconds)
        self._again = [0] * len(parts)
        self._ejections = [0] * len(parts)
        self._checks = [0] * len(parts)

    async def outcomes(self) -> Sequence[Outcome]:
        try:
            stretch = await self._played()
            not_back = [()] * len(self._parts) if stretch.cut else await self._not_back()
        finally:
            *reports, of_control = await asyncio.gather(*(one.end() for one in (*self._clients, self._control)))
        control = _control(of_control, stretch.since(self._control.begun), self._case.wanted.first_byte_timeout)
        return [
            replace(
                self._outcome(part, clients, report, stretch.since(clients.begun)),
                control=control,
                not_back=missing,
                again=again,
                ejections=ejections,
                checks_until_back=checks,
            )
            for part, clients, report, missing, again, ejections, checks in zip(
                self._parts,
                self._clients,
                reports,
                not_back,
                self._again,
                self._ejections,
                self._checks,
                strict=True,
            )
        ]

    async def _played(self) -> Stretch:
        case, requests, stretch = self._case, self._size.requests, Stretch()
        with suppress(TookTooLongError):
            await self._more(int(requests * _BEFORE))
            stretch = replace(stretch, begun=_now())
            async with case.trouble(self._scene):
                before, ejected = await self._sent_again(), await self._left_alone()
                checks = await self._checks_of_control()
                stretch = replace(stretch, there=_now())
                noticing = asyncio.create_task(self._noticed())
                try:
                    await self._more(int(requests * (1 - _BEFORE - _AFTER)))
                    noticed, then = await noticing
                    stretch = replace(stretch, noticed=noticed, checks=then - checks, ending=_now())
                    after, left_alone = await self._sent_again(), await self._left_alone()
                    self._again = [now - then for then, now in zip(before, after, strict=True)]
                    self._ejections = [now - then for then, now in zip(ejected, left_alone, strict=True)]
                finally:
                    noticing.cancel()
            if case.settles or case.noticed is all_replicas:
                self._checks = await asyncio.gather(*map(self._checks_until_back, self._scene.models))
            if case.settles:
                await self._more(2 * self._size.clients)
            stretch = replace(stretch, over=_now())
            await self._more(int(requests * _AFTER))
            return stretch
        return replace(stretch, over=_now(), cut=True)

    async def _more(self, count: int) -> None:
        """Wait for so many answers and failures of each model. Raises TookTooLongError."""
        goals = [one.answered + count for one in self._clients]
        while any(one.answered < goal for one, goal in zip(self._clients, goals, strict=True)):
            if self._deadline.has_passed(_now()) or any(one.is_over for one in self._clients):
                raise TookTooLongError
            await asyncio.sleep(0.01)

    async def _sent_again(self) -> list[int]:
        """How many requests of each model Envoy has sent once more: those that met a dead server are in no ledger."""
        stats = [
            self._site.plane.envoy.stats(rf"^cluster\..*({one.key})\b.*upstream_rq_retry$")
            for one in self._scene.models
        ]
        return [sum(of_one.values()) for of_one in await asyncio.gather(*stats)]

    async def _left_alone(self) -> list[int]:
        """How often Envoy has left a replica of each model alone, since requests to it failed."""
        name = "outlier_detection.ejections_enforced_total"
        of_each = (f"cluster.{one.local_cluster}.{name}" for one in self._scene.models)
        return list(await asyncio.gather(*map(self._site.plane.envoy.stat, of_each)))

    async def _noticed(self) -> tuple[float, int]:
        """Wait until the health checks have found it, if they are to.

        Return when, 0 if not, and how often the server of the control had been checked by then.
        """
        if self._case.noticed is None:
            return 0.0, await self._checks_of_control()
        await found_ill(self._scene, self._case.noticed(self._site))
        return _now(), await self._checks_of_control()

    async def _checks_of_control(self) -> int:
        return await self._site.plane.envoy.stat(f"cluster.{self._of_control.local_cluster}.health_check.attempt")

    async def _checks_until_back(self, model: Model) -> int:
        """Wait until Envoy finds all replicas well, or one that goes by its first check would have.

        Return how many checks each has passed by then. All have failed theirs until now. A check that fails yet is one
        of a server that is well and gets no time: meanwhile the others pass one more.
        """
        cluster, of = f"cluster.{model.local_cluster}", len(self._site.replicas)
        counted = rf"^{re.escape(cluster)}\.(health_check\.(success|failure)|membership_healthy)$"
        before = await self._site.plane.envoy.stats(counted)
        passed = 0

        async def is_told() -> bool:
            nonlocal passed
            now = await self._site.plane.envoy.stats(counted)
            succeeded, failed = (
                now[name] - before[name]
                for name in (f"{cluster}.health_check.success", f"{cluster}.health_check.failure")
            )
            passed = max(0, succeeded // of - failed)
            return now[f"{cluster}.membership_healthy"] == of or passed > ENOUGH_CHECKS

        await until(is_told, f"the replicas of {model.key} are well again", within=_BACK_WITHIN)
        return passed

    async def _not_back(self) -> list[tuple[str, ...]]:
        """Wait until the requests go on as the splits have it; name the servers to which none came again.

        Models that have a setting taken out are given as long again as those took that do not.
        """
        begun = _now()
        since = [clients.numbers.stop for clients in self._clients]
        waiting = [_awaited(self._site, part.cell) for part in self._parts]
        deadline, is_known = Deadline(begun, _BACK_WITHIN), False
        while any(waiting) and not deadline.has_passed(_now()):
            await asyncio.sleep(0.05)
            for of_it, first, clients in zip(waiting, since, self._clients, strict=True):
                lately = range(first, clients.numbers.stop)
                for name in [name for name, servers in of_it.items() if _came_to(servers, lately)]:
                    del of_it[name]
            if not is_known and not any(
                of_it for of_it, part in zip(waiting, self._parts, strict=True) if part.is_whole
            ):
                is_known, deadline = True, Deadline(_now(), 1.0 + (_now() - begun))
        return [tuple(of_it) for of_it in waiting]

    def _outcome(self, part: Part, clients: Clients, report: Report, stretch: Stretch) -> Outcome:
        # Requests are numbered in the order of their start, which is the report's.
        lasting = [number for number, sample in enumerate(report.samples) if stretch.met(sample)]
        samples = [report.samples[number] for number in lasting]
        failed = [one for one in samples if one.error]
        times = [one.ledger.times(clients.numbers) for one in self._site.everyone]
        asked = [sum(of_one) for of_one in zip(*times, strict=True)]
        counts = [asked[number] for number in lasting]
        return Outcome(
            requests=len(report.samples),
            failed=report.errors,
            failed_outside=sum(bool(one.error) and not stretch.may_have_met(one) for one in report.samples),
            clients=clients.count,
            away=part.cell.away,
            lasting=len(samples),
            failed_lasting=len(failed),
            remote=sum(one.route == "remote" for one in samples if not one.error),
            p99=percentile([one.latency for one in samples], 99),
            p99_failed=percentile([one.latency for one in failed], 99),
            asked=sum(counts),
            asked_range=(min(counts, default=0), max(counts, default=0)),
            left=sum(sum(one.ledger.times(clients.numbers)) for one in self._site.remotes),
            cut=stretch.cut,
            notice=self._notice(report, stretch),
        )

    def _notice(self, report: Report, stretch: Stretch) -> Notice:
        if self._case.noticed is None or stretch.cut:
            return Notice()
        later = (one for one in report.samples if stretch.noticed < one.start)
        failed_later = sum(bool(one.error) for one in later)
        return Notice(stretch.noticed - stretch.there, self._case.patience, stretch.checks, failed_later)


@dataclass(frozen=True, slots=True)
class Stretch:
    """When the trouble was, in seconds."""

    begun: float = 0.0
    there: float = 0.0
    noticed: float = 0.0
    ending: float = 0.0
    over: float = 0.0
    checks: int = 0
    """How often the server of the control was checked from `there` to `noticed`."""
    cut: bool = False

    def since(self, begin: float) -> Stretch:
        """The same by a clock that was 0 then."""
        return replace(
            self,
            begun=self.begun - begin,
            there=self.there - begin,
            noticed=self.noticed - begin,
            ending=self.ending - begin,
            over=self.over - begin,
        )

    def met(self, request: Sample) -> bool:
        """Tell whether the trouble was there from the start of a request to its end."""
        return self.there <= request.start and request.end <= self.ending

    def may_have_met(self, request: Sample) -> bool:
        return self.begun < request.end and request.start < self.over


def _control(report: Report, stretch: Stretch, patience: timedelta | None) -> Control:
    meanwhile = [one for one in report.samples if stretch.may_have_met(one)]
    away = [one for one in report.samples if one.route == "remote"]
    # Nothing else that a machine does by itself sends a request away.
    late = [one for one in away if patience and one.latency >= patience.total_seconds()]
    return Control(
        failed=sum(report.errors.values()),
        slowest=max((one.latency for one in meanwhile), default=0.0),
        astray=sum(stretch.may_have_met(one) for one in late) / max(1, len(meanwhile)),
        misled=len(away) - len(late),
    )


def _awaited(site: Site, cell: Cell) -> dict[str, tuple[Backend, ...]]:
    """Name the servers that have a share of the requests of a cell."""
    servers: dict[str, tuple[Backend, ...]] = {}
    if cell.away < 100:
        servers = {one.name: (one,) for one in site.replicas}
    if cell.away:
        servers["the remote backend"] = site.remotes
    return servers


def _came_to(servers: Sequence[Backend], numbers: range) -> bool:
    return any(any(one.ledger.times(numbers)) for one in servers)


async def _reaches_remote(plane: Plane, model: Model) -> None:
    """Wait until the remote backend is used: found, believed well, and with a token if it needs one."""

    async def is_so() -> bool:
        return not model.wanted.away or (await plane.ask(model)).route == "remote"

    await until(is_so, f"requests of {model.key} reach the remote backend", within=30)


def _now() -> float:
    return asyncio.get_running_loop().time()
