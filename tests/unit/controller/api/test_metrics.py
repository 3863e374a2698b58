"""What a metric names, wherever its target was written."""

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse

TARGET = {"type": "AverageValue", "averageValue": "500m"}
NAMED = {"metric": {"name": "q"}, "target": TARGET}


@pytest.mark.parametrize(
    ("type_", "source"),
    [
        ("Resource", {"name": "cpu", "target": TARGET}),
        ("ContainerResource", {"name": "cpu", "container": "c", "target": TARGET}),
        ("Pods", NAMED),
        ("Object", {**NAMED, "describedObject": {"kind": "Service", "name": "a"}}),
        ("External", NAMED),
        ("External", {"metric": {"name": "q", "target": TARGET}}),
        ("Requests", {"target": TARGET}),
        ("Scrape", {**NAMED, "port": 80}),
    ],
)
def test_its_target(type_, source):
    metric = parse(MetricSpec, {"type": type_, f"{type_[0].lower()}{type_[1:]}": source})
    assert metric.target.average_value == "500m"
    assert getattr(metric, metric.field) is metric.source
