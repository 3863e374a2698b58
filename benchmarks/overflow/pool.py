"""The replicas of a trace: how many requests they serve at once, and how long each takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.load import TracedRequest

TIMES_THE_MEAN = 2.0
"""The capacity of the replicas, as a multiple of the mean rate of the trace."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas that are alike: each serves a request in each of its places, and lets the others wait in order."""

    replicas: int
    places: int
    """Of each replica."""
    service: float
    """Seconds of the trace that each request keeps its place."""

    @property
    def size(self) -> int:
        """All places."""
        return self.replicas * self.places

    @property
    def capacity(self) -> float:
        """Requests per second of the trace."""
        return self.size / self.service


def pool_for(trace: Sequence[TracedRequest], replicas: int = 3, places: int = 4) -> Pool:
    """Build the pool that serves `TIMES_THE_MEAN` as much as the trace brings.

    The places are given, so the time of service follows.
    """
    mean = len(trace) / (trace[-1].at - trace[0].at)
    return Pool(replicas, places, replicas * places / (TIMES_THE_MEAN * mean))
