"""The metrics of a model that are measured so far, judged: requests in flight, from Envoy's load reports. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Literal

from controller.api.contract.status import SignalStatus
from controller.api.resources.metrics import MetricSpec, MetricTarget
from controller.api.resources.model import ModelDeployment
from controller.api.schema.scalars import number_of, text_of
from controller.decision import Known, Unknown
from controller.signals.load_reports import Load

REQUESTS = "Requests"


def requests_metrics(model: ModelDeployment) -> tuple[MetricSpec, ...]:
    """List the metrics of a model that are measured in requests."""
    offloading = model.spec.offloading_config
    return tuple(one for one in offloading.metrics if one.type == REQUESTS) if offloading else ()


def judged(
    metrics: Iterable[MetricSpec],
    load: Known[Load] | Unknown,
    ready: int,
    before: Iterable[SignalStatus],
    now: datetime,
) -> tuple[SignalStatus, ...]:
    """Compare what was measured with each target, as the HorizontalPodAutoscaler does: reached when at or over it.

    `ready` replicas serve the requests; `before` is what was said last, for since when it is so.
    """
    said = {(one.name, one.target): one for one in before}
    return tuple(_judged(metric.target, load, ready, said, now) for metric in metrics)


def _judged(
    target: MetricTarget,
    load: Known[Load] | Unknown,
    ready: int,
    said: dict[tuple[str, str], SignalStatus],
    now: datetime,
) -> SignalStatus:
    number, current = _target(target), _current(target, load, ready)
    text = text_of(number) if number is not None else f"{target.average_utilization}%"
    state: Literal["Clear", "Breached", "Unknown"] = "Unknown"
    if isinstance(current, Decimal) and number is not None:
        state = "Breached" if current >= number else "Clear"
    before = said.get((REQUESTS, text))
    return SignalStatus(
        name=REQUESTS,
        current=text_of(current) if isinstance(current, Decimal) else None,
        target=text,
        state=state,
        message=current.why if isinstance(current, Unknown) else None,
        since=before.since if before and before.state == state else now,
        at=load.at if isinstance(current, Decimal) and isinstance(load, Known) else None,
    )


def _target(target: MetricTarget) -> Decimal | None:
    match target.type:
        case "AverageValue" if target.average_value is not None:
            return number_of(target.average_value)
        case "Value" if target.value is not None:
            return number_of(target.value)
    return None  # requests are no share of anything


def _current(target: MetricTarget, load: Known[Load] | Unknown, ready: int) -> Decimal | Unknown:
    """Say what is compared with the target."""
    if target.type == "Utilization":
        return Unknown("requests are no share of anything: give an averageValue or a value")
    if isinstance(load, Unknown):
        return load
    if target.type == "Value":
        return Decimal(load.value.in_flight)
    return Decimal(load.value.in_flight) / ready if ready else Unknown("no replica is ready, so there is no average")
