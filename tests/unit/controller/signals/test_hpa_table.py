"""The table of cases that the real HorizontalPodAutoscaler was asked about: we say of each what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.scalars import number_of
from controller.api.schema.values import parse
from controller.decision import Signal
from controller.decision.signals import compare
from tests.support.hpa_cases import CASES, LABELS, APod, Case, Series, Verdict, pod_object, pod_status
from tests.support.kube.kubelet import MEBIBYTE
from tests.support.metrics_api import CHAT, CUSTOM, EXTERNAL, NAMESPACE, PODS, USED, Api, items, measuring

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = f"namespaces/{NAMESPACE}"


def an_api(case: Case) -> Api:
    """The API server of a case. Whoever does not know a metric answers HTTP 404 or nothing, as the adapter does."""
    custom, external = f"{CUSTOM}/v1beta2", f"{EXTERNAL}/v1beta1"
    answers: dict[str, Any] = {
        CUSTOM: {"versions": [{"groupVersion": "custom.metrics.k8s.io/v1beta2"}]},
        EXTERNAL: {"versions": [{"groupVersion": "external.metrics.k8s.io/v1beta1"}]},
        "/api/v1": {"resources": [{"name": "services", "kind": "Service"}]},
        PODS: items(*(a_pod(one) for one in case.pods)),
        USED: items(*(usage for one in case.pods for usage in used(one))),
        f"{external}/{SERVED}/backlog": items(*(external_value(one) for one in wanted(case, case.external))),
    }
    for one in wanted(case, case.custom):
        resource, name = one.of
        place = "pods/*" if resource == "pods" else f"{resource}/{name}"
        path = f"{custom}/{SERVED}/{place}/{one.metric}"
        answers[path] = items(*answers.get(path, {}).get("items", ()), custom_value(one))
    return Api(answers)


def wanted(case: Case, series: Iterable[Series]) -> list[Series]:
    """The series with the labels that a metric of the case asks for."""
    labels = {
        label
        for metric in case.metrics
        for field in ("pods", "external")
        for label in metric.get(field, {}).get("metric", {}).get("selector", {}).get("matchLabels", {}).items()
    }
    return [one for one in series if labels <= set(one.labels)]


def a_pod(pod: APod) -> dict[str, Any]:
    found = {**pod_object(pod), "status": pod_status(pod, NOW)}
    if pod.terminating:
        found["metadata"] = {**found["metadata"], "deletionTimestamp": NOW.isoformat()}
    return found


def used(pod: APod) -> Iterable[dict[str, Any]]:
    """What metrics-server has of a pod: all of its containers, or nothing."""
    if pod.phase != "Running" or any(one.uses is None for one in pod.everything):
        return
    containers = [
        {"name": one.name, "usage": {"cpu": f"{one.uses}m", "memory": str(one.memory * MEBIBYTE)}}
        for one in pod.everything
    ]
    yield {"metadata": {"name": pod.name}, "timestamp": NOW.isoformat(), "window": "10s", "containers": containers}


def custom_value(series: Series) -> dict[str, Any]:
    return {"describedObject": {"name": series.of[1]}, "timestamp": NOW.isoformat(), "value": str(series.value)}


def external_value(series: Series) -> dict[str, Any]:
    return {"metricName": series.metric, "timestamp": NOW.isoformat(), "value": str(series.value)}


def verdict(signals: Iterable[Signal], case: Case) -> Verdict:
    """What an autoscaler without tolerance wants by these signals: as many replicas as the metric that wants most."""
    found = [_verdict(one, case) for one in signals]
    for one in ("more", "unknown", "same"):
        if one in found:
            return one
    return "fewer"


def _verdict(signal: Signal, case: Case) -> Verdict:
    if signal.state == "Unknown":
        return "unknown"
    if signal.least > 1:
        return "more"
    return "fewer" if math.ceil(signal.most * case.declared) < case.declared else "same"


def shown(signal: Signal) -> Decimal | None:
    """What is shown of a signal; the autoscaler rounds to thousandths where we do, in its own direction."""
    return number_of(signal.current.rstrip("%")) if signal.current else None


async def signals_of(case: Case) -> list[Signal]:
    subject = replace(CHAT, selector=",".join(f"{name}={value}" for name, value in LABELS.items()), scale=case.declared)
    async with measuring(an_api(case)) as sources:
        sources.clock.now = NOW
        return [compare(_spec(one), await sources.sample(one, subject), case.declared) for one in case.metrics]


def _spec(metric: Mapping[str, Any]) -> MetricSpec:
    return parse(MetricSpec, metric)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_we_say_what_the_autoscaler_says(case: Case) -> None:
    signals = await signals_of(case)
    assert verdict(signals, case) == case.says.verdict, signals
    for signal, says in zip(signals, case.says.current, strict=True):
        # It shows nothing of any metric when it knows too little of one; we show each that is known.
        if says is None:
            assert signal.state == "Unknown"
        else:
            found = shown(signal)
            assert found is not None
            assert abs(found - number_of(says)) <= Decimal("0.001")
