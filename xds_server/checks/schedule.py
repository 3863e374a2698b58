"""When a backend is checked again, in seconds: pure."""

from __future__ import annotations

from datetime import timedelta

_IN_DOUBT = 1.0
# All backends together: a check with TLS costs about 3 ms of CPU.
_CHECKS_PER_SECOND = 50
_JITTER = 0.1
_FIRST_TOKEN_PAUSE, _LONGEST_TOKEN_PAUSE = 10.0, 300.0
# What a token endpoint says of a token's life is not believed without end.
_LONGEST_TOKEN_LIFE = 24 * 3600.0


def interval_among(interval: timedelta, backends: int) -> timedelta:
    """Return the interval of a backend where so many are checked: a longer one where there are very many."""
    return max(interval, timedelta(seconds=backends / _CHECKS_PER_SECOND))


def pause_after(interval: timedelta, *, in_doubt: bool, chance: float) -> float:
    """Return the pause after a check: about the interval, or a short one if the next check decides.

    `chance`, from 0 to 1, keeps checks that began together apart.
    """
    whole = interval.total_seconds()
    return (min(whole, _IN_DOUBT) if in_doubt else whole) * (1 + _JITTER * (2 * chance - 1))


def token_pause_after(failures: int) -> float:
    """Return how long a token endpoint is left alone after so many failures in a row."""
    return min(_FIRST_TOKEN_PAUSE * 2.0 ** min(failures - 1, 10), _LONGEST_TOKEN_PAUSE)


def token_pause_within(lifetime: float) -> float:
    """Return how long a token that lives `lifetime` seconds answers for the endpoint: half of that."""
    return min(max(0.0, lifetime), _LONGEST_TOKEN_LIFE) / 2
