"""What real requests met, in the last seconds: evidence that goes before what a check of our own found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests that Envoys sent to one backend in the last seconds: answered, and not (5xx or no answer at all)."""

    succeeded: int
    failed: int


class Traffic(Protocol):
    """Where the counts come from."""

    def counts(self, backend: str) -> Counts | None:
        """Count the recent requests of one backend, by the name of its cluster; None while nothing is known."""
        ...


class _NoTraffic:
    def counts(self, backend: str) -> Counts | None:
        return None


NO_TRAFFIC: Traffic = _NoTraffic()
"""Nothing is known of any request."""
