"""What real requests met, in the last seconds: evidence that goes before what a check of our own found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controller.api.contract.health import RemoteHealth
from xds_server.health.outcome import ANSWERING, ERROR_ANSWERS, Outcome


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


# So many failures in a row make a backend unhealthy, as for Envoy.
_FAILURES = 2
# Fewer requests than that say nothing.
_REQUESTS = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks of one backend say together: nothing yet, or `outcome`; and how many failed in a row."""

    outcome: Outcome | None = None
    failures: int = 0

    def after(self, outcome: Outcome) -> Checked:
        """Take in one more check: one success is enough, one failure is not, unless nothing was known before."""
        if outcome.healthy:
            return Checked(outcome)
        failures = self.failures + 1
        told = self.outcome
        if told is None or not told.healthy or failures >= _FAILURES:
            return Checked(outcome, failures)
        return Checked(told, failures)

    def anew(self) -> Checked:
        """Keep what was said until the first check of a backend that changed, which counts at once."""
        return Checked(self.outcome, _FAILURES - 1)

    @property
    def in_doubt(self) -> bool:
        """Whether the next check decides."""
        return self.failures > 0 and self.outcome is not None and self.outcome.healthy


def judged(check: Outcome | None, traffic: Counts | None) -> Outcome | None:
    """Judge a backend: what real requests met goes before the check, which may see another network than Envoys do.

    That requests fail is known of them, why is known of the check, if it failed too. None while nothing is known.
    """
    if traffic and traffic.succeeded:
        if check is None or check.healthy:
            return Outcome(True, ANSWERING, "requests are answered")
        return Outcome(True, ANSWERING, f"requests are answered, though {_seen(check)}")
    if traffic and traffic.failed >= _REQUESTS and (check is None or check.healthy):
        words = f"none of the last {traffic.failed} requests was answered: 5xx or no answer"
        return Outcome(False, ERROR_ANSWERS, words)
    return check and Outcome(check.healthy, check.reason, _seen(check))


def health_after(before: RemoteHealth | None, outcome: Outcome, now: datetime) -> RemoteHealth:
    """Return the health from now on: the very same as before unless there is something new. A number alone is not."""
    if before is not None and before.healthy == outcome.healthy and before.reason == outcome.reason == ERROR_ANSWERS:
        return before
    since = now if before is None or before.healthy != outcome.healthy else before.since
    health = RemoteHealth(healthy=outcome.healthy, reason=outcome.reason, message=outcome.message, since=since)
    return before if before == health and before else health


def _seen(check: Outcome) -> str:
    return f"seen from the xDS server: {check.message}"
