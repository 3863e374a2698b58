"""What is asked of the replicas: when requests come, and how long each takes. Pure."""

from __future__ import annotations

import bisect
import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.overflow.pool import Pool, pool_for
from tests.support.load import TracedRequest, azure_code_trace, azure_conversation_trace


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one input: each with its arrival and its time of service, in seconds, and the replicas for them.

    `demand` says how many times the capacity is asked for at a moment: by what the arrivals were drawn from, or as they
    were counted in a trace. It is constant while `steady`, from one moment to another; None where it never is.
    """

    name: str
    pool: Pool
    requests: tuple[tuple[float, float], ...]
    seconds: float
    demand: Callable[[float], float]
    steady: tuple[float, float] | None = None


_COUNTED = 10.0
"""Seconds over which the requests of a trace are counted, as the product counts them."""

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
    demand = _constant(times)
    return Load(name, _POOL, poisson(name, demand, seconds), seconds, demand, (0, seconds))


def another(load: Load, number: int, seconds: float | None = None) -> Load:
    """Return a stream with the demand of one that was drawn, another one for each number; not of a trace."""
    name, lasts = f"{load.name} {number}", seconds or load.seconds
    return replace(load, name=name, requests=poisson(name, load.demand, lasts), seconds=lasts)


def surge() -> Load:
    """Return a surge of 200 seconds, of requests that all take as long: those of real replicas."""

    def times(at: float) -> float:
        return 1.5 if 60 <= at < 260 else 0.6

    requests = tuple((at, _POOL.service) for at, _ in poisson("surge", times, 360))
    return Load("surge", _POOL, requests, 360, times, (60, 260))


def traced(name: str, trace: Sequence[TracedRequest]) -> Load:
    """Return a trace against the replicas that docs/surge.md measures with: fixed times of service."""
    pool = pool_for(trace)
    arrivals = tuple(one.at for one in trace)
    return Load(name, pool, tuple((at, pool.service) for at in arrivals), arrivals[-1], _counted(arrivals, pool))


def _counted(arrivals: Sequence[float], pool: Pool) -> Callable[[float], float]:
    def demand(at: float) -> float:
        count = bisect.bisect_right(arrivals, at) - bisect.bisect_right(arrivals, at - _COUNTED)
        return count / _COUNTED / pool.capacity

    return demand


@functools.cache
def loads() -> Mapping[str, Load]:
    """Return every input by its name."""
    made = (
        Load("step", _POOL, poisson("step", _step, 540), 540, _step, (60, 360)),
        Load("ramp", _POOL, poisson("ramp", _ramp, 600), 600, _ramp),
        Load("square", _POOL, poisson("square", _square, 600), 600, _square),
        Load("noise", _POOL, poisson("noise", _noise, 600), 600, _noise),
        replace(constant("hour", 1.5, 1800), name="hour at 1.5"),
        traced("code", azure_code_trace()),
        traced("conversation", azure_conversation_trace()),
    )
    return {one.name: one for one in made}
