"""An average is rounded where the HorizontalPodAutoscaler rounds it, and no number is too large for that."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.decision import Known
from controller.decision.decision import Overload
from controller.decision.facts import Measurement
from controller.decision.signals import compare
from tests.support.hpa_cases import cpu, external, per_pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("metric", "total", "pods", "current", "state"),
    [
        (cpu("34m"), "0.101", 3, "0.033", "Clear"),
        (cpu("33m"), "0.101", 3, "0.033", "Breached"),
        # 33 and two thirds: below its target before it is rounded, and not above it.
        (cpu("34m"), "0.101999", 3, "0.033", "Clear"),
        (per_pod("queue", "1"), "-0.0005", 1, "0", "Clear"),
        # What is of the whole is compared as it is, and shown rounded up.
        (external("backlog", average="3334m"), "10", 3, "3.334", "Clear"),
        (external("backlog", average="3333m"), "10", 3, "3.334", "Breached"),
        (external("backlog", average="1"), "1e300", 3, None, "Breached"),
        (per_pod("queue", "1"), "1e300", 3, None, "Breached"),
    ],
)
def test_an_average_is_rounded_as_the_autoscaler_does(metric, total, pods, current, state):
    said = compare(parse(MetricSpec, metric), Known(Measurement(Decimal(total), pods=pods), NOW), pods)
    assert said.state == state
    assert current is None or said.current == current


def test_what_is_remembered_of_the_largest_number_can_be_read_again():
    """JSON has no infinity, and a memory with what is no number is refused."""
    said = compare(parse(MetricSpec, external("backlog", average="1m")), Known(Measurement(Decimal("1e308")), NOW), 1)
    overload = Overload(since=NOW, share=50, cause="load", ratios={said.key: said.least})
    assert parse(Overload, overload.model_dump(mode="json", by_alias=True, exclude_none=True)) == overload
