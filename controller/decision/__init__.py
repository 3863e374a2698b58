"""What share of a model's traffic goes where, and why: pure, and tested by timelines.

`decide(terms, facts, memory, now)` applies a table of rules, the first match wins, and returns one `Decision`. Status,
events, metrics, logs and the command line render that record and nothing else.
"""

from controller.decision.decide import decide
from controller.decision.decision import Decision, Reason, Verdict
from controller.decision.facts import Facts, Known, LocalFacts, RemoteFacts, Unknown
from controller.decision.memory import Memory
from controller.intent.terms import Override, Terms, terms_for

__all__ = [
    "Decision",
    "Facts",
    "Known",
    "LocalFacts",
    "Memory",
    "Override",
    "Reason",
    "RemoteFacts",
    "Terms",
    "Unknown",
    "Verdict",
    "decide",
    "terms_for",
]
