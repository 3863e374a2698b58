"""A surge against real replicas behind a real Envoy, and the same surge in the model: how far that is from it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.control.demand import Load, surge
from benchmarks.control.outcome import Outcome, play
from benchmarks.control.policies import POLICIES, REPORT, Law, Policy, Product, Sent
from benchmarks.control.replicas import Replicas
from benchmarks.overflow.outcome import FULL, NONE
from benchmarks.overflow.plan import Plan
from benchmarks.overflow.policies import Policy as Setting
from benchmarks.overflow.pool import Pool
from benchmarks.overflow.stage import Stage, stage
from benchmarks.proxies.envoys import Envoys
from tests.support.load import Answer, Traffic, open_loop, percentile

_SCALE = 1 / 6
"""Seconds of the load for one of the input: short, and long enough for two looks of the law in a tenth of a second."""
_LAWS = (
    "loop, 5 s",
    "Threshold 50, in flight",
    "Proportional, in flight",
    "no metric, overflow",
    "Threshold 50, in flight, overflow",
    "Proportional, in flight, overflow",
)
_NEAR = 0.03
"""How far a share of the requests, and the overloaded part of the time, may be from the real one."""
_LATE = 0.5
"""Seconds of the input by which a look or a request may be late: who is later plays another input."""
_HEADER = f"{'':<36}{'waited':>18}{'away':>18}{'overload':>16}{'changes':>10}{'turns':>8}{'late':>8}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """By law: what came of it with real replicas, what in the model, and by how many seconds the load was late."""

    load: Load
    found: Mapping[str, tuple[Outcome, Outcome, float]]

    def table(self) -> Iterator[str]:
        """Write a line for each law, real figures before those of the model."""
        yield f"{self.load.name}: {len(self.load.requests)} requests in {self.load.seconds:.0f} s, real / in the model"
        yield _HEADER
        for name, (real, model, late) in self.found.items():
            waited, away = f"{real.waited:.2%} / {model.waited:.2%}", f"{real.away:.2%} / {model.away:.2%}"
            overload, changes = f"{real.overload:.1f} / {model.overload:.1f}", f"{real.changes} / {model.changes}"
            turns = f"{real.turns(0, self.load.seconds)} / {model.turns(0, self.load.seconds)}"
            yield f"{name:<36}{waited:>18}{away:>18}{overload:>16}{changes:>10}{turns:>8}{late:>8.2f}"
        yield "late: how far the load or a look of the law was behind (99th percentile), in seconds of the input"

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        """Say of each law whether the model is near to what is real; nothing is, if that was not on time."""
        for name, (real, model, late) in self.found.items():
            waited, away = real.waited - model.waited, real.away - model.away
            overload = (real.overload - model.overload) / self.load.seconds
            yield (
                f"{name}, real less the model: waited and away (of the requests) and overload (of the time) within "
                f"{_NEAR:.0%}, and {_LATE} s late at most: {waited:+.1%}, {away:+.1%}, {overload:+.1%}, {late:.2f} s",
                max(abs(waited), abs(away), abs(overload)) <= _NEAR and late <= _LATE,
            )


async def compared() -> Comparison:
    """Play the surge under each law, one after another. Raises CannotRunError and OSError."""
    load, found = surge(), {}
    for policy in POLICIES:
        if policy.name in _LAWS:
            with tempfile.TemporaryDirectory(prefix="decision-") as folder, Envoys(Path(folder)) as envoys:
                real, late = await _measured(load, policy, envoys)
            found[policy.name] = real, play(load, policy), late
    return Comparison(load, found)


class _Look(NamedTuple):
    """What was decided at one look, whether requests waited, and how many seconds of the input it came too late."""

    share: float
    waits: bool
    late: float


async def _measured(load: Load, policy: Policy, envoys: Envoys) -> tuple[Outcome, float]:
    plan = Plan(load.pool, tuple(at * _SCALE for at, _ in load.requests), _SCALE)
    law, looks = policy.law(), list[_Look]()
    async with stage(envoys, Setting(policy.name, is_limited=policy.overflow), plan) as on:
        deciding = asyncio.create_task(_decide(on, law, load, looks))
        report = await open_loop(on.url, plan.arrivals, Traffic(note=_on_arrival, timeout=30.0))
        await deciding
        envoys.check()
    total = len(report.samples)
    waited = sum(one.note in (FULL, NONE) for one in report.samples) / total
    away = sum(one.route == "remote" for one in report.samples) / total
    overload = sum(look.waits for look in looks) * REPORT
    writes = law.writes if isinstance(law, Product) else 0
    late = [*(sample.late / _SCALE for sample in report.samples), *(look.late for look in looks)]
    return Outcome(waited, away, overload, tuple(look.share for look in looks), writes), percentile(late, 99)


async def _decide(on: Stage, law: Law, load: Load, looks: list[_Look]) -> None:
    """Look at Envoy's counts every half second of the input, as the product is told them, and follow the law."""
    clock, replicas = asyncio.get_running_loop().time, _Counted(load.pool)
    begun, (before, sent_away, _), share = clock(), await on.sent(), 0.0
    for number in range(1, round(load.seconds / REPORT) + 1):
        at = number * REPORT
        await asyncio.sleep(max(0.0, begun + at * _SCALE - clock()))
        local, remote, replicas.flying = await on.sent()
        decided = law(replicas, Sent(local - before, remote - sent_away), at)
        if decided != share:
            on.split(round(decided))
        before, sent_away, share = local, remote, decided
        looks.append(_Look(share, replicas.waiting(at) > 0, (clock() - begun) / _SCALE - at))


class _Counted(Replicas):
    """Real replicas, of which is known what Envoy counts: how many requests they have."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.flying = 0

    def in_flight(self, at: float) -> int:
        return self.flying

    def waiting(self, at: float) -> int:
        return max(self.flying - self.pool.size, 0)


def _on_arrival(answer: Answer) -> str:
    return answer.headers.get("x-on-arrival", "")
