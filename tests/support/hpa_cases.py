"""What a HorizontalPodAutoscaler makes of a metric: a table of cases, each with what the real one says of it.

A case is what pods and metrics there are, and a metric with its target, as manifests have it. `says` is what the
autoscaler of Kubernetes 1.37 shows in `status.currentMetrics` and decides without any tolerance; it is no opinion of
ours: tests/kube/test_hpa_oracle.py compares it with the real one, and unit tests compare us with the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    phase: Literal["Pending", "Running", "Failed", "Succeeded"] = "Running"
    ready: bool | None = True
    """None: there is no such condition."""
    started: float | None = LONG_AGO
    ready_changed: float = LONG_AGO - 30
    terminating: bool = False
    requests: int | None = None
    """What the pod itself requests of CPU, whatever its containers do."""

    @property
    def is_measured(self) -> bool:
        """Whether metrics-server has something of it: only of pods that run."""
        return self.phase == "Running" and any(container.uses is not None for container in self.everything)

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

    @property
    def declared(self) -> int:
        return len(self.pods) if self.replicas is None else self.replicas

    @property
    def slug(self) -> str:
        """Its name, as that of an object."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())[:50].strip("-")


def pod_object(pod: APod) -> dict[str, Any]:
    """A pod as its manifest has it."""

    def requests(cpu: int | None, memory: int | None) -> dict[str, Any]:
        asked = {**({"cpu": f"{cpu}m"} if cpu else {}), **({"memory": f"{memory}Mi"} if memory else {})}
        return {"requests": asked} if asked else {}

    def container(one: AContainer) -> dict[str, Any]:
        return {"name": one.name, "image": "model", "resources": requests(one.requests, one.memory_requests)}

    spec: dict[str, Any] = {
        "nodeName": NODE,
        "containers": [container(one) for one in pod.containers],
        "initContainers": [{**container(one), "restartPolicy": "Always"} for one in pod.sidecars],
    }
    if pod.requests is not None:
        spec["resources"] = requests(pod.requests, None)
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
    described = {"apiVersion": "v1", "kind": "Service", "name": "model"}
    object_ = {"describedObject": described, "metric": _named(metric, {}), "target": _either(target)}
    return {"type": "Object", "object": object_}


def external(metric: str, labels: Mapping[str, str] | None = None, **target: str) -> dict[str, Any]:
    """A metric of nothing in the cluster, with `value` or `average`."""
    return {"type": "External", "external": {"metric": _named(metric, labels or {}), "target": _either(target)}}


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


def _pod(name: str, uses: float | None, **fields: Any) -> APod:
    """A pod of one container that requests 100 millicores and uses so many."""
    return APod(name, (AContainer(uses=uses),), **fields)


def _pods(*uses: float | None) -> tuple[APod, ...]:
    return tuple(_pod(f"p{number}", one) for number, one in enumerate(uses))


def _queue(*values: str | None) -> tuple[Series, ...]:
    """The custom metric `queue` of the pods p0, p1 and so on, but for those without a value."""
    return tuple(Series("queue", value, ("pods", f"p{n}")) for n, value in enumerate(values) if value is not None)


_STARTING = {"started": YOUNG, "ready": False, "ready_changed": YOUNG}
_NO_REQUESTS = (AContainer(requests=None, uses=95),)
_TWO = (AContainer("server", 100, 95), AContainer("proxy", 100, 5))

