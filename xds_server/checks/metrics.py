"""What Prometheus is told of remote backends."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from xds_server.checks.backend import Backend
from xds_server.checks.outcome import Outcome


class CheckMetrics:
    """Whether each backend is healthy, how its checks ended and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._healthy = Gauge(
            "beamlit_remote_healthy",
            "1 while a remote backend answers, else 0.",
            ("backend", "host"),
            registry=registry,
        )
        self._checks = Counter(
            "beamlit_remote_checks", "Checks of remote backends, by what they found.", ("reason",), registry=registry
        )
        self._seconds = Histogram(
            "beamlit_remote_check_duration_seconds",
            "How long a check of a remote backend took.",
            buckets=(0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0),
            registry=registry,
        )

    def checked(self, outcome: Outcome | None, seconds: float) -> None:
        """Take in one check."""
        self._checks.labels(outcome.reason if outcome else "NothingNew").inc()
        self._seconds.observe(seconds)

    def tell(self, backend: Backend, healthy: bool) -> None:
        """Take in what is told of a backend now."""
        self._healthy.labels(backend.name, str(backend.place)).set(healthy)

    def forget(self, backend: Backend) -> None:
        """No model uses a backend any more, whether or not anything was told of it."""
        self._healthy.remove_by_labels({"backend": backend.name})
