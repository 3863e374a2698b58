"""What we make of the cases of the HorizontalPodAutoscaler: the signals of the very sources that a controller has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.scalars import number_of
from controller.api.schema.values import parse
from controller.decision.facts import Signal
from controller.decision.signals import compare
from controller.signals.kube_api import ApiReader
from controller.signals.source import Subject
from controller.store.objects import ObjectRef
from tests.support.hpa_cases import LABELS, Case, Says
from tests.support.metrics_api import measuring


async def signals_of(
    case: Case, reader: ApiReader, namespace: str, clock: Callable[[], datetime]
) -> tuple[Signal, ...]:
    """Return a signal for each metric of a case, from whoever is asked."""
    selector = ",".join(f"{name}={value}" for name, value in LABELS.items())
    ref = ObjectRef("ModelDeployment", namespace, "model")
    subject = Subject(ref, namespace, selector, scale=case.declared)
    found = []
    async with measuring(reader, clock) as sources:
        for metric in case.metrics:
            sample = await sources.sample(metric, subject)
            found.append(compare(parse(MetricSpec, dict(metric)), sample, case.declared))
    return tuple(found)


def disagreements(signals: tuple[Signal, ...], says: Says, tolerance: float = 0.0) -> list[str]:
    """Say where signals differ from what the autoscaler says of the same.

    It wants more replicas beyond its target and its tolerance, and we offload at the target: that is no difference
    (design: reached when at or over the target; `behavior.tolerance` is below it).
    """
    found = []
    for signal, current in zip(signals, says.current, strict=True):
        if (signal.state == "Unknown") != (current is None):
            found.append(f"{signal.name} is {signal.state} ({signal.message}), its current value is {current}")
        elif current is not None and _number(signal.current) != _number(current):
            found.append(f"{signal.name} is {signal.current}, its current value is {current}")
    wants_more = says.verdict == "more" or any(1 <= signal.least <= 1 + tolerance for signal in signals)
    if wants_more != any(signal.state == "Breached" for signal in signals):
        found.append(f"it wants {says.verdict}, of {[(one.name, one.state, one.current) for one in signals]}")
    return found


def _number(written: str | None) -> Decimal:
    assert written is not None, "a signal that is known has a value"
    return number_of(written.removesuffix("%"))