CASES: tuple[Case, ...] = (
    # Utilization: of all pods together, in whole percent.
    Case("three pods at 95 percent are over 90", (cpu(90),), Says("more", ("95",)), _pods(95, 95, 95)),
    Case("three pods at 45 percent are under 90", (cpu(90),), Says("fewer", ("45",)), _pods(45, 15, 75)),
    Case("what is at its target stays", (cpu(90),), Says("same", ("90",)), _pods(90, 90)),
    Case("a utilization is cut to whole percent", (cpu(90),), Says("same", ("90",)), _pods(90, 91)),
    Case("one busy pod is averaged with idle ones", (cpu(50),), Says("fewer", ("33",)), _pods(100, 0, 0)),
    Case(
        "pods with larger requests weigh more",
        (cpu(50),),
        Says("fewer", ("9",)),
        (APod("p0", (AContainer(requests=100, uses=100),)), APod("p1", (AContainer(requests=1000, uses=0),))),
    ),
    Case(
        "memory is compared with its request",
        (memory(50),),
        Says("more", ("75",)),
        (APod("p0", (AContainer(uses=1, memory=96, memory_requests=128),)),),
    ),
    Case(
        "memory counts though a pod has just started",
        (memory(50),),
        Says("more", ("75",)),
        (APod("p0", (AContainer(uses=1, memory=96, memory_requests=128),), **_STARTING),),
    ),
    Case("CPU is rounded up to millicores", (cpu(90),), Says("more", ("91",)), _pods(90.5)),
    Case(
        "the CPU of each container is rounded up",
        (cpu(45),),
        Says("more", ("46",)),
        (APod("p0", (AContainer("a", 100, 45.5), AContainer("b", 100, 45.5))),),
    ),
    # Pods that have no sample.
    Case("a missing pod counts as idle on the way up", (cpu(90),), Says("same", ("100",)), _pods(100, None)),
    Case("two very busy pods outweigh a missing one", (cpu(50),), Says("more", ("100",)), _pods(100, 100, None)),
    Case("a missing pod counts as busy on the way down", (cpu(80),), Says("same", ("70",)), _pods(70, None)),
    Case("idle pods outweigh a missing one", (cpu(80),), Says("fewer", ("10",)), _pods(10, 10, None)),
    Case("no pod has a sample", (cpu(90),), Says("unknown", (None,), "FailedGetResourceMetric"), _pods(None, None)),
    Case("there are no pods", (cpu(90),), Says("unknown", (None,), "FailedGetResourceMetric"), replicas=2),
    # Pods whose sample says nothing.
    Case(
        "a pod that starts up counts as idle on the way up",
        (cpu(90),),
        Says("same", ("100",)),
        (_pod("p0", 100), _pod("p1", 500, **_STARTING)),
    ),
    Case(
        "pods that start up are left out on the way down",
        (cpu(90),),
        Says("fewer", ("40",)),
        (_pod("p0", 40), _pod("p1", 40), _pod("p2", 500, **_STARTING)),
    ),
    Case(
        "a pod that is not ready any more counts",
        (cpu(90),),
        Says("more", ("200",)),
        (_pod("p0", 100), _pod("p1", 300, ready=False, ready_changed=100.0)),
    ),
    Case(
        "a pod that was never ready does not count however old",
        (cpu(90),),
        Says("same", ("100",)),
        (_pod("p0", 100), _pod("p1", 300, ready=False, ready_changed=LONG_AGO)),
    ),
    Case(
        "a sample from before a young pod was ready does not count",
        (cpu(90),),
        Says("same", ("100",)),
        # Ready later than any sample: whoever is slow to look sees the same.
        (_pod("p0", 100), _pod("p1", 500, started=YOUNG, ready_changed=-3600.0)),
    ),
    Case(
        "a young pod that was ready before its sample counts",
        (cpu(90),),
        Says("more", ("300",)),
        (_pod("p0", 100), _pod("p1", 500, started=YOUNG, ready_changed=YOUNG)),
    ),
    Case(
        "a pod without the condition Ready does not count for CPU",
        (cpu(90),),
        Says("same", ("100",)),
        (_pod("p0", 100), _pod("p1", 500, ready=None)),
    ),
    Case(
        "only pods that start up",
        (cpu(90),),
        Says("unknown", (None,), "FailedGetResourceMetric"),
        (_pod("p0", 500, **_STARTING),),
    ),
    Case(
        "a pending pod counts as idle on the way up",
        (cpu(90),),
        Says("same", ("100",)),
        (_pod("p0", 100), _pod("p1", None, phase="Pending", ready=False, started=None)),
    ),
    Case(
        "a pending pod is left out on the way down",
        (cpu(90),),
        Says("fewer", ("40",)),
        (_pod("p0", 40), _pod("p1", 40), _pod("p2", None, phase="Pending", ready=False, started=None)),
    ),
    Case(
        "failed and terminating pods do not count",
        (cpu(90),),
        Says("more", ("100",)),
        (_pod("p0", 100), _pod("p1", None, phase="Failed"), _pod("p2", 1, terminating=True)),
        replicas=1,
    ),
    Case(
        "a pod that is done counts as one without a sample",
        (cpu(90),),
        Says("same", ("100",)),
        (_pod("p0", 100), _pod("p1", None, phase="Succeeded", ready=False)),
    ),
    # Requests.
    Case(
        "a pod without requests has no utilization",
        (cpu(90),),
        Says("unknown", (None,), "FailedGetResourceMetric"),
        (_pod("p0", 95), APod("p1", _NO_REQUESTS)),
    ),
    Case(
        "one container without requests spoils them all",
        (cpu(90),),
        Says("unknown", (None,), "FailedGetResourceMetric"),
        (APod("p0", (AContainer("a", 100, 95), AContainer("b", None, 1))),),
    ),
    Case(
        "even a failed pod must have requests",
        (cpu(90),),
        Says("unknown", (None,), "FailedGetResourceMetric"),
        (_pod("p0", 95), APod("p1", (AContainer(requests=None),), phase="Failed")),
    ),
    Case("a quantity needs no requests", (cpu("90m"),), Says("more", ("95m",)), (APod("p0", _NO_REQUESTS),)),
    Case(
        "requests of the pod itself come before those of its containers",
        (cpu(50),),
        Says("fewer", ("25",)),
        tuple(APod(name, (AContainer(requests=100, uses=100),), requests=400) for name in ("p0", "p1")),
    ),
    Case(
        "an init container that goes on running counts",
        (cpu(50),),
        Says("more", ("60",)),
        (APod("p0", (AContainer(requests=100, uses=100),), sidecars=(AContainer("mesh", 100, 20),)),),
    ),
    # One container of several.
    Case("two containers are added up", (cpu(110),), Says("fewer", ("50",)), (APod("p0", _TWO), APod("p1", _TWO))),
    Case(
        "one container of two is compared alone",
        (cpu(90, "server"),),
        Says("more", ("95",)),
        (APod("p0", _TWO), APod("p1", _TWO)),
    ),
    Case(
        "a container that no pod has",
        (cpu(90, "nobody"),),
        Says("unknown", (None,), "FailedGetContainerResourceMetric"),
        (APod("p0", _TWO),),
    ),
    Case(
        "one container needs no requests of the others",
        (cpu(90, "a"),),
        Says("more", ("95",)),
        (APod("p0", (AContainer("a", 100, 95), AContainer("b", None, 1))),),
    ),
    # Quantities.
    Case("an average of CPU", (cpu("100m"),), Says("fewer", ("50m",)), _pods(50, 50)),
    Case("an average is cut to thousandths", (cpu("33m"),), Says("same", ("33m",)), _pods(33, 33, 34)),
    Case(
        "an average of memory",
        (memory("64Mi"),),
        Says("more", ("96Mi",)),
        (APod("p0", (AContainer(uses=1, memory=96),)),),
    ),
    Case(
        "an average of one container",
        (cpu("90m", "server"),),
        Says("more", ("95m",)),
        (APod("p0", _TWO), APod("p1", _TWO)),
    ),
    Case("a missing pod counts as idle in an average", (cpu("90m"),), Says("same", ("100m",)), _pods(100, None)),
    # Custom metrics of pods.
    Case("a queue over its target", (per_pod("queue", "10"),), Says("more", ("12",)), _pods(1, 1), _queue("12", "12")),
    Case("a queue under its target", (per_pod("queue", "10"),), Says("fewer", ("3",)), _pods(1, 1), _queue("3", "3")),
    Case(
        "an average of a queue in thousandths",
        (per_pod("queue", "2500m"),),
        Says("same", ("2500m",)),
        _pods(1, 1),
        _queue("2", "3"),
    ),
    Case(
        "a pod without the metric counts as idle on the way up",
        (per_pod("queue", "10"),),
        Says("same", ("12",)),
        _pods(1, 1),
        _queue("12", None),
    ),
    Case(
        "a pod without the metric counts as at its target on the way down",
        (per_pod("queue", "10"),),
        Says("same", ("9",)),
        _pods(1, 1),
        _queue("9", None),
    ),
    Case(
        "a pod that starts up counts in a custom metric",
        (per_pod("queue", "10"),),
        Says("more", ("12",)),
        (_pod("p0", 1), _pod("p1", 1, **_STARTING)),
        _queue("12", "12"),
    ),
    Case(
        "terminating and pending pods do not count in a custom metric",
        (per_pod("queue", "10"),),
        Says("same", ("12",)),
        (_pod("p0", 1), _pod("p1", 1, terminating=True), _pod("p2", None, phase="Pending", ready=False)),
        _queue("12", "90", "90"),
    ),
    Case(
        "only series with the labels count",
        (per_pod("queue", "10", kind="chat"),),
        Says("more", ("12",)),
        _pods(1),
        (
            Series("queue", "90", ("pods", "p0"), labels=(("kind", "batch"),)),
            Series("queue", "12", ("pods", "p0"), labels=(("kind", "chat"),)),
        ),
    ),
    Case(
        "a custom metric that nobody has",
        (per_pod("nothing", "10"),),
        Says("unknown", (None,), "FailedGetPodsMetric"),
        _pods(1),
    ),
    # Metrics of an object.
    Case(
        "a value of an object under its target",
        (of_service("requests", value="10"),),
        Says("fewer", ("3",)),
        _pods(1, 1),
        (Series("requests", "3", ("services", "model")),),
    ),
    Case(
        "a value of an object over its target",
        (of_service("requests", value="10"),),
        Says("more", ("12",)),
        _pods(1, 1),
        (Series("requests", "12", ("services", "model")),),
    ),
    Case(
        "an average of an object is over the replicas",
        (of_service("requests", average="10"),),
        Says("more", ("15",)),
        _pods(1, 1),
        (Series("requests", "30", ("services", "model")),),
    ),
    Case(
        "an average of an object is rounded up",
        (of_service("requests", average="10"),),
        Says("fewer", ("3334m",)),
        _pods(1, 1, 1),
        (Series("requests", "10", ("services", "model")),),
    ),
    Case(
        "a value in thousandths is under its target",
        (of_service("requests", value="1"),),
        Says("fewer", ("333m",)),
        _pods(1, 1),
        (Series("requests", "333m", ("services", "model")),),
    ),
    Case(
        "another object has the metric",
        (of_service("requests", value="10"),),
        Says("unknown", (None,), "FailedGetObjectMetric"),
        _pods(1),
        (Series("requests", "12", ("services", "other")),),
    ),
    # Metrics of nothing in the cluster.
    Case(
        "an external value over its target",
        (external("backlog", value="10"),),
        Says("more", ("12",)),
        _pods(1, 1),
        external=(Series("backlog", "12"),),
    ),
    Case(
        "several series of an external metric are added up",
        (external("backlog", value="10"),),
        Says("more", ("12",)),
        _pods(1, 1),
        external=(Series("backlog", "5", labels=(("q", "a"),)), Series("backlog", "7", labels=(("q", "b"),))),
    ),
    Case(
        "only external series with the labels count",
        (external("backlog", {"q": "a"}, value="10"),),
        Says("fewer", ("5",)),
        _pods(1, 1),
        external=(Series("backlog", "5", labels=(("q", "a"),)), Series("backlog", "7", labels=(("q", "b"),))),
    ),
    Case(
        "an external average is over the replicas",
        (external("backlog", average="10"),),
        Says("fewer", ("4",)),
        _pods(1, 1),
        external=(Series("backlog", "8"),),
    ),
    Case(
        "an external average is over the replicas that the workload says",
        (external("backlog", average="10"),),
        Says("fewer", ("3",)),
        _pods(1, 1),
        external=(Series("backlog", "12"),),
        replicas=4,
    ),
    Case(
        "an external metric without series",
        (external("backlog", value="10"),),
        Says("unknown", (None,), "FailedGetExternalMetric"),
        _pods(1),
    ),
    Case(
        "an external metric that is zero",
        (external("backlog", average="10"),),
        Says("fewer", ("0",)),
        _pods(1, 1),
        external=(Series("backlog", "0"),),
    ),
    Case(
        "an external metric below zero",
        (external("backlog", value="10"),),
        Says("fewer", ("-5",)),
        _pods(1, 1),
        external=(Series("backlog", "-5"),),
    ),
    Case(
        "an external metric of thousands",
        (external("backlog", value="10"),),
        Says("more", ("12k",)),
        _pods(1),
        external=(Series("backlog", "12k"),),
    ),
    # Several metrics: the one that wants most wins.
    Case(
        "one of two metrics is over its target",
        (cpu(90), per_pod("queue", "10")),
        Says("more", ("10", "12")),
        _pods(10, 10),
        _queue("12", "12"),
    ),
    Case(
        "one over its target beside one that is unknown",
        (cpu(90), per_pod("nothing", "10")),
        Says("more", ("95", None)),
        _pods(95, 95),
    ),
    Case(
        "one under its target beside one that is unknown",
        (cpu(90), per_pod("nothing", "10")),
        Says("unknown", ("10", None), "FailedGetPodsMetric"),
        _pods(10, 10),
    ),
)
