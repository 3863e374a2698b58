"""When things happen in the demo. Pure; seconds from the start of the load."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def busiest_moment(arrivals: Sequence[float], start: float, end: float) -> float:
    """Return the moment in [start, end) that the most requests follow within half a second; `start` of a quiet time.

    `arrivals` ascend. The servers are killed there: a kill between two bursts would show nothing.
    """
    candidates = arrivals[bisect_left(arrivals, start) : bisect_left(arrivals, end)]
    return max(candidates, key=lambda moment: _following(arrivals, moment), default=start)


def kill_and_return(arrivals: Sequence[float], seconds: float) -> tuple[float, float]:
    """Return when the local servers are killed, and when they are started again."""
    return busiest_moment(arrivals, seconds * 0.3, seconds * 0.4), seconds * 0.65


def _following(arrivals: Sequence[float], moment: float) -> int:
    return bisect_left(arrivals, moment + 0.5) - bisect_left(arrivals, moment)
