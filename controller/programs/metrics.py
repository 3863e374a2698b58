"""The metrics of the programs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.decision import Decision
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from controller.store.objects import ObjectRef


class DecisionMetrics:
    """The split of every model, and how often it changed for which reason."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._split = Gauge(
            "beamlit_model_split_ratio",
            "Share of a model's requests that goes to a side, 0 to 1.",
            ("namespace", "name", "side"),
            registry=registry,
        )
        self._decisions = Counter(
            "beamlit_model_decisions",
            "Changes of a model's split or of its reason.",
            ("namespace", "name", "reason"),
            registry=registry,
        )
        self._last: dict[ObjectRef, tuple[str, str]] = {}

    def observe(self, model: ObjectRef, decision: Decision | None) -> None:
        """Take in a decision; None means that the model is gone or fronts nothing."""
        if decision is None:
            self._forget(model)
            return
        self._split.labels(model.namespace, model.name, "local").set(decision.split.local / 100)
        self._split.labels(model.namespace, model.name, "remote").set(decision.split.remote / 100)
        latest = (str(decision.split), decision.reason.value)
        if self._last.get(model) != latest:
            self._last[model] = latest
            self._decisions.labels(model.namespace, model.name, decision.reason.value).inc()

    def _forget(self, model: ObjectRef) -> None:
        if self._last.pop(model, None):
            for side in ("local", "remote"):
                self._split.remove(model.namespace, model.name, side)


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
