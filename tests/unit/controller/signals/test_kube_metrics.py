"""What pods use, from metrics.k8s.io: asked once for all, and unknown with the reason wherever it is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.decision import Cause, Known, Sample, Unknown
from controller.signals.kube_sources import IN_A_FOLDER
from controller.signals.source import Sampler
from controller.store.kube.answers import UnauthorizedError, UnusableAnswerError
from controller.store.objects import ObjectRef
from controller.store.protocol import ForbiddenError, NotFoundError, StoreError, UnavailableError
from tests.support.metrics_api import CHAT, PODS, USED, Api, Measuring, a_running_pod, items, measuring, usage_of
from tests.support.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = {"type": "Utilization", "averageUtilization": 90}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": TARGET}}
OF_SERVER = {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "server", "target": TARGET}}


def an_api(**changes: Any) -> Api:
    """Two pods that use 95 % of what they request, the second of it in two containers."""
    used = items(usage_of("a", server="950m"), usage_of("b", server="900m", sidecar="50m"))
    return Api({PODS: items(a_running_pod("a"), a_running_pod("b")), USED: used, **changes})


async def known(sources: Measuring, metric: dict[str, Any]) -> Known[Any]:
    sample: Sample = await sources.sample(metric)
    assert isinstance(sample, Known), sample
    return sample


async def test_pods_and_what_they_use_are_added_up() -> None:
    async with measuring(an_api()) as sources:
        sample = await known(sources, CPU)
        assert (sample.value.value, sample.value.requests, sample.value.pods) == (Decimal("1.9"), 2, 2)
        assert (sample.at, sample.value.window) == (sources.clock(), timedelta(seconds=10.5))


async def test_prior_fault_7_a_container_is_asked_for_by_its_name_and_the_resource_by_its_own() -> None:
    async with measuring(an_api()) as sources:
        sample = await known(sources, OF_SERVER)
        assert (sample.value.value, sample.value.requests) == (Decimal("1.85"), 2)
        other = {**OF_SERVER["containerResource"], "container": "nobody"}  # type: ignore[dict-item]
        why = await sources.why({"type": "ContainerResource", "containerResource": other})
        assert why == "metrics.k8s.io has no cpu of container nobody of its pods yet"


async def test_objects_with_the_same_pods_share_what_is_asked_for() -> None:
    api = an_api()
    async with measuring(api) as sources:
        for number in range(100):
            sources.look(CPU, replace(CHAT, ref=ObjectRef("ModelDeployment", "default", f"m-{number}")))
        await known(sources, CPU)
        assert (api.count(PODS), api.count(USED)) == (1, 1)
    queries = dict(api.asked)
    assert queries[PODS] == {"labelSelector": "app=chat", "resourceVersion": "0"}
    assert queries[USED] == {"labelSelector": "app=chat"}


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        (
            USED,
            NotFoundError(f"GET {USED}: HTTP 404"),
            "metrics.k8s.io is not served: install metrics-server",
        ),
        (
            USED,
            ForbiddenError(f"GET {USED}: pods.metrics.k8s.io is forbidden"),
            "the controller may not list pods.metrics.k8s.io in namespace default (HTTP 403): bind the role "
            "beamlit-controller there",
        ),
        (
            PODS,
            ForbiddenError(f"GET {PODS}: pods is forbidden"),
            "the controller may not list pods in namespace default (HTTP 403): bind the role beamlit-controller there",
        ),
        (
            USED,
            UnauthorizedError(f"GET {USED}: Unauthorized"),
            "the API server does not accept the credentials of the controller (HTTP 401)",
        ),
        (
            USED,
            UnavailableError(f"GET {USED}: service unavailable", status=503),
            "metrics.k8s.io does not answer (HTTP 503): whoever serves it is down, or not ready",
        ),
        (
            USED,
            UnavailableError(f"GET {USED}: read tcp 10.0.0.1:5555: reset", status=500),
            "metrics.k8s.io failed (HTTP 500): read tcp an address: reset",
        ),
        (
            USED,
            UnavailableError(f"GET {USED}: \ud800 \x1b[31m\nno", status=500),
            "metrics.k8s.io failed (HTTP 500): [31m no",
        ),
        (
            USED,
            UnavailableError(f"GET {USED}: Cannot connect to host 10.0.0.1:6443"),
            "metrics.k8s.io is not asked: the API server does not answer",
        ),
        (
            USED,
            UnusableAnswerError(f"GET {USED}: the answer is larger than 4 MiB"),
            "metrics.k8s.io cannot be used: the answer is larger than 4 MiB",
        ),
    ],
)
async def test_a_failure_is_told_in_words(path: str, error: StoreError, words: str) -> None:
    async with measuring(an_api(**{path: error})) as sources:
        assert await sources.why(CPU) == words


LIE = usage_of("a", server="1")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"items": "many"}, "metrics.k8s.io gave an answer that is not what it should be: items"),
        ({"items": [3]}, "metrics.k8s.io gave an answer that is not what it should be: items[0]"),
        (items({**LIE, "timestamp": "yesterday"}), "is not what it should be: items[0].timestamp"),
        (items({**LIE, "timestamp": "2026-01-01T00:00:00"}), "is not what it should be: items[0].timestamp"),
        (items(usage_of("a", server="NaN")), "must be a quantity"),
        (items(usage_of("a", server="9" * 5000)), "larger than a quantity can be"),
        (items(usage_of("a", server="x" * 5000)), "must be a quantity"),
        (items(usage_of("a", server="1e999999999")), "larger than a quantity can be"),
        (items(usage_of("a", server="-50m")), "says of pod a what cannot be: -0.05 of cpu"),
        (items(), "metrics.k8s.io has no cpu of its pods yet"),
        (items(usage_of("a")), "metrics.k8s.io has no cpu of its pods yet"),
    ],
)
async def test_an_answer_that_lies_is_unknown_and_never_zero(answer: dict[str, Any], words: str) -> None:
    async with measuring(an_api(**{USED: answer})) as sources:
        said = await sources.why(CPU)
        assert words in said
        assert len(said) < 400


async def test_windows_and_moments_that_lie_are_bounded() -> None:
    future = {**usage_of("a", "9999-12-31T23:59:59Z", server="1"), "window": "9" * 9 + "h" + "9" * 400 + "s"}
    past = usage_of("b", "0001-01-01T00:00:00Z", server="1")
    async with measuring(an_api(**{USED: items(future, past)})) as sources:
        sample = await known(sources, CPU)
        assert (sample.at, sample.value.window) == (sources.clock(), timedelta(days=1))


async def test_prior_fault_8_what_is_old_is_no_sample() -> None:
    old = usage_of("b", "2025-12-31T23:00:00Z", server="1")
    async with measuring(an_api(**{USED: items(usage_of("a", server="1"), old)})) as sources:
        sample = await known(sources, CPU)
        assert (sample.value.value, sample.value.pods, sample.value.missing.pods) == (1, 1, 1)
        sources.clock.advance(200)
        # The source goes on answering, with the same.
        old = Unknown("nothing newer than 2026-01-01T00:00:00Z was measured", cause=Cause.NO_SAMPLE)
        await until(lambda: sources.look(CPU) == old, "it is too old")


async def test_no_pods_and_no_selector_are_told() -> None:
    async with measuring(an_api(**{PODS: items()})) as sources:
        assert await sources.why(CPU) == "no pod has the labels of its selector"
        assert "neither its workload nor its Service has a selector" in await sources.why(
            CPU, replace(CHAT, selector="")
        )


def test_in_a_folder_there_is_no_metrics_api() -> None:
    ((_, sample),) = Sampler(IN_A_FOLDER).samples(CHAT, (parse(MetricSpec, CPU),), NOW)
    assert sample == Unknown(
        "there is no metrics API in a folder: use Requests, Scrape, or External with metricInformer prometheus",
        cause=Cause.NO_SOURCE,
    )
    assert set(IN_A_FOLDER) == {"Resource", "ContainerResource", "Pods", "Object", "External"}
