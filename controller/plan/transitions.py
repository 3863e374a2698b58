"""What is new to somebody who watches an object: how urgent a write is, its events and log lines, from two statuses.

So a restart repeats nothing, what was not written is no event, and an equal status makes none.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from controller.api.contract.status import Condition, ModelDeploymentStatus
from controller.decision import Reason
from controller.decision.detours import OVERFLOW
from controller.plan.conditions import BY_ENVOY, UPDATING
from controller.plan.signals import AVAILABLE, PENDING
from controller.plan.status import is_first_of_split
from controller.runtime.budget import Urgency
from controller.store.events import Event
from controller.store.objects import StoredObject

logger = logging.getLogger(__name__)

# Splits that somebody should look into.
_ALARMING = (Reason.LOCAL_DOWN, Reason.REMOTE_DOWN)

_News = tuple[Literal["Normal", "Warning"], str, str]


def transitions(
    stored: StoredObject, before: ModelDeploymentStatus, after: ModelDeploymentStatus, at: datetime
) -> tuple[Event, ...]:
    """List the events of one write: another split or health, requests that go elsewhere or leave for want of room, not
    accepted or found, ready, metrics that cannot be read.

    Of the steps by which a split moves for one reason the first is an event; the others are in the status. What an
    event tells as its cause has none of its own.
    """
    told = (*_accepted(before, after), *_resolved(before, after), *_split(before, after), *_ready(before, after))
    elsewhere = (*_failing_over(before, after), *_overflowing(before, after))
    measured = _measured(before, after)
    news = (*told, *_health(before, after, told), *elsewhere, *measured, *_fronted(before, after))
    uid = str(stored.metadata["uid"])
    return tuple(Event(stored.ref, uid, type_, reason, message, at) for type_, reason, message in news)


def log_transitions(stored: StoredObject, before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
    """Log another split, step by step, another health, metrics that cannot be read, and ready or no longer."""
    model = f"{stored.ref.namespace}/{stored.ref.name}"
    was_split, split = before.split, after.split
    if split and (was_split is None or (str(was_split), was_split.would_be) != (str(split), split.would_be)):
        why = {"split": str(split), "reason": split.reason, "because": split.message}
        is_shadow = was_split is not None and str(was_split) == str(split)
        logger.info("split would change" if is_shadow else "split changed", extra={"model": model, **why})
    for type_, words in (("LocalHealthy", "local health"), ("RemoteHealthy", "remote health")):
        was, health = before.condition(type_), after.condition(type_)
        if health and (was is None or (was.status, was.reason) != (health.status, health.reason)):
            found = {"healthy": health.status, "reason": health.reason, "because": health.message}
            logger.info(words, extra={"model": model, **found})
    for level, reason, because in _failing_over(before, after):
        log = logger.warning if level == "Warning" else logger.info
        log("requests fail over", extra={"model": model, "reason": reason, "because": because})
    for _, reason, because in _overflowing(before, after):
        logger.info("requests overflow", extra={"model": model, "reason": reason, "because": because})
    for level, reason, because in _measured(before, after):
        cannot = level == "Warning"
        log, words = (
            (logger.warning, "metrics cannot be read") if cannot else (logger.info, "metrics can be read again")
        )
        log(words, extra={"model": model, "reason": reason, "because": because})
    was, ready = before.condition("Ready"), after.condition("Ready")
    if ready and (was is None or (was.status, was.message) != (ready.status, ready.message)):
        words = "model ready" if ready.status == "True" else "model not ready"
        logger.info(words, extra={"model": model, "reason": ready.reason, "because": ready.message})


def _split(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, split = before.split, after.split
    # Of the first split, when it serves, Ready tells: until then not all is known that decides on it.
    if split is None or was is None:
        return
    if split.would_be and _rule_of(was.would_be) != _rule_of(split.would_be):
        change = str(split) if str(was) == str(split) else f"{was} -> {split}"
        yield "Normal", split.reason, f"split {change}: {split.message}"
        return
    if str(was) == str(split):
        return
    if split.reason == Reason.NOTHING_ANSWERS:
        return  # so does Ready, with the cause
    if was.reason == split.reason and split.reason != Reason.OVERRIDE:
        return
    type_: Literal["Normal", "Warning"] = "Warning" if split.reason in _ALARMING else "Normal"
    yield type_, split.reason, f"split {was} -> {split}: {split.message}"


def _rule_of(would_be: str | None) -> str:
    """Say which rule would decide: the steps that one makes are no news."""
    return would_be.partition(" ")[2] if would_be else Reason.STEADY


def is_failing_over(status: ModelDeploymentStatus) -> bool:
    """Say whether requests go elsewhere than the split sends them."""
    found = status.condition("FailingOver")
    return found is not None and found.status == "True"


def goes_elsewhere(status: ModelDeploymentStatus) -> bool:
    """Say whether Envoy sends requests elsewhere by itself, because one side fails or the replicas are full."""
    found = status.condition("Offloading")
    return is_failing_over(status) or (found is not None and found.reason in BY_ENVOY)


def _failing_over(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, now = before.condition("FailingOver"), after.condition("FailingOver")
    if now and now.status == "True" and (was is None or (was.status, was.reason) != ("True", now.reason)):
        yield "Warning", now.reason, now.message
    elif now and now.status == "False" and is_failing_over(before) and not _overflow(after):
        yield _again(after)


def _overflow(status: ModelDeploymentStatus) -> Condition | None:
    """Return what says that the excess of a limit leaves, if it does and no rule sends anything away."""
    found = status.condition("Offloading")
    return found if found and found.reason == OVERFLOW else None


def _overflowing(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    """Tell that the excess of a limit leaves, and that it does no longer; of another split its own event tells."""
    was, now = _overflow(before), _overflow(after)
    if now and not was:
        yield "Normal", now.reason, now.message
    elif was and not now and str(before.split) == str(after.split) and not is_failing_over(after):
        yield _again(after)


def _again(status: ModelDeploymentStatus) -> _News:
    return "Normal", "AsDecided", f"split {status.split}: requests go where it sends them again"


def _measured(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    """Tell once when metrics cannot be read, and once when all of them can again."""
    was, now = before.condition(AVAILABLE), after.condition(AVAILABLE)
    told = was is not None and was.status == "False"
    if now and now.status == "False" and not told:
        yield "Warning", "SignalsNotAvailable", f"{now.reason}: {now.message}"
    elif now and now.status == "True" and told:
        yield "Normal", AVAILABLE, now.message


def _accepted(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, accepted = before.condition("Accepted"), after.condition("Accepted")
    if accepted and accepted.status == "False" and (was is None or _said(was) != _said(accepted)):
        yield "Warning", accepted.reason, accepted.message


def _resolved(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, resolved = before.condition("ResolvedRefs"), after.condition("ResolvedRefs")
    if resolved is None or (was and _said(was) == _said(resolved)):
        return
    if resolved.status == "False":
        yield "Warning", resolved.reason, resolved.message
    elif was and was.status == "False":
        yield "Normal", "Resolved", "everything that the spec refers to was found"


def _health(before: ModelDeploymentStatus, after: ModelDeploymentStatus, told: Collection[_News]) -> Iterator[_News]:
    """Tell of a side that is healthy or no longer. Which health a new object has is no change of it.

    A remote backend that was told not to answer is told when it does, also if nobody knew anything in between.
    """
    was, local = before.condition("LocalHealthy"), after.condition("LocalHealthy")
    of_replicas = (*Reason, "Ready", "NotReady")
    if was and local and was.status != local.status and not any(reason in of_replicas for _, reason, _ in told):
        good = local.status == "True"
        yield "Normal" if good else "Warning", "LocalHealthy" if good else "LocalNotHealthy", local.message
    was, remote = before.condition("RemoteHealthy"), after.condition("RemoteHealthy")
    if was is None or remote is None or (was.status, was.reason) == (remote.status, remote.reason):
        return
    warned = [message for type_, _, message in told if type_ == "Warning"]
    if remote.status == "False" and not any(remote.message in message for message in warned):
        yield "Warning", "RemoteNotHealthy", f"{remote.reason}: {remote.message}"
    elif remote.status == "True" and (was.status == "False" or "remoteLostAt" in (before.memory or {})):
        yield "Normal", "RemoteHealthy", f"{remote.reason}: {remote.message}"


# Why clients are not led to the gateway that somebody should look into.
_IN_THE_WAY = (
    "TakeoverContested",
    "TakeoverNotPermitted",
    "GatewayNotConnected",
    "NotFrontable",
    "NotPermitted",
    "NotWritten",
    "NameTaken",
    "OtherEndpoints",
)


def _fronted(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    """Tell when clients of the Service are led to the gateway, are so no longer, or cannot be."""
    was, now = before.condition("Fronted"), after.condition("Fronted")
    if now is None or (was and (was.status, was.reason) == (now.status, now.reason)):
        return
    if now.status == "True":
        yield "Normal", now.reason, now.message
    elif now.reason in _IN_THE_WAY:
        yield "Warning", now.reason, now.message
    elif was and was.status == "True":
        yield "Warning" if now.reason == "GatewayNotReady" else "Normal", now.reason, now.message


def _ready(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, ready = before.condition("Ready"), after.condition("Ready")
    if ready is None or (was and (was.status, was.reason) == (ready.status, ready.reason)):
        return
    if ready.reason == UPDATING or (ready.status == "True" and was and was.reason == UPDATING):
        return  # an edit that goes well
    if ready.status == "True":
        yield "Normal", "Ready", f"split {after.split}: {after.split.message}" if after.split else "ready"
    elif ready.reason not in ("NotAccepted", "UnresolvedRefs") and (
        (was and (was.status == "True" or was.reason == UPDATING)) or ready.reason != "NotProgrammed"
    ):
        # What is not accepted or found has an event of its own; that no Envoy has it yet is how every model begins.
        yield "Warning", "NotReady", f"{ready.reason}: {ready.message}"


def _said(condition: Condition) -> tuple[str, str, str]:
    return condition.status, condition.reason, condition.message


# Conditions whose message tells numbers, or who is waited for, which change all the time; their reasons do not.
_WITH_NUMBERS = ("LocalHealthy", "RemoteHealthy", "Offloading", "FailingOver")
_WAITING = ("Pending", "NotReported", "NotProgrammed", "Updating")


def urgency(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Urgency:
    """Compare two statuses of one model as they are written.

    Where traffic goes is a matter of the route, and of which Service leads there. A decision, a verdict or a condition
    is a matter of words. What then remains are numbers, which ride along with the next such write; alone they are
    written when they are old enough.
    """
    # Who wrote it is no reason to write it, nor how many requests there were, which moves each second; only the first
    # that are counted by a split are. What Envoy does by itself is told by conditions, too, and a definition that does
    # not know it yet drops it each time; one that keeps it shows no other than there is, whoever wrote that.
    no_reason = {"controller", "traffic"} if before.detour else {"controller", "traffic", "detour"}
    differing = after.differing_from(before) - no_reason
    was, shall = before.part(differing), after.part(differing)
    for one in (*was.get("signals", ()), *shall.get("signals", ())):
        # They go with the numbers, and a definition that does not know one yet drops it each time.
        for field in ("reason", "window", "windowFrom"):
            one.pop(field, None)
    nothing = Urgency.NUMBERS if is_first_of_split(after.traffic, before) else Urgency.NOTHING
    if was == shall:
        return nothing
    if any(was.get(field) != shall.get(field) for field in ("route", "takeover")):
        return Urgency.ROUTE
    if _in_words(was) != _in_words(shall):
        return Urgency.WORDS
    told, known = _without_explanation(was), _without_explanation(shall)
    # A measured number that nobody acts on is not written for its own sake.
    signals = (*(before.signals or ()), *(after.signals or ()))
    quiet = not after.offloading_status and all(one.state == "Clear" for one in signals)
    only_signals = {**told, "signals": None} == {**known, "signals": None}
    return nothing if told == known or (quiet and only_signals) else Urgency.NUMBERS


def _without_explanation(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out the words of the rules, and what would change the split and when: they may move with every look.

    They are written with whatever else is, so that each status agrees with itself. When a split that was set by hand
    ends, is no measurement: it moves when somebody says so, who waits to see it.
    """
    before = status.get("split") or {}
    left_out = ("returns",) if before.get("reason") == Reason.OVERRIDE else ("returns", "changesAt")
    split = {name: value for name, value in before.items() if name not in left_out}
    verdicts = [(one["rule"], one["matched"]) for one in status.get("verdicts") or ()]
    return {**status, "split": split, "verdicts": verdicts}


