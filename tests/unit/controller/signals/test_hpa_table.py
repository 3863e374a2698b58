"""The table of cases that the real HorizontalPodAutoscaler was asked about: we say of each what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from controller.decision import Signal
from controller.decision.demand import Demand, Projected
from tests.support.hpa_cases import APod, Case, Series, Verdict, pod_object, pod_status, wanted
from tests.support.hpa_signals import disagreements, signals_of
from tests.support.hpa_table import CASES
from tests.support.kube.kubelet import MEBIBYTE
from tests.support.metrics_api import CUSTOM, EXTERNAL, NAMESPACE, PODS, USED, Api, items

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = f"namespaces/{NAMESPACE}"


def an_api(case: Case) -> Api:
    """The API server of a case. Whoever does not know a metric answers HTTP 404 or nothing, as the adapter does."""
    custom, external = f"{CUSTOM}/v1beta2", f"{EXTERNAL}/v1beta1"
    answers: dict[str, Any] = {
        CUSTOM: {"versions": [{"groupVersion": "custom.metrics.k8s.io/v1beta2"}]},
        EXTERNAL: {"versions": [{"groupVersion": "external.metrics.k8s.io/v1beta1"}]},
        "/api/v1": {"resources": [{"name": "services", "kind": "Service"}, {"name": "pods", "kind": "Pod"}]},
        "/apis/apps/v1": {"resources": [{"name": "deployments", "kind": "Deployment"}]},
        PODS: items(*(a_pod(one) for one in case.pods)),
        USED: items(*(usage for one in case.pods for usage in used(one))),
    }

    def add(path: str, value: Mapping[str, Any]) -> None:
        answers[path] = items(*answers.get(path, {}).get("items", ()), value)

    for one in wanted(case, case.custom):
        resource, name = one.of
        add(f"{custom}/{SERVED}/{resource}/{name}/{one.metric}", custom_value(one))
        add(f"{custom}/{SERVED}/{resource}/*/{one.metric}", custom_value(one))
    for one in wanted(case, case.external):
        add(f"{external}/{SERVED}/{quote(one.metric, safe='')}", external_value(one))
    return Api(answers)


def a_pod(pod: APod) -> dict[str, Any]:
    found = {**pod_object(pod), "status": pod_status(pod, NOW)}
    if pod.terminating:
        found["metadata"] = {**found["metadata"], "deletionTimestamp": NOW.isoformat()}
    return found


def used(pod: APod) -> Iterable[dict[str, Any]]:
    """What metrics-server has of a pod: all of its containers, or nothing."""
    if not pod.is_measured:
        return
    containers = [
        {"name": one.name, "usage": {"cpu": f"{one.uses or 0}m", "memory": str(one.memory * MEBIBYTE)}}
        for one in pod.everything
    ]
    yield {"metadata": {"name": pod.name}, "timestamp": NOW.isoformat(), "window": "10s", "containers": containers}


def custom_value(series: Series) -> dict[str, Any]:
    return {"describedObject": {"name": series.of[1]}, "timestamp": NOW.isoformat(), "value": str(series.value)}


def external_value(series: Series) -> dict[str, Any]:
    return {"metricName": series.metric, "timestamp": NOW.isoformat(), "value": str(series.value)}


def verdict(signals: Iterable[Signal], case: Case) -> Verdict:
    """What an autoscaler wants by these signals: as many replicas as the metric that wants most.

    It wants fewer by the very rule by which requests may return, with its tolerance as `behavior.tolerance`.
    """
    found = [_verdict(one, case) for one in signals]
    for one in ("more", "unknown", "same"):
        if one in found:
            return one
    return "fewer"


def _verdict(signal: Signal, case: Case) -> Verdict:
    if signal.state == "Unknown":
        return "unknown"
    if signal.least > 1 + case.tolerance:
        return "more"
    is_clear = Projected(signal, Demand(signal.least, signal.most)).is_clear(1 - case.tolerance)
    return "fewer" if is_clear and math.ceil(signal.most * case.declared) < case.declared else "same"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_we_say_what_the_autoscaler_says(case: Case) -> None:
    signals = await signals_of(case, an_api(case), NAMESPACE, lambda: NOW)
    assert disagreements(signals, case.says, case.tolerance) == []
    assert verdict(signals, case) == case.says.verdict, signals
