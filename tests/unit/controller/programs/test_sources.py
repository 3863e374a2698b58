"""Which sources there are, by what the configuration says."""

from datetime import UTC, datetime

import pytest

from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from controller.api.timing import REAL
from controller.programs.lifetime import CannotStartError
from controller.programs.sources import sources_everywhere


def sources(**prometheus):
    informer = {"metricInformer": {"type": "prometheus", "prometheus": prometheus}} if prometheus else {}
    return sources_everywhere(parse(Configuration, informer), REAL.signals, lambda: datetime(2026, 1, 1, tzinfo=UTC))


def test_replicas_are_asked_always_and_a_prometheus_if_there_is_one():
    assert set(sources()) == {"Scrape"}
    assert set(sources(address="prometheus:9090")) == {"Scrape", "External"}


def test_authorities_that_cannot_be_read_are_told_at_the_start(tmp_path):
    with pytest.raises(CannotStartError, match=r"metricInformer.prometheus.caFile: .*: No such file or directory"):
        sources(address="https://prometheus", caFile=str(tmp_path / "none"))
    (tmp_path / "empty").touch()
    with pytest.raises(CannotStartError, match=r"metricInformer.prometheus.caFile: "):
        sources(address="https://prometheus", caFile=str(tmp_path / "empty"))
