"""The metrics `Resource` and `ContainerResource`: what pods use, from `metrics.k8s.io`, beside what they request.

Objects with the same pods share what is asked for; where many selectors of one namespace are looked at, one question is
asked for all of its pods, and each selector has what was measured of those pods that it is known to choose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from controller.api.kubernetes.metrics import PodUsage
from controller.api.resources.metrics import ContainerResourceMetric, MetricSpec, ResourceMetric
from controller.api.timing import SignalTiming
from controller.decision.facts import Cause, Sample, Unknown
from controller.signals.kube_api import MOST_BYTES, ApiReader, Question, ask_for_items, in_turns, moment_of, window_of
from controller.signals.pod_lists import (
    CHOSEN_AT_A_TIME,
    MOST_COMPARED,
    READ_AT_A_TIME,
    PodLists,
    PodsOf,
    namespace_of,
)
from controller.signals.pods import MeasuredPod, NoAmountError, PodSample, What, amount_of, measure
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.source import Subject

Clock = Callable[[], datetime]

_METRICS = "metrics.k8s.io"
# As for pods (`pod_lists`): what is measured of twenty pods and more takes as long to read as it takes to ask.
_WORTH = 16 * 1024
NO_SELECTOR = Unknown(
    "its pods are not known: neither its workload nor its Service has a selector", cause=Cause.INVALID
)


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
        self._poller = Poller(self._list, timing.kubernetes, clock, namespace_of, self._list_all)

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        if not subject.selector:
            return NO_SELECTOR
        pods = self._pods.look(subject, now)
        if isinstance(pods, Unknown) and pods.pending:
            return pods  # Whose metrics are to be picked is known soon.
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
        found, now = await self._found(key.namespace, {"labelSelector": key.selector}, MOST_BYTES), self._clock()
        return {one.metadata.name: _amounts_of(one, now) async for one in in_turns(found, READ_AT_A_TIME)}

    async def _list_all(
        self, namespace: str, keys: AbstractSet[PodsOf]
    ) -> Mapping[PodsOf, Mapping[str, ContainerAmounts]]:
        """Ask for all pods of a namespace, and pick those of each selector by their names: not everybody who serves
        this API says which labels they have.
        """
        found, now = await self._found(namespace, {}, min(len(keys) * _WORTH, MOST_BYTES)), self._clock()
        usages = {one.metadata.name: one for one in found}
        picked: dict[PodsOf, Sequence[str]] = {}
        left = MOST_COMPARED
        async for key in in_turns(keys, CHOSEN_AT_A_TIME):
            pods = self._pods.known(key, now)
            if pods is None or len(pods) > left:
                continue
            left -= len(pods)
            names = [pod.name for pod in pods if pod.name in usages]
            # Some adapters leave out all that is more than they can ask for in turn. What does not run has no sample.
            if names or not any(pod.phase == "Running" and not pod.leaves for pod in pods):
                picked[key] = names
        wanted = {name for names in picked.values() for name in names}
        read = {name: _amounts_of(usages[name], now) async for name in in_turns(wanted, READ_AT_A_TIME)}
        return {key: {name: read[name] for name in names} for key, names in picked.items()}

    async def _found(self, namespace: str, query: Mapping[str, str], most: int) -> Sequence[PodUsage]:
        question = Question(
            _METRICS,
            f"/apis/{_METRICS}/v1beta1/namespaces/{namespace}/pods",
            f"list pods.{_METRICS} in namespace {namespace}",
            f"{_METRICS} is not served: install metrics-server",
            query,
            most,
        )
        return await ask_for_items(self._reader, question, PodUsage)


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
