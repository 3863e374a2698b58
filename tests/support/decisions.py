"""Decisions, and what they are made from, said in a few words."""

import itertools

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import REMOTE, Shares, Split
from controller.decision import Decision, Facts, LocalFacts, Reason, RemoteFacts, SentRequests, Signal, Unknown
from controller.signals.load_reports import NO_LOAD

REMOTES = (RemoteFacts(REMOTE, RemoteHealth(healthy=True)),)
"""One remote backend, which answers."""


def facts_with(*signals: Signal, ready: int = 3, traffic: SentRequests | Unknown = NO_LOAD) -> Facts:
    """Every replica is ready, the remote backend answers, and so much is measured."""
    return Facts(LocalFacts(ready, ready), REMOTES, signals=signals, traffic=traffic)


def a_decision(away: int, reason: Reason, message: str = "") -> Decision:
    """So many percent leave for the one remote backend."""
    return Decision(Split.away(away), Shares.of({REMOTE: away}), reason, message, "", ())


NEVER_TOGETHER = {
    # One rule at most decides by what is measured.
    (Reason.OVERLOADED, Reason.COOLING_DOWN),
    (Reason.OVERLOADED, Reason.SIGNALS_UNKNOWN),
    (Reason.COOLING_DOWN, Reason.SIGNALS_UNKNOWN),
    # Who wants nothing to leave has no overload.
    (Reason.DISABLED, Reason.OVERLOADED),
    (Reason.DISABLED, Reason.COOLING_DOWN),
    (Reason.DISABLED, Reason.SIGNALS_UNKNOWN),
    # No replica is ready, so none takes its traffic back.
    (Reason.NOTHING_ANSWERS, Reason.RECOVERING),
    (Reason.LOCAL_DOWN, Reason.RECOVERING),
}
"""Pairs of rules that cannot match at one time, in their order."""


def met_in(decision: Decision) -> set[tuple[Reason, Reason]]:
    """Return each two rules that matched, in their order."""
    return set(itertools.combinations([one.reason for one in decision.verdicts if one.matched], 2))
