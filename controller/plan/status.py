"""The parts of a status, each from what was observed and decided; among them the history of decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeGuard

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Remote
from controller.api.contract.status import (
    HISTORY_LENGTH,
    DetourStatus,
    HistoryEntry,
    LocalStatus,
    ModelDeploymentStatus,
    RemoteStatus,
    SplitStatus,
    TrafficStatus,
    VerdictStatus,
)
from controller.decision import Cause, Decision, Detour, LocalFacts, Memory, SentRequests, Unknown, Verdict, WouldBe
from controller.decision.detours import OVERFLOW
from controller.decision.facts import ENOUGH, NOT_CHECKED, cut
from controller.intent.intent import Terms

Healths = Mapping[str, RemoteHealth | None]
"""What is known of the remote backends that requests may leave for, by their names."""

# The longest sequence of reasons that is recognised when it comes again, and how close the two must be.
_LONGEST_SEQUENCE = 4
_WITHIN = timedelta(hours=1)

# Characters of an entry: what was decided, and what was measured then, of a few metrics each.
_LONGEST_MESSAGE = 4_000

# The age of a split when few requests are worth a write, too, and when the first that are counted no longer are.
_SPARSE_AFTER = timedelta(seconds=30)
_FIRST_WITHIN = timedelta(minutes=5)


def with_decision(history: tuple[HistoryEntry, ...], decision: Decision, now: datetime) -> tuple[HistoryEntry, ...]:
    """Add what was decided, newest first.

    Each entry has the numbers that were measured when it was made, beside those that its message is about. Steps with
    one reason are one entry: the last of them. A sequence of reasons that comes again within the hour (gone,
    back, gone, back) is folded: each of its entries stays once, as of its last time, and says how often it was there
    and since when. So ten entries cover a model that flaps all day, and nothing that happened is left unsaid.
    """
    latest = history[0] if history else None
    would_be = _text_of(decision.would_be)
    decided = (decision.reason, str(decision.split), would_be)
    if latest and (latest.reason, latest.split, latest.would_be) == decided:
        return history
    then = f"; measured at {now:%Y-%m-%dT%H:%M:%SZ}: {decision.measured}" if decision.measured else ""
    entry = HistoryEntry(
        at=now,
        split=str(decision.split),
        reason=decision.reason,
        message=cut(f"{decision.message}{then}", _LONGEST_MESSAGE),
        would_be=would_be,
    )
    if latest and _cause(latest) == _cause(entry):
        entry = entry.model_copy(update={"times": latest.times, "since": latest.since})
        return (entry, *history[1:])
    return _folded((entry, *history))[:HISTORY_LENGTH]


def _folded(history: tuple[HistoryEntry, ...]) -> tuple[HistoryEntry, ...]:
    for length in range(2, _LONGEST_SEQUENCE + 1):
        newer, older = history[:length], history[length : 2 * length]
        if [*map(_cause, newer)] == [*map(_cause, older)] and newer[0].at - older[-1].at <= _WITHIN:
            return (*map(_together, newer, older), *history[2 * length :])
    return history


def _text_of(would_be: WouldBe | None) -> str | None:
    return str(would_be) if would_be else None


def _cause(entry: HistoryEntry) -> tuple[str, str | None]:
    """Say which rule decided, and which would have."""
    return entry.reason, entry.would_be and entry.would_be.partition(" ")[2]


def _together(newer: HistoryEntry, older: HistoryEntry) -> HistoryEntry:
    times = (newer.times or 1) + (older.times or 1)
    return newer.model_copy(update={"times": times, "since": older.since or older.at})


def split_status(decision: Decision, memory: Memory, found: Detour | None, now: datetime) -> SplitStatus:
    """Show the split in force, and whether requests go where it sends them."""
    return SplitStatus(
        local=decision.split.local,
        remote=decision.split.remote,
        reason=decision.reason,
        message=with_detour(decision.message, found),
        since=memory.split_since or now,
        returns=decision.returns,
        changes_at=decision.wake_at,
        would_be=_text_of(decision.would_be),
    )


def verdict_statuses(decision: Decision, before: Iterable[VerdictStatus]) -> tuple[VerdictStatus, ...]:
    """Show what every rule said; most say the same as `before`, with each look."""
    known = {one.rule: one for one in before}
    return tuple(_verdict_status(one, known.get(one.reason)) for one in decision.verdicts)


def _verdict_status(said: Verdict, before: VerdictStatus | None) -> VerdictStatus:
    if before and (before.matched, before.message) == (said.matched, said.message):
        return before
    return VerdictStatus(rule=said.reason, matched=said.matched, message=said.message)


def with_detour(words: str, found: Detour | None) -> str:
    """Add to what was decided that requests go elsewhere."""
    if found is None:
        return words
    return f"{words}; {found.message}" if found.reason == OVERFLOW else f"{words}; but {found.message}"


def detour_status(found: Detour | None) -> DetourStatus | None:
    """Show what Envoy does by itself, if it does."""
    return DetourStatus(reason=found.reason, message=found.message, to_remote=found.to_remote) if found else None


def traffic_status(traffic: SentRequests | Unknown, now: datetime) -> TrafficStatus | None:
    """Show where requests went lately, if any did."""
    if isinstance(traffic, Unknown) or not traffic.total:
        return None
    return TrafficStatus(local=traffic.local, remote=traffic.remote, seconds=round(traffic.seconds, 1), at=now)


def is_shared(traffic: SentRequests | Unknown) -> TypeGuard[Unknown]:
    """Say whether it is not known where requests went since they cannot be told from those of other models."""
    return isinstance(traffic, Unknown) and traffic.cause is Cause.SHARED


def is_counted(status: ModelDeploymentStatus) -> bool:
    """Say whether a status shows where requests went by the split that it has."""
    split, traffic = status.split, status.traffic
    return split is not None and traffic is not None and traffic.at > split.since


def is_first_of_split(traffic: TrafficStatus | None, before: ModelDeploymentStatus) -> bool:
    """Say whether requests were counted that a status does not know: the first by a split that sends some away.

    They are enough to say something, or what there is half a minute after that split began. Minutes later it is no
    longer asked: a definition that drops the counts would have them written again and again.
    """
    split = before.split
    if traffic is None or split is None or not split.remote or is_counted(before):
        return False
    age = traffic.at - split.since
    is_enough = traffic.local + traffic.remote >= ENOUGH or age >= _SPARSE_AFTER
    return timedelta(0) < age < _FIRST_WITHIN and is_enough


def local_status(local: LocalFacts, terms: Terms, *, may_leave: bool) -> LocalStatus:
    """Show the replicas, and what they take where the excess may leave."""
    each = terms.behavior.max_requests_per_replica
    bounded = each is not None and terms.may_leave and may_leave
    return LocalStatus(ready=local.ready, total=local.total, capacity=each * local.ready if each and bounded else None)


def local_facts(status: ModelDeploymentStatus) -> LocalFacts:
    """Return the replicas that a status shows."""
    return LocalFacts(status.local.ready, status.local.total) if status.local else LocalFacts(0, 0)


def remote_status(remotes: tuple[Remote, ...], healths: Healths) -> RemoteStatus | None:
    """Show the remote backend that is tried first, if the object has any."""
    if not remotes:
        return None
    first = remotes[0]
    health = healths.get(first.name)
    return RemoteStatus.of(first.authority, None if health == NOT_CHECKED else health)
