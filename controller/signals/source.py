"""Where samples of metrics come from: one source for each type of metric, asked for what an object needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from controller.api.resources.metrics import MetricSpec
from controller.decision.facts import Known, Unknown
from controller.store.objects import ObjectRef

Sample = Known[Decimal] | Unknown
Samples = tuple[tuple[MetricSpec, Sample], ...]


class MetricSource(Protocol):
    """Measures the metrics of one type."""

    def sample(self, ref: ObjectRef, metric: MetricSpec, now: datetime) -> Sample:
        """Return the newest sample for one object, over all of its pods (`now` is UTC). Never waits, never raises.

        What is missing is Unknown, never zero.
        """
        ...


class Sampler:
    """Asks the source of each metric. A metric whose type has no source is not measured, and left out."""

    def __init__(self, sources: Mapping[str, MetricSource]) -> None:
        self._sources = sources

    def samples(self, ref: ObjectRef, metrics: tuple[MetricSpec, ...], now: datetime) -> Samples:
        """Return a sample of each of these metrics of an object that is measured."""
        sources = ((metric, self._sources.get(metric.type)) for metric in metrics)
        return tuple((metric, source.sample(ref, metric, now)) for metric, source in sources if source)
