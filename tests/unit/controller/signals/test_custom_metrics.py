"""Metrics of pods, of objects and of nothing in the cluster: which path is asked for, and what the answer means."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.decision import Cause, Known, Measurement, Unknown
from controller.store.protocol import ForbiddenError, NotFoundError, RefusedError
from tests.support.metrics_api import CHAT, CUSTOM, EXTERNAL, PODS, Api, Measuring, a_running_pod, items, measuring

AVERAGE = {"type": "AverageValue", "averageValue": 10}
NOW = "2026-01-01T00:00:00Z"


def of_pods(name: str = "queue", **metric: Any) -> dict[str, Any]:
    return {"type": "Pods", "pods": {"metric": {"name": name, **metric}, "target": AVERAGE}}


def of_object(kind: str, name: str, api_version: str = "", **metric: Any) -> dict[str, Any]:
    described = {"kind": kind, "name": name, "apiVersion": api_version}
    return {
        "type": "Object",
        "object": {"metric": {"name": "hits", **metric}, "describedObject": described, "target": AVERAGE},
    }


def external(name: str = "queue", **metric: Any) -> dict[str, Any]:
    return {"type": "External", "external": {"metric": {"name": name, **metric}, "target": AVERAGE}}


def value(name: str, number: object, **more: Any) -> dict[str, Any]:
    return {"describedObject": {"kind": "Pod", "name": name}, "timestamp": NOW, "value": number, **more}


def series(number: object, **more: Any) -> dict[str, Any]:
    return {"metricName": "queue", "metricLabels": {}, "timestamp": NOW, "value": number, **more}


def serving(group: str, *versions: str) -> dict[str, Any]:
    name = group.removeprefix("/apis/")
    return {group: {"versions": [{"groupVersion": f"{name}/{version}"} for version in versions]}}


def an_api(**changes: Any) -> Api:
    return Api(
        {
            **serving(CUSTOM, "v1beta2", "v1beta1"),
            **serving(EXTERNAL, "v1beta1"),
            PODS: items(a_running_pod("a"), a_running_pod("b")),
            "/apis/apps/v1": {
                "resources": [
                    {"name": "deployments/status", "kind": "Deployment"},
                    {"name": "deployments", "kind": "Deployment"},
                ]
            },
            "/api/v1": {"resources": [{"name": "services", "kind": "Service"}]},
            **changes,
        }
    )


async def measured(sources: Measuring, metric: dict[str, Any], **subject: Any) -> Measurement:
    sample = await sources.sample(metric, replace(CHAT, **subject))
    assert isinstance(sample, Known), sample
    return sample.value


ALL_PODS = f"{CUSTOM}/v1beta2/namespaces/default/pods/*/queue"


async def test_a_metric_of_pods_is_their_sum_beside_those_that_are_missing() -> None:
    api = an_api(**{ALL_PODS: items(value("a", "1500m", windowSeconds=30))})
    async with measuring(api) as sources:
        found = await measured(sources, of_pods())
        assert (found.value, found.pods, found.missing.pods) == (Decimal("1.5"), 1, 1)
        assert (found.requests, found.window) == (None, timedelta(seconds=30))
    assert dict(api.asked)[ALL_PODS] == {"labelSelector": "app=chat"}


async def test_which_series_count_is_said_with_labels_one_level_too_high_as_well() -> None:
    api = an_api(**{ALL_PODS: items(value("a", 1))})
    selector = {"matchLabels": {"verb": "GET"}, "code": "200"}
    async with measuring(api) as sources:
        await measured(sources, of_pods(selector=selector))
    assert dict(api.asked)[ALL_PODS] == {"labelSelector": "app=chat", "metricLabelSelector": "code=200,verb=GET"}


async def test_the_older_version_is_used_where_it_is_all_there_is() -> None:
    old = ALL_PODS.replace("v1beta2", "v1beta1")
    api = an_api(**serving(CUSTOM, "v1beta1"), **{old: items(value("a", 1))})
    async with measuring(api) as sources:
        assert (await measured(sources, of_pods())).value == 1


@pytest.mark.parametrize(
    ("metric", "path"),
    [
        (of_object("Service", "chat"), "services/chat/hits"),
        (of_object("Service", "chat", "v1"), "services/chat/hits"),
        (of_object("Deployment", "chat", "apps/v1"), "deployments.apps/chat/hits"),
        (of_object("Namespace", "kube-system", "v1"), "metrics/hits"),
    ],
)
async def test_prior_fault_7_the_described_object_is_the_one_asked_for(metric: dict[str, Any], path: str) -> None:
    whole = f"{CUSTOM}/v1beta2/namespaces/default/{path}"
    async with measuring(an_api(**{whole: items(value("chat", 30))})) as sources:
        assert (await measured(sources, metric)).value == 30


async def test_what_comes_without_a_window_is_taken_for_an_average_over_a_minute() -> None:
    path = f"{EXTERNAL}/v1beta1/namespaces/default/queue"
    api = an_api(**{path: items(series(3)), ALL_PODS: items(value("a", 1))})
    async with measuring(api) as sources:
        for metric in (external(), of_pods()):
            found = await measured(sources, metric)
            assert (found.window, found.window_from) == (timedelta(minutes=1), "Assumed")


async def test_an_average_of_an_object_is_over_what_the_workload_says_it_has() -> None:
    path = f"{CUSTOM}/v1beta2/namespaces/default/services/chat/hits"
    async with measuring(an_api(**{path: items(value("chat", 30))})) as sources:
        assert (await measured(sources, of_object("Service", "chat"), scale=3)).pods == 3
        assert (await measured(sources, of_object("Service", "chat"))).pods is None


async def test_the_series_of_an_external_metric_are_added_up() -> None:
    path = f"{EXTERNAL}/v1beta1/namespaces/default/queue"
    api = an_api(**{path: items(series(3), series("4500m", window=15))})
    async with measuring(api) as sources:
        found = await measured(sources, external(selector={"matchLabels": {"queue": "a"}}))
        assert (found.value, found.window) == (Decimal("7.5"), timedelta(seconds=15))
    assert dict(api.asked)[path] == {"labelSelector": "queue=a"}


@pytest.mark.parametrize(
    ("metric", "changes", "words"),
    [
        (
            of_pods(),
            {CUSTOM: NotFoundError("GET: HTTP 404")},
            "custom.metrics.k8s.io is not served: install an adapter",
        ),
        (external(), {EXTERNAL: NotFoundError("GET: HTTP 404")}, "external.metrics.k8s.io is not served: install"),
        (of_pods(), serving(CUSTOM, "v3"), "is served in none of the versions v1beta2, v1beta1"),
        (of_pods(), {CUSTOM: {"versions": [], "padding": " " * 2**20}}, "the answer is larger than 1 MiB"),
        (of_object("Service", "chat"), {"/api/v1": {"padding": " " * 2**20}}, "the answer is larger than 1 MiB"),
        (of_pods(), {ALL_PODS: {"padding": " " * 2**22}}, "the answer is larger than 4 MiB"),
        (
            of_pods(),
            {ALL_PODS: NotFoundError("GET: the server could not find the metric queue for pods")},
            "has no such metric (HTTP 404): the server could not find the metric queue for pods",
        ),
        (of_pods(), {ALL_PODS: items()}, "custom.metrics.k8s.io has no value of this metric"),
        (of_pods(), {ALL_PODS: items({"value": "NaN"})}, "must be a quantity"),
        (of_pods(), {ALL_PODS: items(value("a", "1e40"))}, "larger than a quantity can be"),
        (
            of_pods(),
            {ALL_PODS: items(value("a", 1, timestamp="2025-12-31T00:00:00Z"))},
            "nothing newer than 2025-12-31",
        ),
        (
            of_pods(),
            {ALL_PODS: ForbiddenError("GET: forbidden")},
            "the controller may not get pods/queue of custom.metrics.k8s.io in namespace default (HTTP 403)",
        ),
        (
            external(),
            {f"{EXTERNAL}/v1beta1/namespaces/default/queue": RefusedError("GET: invalid selector")},
            "external.metrics.k8s.io refuses what is asked for: invalid selector",
        ),
        (of_object("Pods", "chat", "v1"), {}, "describedObject: v1 has no kind Pods"),
        (of_object("Route", "chat", "example.com/v1"), {}, "describedObject: example.com/v1 is not served"),
        (of_object("Service", "../chat"), {}, "'../chat' cannot stand in a path of the Kubernetes API"),
        (of_object("Service", "chat", "../../v1"), {}, "'../../v1' cannot stand in a path of the Kubernetes API"),
        (of_pods(".."), {}, "the name of the metric cannot stand in a path"),
        (external("a/../../b"), {}, "the name of the metric cannot stand in a path"),
        (external("a%2fb"), {}, "the name of the metric cannot stand in a path"),
    ],
)
async def test_what_cannot_be_had_is_unknown_with_the_reason(
    metric: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    async with measuring(an_api(**changes)) as sources:
        assert words in await sources.why(metric)


async def test_an_object_has_one_value() -> None:
    path = f"{CUSTOM}/v1beta2/namespaces/default/services/chat/hits"
    async with measuring(an_api(**{path: items(value("a", 1), value("b", 1))})) as sources:
        words = "custom.metrics.k8s.io gave 2 values where there should be one"
        assert await sources.why(of_object("Service", "chat")) == words


async def test_a_share_of_requests_is_none_of_another_metric() -> None:
    metric = of_pods()
    metric["pods"]["target"] = {"type": "Utilization", "averageUtilization": 50}
    async with measuring(an_api()) as sources:
        assert sources.look(metric) == Unknown(
            "the metric is no share of what pods request: it stays unknown with type Utilization", cause=Cause.INVALID
        )


async def test_what_is_looked_up_is_looked_up_once() -> None:
    path = f"{CUSTOM}/v1beta2/namespaces/default/services"
    api = an_api(**{f"{path}/{name}/hits": items(value(name, 1)) for name in "abc"})
    async with measuring(api) as sources:
        for name in "abc":
            await measured(sources, of_object("Service", name))
    assert (api.count(CUSTOM), api.count("/api/v1")) == (1, 1)
