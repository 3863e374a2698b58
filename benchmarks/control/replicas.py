"""A queueing model of the replicas (M/G/c, one queue for each): who waits, and what each kind of metric shows. Pure."""

from __future__ import annotations

import heapq
from collections import deque

from benchmarks.overflow.pool import Pool


class Replicas:
    """Replicas that serve a request in each of their places, and let others wait in order.

    A request goes to the one with the fewest in flight, as with Envoy's least request. Times ascend.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._free = [[0.0] * pool.places for _ in range(pool.replicas)]
        self._ends: list[list[float]] = [[] for _ in range(pool.replicas)]
        self._served: deque[tuple[float, float]] = deque()

    def take(self, at: float, service: float) -> float:
        """Take a request; return how long it waits."""
        self._leave(at)
        one = min(range(self.pool.replicas), key=lambda number: len(self._ends[number]))
        start = max(at, self._free[one][0])
        heapq.heapreplace(self._free[one], start + service)
        heapq.heappush(self._ends[one], start + service)
        self._served.append((start, start + service))
        return start - at

    def in_flight(self, at: float) -> int:
        """Count the requests that wait or are served."""
        self._leave(at)
        return sum(map(len, self._ends))

    def waiting(self, at: float) -> int:
        """Count the requests that wait."""
        self._leave(at)
        return sum(max(len(ends) - self.pool.places, 0) for ends in self._ends)

    def busy(self, since: float, at: float) -> float:
        """Return which part of the places was busy, on average, as CPU that serves requests would be."""
        while self._served and self._served[0][1] <= since:
            self._served.popleft()
        served = sum(max(min(end, at) - max(start, since), 0.0) for start, end in self._served)
        return served / ((at - since) * self.pool.size)

    def _leave(self, at: float) -> None:
        for ends in self._ends:
            while ends and ends[0] <= at:
                heapq.heappop(ends)
