"""Conditions, as every Kubernetes object reports them (API conventions, "Typical status properties")."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from controller.api.base import ForeignValue
from controller.api.scalars import Time


class Condition(ForeignValue):
    """One observation of an object's state. `lastTransitionTime` is when `status` last changed, not the words."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    observed_generation: int
    last_transition_time: Time | None = None


def with_transitions(
    conditions: Iterable[Condition], before: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Give each condition the time of its last transition, knowing the conditions before."""
    since = {(old.type, old.status): old.last_transition_time for old in before}
    return tuple(
        condition.model_copy(update={"last_transition_time": since.get((condition.type, condition.status)) or now})
        for condition in conditions
    )
