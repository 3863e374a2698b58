"""What real requests to a backend say of it, and for how long. Pure.

Nothing is sent to a backend that is known to fail, so what says so is gone within seconds, and a check that only
connects finds it well. Believed at once, it would get its share again, fail it, and lose it, for as long as it fails.
So it is ejected as Envoy ejects hosts (`base_ejection_time`, `max_ejection_time`): for the longer the more often it was
so, of late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.api.timing import CheckTiming
from xds_server.health.outcome import ERROR_ANSWERS, LOOP_DETECTED, CheckOutcome
from xds_server.loads.loads import Answers

ENOUGH = 5
"""Fewer requests say nothing."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What requests said of a backend; times are seconds of a steady clock.

    `found` is what they say against it; None while they do not. It is believed until `until`, unless one is answered,
    and after that while more requests say it. `tried_at` is `until` in UTC, and None after that. It was so `ejections`
    times, of late. `answered_at` is when it was last known that some are answered, if none failed without that since.
    What was counted before `began` is of another credential, and says nothing.
    """

    found: CheckOutcome | None = None
    until: float = -math.inf
    tried_at: datetime | None = None
    ejections: int = 0
    answered_at: float = -math.inf
    began: float = -math.inf

    @property
    def fault(self) -> CheckOutcome | None:
        """What requests say against it, and when it is tried again.

        No moment that has passed: who sends requests there all the same, by hand or since no replica is ready, and has
        all of them fail, has tried it.
        """
        if self.found is None:
            return None
        when = (
            f"at {self.tried_at:%Y-%m-%dT%H:%M:%SZ} at the earliest" if self.tried_at else "soon after the last of them"
        )
        return replace(self.found, message=f"{self.found.message}; it is tried again {when}")

    def after(self, traffic: Answers | None, timing: CheckTiming, now: float, clock: datetime) -> Evidence:
        """Return what is known with the recent requests at `now`, which is `clock` in UTC."""
        if traffic is not None and traffic.succeeded:
            return replace(self._ended(now), answered_at=now)
        known = replace(self, answered_at=-math.inf) if traffic is not None and traffic.failed else self
        found = _fault_in(traffic)
        if known.found is None:
            return known._ejected(found, timing, now, clock) if found else known
        is_over = now >= known.until
        if found is None:
            return known._ended(now) if is_over else known
        # A number alone is nothing new.
        if found.reason != known.found.reason or (is_over and known.tried_at):
            return replace(known, found=found, tried_at=None if is_over else known.tried_at)
        return known

    def _ejected(self, found: CheckOutcome, timing: CheckTiming, now: float, clock: datetime) -> Evidence:
        ejections = self.ejections + 1 if now - self.until < timing.ejections_forgotten else 1
        lasts = min(ejections * timing.ejection, timing.longest_ejection)
        tried_at = clock + timedelta(seconds=lasts)
        return replace(self, found=found, until=now + lasts, tried_at=tried_at, ejections=ejections)

    def _ended(self, now: float) -> Evidence:
        return replace(self, found=None, tried_at=None, until=now) if self.found else self

    def tells(self, outcome: CheckOutcome, timing: CheckTiming, now: float) -> bool:
        """Whether requests say what was judged: that some were answered of late, or that none is."""
        if outcome.healthy:
            return now - self.answered_at < timing.answers_believed
        return self.found is not None


def _fault_in(traffic: Answers | None) -> CheckOutcome | None:
    """Say what requests of which none was answered say against a backend.

    That they come back is known from them alone: a front of ours accepts connections, and its replicas answer a check.
    Two gateways may stand behind each other, and then some come back: it is a loop only if nothing else becomes of any.
    """
    if traffic is None:
        return None
    if traffic.lead_here:
        return CheckOutcome(
            False, LOOP_DETECTED, "it leads back to this gateway: requests sent there come back at once"
        )
    if traffic.came_back >= ENOUGH:
        words = "every request that is sent there comes back to this gateway, by way of others"
        return CheckOutcome(False, LOOP_DETECTED, words)
    if traffic.failed >= ENOUGH:
        words = f"none of the last {traffic.failed} requests was answered: 5xx or no answer"
        return CheckOutcome(False, ERROR_ANSWERS, words)
    return None
