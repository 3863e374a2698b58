"""How a trace is replayed: against which replicas, and how much faster than it was. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.overflow.pool import Pool, pool_for
from tests.support.load import TracedRequest, replay


@dataclass(frozen=True, slots=True)
class Plan:
    """One trace and its replicas in compressed time: `scale` seconds of the load are one of the trace."""

    pool: Pool
    arrivals: tuple[float, ...]
    """Seconds of the load."""
    scale: float

    @property
    def service(self) -> float:
        """Seconds of the load that each request keeps its place."""
        return self.pool.service * self.scale

    @property
    def capacity(self) -> float:
        """Requests per second of the load."""
        return self.pool.capacity / self.scale


def plan_for(trace: Sequence[TracedRequest], share: float, seconds: float) -> Plan:
    """Plan to replay this share of a trace, from its start, at a pace that would replay all of it in `seconds`.

    The replicas are those for the whole trace.
    """
    scale = seconds / trace[-1].at
    count = round(len(trace) * share)
    end = trace[min(count, len(trace) - 1)].at
    arrivals = tuple(request.at for request in replay(trace, 0.0, count, end * scale))
    return Plan(pool_for(trace), arrivals, scale)
