"""What is asked of the replicas: when requests come, and how long each takes. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.overflow.pool import Pool, pool_for
from tests.support.load import TracedRequest, azure_code_trace, azure_conversation_trace


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one input: each with its arrival and its time of service, in seconds, and the replicas for them.

    From `steady` on the demand is `times` the capacity until `steady_until`; None where it never is steady.
    """

    name: str
    pool: Pool
    requests: tuple[tuple[float, float], ...]
    seconds: float
    steady: tuple[float, float] | None = None
    times: float = 0.0


_POOL = Pool(replicas=3, places=8, service=1.0)


def _constant(times: float) -> Callable[[float], float]:
    return lambda _: times


def _step(at: float) -> float:
    return 1.5 if 60 <= at < 360 else 0.6


def _ramp(at: float) -> float:
    return max(0.4, 1.6 - abs(at - 300) / 250)


def _square(at: float) -> float:
    return 1.5 if at % 60 < 30 else 0.5


def _noise(at: float) -> float:
    """Around 0.9 of the capacity, up and down by half of it, by sines without a common period."""
    return 0.9 + 0.2 * math.sin(at / 3.1) + 0.15 * math.sin(at / 7.3) + 0.15 * math.sin(at / 17.9)


def poisson(
    name: str, times: Callable[[float], float], seconds: float, most: float = 2.0
) -> tuple[tuple[float, float], ...]:
    """Return a Poisson stream of so many times the capacity, by thinning, with exponential times of service."""
    chance = random.Random(name)
    return tuple(_poisson(chance, times, seconds, most))


def _poisson(
    chance: random.Random, times: Callable[[float], float], seconds: float, most: float
) -> Iterator[tuple[float, float]]:
    at = 0.0
    while True:
        at += chance.expovariate(most * _POOL.capacity)
        if at >= seconds:
            return
        if chance.random() * most < times(at):
            yield at, chance.expovariate(1 / _POOL.service)


def constant(name: str, times: float, seconds: float) -> Load:
    """Return a constant demand of so many times the capacity."""
    return Load(name, _POOL, poisson(name, _constant(times), seconds), seconds, (0, seconds), times)


def traced(name: str, trace: Sequence[TracedRequest]) -> Load:
    """Return a trace against the replicas that docs/surge.md measures with: fixed times of service."""
    pool = pool_for(trace)
    return Load(name, pool, tuple((one.at, pool.service) for one in trace), trace[-1].at)


def loads() -> Mapping[str, Load]:
    """Return every input by its name."""
    made = (
        Load("step", _POOL, poisson("step", _step, 540), 540, (60, 360), 1.5),
        Load("ramp", _POOL, poisson("ramp", _ramp, 600), 600),
        Load("square", _POOL, poisson("square", _square, 600), 600),
        Load("noise", _POOL, poisson("noise", _noise, 600), 600),
        replace(constant("hour", 1.5, 1800), name="hour at 1.5"),
        traced("code", azure_code_trace()),
        traced("conversation", azure_conversation_trace()),
    )
    return {one.name: one for one in made}
