"""Metrics of Kubernetes move requests: through the real aggregation layer, by the programs with their own rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.api.timing import PollTiming, ReportTiming, SignalTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.hpa_cases import LABELS, AContainer, APod, cpu, external, of_service, per_pod, pod_object, pod_status
from tests.support.kube.crds import install_crds
from tests.support.kube.metrics_apis import MetricsApis, Series
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site, rules_of
from tests.support.objects import AModel, KubeObject, a_deployment
from tests.support.timing import PATIENT

OFTEN = PollTiming(every=0.5, longest_pause=1.0, old_after=5.0)
EAGER = partial(
    Forked,
    context=replace(PATIENT, signals=SignalTiming(kubernetes=OFTEN, pods=OFTEN), reports=ReportTiming(window=3.0)),
)
"""Starts programs that ask twice a second, and whose answers are old after five; rates are averages of three."""

SELECTOR = {"matchLabels": LABELS}


def of_one_moment(metric: dict[str, Any]) -> dict[str, Any]:
    """Say that a metric is no average: what an adapter says nothing of is taken for one over a minute."""
    kind = metric["type"].lower()
    return {**metric, kind: {**metric[kind], "window": "0s"}}


METRICS = tuple(
    map(
        of_one_moment,
        (
            per_pod("queue", "10"),
            of_service("requests", average="10"),
            external("backlog", {"q": "a"}, value="10"),
        ),
    )
)
NAMES = ("p0", "p1")


@pytest.fixture(scope="module")
def served(metrics_apis: MetricsApis) -> None:
    """Our custom resources, in the cluster with metrics APIs."""
    install_crds(metrics_apis.server)


@pytest.fixture
async def measured(metrics_apis: MetricsApis, served: None, tmp_path: Path) -> AsyncIterator[Site]:
    """A site of a cluster with metrics APIs, with the workload `chat` of two pods."""
    with fresh_namespace(metrics_apis.server) as namespace:
        async with Site(metrics_apis.server, namespace, tmp_path).running() as site:
            site.write(workload())
            site.set_status("Deployment", "chat", {"replicas": len(NAMES)})
            for name in NAMES:
                pod = APod(name, (AContainer(),))
                site.write(KubeObject(pod_object(pod)))
                site.set_status("Pod", name, pod_status(pod, datetime.now(UTC)))
            try:
                yield site
            finally:
                metrics_apis.kubelet.forget(namespace)


def workload() -> KubeObject:
    """The Deployment `chat` of the pods of these tests."""
    raw = a_deployment("chat").container(name="main", image="model").raw
    raw["spec"]["selector"] = SELECTOR
    raw["spec"]["template"]["metadata"] = {"labels": LABELS}
    return KubeObject(raw)


def use(apis: MetricsApis, site: Site, millicores: int) -> None:
    """Let each pod use so much of the 100 millicores that it requests."""
    for name in NAMES:
        apis.kubelet.uses(site.namespace, name, millicores=millicores)


def chat(site: Site, *metrics: dict[str, Any], **behavior: Any) -> AModel:
    """The model `chat` with these metrics: one replica here, one backend elsewhere."""
    model = site.served("chat", [site.backend("local-1")], site.backend("remote"))
    return model.measuring(*metrics).offloading(**behavior)


async def test_cpu_at_its_target_moves_half_of_the_requests_until_it_is_calm(
    metrics_apis: MetricsApis, measured: Site
) -> None:
    site = measured
    use(metrics_apis, site, 95)
    await asyncio.to_thread(metrics_apis.await_pods, site.namespace, NAMES)
    site.write(chat(site, cpu(90), percentage=50, restoreAfter="1s"))
    await site.start(start=EAGER)

    def split(status: dict[str, Any]) -> str:
        return f"{status['split']['summary']} {status['split']['reason']}" if "split" in status else ""

    # All from the one status that says so: an answer may be old when one looks again.
    status = await eventually(lambda: site.status("chat"), lambda seen: split(seen) == "50/50 Overloaded", within=60)
    assert "95%" in status["split"]["message"]
    (signal,) = status["signals"]
    assert (signal["name"], signal["target"], signal["state"]) == ("cpu", "90%", "Breached")
    assert signal["current"] == "95%"
    assert (await site.condition("chat", "Accepted"))[:2] == ("True", "Accepted")
    await half_leave(site)

    # Half of what would come back is used now: it is below the target.
    use(metrics_apis, site, 20)
    await site.until_split("chat", "100/0 Steady", within=90)
    await all_stay(site)


async def half_leave(site: Site) -> None:
    """Wait until half of the requests to the model leave; of 400, sixty more or less are six standard deviations."""
    port = await site.port("chat")
    await eventually(lambda: site.local_share(port), lambda share: 0.35 < share < 0.65)


async def all_stay(site: Site) -> None:
    """Wait until all requests to the model are answered here."""
    port = await site.port("chat")
    await eventually(lambda: site.local_share(port), lambda share: share == 1)


async def test_custom_and_external_metrics_move_requests_each_for_itself(
    metrics_apis: MetricsApis, measured: Site
) -> None:
    site = measured

    async def serve(queue: int = 3, requests: int = 4, backlog: int = 2) -> None:
        custom = [Series("queue", queue, ("pods", name)) for name in NAMES]
        custom.append(Series("requests", requests, ("services", "model")))
        series = [Series("backlog", backlog, labels=(("q", "a"),)), Series("backlog", 70, labels=(("q", "b"),))]
        await asyncio.to_thread(metrics_apis.adapter.serve, site.namespace, custom=custom, external=series)

    await serve()
    site.write(chat(site, *METRICS, percentage=50, offloadAfter="0s", restoreAfter="1s"))
    await site.start(start=EAGER)

    def shown(status: dict[str, Any]) -> list[tuple[str | None, str]]:
        return [(one.get("current"), one["state"]) for one in status.get("signals") or ()]

    async def until_shown(expected: list[tuple[str, str]]) -> None:
        await site.until_status("chat", lambda one: shown(one) == expected)

    # Below the target also when it is all of the demand, and not half.
    calm = [("3", "Clear"), ("2", "Clear"), ("2", "Clear")]
    over: tuple[tuple[dict[str, int], str], ...] = (
        ({"queue": 12}, "12"),
        ({"requests": 30}, "15"),
        ({"backlog": 11}, "11"),
    )
    await until_shown(calm)
    for which, (levels, current) in enumerate(over):
        await serve(**levels)
        await until_shown([*calm[:which], (current, "Breached"), *calm[which + 1 :]])
        await half_leave(site)
        await serve()
        await all_stay(site)
    # A metric that is gone is unknown, and says so; it may be unknown before, for an answer that is old.
    gone = ("has no such metric", "has no value", "has no series")

    def says_so(signal: dict[str, Any]) -> bool:
        return "current" not in signal and any(words in signal.get("message", "") for words in gone)

    await asyncio.to_thread(metrics_apis.adapter.serve, site.namespace)
    await site.until_status(
        "chat",
        lambda one: [state for _, state in shown(one)] == ["Unknown"] * 3 and all(map(says_so, one["signals"])),
    )


def without(*groups: str, resource: str = "") -> list[dict[str, Any]]:
    """The rules of the controller, without what it may do with some groups of the API, or with one resource."""
    return [
        rule
        for rule in rules_of("controller")
        if not (set(rule["apiGroups"]) & set(groups) or rule["resources"] == [resource])
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            without("metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"),
            [
                "the controller may not list pods.metrics.k8s.io",
                "the controller may not get pods/queue of custom.metrics.k8s.io",
                "the controller may not get services/requests of custom.metrics.k8s.io",
                "the controller may not list backlog.external.metrics.k8s.io",
            ],
        ),
        (without("metrics.k8s.io", resource="pods"), ["the controller may not list pods"]),
    ],
    ids=["the metrics APIs", "pods"],
)
async def test_a_right_that_is_missing_is_named_in_the_status(
    rules: list[dict[str, Any]], expected: list[str], metrics_apis: MetricsApis, measured: Site
) -> None:
    site = measured
    series = [Series("queue", 3, ("pods", name)) for name in NAMES]
    await asyncio.to_thread(metrics_apis.adapter.serve, site.namespace, custom=series)
    site.write(chat(site, *((cpu(90), *METRICS) if len(expected) > 1 else (per_pod("queue", "10"),))))
    site.xds_server(start=EAGER)
    site.controller(user=site.cluster.user(site.namespace, "less", *rules), start=EAGER)

    def said(status: dict[str, Any]) -> list[str]:
        return [one.get("message", "") for one in status.get("signals") or ()]

    # Each signal is asked on its own, and the status may say one while the next has not been asked.
    status = await eventually(
        lambda: site.status("chat"),
        lambda seen: len(said(seen)) == len(expected) and all("may not" in one for one in said(seen)),
    )
    for words, message in zip(expected, said(status), strict=True):
        assert message.startswith(f"{words} in namespace {site.namespace} (HTTP 403): bind the role"), message
    # So does a condition of the same status: at once, and as False once it has lasted for a minute.
    (available,) = (one for one in status["conditions"] if one["type"] == "SignalsAvailable")
    assert (available["status"] in ("Unknown", "False"), available["reason"]) == (True, "NotPermitted")
    assert all(message in available["message"] for message in said(status))


async def test_an_api_that_nobody_serves_is_named_in_the_status(site: Site) -> None:
    site.write(workload(), chat(site, cpu(90), *METRICS))
    site.xds_server(start=EAGER)
    site.controller(start=EAGER)
    expected = ["metrics.k8s.io", "custom.metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"]

    def said(status: dict[str, Any]) -> list[str]:
        return [one.get("message", "").partition(":")[0] for one in status.get("signals") or ()]

    await site.until_status("chat", lambda status: said(status) == [f"{group} is not served" for group in expected])
    assert (await site.condition("chat", "SignalsAvailable"))[1] == "NoSource"
