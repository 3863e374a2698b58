"""Pods are grouped as the HorizontalPodAutoscaler groups them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.api.kubernetes.pods import PodObject
from controller.api.schema.values import parse
from controller.decision import Known, Measurement, Sample
from controller.decision.facts import Uncounted
from controller.signals.pods import MeasuredPod, NoAmountError, PodSample, Readiness, What, amount_of, measure, pod_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
CPU = What("cpu", of_requests=True)
MEMORY = What("memory", of_requests=True)
OTHER = What()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def a_pod(name: str = "a", **changes: Any) -> MeasuredPod:
    """A pod that has been ready for long, and requests one CPU and as much memory."""
    requests = {"cpu": Decimal(1), "memory": Decimal(1)}
    ready = Readiness(is_false=False, since=LONG_AGO)
    pod = MeasuredPod(name, readiness=ready, started=LONG_AGO, containers=(("server", requests),))
    return replace(pod, **changes)


def used(value: str, at: datetime = NOW, window: float = 10) -> PodSample:
    return PodSample(Decimal(value), at, timedelta(seconds=window))


def measured(sample: Sample) -> Measurement:
    assert isinstance(sample, Known), sample
    return sample.value


def why(sample: Sample) -> str:
    assert not isinstance(sample, Known), sample
    return sample.why


@pytest.mark.parametrize(
    ("pod", "sample", "group"),
    [
        (a_pod("b"), used("2"), "counts"),
        (a_pod("b"), None, "missing"),
        (a_pod("b", phase="Succeeded"), None, "missing"),
        (a_pod("b", phase="Pending"), used("2"), "unready"),
        (a_pod("b", phase="Pending"), None, "unready"),
        (a_pod("b", phase="Failed"), used("2"), "ignored"),
        (a_pod("b", leaves=True), used("2"), "ignored"),
        (a_pod("b", leaves=True), None, "ignored"),
        (a_pod("b", leaves=True, phase="Pending"), None, "ignored"),
        # What is said of readiness, or of the start, is not there yet.
        (a_pod("b", readiness=None), used("2"), "unready"),
        (a_pod("b", started=None), used("2"), "unready"),
        # In its first five minutes a sample counts if the pod was ready for all of it.
        (a_pod("b", started=ago(60), readiness=Readiness(False, ago(30))), used("2", ago(19)), "counts"),
        (a_pod("b", started=ago(60), readiness=Readiness(False, ago(30))), used("2", ago(20)), "counts"),
        (a_pod("b", started=ago(60), readiness=Readiness(False, ago(30))), used("2", ago(21)), "unready"),
        (a_pod("b", started=ago(60), readiness=Readiness(True, ago(30))), used("2"), "unready"),
        (a_pod("b", started=ago(299), readiness=Readiness(True, LONG_AGO)), used("2"), "unready"),
        # Afterwards one that is not ready counts if it ever was ready.
        (a_pod("b", started=ago(300), readiness=Readiness(True, ago(269))), used("2"), "counts"),
        (a_pod("b", started=ago(300), readiness=Readiness(True, ago(270))), used("2"), "counts"),
        (a_pod("b", started=ago(300), readiness=Readiness(True, ago(271))), used("2"), "unready"),
        (a_pod("b", started=ago(300), readiness=Readiness(False, ago(1))), used("2"), "counts"),
        (a_pod("b", started=LONG_AGO, readiness=Readiness(True, None)), used("2"), "unready"),
    ],
)
def test_a_pod_of_cpu(pod: MeasuredPod, sample: PodSample | None, group: str) -> None:
    samples = {"a": used("1"), **({"b": sample} if sample else {})}
    found = measured(measure([a_pod(), pod], samples, CPU, NOW))
    one = Uncounted(1, Decimal(1))
    assert (found.value, found.pods, found.requests) == ((3, 2, 2) if group == "counts" else (1, 1, 1))
    assert found.missing == (one if group == "missing" else Uncounted())
    assert found.unready == (one if group == "unready" else Uncounted())


@pytest.mark.parametrize("what", [MEMORY, OTHER])
def test_readiness_matters_to_cpu_alone(what: What) -> None:
    pods = [a_pod(), a_pod("b", readiness=None)]
    assert measured(measure(pods, {"a": used("1"), "b": used("2")}, what, NOW)).pods == 2


def test_an_average_takes_no_request_and_a_utilization_those_of_every_pod() -> None:
    pods = [a_pod(), a_pod("b", leaves=True, containers=(("server", {}),))]
    assert measured(measure(pods, {"a": used("1")}, What("cpu"), NOW)).requests is None
    assert why(measure(pods, {"a": used("1")}, CPU, NOW)) == (
        "container server of pod b requests no cpu, so there is no utilization"
    )


def test_a_sample_of_a_pod_that_is_not_there_is_no_part_of_a_utilization() -> None:
    samples = {"a": used("1"), "gone": used("5")}
    assert measured(measure([a_pod()], samples, CPU, NOW)).value == 1
    # The autoscaler counts it in an average.
    assert measured(measure([a_pod()], samples, OTHER, NOW)).pods == 2


def test_the_oldest_sample_says_when_and_the_longest_window_over_how_long() -> None:
    samples = {"a": used("1", ago(5), 10), "b": used("1", ago(20), 30)}
    found = measure([a_pod(), a_pod("b")], samples, CPU, NOW)
    assert isinstance(found, Known)
    assert (found.at, found.value.window) == (ago(20), timedelta(seconds=30))


def test_no_pod_is_unknown_and_not_zero() -> None:
    assert why(measure([], {"a": used("1")}, CPU, NOW)) == "no pod has the labels of its selector"


def test_pods_that_do_not_count_are_told() -> None:
    pods = [a_pod("a", leaves=True), a_pod("b", phase="Pending"), a_pod("c"), a_pod("d")]
    said = why(measure(pods, {}, CPU, NOW))
    assert said == (
        "no pod counts: 2 without a sample, 1 not ready, or not for long enough, 1 failed or on the way out"
    )


def requested(spec: dict[str, Any], container: str = "") -> Decimal | str | None:
    """What a pod with this spec requests of the CPU, or why that is not known."""
    pod = pod_of(parse(PodObject, {"metadata": {"name": "a"}, "spec": spec, "status": {"phase": "Running"}}))
    pod = replace(pod, readiness=Readiness(False, LONG_AGO), started=LONG_AGO)
    sample = measure([pod], {"a": used("1")}, What("cpu", container, of_requests=True), NOW)
    return sample.value.requests if isinstance(sample, Known) else sample.why


def container(name: str, cpu: object = None, **more: Any) -> dict[str, Any]:
    return {"name": name, **({"resources": {"requests": {"cpu": cpu}}} if cpu is not None else {}), **more}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "of", "expected"),
    [
        ({"containers": [container("a", "500m"), container("b", 1)]}, "", Decimal("1.5")),
        ({"containers": [container("a", "500m"), container("b", 1)]}, "b", Decimal(1)),
        ({"containers": [container("a", "500m"), container("b")]}, "a", Decimal("0.5")),
        (
            {"containers": [container("a", "500m"), container("b")]},
            "",
            "container b of pod a requests no cpu, so there is no utilization",
        ),
        ({"containers": [container("a", 1)]}, "c", "pod a has no container c"),
        # A sidecar counts as a container does; an init container does not.
        ({"containers": [container("a", 1)], "initContainers": [container("s", 2, **SIDECAR)]}, "", Decimal(3)),
        ({"containers": [container("a", 1)], "initContainers": [container("s", 2, **SIDECAR)]}, "s", Decimal(2)),
        ({"containers": [container("a", 1)], "initContainers": [container("i", 8)]}, "", Decimal(1)),
        (
            {"containers": [container("a", 1)], "initContainers": [container("s", **SIDECAR)]},
            "",
            "container s of pod a requests no cpu, so there is no utilization",
        ),
        # What the pod says of itself goes before what its containers say, but for a single one of them.
        ({"resources": {"requests": {"cpu": 4}}, "containers": [container("a")]}, "", Decimal(4)),
        ({"resources": {"requests": {"cpu": 4}}, "containers": [container("a", 1)]}, "a", Decimal(1)),
        ({"resources": {"requests": {"cpu": 4}}, "overhead": {"cpu": "1"}, "containers": []}, "", Decimal(5)),
        ({"resources": {"requests": {"memory": 4}}, "containers": [container("a", 1)]}, "", Decimal(1)),
        ({"resources": {"requests": {"memory": 4}}, "containers": [container("a")]}, "", "pod a requests no cpu"),
        # Then the rest is what all of its containers take at once, or while it starts if that is more.
        (
            {
                "resources": {"requests": {"memory": 4}},
                "containers": [container("a", 1)],
                "initContainers": [container("s", 1, **SIDECAR), container("i", 8), container("t", 1, **SIDECAR)],
            },
            "",
            Decimal(9),
        ),
        ({"resources": {"requests": {"example.com/gpu": 4}}, "containers": [container("a", 1)]}, "", Decimal(1)),
    ],
)
def test_what_a_pod_requests(spec: dict[str, Any], of: str, expected: Decimal | str) -> None:
    assert requested(spec, of) == expected


def test_a_condition_that_says_nothing_is_not_false() -> None:
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "Unknown"}]
    pod = pod_of(parse(PodObject, {"metadata": {"name": "a"}, "status": {"conditions": conditions}}))
    assert pod.readiness == Readiness(is_false=False, since=None)


def test_moments_that_no_calendar_has_are_none() -> None:
    status = {"startTime": "0001-01-01T00:00:00Z", "conditions": []}
    assert pod_of(parse(PodObject, {"metadata": {"name": "a"}, "status": status})).started is None
    status = {"startTime": "9999-12-31T23:59:59Z", "conditions": []}
    assert pod_of(parse(PodObject, {"metadata": {"name": "a"}, "status": status})).started is None


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("12345678n", "0.013"),
        ("1", "1"),
        (3, "3"),
        ("1e3", "1000"),
        ("2Ki", "2048"),
        ("1.0001", "1.001"),
        ("5E", "5e18"),
    ],
)
def test_a_quantity_counts_in_thousandths_rounded_up(quantity: str | int, amount: str) -> None:
    assert amount_of(quantity) == Decimal(amount)


@pytest.mark.parametrize("quantity", ["1e99999", "9" * 20, "1E40", "9" * 80, "1e" + "9" * 30, "-1e30", "1.1.1"])
def test_what_no_quantity_can_be_is_refused(quantity: str) -> None:
    with pytest.raises(NoAmountError):
        amount_of(quantity)


def test_prior_fault_5_utilization_is_of_all_pods_together_and_not_divided_again() -> None:
    pods = [a_pod(name) for name in "abc"]
    found = measured(measure(pods, {name: used("0.95") for name in "abc"}, CPU, NOW))
    assert (found.value, found.requests) == (Decimal("2.85"), 3)


def test_prior_fault_6_no_requests_are_unknown_and_no_crash() -> None:
    assert "requests no cpu" in why(measure([a_pod(containers=(("server", {}),))], {"a": used("1")}, CPU, NOW))


def test_prior_fault_8_who_has_no_sample_or_is_not_ready_is_not_averaged_over() -> None:
    pods = [a_pod(), a_pod("old"), a_pod("new", phase="Pending")]
    found = measured(measure(pods, {"a": used("4"), "new": used("9")}, What("cpu"), NOW))
    assert (found.value, found.pods) == (4, 1)
    assert (found.missing.pods, found.unready.pods) == (1, 1)
