"""The words of the result: one table for each trace, one line for each goal. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.overflow.outcome import Outcome, longest, typical
from benchmarks.overflow.policies import Policy

Outcomes = Mapping[str, Mapping[Policy, Outcome]]
"""By trace, by policy."""

_HEADER = (
    f"{'policy':<20}{'requests':>9}{'failed':>7}{'met full':>9}{'away':>8}{'oracle':>8}{'beyond':>8}"
    f"{'p50':>7}{'p99':>8}{'bursts':>8}{'at once':>8}{'median':>10}{'longest':>10}{'late p99':>10}"
)
LEGEND = """\
met full: found every place of its replica taken, and waited. away: answered by the remote backend; oracle: what must be
if nobody is to wait; beyond: the difference. p50, p99: from sending to the first byte. bursts: begin with a request
that is too much after 5 s without one; at once: that request was itself answered by the remote backend; median,
longest: from that request to the first byte of the next remote answer. All in seconds of the trace, but for late:
milliseconds that the load generator was behind."""


class Goal(NamedTuple):
    """What the product is to keep with every trace."""

    text: str
    bound: str
    figure: Callable[[Outcome], float]
    at_most: float
    shown: str
    """The format of the figure."""
    workers: int = 2
    """For an Envoy of so many workers at most."""

    def worst(self, outcomes: Outcomes) -> tuple[float, str]:
        """Return the highest figure of the product, and where it is from."""
        return max(
            (self.figure(outcome), f"{trace}, {policy.name}")
            for trace, by_policy in outcomes.items()
            for policy, outcome in by_policy.items()
            if policy.is_limited and policy.workers <= self.workers
        )

    def met(self, outcomes: Outcomes) -> bool:
        """Judge by the worst."""
        return self.worst(outcomes)[0] <= self.at_most


def _not_at_once(outcome: Outcome) -> float:
    return sum(not burst.same_request for burst in outcome.bursts())


GOALS = (
    Goal("requests that met a full replica", "<= 2 %", lambda one: one.met_full, 0.02, ".2%"),
    Goal("sent away beyond the oracle's", "<= 5 %", lambda one: one.beyond, 0.05, ".2%"),
    # Of two workers that look in the same instant, both let their request pass: it may be the first of a burst.
    Goal("bursts, one worker: the first excess request stayed", "0", _not_at_once, 0, ".0f", workers=1),
    Goal("failed requests", "0", lambda one: one.failed, 0, ".0f"),
)


def table(by_policy: Mapping[Policy, Outcome]) -> str:
    """Write a row for each policy; LEGEND says how to read it."""
    return "\n".join([_HEADER, *(_row(policy, outcome) for policy, outcome in by_policy.items())])


def verdict(goal: Goal, outcomes: Outcomes) -> str:
    """Write whether a goal is met, and by which figure."""
    figure, where = goal.worst(outcomes)
    word = "met" if goal.met(outcomes) else "missed"
    return f"{word:<7}{goal.text:<60}{goal.bound:>7}: {figure:{goal.shown}} at most ({where})"


def _row(policy: Policy, outcome: Outcome) -> str:
    bursts = outcome.bursts()
    at_once = sum(burst.same_request for burst in bursts)
    return (
        f"{policy.name:<20}{outcome.requests:>9}{outcome.failed:>7}{outcome.met_full:>9.2%}{outcome.away:>8.2%}"
        f"{outcome.oracle:>8.2%}{outcome.beyond:>+8.2%}{outcome.first_byte(50):>7.2f}{outcome.first_byte(99):>8.2f}"
        f"{len(bursts):>8}{at_once:>8}{_or_never(typical(bursts)):>10}{_or_never(longest(bursts)):>10}"
        f"{1000 * outcome.late(99):>10.1f}"
    )


def _or_never(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.2f}"
