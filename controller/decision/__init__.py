"""What share of an object's traffic goes where, and why: pure, and tested by timelines.

`decide(terms, facts, memory, now)` applies a table of rules, the first match wins, and returns one `Decision`. Status,
events, metrics, logs and the command line render that record and nothing else.
"""

from controller.decision.decision import Decision, Memory, Reason, Verdict, WouldBe
from controller.decision.detours import Detour, detour, elsewhere, overflow
from controller.decision.facts import (
    Cause,
    Facts,
    Known,
    LocalFacts,
    Measurement,
    RemoteFacts,
    Sample,
    SentRequests,
    Signal,
    Uncounted,
    Unknown,
)
from controller.decision.rules import decide

__all__ = [
    "Cause",
    "Decision",
    "Detour",
    "Facts",
    "Known",
    "LocalFacts",
    "Measurement",
    "Memory",
    "Reason",
    "RemoteFacts",
    "Sample",
    "SentRequests",
    "Signal",
    "Uncounted",
    "Unknown",
    "Verdict",
    "WouldBe",
    "decide",
    "detour",
    "elsewhere",
    "overflow",
]
