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
    """What is observed, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in a sentence."""
    observed_generation: int
    """The generation of the object that this is about."""
    last_transition_time: Time | None = None
    """When status last changed."""


def with_transitions(
    conditions: Iterable[Condition], before: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Give each condition the time of its last transition, knowing the conditions before."""
    since = {(old.type, old.status): old.last_transition_time for old in before}
    return tuple(
        condition.model_copy(update={"last_transition_time": since.get((condition.type, condition.status)) or now})
        for condition in conditions
    )
