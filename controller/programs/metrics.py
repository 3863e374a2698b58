"""The metrics of the programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.api.contract.status import ModelDeploymentStatus, SignalStatus, SplitStatus
from controller.gateway.admin import ClientRequests, EnvoyAdmin, EnvoyAdminError
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
        self._reason = Gauge(
            "beamlit_model_split_reason",
            "1 for the reason why a model's split is what it is.",
            (*of_model, "reason"),
            registry=registry,
        )
        self._capacity = Gauge(
            "beamlit_model_capacity_requests",
            "Requests in flight that the ready replicas of a model take; no sample where no limit holds.",
            of_model,
            registry=registry,
        )
        self._condition = Gauge(
            "beamlit_model_condition",
            "1 while a condition of a model is True, 0 while it is False; no sample while it is Unknown.",
            (*of_model, "type"),
            registry=registry,
        )
        self._not_fronted = Gauge(
            "beamlit_model_not_fronted",
            "1 for the reason why clients of a model's Service are not led to the gateway though it asks for that.",
            (*of_model, "reason"),
            registry=registry,
        )
        self._signal = Gauge(
            "beamlit_model_signal_target_ratio",
            "What a metric of a model was last measured to be, divided by its target; no sample while it is unknown.",
            (*of_model, "signal"),
            registry=registry,
        )
        self._unknown = Gauge(
            "beamlit_model_signals_unknown",
            "Metrics of a model that are not known now; no sample for a model without metrics.",
            of_model,
            registry=registry,
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
        self._counted: dict[ObjectRef, set[str]] = {}
        self._shown: dict[ObjectRef, _Samples] = {}

    def planned(self, plan: Plan) -> None:
        """See `Telemetry`. The split is the one that the object has: Envoys follow none that could not be written."""
        self._take(plan, plan.before.split)

    def _take(self, plan: Plan, split: SplitStatus | None) -> None:
        model = (plan.ref.namespace, plan.ref.name)
        self._show(plan.ref, {**self._samples(plan.status, model), **self._samples_of_split(split, model)})
        if split:
            latest = (str(split), split.reason)
            if self._last.get(plan.ref) != latest:
                self._last[plan.ref] = latest
                self._counted.setdefault(plan.ref, set()).add(split.reason)
                self._decisions.labels(*model, split.reason).inc()

    def forgotten(self, ref: ObjectRef) -> None:
        """See `Telemetry`. Also what was counted goes: names are made up without end."""
        self._last.pop(ref, None)
        for reason in self._counted.pop(ref, ()):
            self._decisions.remove(ref.namespace, ref.name, reason)
        self._show(ref, {})

    def _samples(self, status: ModelDeploymentStatus, model: tuple[str, str]) -> _Samples:
        """Say what there is to show of a model."""
        is_ready = any(one.type == "Ready" and one.status == "True" for one in status.conditions)
        samples: _Samples = {(self._ready, model): is_ready}
        if local := status.local:
            samples[self._replicas, model] = local.total
            samples[self._replicas_ready, model] = local.ready
            if local.capacity is not None:
                samples[self._capacity, model] = local.capacity
        for condition in status.conditions:
            if condition.status != "Unknown":
                samples[self._condition, (*model, condition.type)] = condition.status == "True"
        fronted = status.condition("Fronted")
        if fronted and fronted.status != "True" and fronted.reason not in _NOT_ASKED_FOR:
            samples[self._not_fronted, (*model, fronted.reason)] = 1
        if signals := status.signals:
            samples[self._unknown, model] = sum(one.state == "Unknown" for one in signals)
        for signal in status.signals or ():
            if (ratio := _ratio(signal)) is not None:
                key = (self._signal, (*model, _shortened(signal.name)))
                # Of two with one name, the one that is closer to its target.
                samples[key] = max(samples.get(key, 0.0), ratio)
        return samples

    def _samples_of_split(self, split: SplitStatus | None, model: tuple[str, str]) -> _Samples:
        if split is None:
            return {}
        sides = {"local": split.local, "remote": split.remote}
        samples: _Samples = {(self._split, (*model, side)): percent / 100 for side, percent in sides.items()}
        return {**samples, (self._reason, (*model, split.reason)): 1}

    def _show(self, ref: ObjectRef, samples: _Samples) -> None:
        shown = self._shown.pop(ref, {})
        for gauge, labels in shown.keys() - samples.keys():
            gauge.remove(*labels)
        for (gauge, labels), value in samples.items():
            if shown.get((gauge, labels)) != value:
                gauge.labels(*labels).set(value)
        if samples:
            self._shown[ref] = samples

    def written(self, plan: Plan, seconds: float) -> None:
        """See `Telemetry`."""
        self._take(plan, plan.status.split)
        self._seconds.observe(seconds)

    def failed(self, step: Literal["plan", "write"]) -> None:
        """See `Telemetry`."""
        self._errors.labels(step).inc()

    def stand_by(self) -> None:
        """Say nothing of models any more: another replica decides, and sees which of them go."""
        for ref in self._shown.keys() | self._counted.keys():
            self.forgotten(ref)


_Samples = dict[tuple[Gauge, tuple[str, ...]], float]
"""The value of each gauge, by its labels."""

_NOT_ASKED_FOR = frozenset(("NotAsked", "Disabled", "Deleted"))
"""Reasons of `Fronted` with which nothing is in the way: it is what the object asks for."""

_LONGEST_SIGNAL = 60
"""Characters of the name of a metric, which may be a whole expression of PromQL."""


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_SIGNAL else f"{name[: _LONGEST_SIGNAL - 3]}..."


def _ratio(signal: SignalStatus) -> float | None:
    """Divide two numbers as a status shows them: both with a percent sign, or both without.

    None while nothing was measured, and for a target that is shown as 0 since it is so small.
    """
    target = Decimal(signal.target.rstrip("%"))
    if signal.current is None or not target:
        return None
    return float(Decimal(signal.current.rstrip("%")) / target)


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


_ASKED_EVERY = 1.0
"""Seconds between two questions to an Envoy, however often Prometheus or anybody else asks."""


class GatewayMetrics(Collector):
    """What the clients of one Envoy got, as it counted itself.

    `refresh` asks the Envoy, whose admin interface is `envoy`; an Envoy that does not answer has no samples.
    """

    def __init__(self, registry: CollectorRegistry, answers_within: float, asked_every: float = _ASKED_EVERY) -> None:
        self.envoy: EnvoyAdmin | None = None
        self._answers_within = answers_within
        self._asked_every = asked_every
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._requests: Mapping[tuple[str, str], ClientRequests] = {}
        registry.register(self)

    async def refresh(self) -> None:
        """Have what `collect` gives be no older than a second or so."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= self._asked_every):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        # Who asked may go away meanwhile: others wait for the same answer.
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self._answers_within):
                self._requests = await self.envoy.client_requests() if self.envoy else {}
        except (EnvoyAdminError, TimeoutError):
            self._requests = {}

    def collect(self) -> Iterable[Metric]:
        """Give the metrics as they were when the Envoy was asked last."""
        of_model = ("namespace", "name")
        answered = CounterMetricFamily(
            "beamlit_gateway_requests",
            "Requests of clients that were answered, by the class of the status: 2xx, 4xx or 5xx.",
            labels=(*of_model, "code"),
        )
        flying = GaugeMetricFamily(
            "beamlit_gateway_requests_in_flight", "Requests of clients that are in flight now.", labels=of_model
        )
        lasted = HistogramMetricFamily(
            "beamlit_gateway_request_duration_seconds",
            "From the first byte of a client's request to the last one of its answer.",
            labels=of_model,
        )
        for model, one in sorted(self._requests.items()):
            for code, count in one.answered.items():
                answered.add_metric((*model, code), count)
            flying.add_metric(model, one.in_flight)
            if one.lasted:
                lasted.add_metric(model, [(str(bound), count) for bound, count in one.lasted], sum_value=None)
        yield from (answered, flying, lasted)
