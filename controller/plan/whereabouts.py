"""What is told of requests that go elsewhere than the split sends them: from what was counted of them, from which
Envoys have the split, and from what was told before. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.api.contract.status import Condition, ModelDeploymentStatus
from controller.decision import Decision, Detour, Facts, SentRequests, Unknown, elsewhere
from controller.decision.detours import NOT_USED, OVERFLOW, REPLICAS_FAIL, still_unused
from controller.decision.facts import in_words
from controller.intent.intent import Intent, Terms
from controller.observe.proxies import Programmed
from controller.plan.conditions import BEHIND, UPDATES_WITHIN
from controller.plan.transitions import goes_elsewhere

# Since it was first told: nothing rests for longer, whatever `restoreAfter` is.
_LONGEST_REST = timedelta(minutes=1)

# So many of those that are behind are named; `Programmed`, and the log of the xDS server, have more.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class DecidedSplit:
    """A split that was decided, and what is known of where its requests go.

    `programmed` says which Envoys have it, None while that is not known. It has been decided on since `since`, None
    where that was only now: then what was counted followed another one. `is_edited` says that another edit of the
    object is on its way to the Envoys.
    """

    intent: Intent
    facts: Facts
    decision: Decision
    programmed: Programmed | None
    since: datetime | None
    is_edited: bool


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What is told: that requests go elsewhere (`detour`), or that they leave for want of room (`overflow`), one of
    them at most; or else, in `undecided`, why nothing follows yet from those that did. It is empty where none did.
    `settles_at` is when something follows though nothing else changes.
    """

    detour: Detour | None = None
    overflow: Detour | None = None
    undecided: str = ""
    settles_at: datetime | None = None


def whereabouts(split: DecidedSplit, before: ModelDeploymentStatus, now: datetime) -> Whereabouts:
    """Say what is to be told of one object, of which the status `before` told something; `now` is UTC."""
    terms, facts, decision = split.intent.terms, split.facts, split.decision
    found, excess = (None, None) if split.since is None else _elsewhere(split)
    undecided = _undecided(split, found or excess, before, now)
    if undecided:
        found = excess = None
    if terms.may_leave and facts.remotes:
        if excess and (failed := _told_lately("FailingOver", before, terms, decision, now)):
            found = _failed_and_full(failed, excess)
            excess = None if found else excess
        else:
            found = found or _still_unused(split, before) or _failed_over(before, terms, decision, now)
        if not found:
            excess = excess or _overflowed(before, terms, decision, now)
    if found or excess or not undecided:
        return Whereabouts(found, excess)
    # An edit that is late is looked at for that.
    settles_at = split.since + UPDATES_WITHIN if split.since else None
    return Whereabouts(undecided=undecided, settles_at=settles_at if settles_at and settles_at > now else None)


def _elsewhere(split: DecidedSplit) -> tuple[Detour | None, Detour | None]:
    behavior, local = split.intent.terms.behavior, split.facts.local
    is_limited, is_hedged = behavior.max_requests_per_replica is not None, split.intent.first_byte_timeout is not None
    sent = _arrived(split.facts)
    found, excess = elsewhere(split.decision.split, sent, local, is_limited=is_limited, is_hedged=is_hedged)
    return _or_behind(found, split.programmed), _or_behind(excess, split.programmed)


def _arrived(facts: Facts) -> SentRequests | Unknown:
    """Return what was sent; where no remote backend is known to answer, only what did get an answer there."""
    traffic, remotes = facts.traffic, facts.remotes
    is_down = bool(remotes) and all(one.health.healthy is False for one in remotes)
    return traffic.arrived() if is_down and isinstance(traffic, SentRequests) else traffic


def _or_behind(found: Detour | None, programmed: Programmed | None) -> Detour | None:
    """Say that an Envoy may also have sent requests there since it does not have the split, unless each has it."""
    if found is None or _is_complete(programmed):
        return found
    return replace(
        found, message=f"{found.message}, or an Envoy without this split sent them: {_who_has_it(programmed)}"
    )


def _is_complete(programmed: Programmed | None) -> bool:
    return programmed is not None and programmed.programmed >= programmed.connected


def _who_has_it(programmed: Programmed | None) -> str:
    if programmed is None:
        return "which ones have it is not reported"
    # Clients choose their names.
    names = ", ".join(in_words(one) for one in programmed.waiting[:_NAMED])
    return f"{programmed.programmed} of {programmed.connected} have it{f', waiting for {names}' if names else ''}"


