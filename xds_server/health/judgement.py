"""What is believed of a backend, from its checks and from real requests, and when it is checked again. Pure.

What real requests met in the last seconds is better evidence than a check of our own: Envoys may be in another network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from controller.api.contract.health import HOST_REFUSED, RemoteHealth
from controller.api.timing import CheckTiming
from xds_server.health.outcome import ANSWERING, LOOP_DETECTED, CheckOutcome
from xds_server.loads.loads import Answers

# So many failures in a row make a backend unhealthy, as for Envoy.
_FAILURES = 2

# All backends together: a check with TLS costs about 3 ms of CPU.
CHECKS_PER_SECOND = 50.0
_JITTER = 0.1


class Traffic(Protocol):
    """How real requests to backends ended: see `Loads`."""

    def answers(self, backend: str, sides: AbstractSet[str], now: float, began: float) -> Answers | None:
        """Count recent requests of some sides to a backend, by the name of its cluster; None while nothing is known.

        What was counted before `began` is left out.
        """
        ...


class _NoTraffic:
    def answers(self, backend: str, sides: AbstractSet[str], now: float, began: float) -> Answers | None:
        return None


NO_TRAFFIC: Traffic = _NoTraffic()
"""Nothing is known of any request."""


@dataclass(frozen=True, slots=True)
class CheckHistory:
    """What the checks of one backend say together: nothing yet, or `outcome`; and how many failed in a row."""

    outcome: CheckOutcome | None = None
    failures: int = 0

    def after(self, outcome: CheckOutcome) -> CheckHistory:
        """Add one more check: one success is enough, one failure is not, unless nothing was known before."""
        if outcome.healthy:
            return CheckHistory(outcome)
        failures = self.failures + 1
        if self.outcome is None or not self.outcome.healthy or failures >= _FAILURES:
            return CheckHistory(outcome, failures)
        return CheckHistory(self.outcome, failures)

    def of_changed_backend(self) -> CheckHistory:
        """Keep the outcome until the first check of a backend that changed, which counts at once."""
        return CheckHistory(self.outcome, _FAILURES - 1)

    @property
    def in_doubt(self) -> bool:
        """Whether the next check decides."""
        return self.failures > 0 and self.outcome is not None and self.outcome.healthy


def assess(check: CheckOutcome | None, traffic: Answers | None, fault: CheckOutcome | None) -> CheckOutcome | None:
    """Judge a backend by what its checks say, how real requests ended, and their evidence against it (`Evidence`).

    None while nothing is known. That requests fail is known from the requests; why is known from the check, if it
    failed too, but for those that come back. That some are answered is said where the check says otherwise, and only
    there: requests come and go, and if the words followed them, every model that shares the backend would have its
    status written each time.
    """
    if fault and (fault.reason == LOOP_DETECTED or check is None or check.healthy):
        return fault
    if traffic is not None and traffic.succeeded > 0 and not (check and check.healthy):
        words = f"requests are answered, though {_from_here(check)}" if check else "requests are answered"
        return CheckOutcome(True, ANSWERING, words)
    return check and CheckOutcome(check.healthy, check.reason, _from_here(check))


def health_after(before: RemoteHealth | None, outcome: CheckOutcome, now: datetime) -> RemoteHealth:
    """Return the health from now on: the very same as before unless there is something new."""
    # What is refused cannot be used (docs/adr/0030), which is more than that it does not answer.
    healthy = None if outcome.reason == HOST_REFUSED else outcome.healthy
    since = now if before is None or before.healthy != healthy else before.since
    health = RemoteHealth(healthy=healthy, reason=outcome.reason, message=outcome.message, since=since)
    return before if before == health and before else health


def _from_here(check: CheckOutcome) -> str:
    return f"seen from the xDS server: {check.message}"


def fair_rates(wanted: Mapping[str, float], together: float = CHECKS_PER_SECOND) -> Mapping[str, float]:
    """Share checks a second among namespaces, by what each wants: max-min fair.

    Who wants less than its part gets all of it, and what it leaves is shared by the others; so a namespace gets less
    only if there are others, and never less because another one wants more than its part.
    """
    rates, left = {}, together
    for number, (namespace, rate) in enumerate(sorted(wanted.items(), key=lambda one: one[1])):
        rates[namespace] = min(rate, left / (len(wanted) - number))
        left -= rates[namespace]
    return rates


class CheckParts:
    """Which part of the checks each namespace has, by how many backends it has; `least_interval` is in seconds."""

    def __init__(self, least_interval: float) -> None:
        self._least_interval = least_interval
        self._backends: Counter[str] = Counter()
        # None while it is not known.
        self._rates: Mapping[str, float] | None = None

    def add(self, namespace: str) -> None:
        """Count one backend more."""
        self._backends[namespace] += 1
        self._rates = None

    def remove(self, namespace: str) -> None:
        """Count one backend less."""
        self._backends[namespace] -= 1
        if not self._backends[namespace]:
            del self._backends[namespace]
        self._rates = None

    def interval(self, wanted: timedelta, namespaces: Iterable[str]) -> timedelta:
        """Return how often a backend is checked: a longer interval where all that use it have very many."""
        if self._rates is None:
            self._rates = fair_rates({one: count / self._least_interval for one, count in self._backends.items()})
        seconds = (self._backends[one] / self._rates[one] for one in namespaces)
        return max(wanted, timedelta(seconds=min(seconds, default=0)))


def pause_after(interval: timedelta, in_doubt: float | None, chance: float) -> float:
    """Return the seconds after a check: about the interval, or `in_doubt` at most if the next check decides.

    `chance`, from 0 to 1, keeps checks that began together apart.
    """
    whole = interval.total_seconds()
    return min(whole, in_doubt or whole) * (1 + _JITTER * (2 * chance - 1))


def token_pause_after(failures: int, timing: CheckTiming) -> float:
    """Return for how many seconds a token endpoint is left alone after so many failures in a row."""
    return min(timing.first_token_pause * 2.0 ** min(failures - 1, 10), timing.longest_token_pause)


def token_pause_within(lifetime: float, timing: CheckTiming) -> float:
    """Return for how many seconds a token that lives `lifetime` seconds answers for the endpoint: half of that."""
    return min(max(0.0, lifetime), timing.longest_token_life) / 2
