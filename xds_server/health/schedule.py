"""When a backend is checked again, in seconds: pure."""

from __future__ import annotations

from datetime import timedelta

from controller.api.timing import CheckTiming

# All backends together: a check with TLS costs about 3 ms of CPU.
_CHECKS_PER_SECOND = 50
_JITTER = 0.1


def interval_among(interval: timedelta, backends: int) -> timedelta:
    """Return the interval of a backend where so many are checked: a longer one where there are very many."""
    return max(interval, timedelta(seconds=backends / _CHECKS_PER_SECOND))


def pause_after(interval: timedelta, in_doubt: float | None, chance: float) -> float:
    """Return the pause after a check: about the interval, or `in_doubt` at most if the next check decides.

    `chance`, from 0 to 1, keeps checks that began together apart.
    """
    whole = interval.total_seconds()
    return min(whole, in_doubt or whole) * (1 + _JITTER * (2 * chance - 1))


def token_pause_after(failures: int, timing: CheckTiming) -> float:
    """Return how long a token endpoint is left alone after so many failures in a row."""
    return min(timing.first_token_pause * 2.0 ** min(failures - 1, 10), timing.longest_token_pause)


def token_pause_within(lifetime: float, timing: CheckTiming) -> float:
    """Return how long a token that lives `lifetime` seconds answers for the endpoint: half of that."""
    return min(max(0.0, lifetime), timing.longest_token_life) / 2
