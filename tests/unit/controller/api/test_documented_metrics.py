"""The metrics and the configuration that docs/metrics.md shows are accepted as they stand there."""

import re

import pytest
import yaml

from controller.api.resources.configuration import Configuration
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.signals.exposition import KNOWN
from controller.signals.promql import query_for
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
METRICS = [metric for block in BLOCKS for metric in block.get("metrics", ())]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric["type"])
def test_a_metric_is_accepted(metric):
    assert parse(MetricSpec, metric).type == metric["type"]


def test_the_configuration_is_accepted():
    (informer,) = [block for block in BLOCKS if "metricInformer" in block]
    assert parse(Configuration, informer).prometheus.url == "http://prometheus.monitoring:9090"


def test_a_selector_becomes_the_query_that_stands_beside_it():
    external = next(parse(MetricSpec, one) for one in METRICS if "selector" in str(one) and one["type"] == "External")
    assert f"# {query_for(external.source.metric)}\n" in PAGE


def test_a_metric_of_keda_says_whose_it_is():
    """Its metrics API answers nobody who leaves that out: `scaledObject name is not specified`."""
    (external,) = [one["external"]["metric"] for one in METRICS if "s0-" in str(one)]
    assert external["selector"]["matchLabels"]["scaledobject.keda.sh/name"]


def test_every_place_of_a_known_name_is_listed():
    for candidate in (one for candidates in KNOWN.values() for one in candidates):
        labels = ",".join(f'{key}="{value}"' for key, value in candidate.labels)
        assert f"`{candidate.name}{f'{{{labels}}}' if labels else ''}`" in PAGE