def _in_words_of(condition: Mapping[str, Any]) -> Mapping[str, Any]:
    if condition["type"] == AVAILABLE:
        # A source that fails in another way each time is no news; its first answer is.
        return {**condition, "message": "", "reason": condition["reason"] == PENDING}
    changes = condition["type"] in _WITH_NUMBERS or condition["reason"] in _WAITING
    return {name: value for name, value in condition.items() if name != "message" or not changes}


# What of a signal changes with each measurement, also whether it is at its target: what follows from that is told by
# what is decided. Why one is unknown may change, too, such as an answer with a time in it.
_NUMBERS = ("current", "at", "message", "state", "since")


def _in_words(status: Mapping[str, Any]) -> Mapping[str, Any]:
    status = _without_explanation(status)
    numbers = ("local", "split", "remote", "detour", "conditions")
    words = {name: value for name, value in status.items() if name not in numbers}
    words["remote"] = {name: value for name, value in (status.get("remote") or {}).items() if name != "message"}
    words["split"] = {name: value for name, value in status["split"].items() if name != "message"}
    words["signals"] = [
        {name: value for name, value in one.items() if name not in _NUMBERS} | {"known": one["state"] != "Unknown"}
        for one in status.get("signals") or ()
    ]
    words["conditions"] = [*map(_in_words_of, status.get("conditions", ()))]
    return words
