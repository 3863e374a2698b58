"""Where samples of metrics come from: one source for each type of metric, asked for what an object needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from controller.api.kubernetes.endpoints import Replica
from controller.api.resources.metrics import MetricSpec
from controller.decision.facts import Cause, Sample, Unknown
from controller.store.objects import ObjectRef

Samples = tuple[tuple[MetricSpec, Sample], ...]

ASSUMED = timedelta(minutes=1)
"""What a metric is taken to be an average over where nobody says, or how old its samples are: Prometheus scrapes once a
minute unless it is told otherwise, and prometheus-adapter and KEDA never say (docs/adr/0083).
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: an object, its pods and its replicas.

    `selector` is the label selector of its pods in `namespace`, as a query of the API server has it; empty while that
    is not known. `replicas` are those behind its Service, `named_ports` the numbers of the ports of its containers.
    `scale` is how many replicas its workload says that it has, ready or not (`status.replicas`).
    """

    ref: ObjectRef
    namespace: str = ""
    selector: str = ""
    replicas: tuple[Replica, ...] = ()
    named_ports: tuple[tuple[str, int], ...] = ()
    scale: int | None = None


class MetricSource(Protocol):
    """Measures the metrics of one type."""

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """Return the newest sample for one object, over all of its pods (`now` is UTC). Never waits, never raises.

        What is missing is Unknown, never zero.
        """
        ...


@runtime_checkable
class PolledSource(MetricSource, Protocol):
    """A source that asks somebody else, from time to time, for what was looked at lately."""

    async def run(self, tell: Callable[[frozenset[ObjectRef]], None]) -> None:
        """Ask until cancelled, and tell for which objects there is another sample. Whatever is answered, go on."""
        ...


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A source that has no sample of anything, and says why."""

    why: str

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        return Unknown(self.why, cause=Cause.NO_SOURCE)


NOT_MEASURED = Unknown("nothing here measures metrics of this type", cause=Cause.NO_SOURCE)


class Sampler:
    """Asks the source of each metric."""

    def __init__(self, sources: Mapping[str, MetricSource]) -> None:
        self._sources = sources

    @property
    def polled(self) -> tuple[PolledSource, ...]:
        """The sources that have to run, each once."""
        found = {id(one): one for one in self._sources.values() if isinstance(one, PolledSource)}
        return tuple(found.values())

    def samples(self, subject: Subject, metrics: tuple[MetricSpec, ...], now: datetime) -> Samples:
        """Return a sample of each of these metrics of an object."""
        return tuple((metric, self._sample(subject, metric, now)) for metric in metrics)

    def _sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        source = self._sources.get(metric.type)
        return source.sample(subject, metric, now) if source else NOT_MEASURED
