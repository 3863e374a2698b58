"""A case for a HorizontalPodAutoscaler, in a few words: its pods, its metrics, and what the autoscaler says of them.

The cases themselves are in tests/support/hpa_table.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from tests.support.kube.kubelet import NODE
from tests.support.kube.metrics_apis import Series

Verdict = Literal["more", "same", "fewer", "unknown"]
"""How many replicas it wants, compared with how many there are; unknown when its condition ScalingActive is False."""

LONG_AGO = 7200.0
YOUNG = 60.0
"""Seconds since the start of a pod, beyond and within the time in which its CPU may be that of its start."""
LABELS = {"app": "model"}


@dataclass(frozen=True, slots=True)
class AContainer:
    """What one requests and uses, of CPU in millicores and of memory in MiB. None: it does not say."""

    name: str = "main"
    requests: int | None = 100
    uses: float | None = None
    memory: int = 1
    memory_requests: int | None = None


@dataclass(frozen=True, slots=True)
class APod:
    """A pod that runs and is ready since long ago, unless it says otherwise. Times are in seconds before now."""

    name: str
    containers: tuple[AContainer, ...] = (AContainer(),)
    sidecars: tuple[AContainer, ...] = ()
    """Init containers that go on running."""
    starters: tuple[AContainer, ...] = ()
    """Init containers that ended before the others began."""
    phase: Literal["Pending", "Running", "Failed", "Succeeded"] = "Running"
    ready: bool | None = True
    """None: there is no such condition."""
    started: float | None = LONG_AGO
    ready_changed: float = LONG_AGO - 30
    terminating: bool = False
    requests: int | None = None
    """What the pod itself requests of CPU, whatever its containers do."""
    memory_requests: int | None = None
    """The same of memory, in MiB."""

    @property
    def is_measured(self) -> bool:
        """Whether metrics-server knows it: only pods that run, and all containers of one or none."""
        return self.phase == "Running" and all(container.uses is not None for container in self.everything)

    @property
    def everything(self) -> tuple[AContainer, ...]:
        return (*self.containers, *self.sidecars)


@dataclass(frozen=True, slots=True)
class Says:
    """What the autoscaler says. `current` has a line of `status.currentMetrics` for each metric, None for an empty one.

    Of a line it is the number that stands beside the target: `averageUtilization`, `averageValue` or `value`.
    """

    verdict: Verdict
    current: tuple[str | None, ...]
    reason: str = "ValidMetricFound"
    """Of the condition ScalingActive."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `metrics` are those of an autoscaler, `replicas` what its workload says that there are."""

    name: str
    metrics: tuple[Mapping[str, Any], ...]
    says: Says
    pods: tuple[APod, ...] = ()
    custom: tuple[Series, ...] = ()
    external: tuple[Series, ...] = ()
    replicas: int | None = None
    """Default: as many as there are pods."""
    tolerance: float = 0.0
    """By which part a metric may differ from its target before the autoscaler does anything."""

    @property
    def declared(self) -> int:
        return len(self.pods) if self.replicas is None else self.replicas


def wanted(case: Case, series: Iterable[Series]) -> list[Series]:
    """The series with the labels that a metric of the case asks for."""
    specs = [metric[field] for metric in case.metrics for field in metric.keys() - {"type"}]
    selectors = {one["metric"]["name"]: one["metric"].get("selector", {}) for one in specs if "metric" in one}
    return [one for one in series if one.metric in selectors and _has(dict(one.labels), selectors[one.metric])]


def _has(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    """Whether a selector chooses labels, as every metrics adapter has it from the library of Kubernetes."""
    holds = {
        "In": lambda one: labels.get(one["key"]) in one["values"],
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
        "Exists": lambda one: one["key"] in labels,
        "DoesNotExist": lambda one: one["key"] not in labels,
    }
    expressions = selector.get("matchExpressions", ())
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        holds[one["operator"]](one) for one in expressions
    )


