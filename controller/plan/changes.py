"""What a write would change for those who read the status: that says how urgent it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.api.contract.status import ModelDeploymentStatus
from controller.runtime.budget import Urgency

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
    words = {name: value for name, value in status.items() if name not in ("local", "split", "conditions")}
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
