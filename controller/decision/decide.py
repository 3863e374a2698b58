"""Apply the rule table to one model."""

from __future__ import annotations

from datetime import datetime

from controller.decision.decision import Decision, Verdict
from controller.decision.facts import Facts
from controller.decision.memory import Memory
from controller.decision.rules import RULES, Match, Situation
from controller.intent.terms import Terms


def decide(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> tuple[Decision, Memory]:
    """Decide the split of one model at `now` (UTC), and what to remember of it.

    Every rule is asked, so that the record explains also why the others did not apply; the first match wins.
    """
    memory = memory.observing(facts.local.ready, now)
    if memory.local_back_at is not None and now - memory.local_back_at >= terms.recover_after:
        memory = memory.recovered()
    situation = Situation(terms, facts, memory, now)
    answers = [(reason, rule(situation)) for reason, rule in RULES]
    reason, match = next((reason, answer) for reason, answer in answers if isinstance(answer, Match))
    decision = Decision(
        split=match.split,
        reason=reason,
        message=match.message,
        returns=match.returns,
        verdicts=tuple(Verdict(reason, isinstance(answer, Match), answer.message) for reason, answer in answers),
        wake_at=match.wake_at,
    )
    return decision, memory.deciding(decision, now)
