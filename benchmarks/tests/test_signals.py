"""The pure parts of the benchmark of signals: what its models measure, and how the delays of a kind are judged."""

from __future__ import annotations

from typing import cast

import httpx
import pytest

from benchmarks.cluster.objects import Servers
from benchmarks.cluster.sources import KINDS, Queries, Requests, Resource, Scrape
from benchmarks.signals import TOLERATED, Figures, measured_objects, verdicts
from controller.api.resources.model import ModelDeployment
from controller.gateway.bootstrap import HostPort
from tests.support.kube.metrics_apis import MetricsApis
from tests.support.objects import AModel
from tests.support.prometheus import Prometheus, Target

SERVERS = Servers((HostPort("192.0.2.1", 8000),), HostPort("192.0.2.1", 9000))


def figures(kind: str, models: int, interval: float, *delays: float) -> Figures:
    return Figures(kind, models, 0.01, 1 << 20, 1.0, "somebody", interval, delays)


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_has_a_metric_of_its_kind_that_the_product_takes(kind: str) -> None:
    nothing_runs, nobody_asks = cast(MetricsApis, None), cast(httpx.Client, None)
    prometheus = Prometheus(9091, nobody_asks)
    made = (Resource(nothing_runs), Scrape(), Queries(prometheus, Target(port=9090)), Requests())
    (source,) = (one for one in made if one.kind == kind)
    *_, last = measured_objects(source, 7, SERVERS)
    model = AModel(last.raw).parsed()
    assert isinstance(model, ModelDeployment)
    (metric,) = model.spec.offloading_config.metrics
    assert metric.type == {"PromQL": "External"}.get(kind, kind)


def test_each_kind_is_judged_by_its_own_interval() -> None:
    judged = verdicts(
        [
            figures("Scrape", 10, 1.0, 0.3, 1.0 + TOLERATED),
            figures("Scrape", 100, 1.0, 0.2, 0.4),
            figures("PromQL", 10, 5.0, 4.0),
            figures("PromQL", 100, 5.0, 5.1),
        ]
    )
    assert [good for good, _ in judged] == [True, False]
    assert judged[1][1].startswith("PromQL, ")