def pod_object(pod: APod) -> dict[str, Any]:
    """A pod as its manifest has it."""

    def requests(cpu: int | None, memory: int | None) -> dict[str, Any]:
        given = {"cpu": None if cpu is None else f"{cpu}m", "memory": None if memory is None else f"{memory}Mi"}
        asked = {name: quantity for name, quantity in given.items() if quantity}
        return {"requests": asked} if asked else {}

    def container(one: AContainer) -> dict[str, Any]:
        return {"name": one.name, "image": "model", "resources": requests(one.requests, one.memory_requests)}

    spec: dict[str, Any] = {
        "nodeName": NODE,
        "containers": [container(one) for one in pod.containers],
        "initContainers": [
            *({**container(one), "restartPolicy": "Always"} for one in pod.sidecars),
            *map(container, pod.starters),
        ],
    }
    if pod.requests is not None or pod.memory_requests is not None:
        spec["resources"] = requests(pod.requests, pod.memory_requests)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "labels": LABELS}, "spec": spec}


def pod_status(pod: APod, now: datetime) -> dict[str, Any]:
    """Its status, as a kubelet writes it."""

    def ago(seconds: float) -> str:
        return (now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    status: dict[str, Any] = {"phase": pod.phase}
    if pod.started is not None:
        status["startTime"] = ago(pod.started)
    if pod.ready is not None:
        ready = {"type": "Ready", "status": str(pod.ready), "lastTransitionTime": ago(pod.ready_changed)}
        status["conditions"] = [ready]
    return status


def cpu(target: int | str, container: str | None = None) -> dict[str, Any]:
    """CPU at a percentage of what is requested, or at a quantity for each pod."""
    return _resource("cpu", target, container)


def memory(target: int | str, container: str | None = None) -> dict[str, Any]:
    return _resource("memory", target, container)


def per_pod(metric: str, average: str, **labels: str) -> dict[str, Any]:
    """A custom metric of each pod."""
    return {"type": "Pods", "pods": {"metric": _named(metric, labels), "target": _average(average)}}


def of_service(metric: str, **target: str) -> dict[str, Any]:
    """A custom metric of the Service `model`, with `value` or `average`."""
    return of_object("v1", "Service", metric, **target)


def of_object(api_version: str, kind: str, metric: str, **target: str) -> dict[str, Any]:
    """A custom metric of the object `model` of a kind, with `value` or `average`."""
    described = {"apiVersion": api_version, "kind": kind, "name": "model"}
    object_ = {"describedObject": described, "metric": _named(metric, {}), "target": _either(target)}
    return {"type": "Object", "object": object_}


def external(metric: str, labels: Mapping[str, str] | None = None, **target: str) -> dict[str, Any]:
    """A metric of nothing in the cluster, with `value` or `average`."""
    return {"type": "External", "external": {"metric": _named(metric, labels or {}), "target": _either(target)}}


def selecting(metric: dict[str, Any], *expressions: tuple[str, str, tuple[str, ...]]) -> dict[str, Any]:
    """A metric by its name of which only series count whose labels are so: name, operator, values."""
    found = [{"key": key, "operator": operator, "values": list(values)} for key, operator, values in expressions]
    (field,) = metric.keys() - {"type"}
    named = {**metric[field]["metric"], "selector": {"matchExpressions": found}}
    return {**metric, field: {**metric[field], "metric": named}}


def _resource(name: str, target: int | str, container: str | None) -> dict[str, Any]:
    percent = {"type": "Utilization", "averageUtilization": target}
    spec = {"name": name, "target": percent if isinstance(target, int) else _average(target)}
    if container is None:
        return {"type": "Resource", "resource": spec}
    return {"type": "ContainerResource", "containerResource": {**spec, "container": container}}


def _named(metric: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"name": metric, **({"selector": {"matchLabels": dict(labels)}} if labels else {})}


def _average(quantity: str) -> dict[str, str]:
    return {"type": "AverageValue", "averageValue": quantity}


def _either(target: Mapping[str, str]) -> dict[str, str]:
    return _average(target["average"]) if "average" in target else {"type": "Value", "value": target["value"]}


def a_pod(name: str, uses: float | None, **fields: Any) -> APod:
    """A pod of one container that requests 100 millicores and uses so many."""
    return APod(name, (AContainer(uses=uses),), **fields)


def pods(*uses: float | None) -> tuple[APod, ...]:
    return tuple(a_pod(f"p{number}", one) for number, one in enumerate(uses))


def queue(*values: str | None) -> tuple[Series, ...]:
    """The custom metric `queue` of the pods p0, p1 and so on, but for those without a value."""
    return tuple(Series("queue", value, ("pods", f"p{n}")) for n, value in enumerate(values) if value is not None)
