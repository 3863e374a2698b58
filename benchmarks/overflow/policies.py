"""Who decides what leaves, and the law of a metric loop. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """One way to decide. Everything else is the same for all: Envoy, its load balancing, replicas, remote backend."""

    name: str
    interval: float | None = None
    """Seconds of the trace after which a metric loop sets the split anew."""
    is_limited: bool = False
    """Whether `maxRequestsPerReplica` is what the replicas really take."""
    workers: int = 1
    """Of Envoy."""


POLICIES = (
    Policy("no controller"),
    Policy("metric loop, 15 s", interval=15.0),
    Policy("metric loop, 5 s", interval=5.0),
    Policy("product, 1 worker", is_limited=True),
    Policy("product, 2 workers", is_limited=True, workers=2),
)


def share_away(demand: float, capacity: float, waiting: int = 0) -> int:
    """Return the percent that a metric loop sends away after an interval of `demand` (requests per second).

    It knows the capacity, measures what arrived and not what was served, has no delay and no damping. While some are
    `waiting` for a place everything leaves: what stays would wait behind them.
    """
    if waiting > 0:
        return 100
    return 0 if demand <= capacity else round(100 * (1 - capacity / demand))
