"""What Prometheus is told of the decisions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from controller.decision import Decision
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
