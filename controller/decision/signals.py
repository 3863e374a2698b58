"""Comparing a metric with its target, as the HorizontalPodAutoscaler does: reached when at or over it. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from controller.api.resources.metrics import MetricSpec, MetricTarget
from controller.api.schema.scalars import number_of, text_of
from controller.decision.facts import Known, Signal, Unknown


def compare(metric: MetricSpec, sample: Known[Decimal] | Unknown, pods: int) -> Signal:
    """Compare what was measured of a metric, over all `pods` that are ready, with its target."""
    target = metric.target
    number, current = _target(target), _current(target, sample, pods)
    state: Literal["Clear", "Breached", "Unknown"] = "Unknown"
    if isinstance(current, Decimal) and number is not None:
        state = "Breached" if current >= number else "Clear"
    return Signal(
        name=metric.type,
        target=text_of(number) if number is not None else f"{target.average_utilization}%",
        state=state,
        current=text_of(current) if isinstance(current, Decimal) else None,
        message=current.why if isinstance(current, Unknown) else None,
        at=sample.at if isinstance(current, Decimal) and isinstance(sample, Known) else None,
    )


def _target(target: MetricTarget) -> Decimal | None:
    match target.type:
        case "AverageValue" if target.average_value is not None:
            return number_of(target.average_value)
        case "Value" if target.value is not None:
            return number_of(target.value)
    return None  # requests are no share of anything


def _current(target: MetricTarget, sample: Known[Decimal] | Unknown, pods: int) -> Decimal | Unknown:
    """Say what is compared with the target."""
    if target.type == "Utilization":
        return Unknown("requests are no share of anything: give an averageValue or a value")
    if isinstance(sample, Unknown):
        return sample
    if target.type == "Value":
        return sample.value
    return sample.value / pods if pods else Unknown("no replica is ready, so there is no average")
