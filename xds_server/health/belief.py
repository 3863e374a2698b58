"""What those of one namespace who use a backend believe of it. Pure.

Checks are everybody's. What requests say is believed in the namespace that sent them: who can make requests fail, by
what he asks or by how his model is set, would keep the backend from all others; and who has some answered would keep
others from finding that theirs are not (docs/adr/0086).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from controller.api.contract.health import RemoteHealth
from controller.api.timing import CheckTiming
from xds_server.health.evidence import Evidence
from xds_server.health.judgement import Traffic, assess, health_after
from xds_server.health.outcome import CheckOutcome
from xds_server.resources.names import Side


@dataclass(slots=True, eq=False)
class Belief:
    """The health of a backend in one namespace, where it is sent to by `cluster`, and what it follows from."""

    cluster: str
    users: set[Side]
    evidence: Evidence = field(default_factory=Evidence)
    health: RemoteHealth | None = None
    by_requests: bool = False
    """Whether real requests say so, and not a check alone."""

    def judge(
        self, check: CheckOutcome | None, traffic: Traffic, timing: CheckTiming, now: float, clock: datetime
    ) -> CheckOutcome | None:
        """Judge by what the checks say and how requests ended, at `now`, which is `clock` in UTC.

        None while nothing is known: then all stays as it is.
        """
        answers = traffic.answers(self.cluster, frozenset(map(str, self.users)), now, self.evidence.began)
        self.evidence = self.evidence.after(answers, timing, now, clock)
        outcome = assess(check, answers, self.evidence.fault)
        if outcome is not None:
            self.health = health_after(self.health, outcome, clock)
            self.by_requests = self.evidence.tells(outcome, timing, now)
        return outcome
