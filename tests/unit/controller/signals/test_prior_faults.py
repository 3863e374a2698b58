"""Faults of the system being replaced that were faults of measuring and comparing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.api.resources.configuration import Configuration
from controller.api.resources.metrics import MetricByName, MetricSpec
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.api.timing import REAL
from controller.decision import Known, Measurement, Signal, Unknown
from controller.decision.signals import compare
from controller.programs.sources import sources_everywhere
from controller.signals.promql import answer_of, query_for
from controller.signals.source import Sampler
from controller.store.kube.answers import UnauthorizedError, UnusableAnswerError
from controller.store.protocol import ForbiddenError, NotFoundError, RefusedError, StoreError, UnavailableError
from tests.support.metrics_api import (
    CHAT,
    CUSTOM,
    PODS,
    USED,
    Api,
    a_running_pod,
    items,
    measuring,
    usage_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HITS = f"{CUSTOM}/v1beta2/namespaces/default/services/chat/hits"
DESCRIBED = {"kind": "Service", "name": "chat"}
OBJECT = {"describedObject": DESCRIBED, "metric": {"name": "hits"}}
CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}},
}


async def compared(metric: dict[str, Any], api: Api, replicas: int) -> Signal:
    async with measuring(api) as sources:
        sample = await sources.sample(metric, replace(CHAT, scale=replicas))
        return compare(parse(MetricSpec, metric), sample, replicas)


def hits(number: str) -> Api:
    value = {"describedObject": DESCRIBED, "timestamp": "2026-01-01T00:00:00Z", "value": number}
    return Api(
        {
            CUSTOM: {"versions": [{"groupVersion": "custom.metrics.k8s.io/v1beta2"}]},
            "/api/v1": {"resources": [{"name": "services", "kind": "Service"}]},
            HITS: items(value),
        }
    )


async def test_prior_fault_3_an_idle_model_stays_idle_whatever_its_workload_says_of_its_scale() -> None:
    used = items(usage_of("a", server="10m"), usage_of("b", server="10m"))
    for replicas in (0, 1, 2, 50):
        api = Api({PODS: items(a_running_pod("a"), a_running_pod("b")), USED: used})
        assert (await compared(CPU, api, replicas)).state == "Clear"


@pytest.mark.parametrize(
    ("target", "measured", "state"),
    [
        ({"type": "Value", "value": 10}, "3", "Clear"),
        ({"type": "Value", "value": 10}, "12", "Breached"),
        ({"type": "Value", "value": "10k"}, "12", "Clear"),
        ({"type": "Value", "value": "500m"}, "0.6", "Breached"),
        ({"type": "AverageValue", "averageValue": 10}, "29", "Clear"),
        ({"type": "AverageValue", "averageValue": 10}, "30", "Breached"),
        ({"type": "AverageValue", "averageValue": "1500m"}, "4499m", "Clear"),
        ({"type": "AverageValue", "averageValue": "1500m"}, "4.5", "Breached"),
    ],
)
async def test_prior_fault_4_a_value_is_reached_from_its_target_on_and_in_one_unit(
    target: dict[str, Any], measured: str, state: str
) -> None:
    metric = {"type": "Object", "object": {**OBJECT, "target": target}}
    assert (await compared(metric, hits(measured), replicas=3)).state == state


ENOUGH = {"type": "AverageValue", "averageValue": 10}
QUEUE = {"metric": {"name": "queue"}, "target": ENOUGH}
OF_KUBERNETES = (
    CPU,
    {"type": "ContainerResource", "containerResource": {**CPU["resource"], "container": "server"}},
    {"type": "Pods", "pods": QUEUE},
    {"type": "Object", "object": {**OBJECT, "target": ENOUGH}},
    {"type": "External", "external": QUEUE},
)


def test_prior_fault_6_a_type_that_nobody_measures_is_refused_or_unknown_and_no_crash() -> None:
    with pytest.raises(InvalidObjectError, match=r"^type: "):
        parse(MetricSpec, {**CPU, "type": "Nonsense"})
    metrics = tuple(parse(MetricSpec, one) for one in OF_KUBERNETES)
    for metric, sample in Sampler({}).samples(CHAT, metrics, NOW):
        assert sample == Unknown("nothing here measures metrics of this type", cause=sample.cause)
        assert compare(metric, sample, 1).state == "Unknown"


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("GET x: HTTP 404"),
        UnauthorizedError("GET x: HTTP 401"),
        ForbiddenError("GET x: HTTP 403"),
        RefusedError("GET x: HTTP 400"),
        UnavailableError("GET x: HTTP 503", status=503),
        UnavailableError(""),
        UnusableAnswerError("GET x: the answer is no JSON"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
async def test_prior_fault_6_whatever_fails_each_metric_says_why_and_every_source_goes_on(error: StoreError) -> None:
    class Failing:
        async def fetch(self, path: str, query: Mapping[str, str], most: int | None = None) -> dict[str, Any]:
            raise error

    async with measuring(Failing()) as sources:
        for metric in OF_KUBERNETES:
            why = await sources.why(metric)
            assert why and "a mistake of the controller" not in why
        assert sources.are_running


def test_prior_fault_9_an_average_is_what_was_measured_by_the_replicas_and_no_rate() -> None:
    metric = parse(MetricSpec, {"type": "External", "external": QUEUE})
    assert isinstance(metric.source, MetricByName)
    assert query_for(metric.source.metric) == "queue"
    for measured, state in (("29", "Clear"), ("30", "Breached")):
        data = {"resultType": "vector", "result": [{"metric": {}, "value": [1, measured]}]}
        answer = answer_of(json.dumps({"status": "success", "data": data}).encode())
        assert compare(metric, Known(Measurement(answer.value), NOW), replicas=3).state == state


async def test_prior_fault_9_with_a_prometheus_the_other_metrics_are_measured_as_without() -> None:
    informer = {"metricInformer": {"type": "prometheus", "prometheus": {"address": "127.0.0.1:1"}}}
    everywhere = sources_everywhere(parse(Configuration, informer), REAL.signals, lambda: NOW)
    assert not everywhere.keys() & {"Resource", "ContainerResource", "Pods", "Object"}
    api = Api({**hits("30").answers, PODS: items(a_running_pod("a")), USED: items(usage_of("a", server="950m"))})
    async with measuring(api, more=everywhere) as sources:
        samples = [await sources.sample(one) for one in OF_KUBERNETES]
        samples.append(await sources.sample({"type": "Scrape", "scrape": QUEUE}))
    known = [isinstance(one, Known) for one in samples]
    assert known == [True, True, False, True, False, False]
    assert all(one.why for one in samples if isinstance(one, Unknown))
