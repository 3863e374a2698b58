"""What Prometheus is told of a store over the API server."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore


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
        yield CounterMetricFamily("beamlit_status_writes", "Requests that wrote a status.", value=self._store.writes)
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
