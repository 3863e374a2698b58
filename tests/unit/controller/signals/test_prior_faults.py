"""Faults of the system being replaced that were faults of measuring and comparing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.decision import Signal
from controller.decision.signals import compare
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
