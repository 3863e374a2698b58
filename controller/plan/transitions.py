"""What is new to somebody who watches an object: how urgent a write is, its events and log lines, from two statuses.

So a restart repeats nothing, what was not written is no event, and an equal status makes none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from controller.api.contract.status import Condition, ModelDeploymentStatus
from controller.decision import Reason
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
    """List the events of one write: another split, not accepted (any more), ready or no longer.

    Of the steps by which a split moves for one reason the first is an event; the others are in the status.
    """
    news = (*_split(before, after), *_accepted(before, after), *_ready(before, after))
    uid = str(stored.metadata["uid"])
    return tuple(Event(stored.ref, uid, type_, reason, message, at) for type_, reason, message in news)


def log_transitions(stored: StoredObject, before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
    """Log another split, step by step, and ready or no longer."""
    model = f"{stored.ref.namespace}/{stored.ref.name}"
    if after.split and (before.split is None or str(before.split) != str(after.split)):
        why = {"split": str(after.split), "reason": after.split.reason, "because": after.split.message}
        logger.info("split changed", extra={"model": model, **why})
    was, ready = _condition(before, "Ready"), _condition(after, "Ready")
    if ready and (was is None or (was.status, was.message) != (ready.status, ready.message)):
        words = "model ready" if ready.status == "True" else "model not ready"
        logger.info(words, extra={"model": model, "reason": ready.reason, "because": ready.message})


def _split(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, split = before.split, after.split
    if split is None or str(was or "100/0") == str(split):
        return
    if was and was.reason == split.reason and split.reason != Reason.OVERRIDE:
        return
    type_: Literal["Normal", "Warning"] = "Warning" if split.reason in _ALARMING else "Normal"
    yield type_, split.reason, f"split {was} -> {split}: {split.message}" if was else f"split {split}: {split.message}"


def _accepted(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, accepted = _condition(before, "Accepted"), _condition(after, "Accepted")
    if accepted and accepted.status == "False" and (was is None or _said(was) != _said(accepted)):
        yield "Warning", accepted.reason, accepted.message


def _ready(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[_News]:
    was, ready = _condition(before, "Ready"), _condition(after, "Ready")
    if ready is None or (was and (was.status, was.reason) == (ready.status, ready.reason)):
        return
    if ready.status == "True":
        yield "Normal", "Ready", f"split {after.split}: {after.split.message}" if after.split else "ready"
    elif ready.reason != "NotAccepted" and ((was and was.status == "True") or ready.reason != "NotProgrammed"):
        # That nothing is accepted has an event of its own; that no Envoy has it yet is how every model begins.
        yield "Warning", "NotReady", f"{ready.reason}: {ready.message}"


def _condition(status: ModelDeploymentStatus, type_: str) -> Condition | None:
    return next((one for one in status.conditions if one.type == type_), None)


def _said(condition: Condition) -> tuple[str, str, str]:
    return condition.status, condition.reason, condition.message


# Conditions whose message tells numbers that change all the time; their reasons do not.
_WITH_NUMBERS = ("LocalHealthy", "RemoteHealthy", "Offloading")


def urgency(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Urgency:
    """Compare two statuses of one model as they are written.

    Where traffic goes is a matter of the route. A decision, a verdict or a condition is a matter of words. What then
    remains are numbers, which ride along with the next such write; alone they are written when they are old enough.
    """
    was, shall = before.as_object(), after.as_object()
    if was == shall:
        return Urgency.NOTHING
    if was.get("route") != shall.get("route"):
        return Urgency.ROUTE
    if _in_words(was) != _in_words(shall):
        return Urgency.WORDS
    # A measured number that nobody acts on is not written for its own sake.
    quiet = not after.offloading_status and all(one.state != "Breached" for one in after.signals or ())
    only_signals = {**was, "signals": None} == {**shall, "signals": None}
    return Urgency.NOTHING if quiet and only_signals else Urgency.NUMBERS


def _in_words(status: Mapping[str, Any]) -> Mapping[str, Any]:
    words = {name: value for name, value in status.items() if name not in ("local", "split", "remote", "conditions")}
    words["remote"] = {name: value for name, value in (status.get("remote") or {}).items() if name != "message"}
    words["split"] = {name: value for name, value in (status.get("split") or {}).items() if name != "message"}
    words["signals"] = [
        {name: value for name, value in one.items() if name not in ("current", "at")}
        for one in status.get("signals") or ()
    ]
    words["conditions"] = [
        {name: value for name, value in one.items() if name != "message" or one["type"] not in _WITH_NUMBERS}
        for one in status["conditions"]
    ]
    return words