def _undecided(split: DecidedSplit, found: Detour | None, before: ModelDeploymentStatus, now: datetime) -> str:
    """Say why nothing follows from requests that went elsewhere (`found`); empty where something does.

    An Envoy that is slow to take up a new split goes on with the one before: nothing fails then. It has the time that
    any edit has, and no more, for one that hangs would hide what its requests do for ever. What was once undecided
    stays so for as long: when the last Envoy has followed, what was counted is of before that.
    """
    if split.since is None or goes_elsewhere(before):
        return ""
    said, is_young = before.condition("FailingOver"), timedelta(0) <= now - split.since < UPDATES_WITHIN
    was_undecided = said is not None and said.reason == BEHIND
    if _is_complete(split.programmed):
        awaits = is_young and was_undecided and found is not None
    else:
        awaits = (is_young or split.is_edited) and (found is not None or was_undecided)
    if not awaits:
        return ""
    words = found.message if found else f"Envoys: {_who_has_it(split.programmed)}"
    return f"nothing is concluded while Envoys take up what is new; {words}"


def _still_unused(split: DecidedSplit, before: ModelDeploymentStatus) -> Detour | None:
    """Say that a side of a split between still gets nothing, as it was told: until something is known to go there.

    Where requests are rare, so are those that tell. What was counted before a restart is not known for minutes, and
    takes nothing back.
    """
    said, decision, traffic = before.condition("FailingOver"), split.decision, _arrived(split.facts)
    if said is None or said.reason not in NOT_USED or not _is_as_before(before, decision):
        return None
    if isinstance(traffic, Unknown) or not 0 < decision.split.remote < 100:
        return None
    if traffic.run is None and not traffic.total:
        return Detour(said.reason, f"no request is known to have come lately; none went there {_since(said)}")
    return _or_behind(still_unused(said.reason, decision.split, traffic, split.facts.local), split.programmed)


def _failed_over(before: ModelDeploymentStatus, terms: Terms, decision: Decision, now: datetime) -> Detour | None:
    """Say that requests went elsewhere, also when none did in the last seconds: for as long as it rests.

    Where all have one side, single ones that fail there, or are rare, would be told and taken back one by one: two
    writes and two events.
    """
    said = _told_lately("FailingOver", before, terms, decision, now)
    if said is None or said.status != "True":
        return None
    words = "none of the last requests is known to have gone elsewhere, and some did since"
    return Detour(said.reason, f"{words} {_since(said)}")


def _failed_and_full(said: Condition, excess: Detour) -> Detour | None:
    """Say that what leaves for want of room (`excess`) fails over, as it was said lately: the two are told by numbers
    that change with each report, and would take turns.
    """
    if (said.status, said.reason) != ("True", REPLICAS_FAIL):
        return None
    return Detour(REPLICAS_FAIL, f"{excess.message}; replicas failed some since {_since(said)}")


def _overflowed(before: ModelDeploymentStatus, terms: Terms, decision: Decision, now: datetime) -> Detour | None:
    """Say that requests left for want of room, also when none is known to leave now: for as long as it rests.

    While the replicas are nearly full, a single one leaves now and then by chance, and each would be said and taken
    back: two writes.
    """
    said = _told_lately("Offloading", before, terms, decision, now)
    if said is None or said.reason != OVERFLOW or terms.behavior.max_requests_per_replica is None:
        return None
    words = "none of the last requests is known to have left for want of room, and some did since"
    return Detour(OVERFLOW, f"{words} {_since(said)}")


def _told_lately(
    type_: str, before: ModelDeploymentStatus, terms: Terms, decision: Decision, now: datetime
) -> Condition | None:
    """Return what a condition said last, if it rests yet and the split is by the same rule as then.

    It rests for `restoreAfter` since it turned, so it turns twice in that time at the most; and for a minute at most.
    """
    said, span = before.condition(type_), min(terms.behavior.restore_after, _LONGEST_REST)
    turned = said.last_transition_time if said else None
    if turned is None or not turned <= now < turned + span:
        return None
    return said if _is_as_before(before, decision) else None


def _is_as_before(before: ModelDeploymentStatus, decision: Decision) -> bool:
    split = before.split
    return split is not None and (split.reason, str(split)) == (decision.reason, str(decision.split))


def _since(said: Condition) -> str:
    return f"{said.last_transition_time:%Y-%m-%dT%H:%M:%SZ}"
