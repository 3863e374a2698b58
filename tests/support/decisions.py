"""Decisions, said in a few words."""

from controller.api.contract.route import REMOTE, Shares, Split
from controller.decision import Decision, Reason


def a_decision(away: int, reason: Reason, message: str = "") -> Decision:
    """So many percent leave for the one remote backend."""
    return Decision(Split.away(away), Shares.of({REMOTE: away}), reason, message, "", ())
