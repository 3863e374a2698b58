"""The record of one decision, which everything that explains it renders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controller.api.contract.route import Split


class Reason(StrEnum):
    """Why the split is what it is: the name of the rule that matched."""

    DISABLED = "Disabled"
    OVERRIDE = "Override"
    PAUSED = "Paused"
    LOCAL_DOWN = "LocalDown"
    REMOTE_DOWN = "RemoteDown"
    RECOVERING = "Recovering"
    STEADY = "Steady"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule said: whether it matched, and in words with the numbers it saw."""

    reason: Reason
    matched: bool
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A split and everything there is to say about it.

    `returns` says what would change it; `wake_at` is when it may change with nothing else changing.
    """

    split: Split
    reason: Reason
    message: str
    returns: str
    verdicts: tuple[Verdict, ...]
    wake_at: datetime | None = None
