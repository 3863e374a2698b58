"""Sums over replicas, compared with their target, and what a source says beside a number."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.decision.facts import Known, Measurement, Uncounted
from controller.decision.signals import compare

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def signal(total, pods, missing=0, note=""):
    metric = {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "12"}}
    measured = Measurement(Decimal(total), pods=pods, missing=Uncounted(pods=missing), note=note)
    return compare(parse(MetricSpec, {"type": "Scrape", "scrape": metric}), Known(measured, NOW), pods)


def test_a_sum_of_all_replicas_is_what_it_is():
    found = signal(9, 3)
    assert (found.current, found.state, found.least, found.most) == ("9", "Clear", 0.75, 0.75)


def test_a_replica_without_a_sample_has_nothing_of_a_sum_or_its_part_of_the_target():
    found = signal(9, 2, missing=1)
    assert (found.current, found.state) == ("9", "Clear")
    # 9 of 12, and a third of the target more.
    assert (found.least, found.most) == (0.75, 13 / 12)


def test_what_the_source_says_stands_beside_the_number():
    assert signal(12, 2, note="1 of 3 replicas show none").message == "1 of 3 replicas show none"
    assert signal(12, 2).message is None


CPU, MEMORY = ({"name": name, "target": {"type": "AverageValue", "averageValue": "2"}} for name in ("cpu", "memory"))
QUEUE = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "2"}}


@pytest.mark.parametrize(
    ("metric", "saturates"),
    [
        ({"type": "Resource", "resource": CPU}, True),
        ({"type": "ContainerResource", "containerResource": {**CPU, "container": "server"}}, True),
        ({"type": "Resource", "resource": MEMORY}, False),
        ({"type": "Pods", "pods": QUEUE}, False),
    ],
)
def test_of_full_replicas_cpu_says_no_more_than_that(metric, saturates):
    found = compare(parse(MetricSpec, metric), Known(Measurement(Decimal(9), pods=3), NOW), 3)
    assert (found.state, found.saturates) == ("Breached", saturates)
