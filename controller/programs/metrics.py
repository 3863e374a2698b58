"""The metrics of the programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.plan.plan import Plan
from controller.reconcile.services import ServiceCounts
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from controller.store.objects import ObjectRef


class ControllerMetrics:
    """The models as the controller has them, how often their splits changed and why, and how its own work goes.

    A `Telemetry`. What it says of models is said by whoever decides: `stand_by` takes it back.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        of_model = ("namespace", "name")
        self._split = Gauge(
            "beamlit_model_split_ratio",
            "Share of a model's requests that goes to a side, 0 to 1.",
            (*of_model, "side"),
            registry=registry,
        )
        self._ready = Gauge("beamlit_model_ready", "1 while a model is Ready, else 0.", of_model, registry=registry)
        self._replicas = Gauge(
            "beamlit_model_replicas",
            "Local replicas of a model, but for those on their way out.",
            of_model,
            registry=registry,
        )
        self._replicas_ready = Gauge(
            "beamlit_model_replicas_ready", "Local replicas of a model that are ready.", of_model, registry=registry
        )
        self._decisions = Counter(
            "beamlit_model_decisions",
            "Changes of a model's split or of its reason.",
            (*of_model, "reason"),
            registry=registry,
        )
        self._errors = Counter(
            "beamlit_reconcile_errors",
            "Objects that could not be planned (a mistake of this program), or whose status could not be written.",
            ("step",),
            registry=registry,
        )
        for step in ("plan", "write"):
            self._errors.labels(step)
        self._seconds = Histogram(
            "beamlit_reconcile_duration_seconds",
            "From a change that was read to the status that follows from it, written.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self._last: dict[ObjectRef, tuple[str, str]] = {}

    def planned(self, plan: Plan) -> None:
        """See `Telemetry`."""
        status, labels = plan.status, (plan.ref.namespace, plan.ref.name)
        is_ready = any(one.type == "Ready" and one.status == "True" for one in status.conditions)
        self._ready.labels(*labels).set(is_ready)
        local, split = status.local, status.split
        _set(self._replicas, labels, local.total if local else None)
        _set(self._replicas_ready, labels, local.ready if local else None)
        _set(self._split, (*labels, "local"), split.local / 100 if split else None)
        _set(self._split, (*labels, "remote"), split.remote / 100 if split else None)
        if decision := plan.decision:
            latest = (str(decision.split), decision.reason.value)
            if self._last.get(plan.ref) != latest:
                self._last[plan.ref] = latest
                self._decisions.labels(*labels, decision.reason.value).inc()

    def forgotten(self, ref: ObjectRef) -> None:
        """See `Telemetry`."""
        self._last.pop(ref, None)
        for gauge in self._of_models:
            gauge.remove_by_labels({"namespace": ref.namespace, "name": ref.name})

    def written(self, seconds: float) -> None:
        """See `Telemetry`."""
        self._seconds.observe(seconds)

    def failed(self, step: Literal["plan", "write"]) -> None:
        """See `Telemetry`."""
        self._errors.labels(step).inc()

    def stand_by(self) -> None:
        """Say nothing of models any more: another replica decides."""
        self._last.clear()
        for gauge in self._of_models:
            gauge.clear()

    @property
    def _of_models(self) -> tuple[Gauge, ...]:
        return (self._split, self._ready, self._replicas, self._replicas_ready)


def _set(gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
    if value is None:
        with contextlib.suppress(KeyError):
            gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)


class ServiceMetrics(Collector):
    """Reads the counts of the loop over Services when Prometheus asks. Each replica says what it knows, and wrote."""

    def __init__(self, registry: CollectorRegistry, counts: ServiceCounts) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Give the metrics as they are now."""
        yield GaugeMetricFamily(
            "beamlit_services_fronted",
            "Services that lead their clients to the gateway.",
            value=len(self._counts.taken_over),
        )
        writes = CounterMetricFamily(
            "beamlit_service_writes",
            "Writes that take Services over or give them back, by verb, kind of the object and what became of them.",
            labels=("verb", "kind", "result"),
        )
        for (verb, kind, result), count in sorted(self._counts.writes.items()):
            writes.add_metric((verb, kind, result), count)
        yield writes


class StoreMetrics(Collector):
    """Reads the counts of a client and a store when Prometheus asks."""

    def __init__(self, registry: CollectorRegistry, client: KubeClient, store: KubeStore) -> None:
        self._client = client
        self._store = store
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Give the metrics as they are now."""
        answers = CounterMetricFamily(
            "beamlit_kube_requests", "Answers of the API server; code 0: none came.", labels=("method", "code")
        )
        for (method, code), count in sorted(self._client.answers.items()):
            answers.add_metric((method, str(code)), count)
        yield answers
        yield CounterMetricFamily(
            "beamlit_status_writes", "Requests that wrote a status.", value=self._store.status_writes
        )
        suspects = GaugeMetricFamily(
            "beamlit_store_suspect_lists",
            "Kinds whose last list lacked most of what was known, and is looked at again before it is believed.",
            labels=("kind",),
        )
        for kind in self._store.suspects():
            suspects.add_metric((kind,), 1)
        yield suspects
        troubles = GaugeMetricFamily(
            "beamlit_store_unreadable_kinds", "Kinds that cannot be read now.", labels=("kind",)
        )
        for kind in self._store.troubles():
            troubles.add_metric((kind,), 1)
        yield troubles
