"""The metrics `Resource` and `ContainerResource`: what pods use, from `metrics.k8s.io`, beside what they request.

Objects with the same pods share what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from controller.api.kubernetes.metrics import PodUsage, PodUsageList
from controller.api.kubernetes.pods import PodList
from controller.api.resources.metrics import ContainerResourceMetric, MetricSpec, ResourceMetric
from controller.api.timing import SignalTiming
from controller.decision.facts import Cause, Known, Sample, Unknown
from controller.signals.kube_api import ApiReader, Question, ask, moment_of, window_of
from controller.signals.pods import MeasuredPod, NoAmountError, PodSample, What, amount_of, measure, pod_of
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.source import Subject

Clock = Callable[[], datetime]

_METRICS = "metrics.k8s.io"
NO_SELECTOR = Unknown(
    "its pods are not known: neither its workload nor its Service has a selector", cause=Cause.INVALID
)


class PodsOf(NamedTuple):
    """Which pods: those of a namespace with some labels."""

    namespace: str
    selector: str


class PodLists:
    """The pods of each selector that somebody looks at, from the API server's own cache (resourceVersion 0)."""

    def __init__(self, reader: ApiReader, timing: SignalTiming, clock: Clock) -> None:
        self._reader = reader
        self._poller = Poller(self._list, timing.pods, clock, share_of=_namespace_of)

    def look(self, subject: Subject, now: datetime) -> Known[tuple[MeasuredPod, ...]] | Unknown:
        """Return the pods of an object, and go on asking for them."""
        return self._poller.look(PodsOf(subject.namespace, subject.selector), subject.ref, now)

    async def run(self, tell: Tell) -> None:
        """Ask until cancelled."""
        await self._poller.run(tell)

    async def _list(self, key: PodsOf) -> tuple[MeasuredPod, ...]:
        question = Question(
            "the API server",
            f"/api/v1/namespaces/{key.namespace}/pods",
            f"list pods in namespace {key.namespace}",
            query={"labelSelector": key.selector, "resourceVersion": "0"},
        )
        found = await ask(self._reader, question, PodList)
        try:
            return tuple(map(pod_of, found.items))
        except NoAmountError as error:
            raise SourceError(f"a pod requests what cannot be: {error}") from error


@dataclass(frozen=True, slots=True)
class ContainerAmounts:
    """What the containers of one pod used of each resource, by their names."""

    at: datetime
    window: timedelta
    containers: tuple[tuple[str, Mapping[str, Decimal]], ...]

    def of(self, what: What) -> PodSample | None:
        """Return the sample of a resource; None if a container that counts has none."""
        used = [amounts for name, amounts in self.containers if what.container in ("", name)]
        if not used or any(what.resource not in amounts for amounts in used):
            return None
        return PodSample(sum((one[what.resource] for one in used), Decimal(0)), self.at, self.window)


class PodResources:
    """Measures what pods use of a resource."""

    def __init__(self, reader: ApiReader, pods: PodLists, timing: SignalTiming, clock: Clock) -> None:
        self._reader = reader
        self._pods = pods
        self._clock = clock
        self._old_after = timedelta(seconds=timing.sample_old_after)
        self._poller = Poller(self._list, timing.kubernetes, clock, share_of=_namespace_of)

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        if not subject.selector:
            return NO_SELECTOR
        pods = self._pods.look(subject, now)
        used = self._poller.look(PodsOf(subject.namespace, subject.selector), subject.ref, now)
        if isinstance(used, Unknown):
            return used
        if isinstance(pods, Unknown):
            return pods
        what = what_of(metric)
        samples = {name: one for name, amounts in used.value.items() if (one := amounts.of(what))}
        if pods.value and not samples:
            return Unknown(f"{_METRICS} has no {what.resource} of {_whose(what)} yet", cause=Cause.NO_SAMPLE)
        return measure_fresh(pods.value, samples, what, Moments(now, self._old_after))

    async def run(self, tell: Tell) -> None:
        """See `PolledSource`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run(tell))
            group.create_task(self._poller.run(tell))

    async def _list(self, key: PodsOf) -> Mapping[str, ContainerAmounts]:
        question = Question(
            _METRICS,
            f"/apis/{_METRICS}/v1beta1/namespaces/{key.namespace}/pods",
            f"list pods.{_METRICS} in namespace {key.namespace}",
            f"{_METRICS} is not served: install metrics-server",
            {"labelSelector": key.selector},
        )
        found, now = await ask(self._reader, question, PodUsageList), self._clock()
        return {one.metadata.name: _amounts_of(one, now) for one in found.items}


class Moments(NamedTuple):
    """The moment it is, and how old a sample may be."""

    now: datetime
    old_after: timedelta


def measure_fresh(
    pods: tuple[MeasuredPod, ...], samples: Mapping[str, PodSample], what: What, moments: Moments
) -> Sample:
    """Measure by the samples that are not too old: a pod whose sample is old has none."""
    fresh = {name: one for name, one in samples.items() if moments.now - one.at <= moments.old_after}
    if samples and not fresh:
        newest = max(one.at for one in samples.values())
        return Unknown(f"nothing newer than {newest:%Y-%m-%dT%H:%M:%SZ} was measured", cause=Cause.NO_SAMPLE)
    return measure(pods, fresh, what, moments.now)


def what_of(metric: MetricSpec) -> What:
    """Say what is measured of pods for a metric of a resource."""
    of_requests = metric.target.type == "Utilization"
    match metric.source:
        case ContainerResourceMetric() as source:
            return What(source.name, source.container, of_requests)
        case ResourceMetric() as source:
            return What(source.name, of_requests=of_requests)
    return What(of_requests=of_requests)


def _whose(what: What) -> str:
    return f"container {what.container} of its pods" if what.container else "its pods"


def _amounts_of(usage: PodUsage, now: datetime) -> ContainerAmounts:
    containers = tuple((one.name, _used(usage.metadata.name, one.usage)) for one in usage.containers)
    return ContainerAmounts(moment_of(usage.timestamp, now), window_of(usage.window), containers)


def _used(pod: str, quantities: Mapping[str, str | int | float]) -> Mapping[str, Decimal]:
    try:
        amounts = {name: amount_of(quantity) for name, quantity in quantities.items()}
    except NoAmountError as error:
        raise SourceError(f"{_METRICS} says of pod {pod} what cannot be: {error}") from error
    for name, amount in amounts.items():
        if amount < 0:
            raise SourceError(f"{_METRICS} says of pod {pod} what cannot be: {amount.normalize():f} of {name}")
    return amounts


def _namespace_of(key: PodsOf) -> str:
    return key.namespace
