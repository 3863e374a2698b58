"""The last decisions of a model, as its status keeps them: few entries that cover a useful time."""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.api.contract.status import HISTORY_LENGTH, HistoryEntry
from controller.decision import Decision

# The longest sequence of reasons that is recognised when it comes again, and how close the two must be.
_LONGEST_SEQUENCE = 4
_WITHIN = timedelta(hours=1)


def with_decision(history: tuple[HistoryEntry, ...], decision: Decision, now: datetime) -> tuple[HistoryEntry, ...]:
    """Add what was decided, newest first.

    Steps with one reason are one entry: the last of them. A sequence of reasons that comes again within the hour (gone,
    back, gone, back) is folded: each of its entries stays once, as of its last time, and says how often it was there
    and since when. So ten entries cover a model that flaps all day, and nothing that happened is left unsaid.
    """
    latest = history[0] if history else None
    if latest and (latest.reason, latest.split) == (decision.reason, str(decision.split)):
        return history
    entry = HistoryEntry(at=now, split=str(decision.split), reason=decision.reason, message=decision.message)
    if latest and latest.reason == decision.reason:
        entry = entry.model_copy(update={"times": latest.times, "since": latest.since})
        return (entry, *history[1:])
    return _folded((entry, *history))[:HISTORY_LENGTH]


def _folded(history: tuple[HistoryEntry, ...]) -> tuple[HistoryEntry, ...]:
    for length in range(2, _LONGEST_SEQUENCE + 1):
        newer, older = history[:length], history[length : 2 * length]
        if [one.reason for one in newer] == [one.reason for one in older] and newer[0].at - older[-1].at <= _WITHIN:
            return (*map(_together, newer, older), *history[2 * length :])
    return history


def _together(newer: HistoryEntry, older: HistoryEntry) -> HistoryEntry:
    times = (newer.times or 1) + (older.times or 1)
    return newer.model_copy(update={"times": times, "since": older.since or older.at})
