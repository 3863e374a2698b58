"""What must leave, whoever decides. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


def must_leave(arrivals: Iterable[float], service: float, places: int) -> tuple[bool, ...]:
    """Say of each request whether it leaves under the policy that keeps as many as can be kept without a wait.

    `arrivals` ascend; a request that stays has one of `places` for `service` seconds from its arrival on. Nobody keeps
    more: as all take equally long, the one that came first is done first, so to send a request away though there is a
    place makes room for one other at the most (interval scheduling, by exchange).
    """
    ends: deque[float] = deque()
    leaves = []
    for arrival in arrivals:
        while ends and ends[0] <= arrival:
            ends.popleft()
        leaves.append(len(ends) >= places)
        if not leaves[-1]:
            ends.append(arrival + service)
    return tuple(leaves)
