"""What the real HorizontalPodAutoscaler says of cases: their objects, and its status."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.support.hpa_cases import LABELS, Case, Says, Verdict, pod_object, pod_status
from tests.support.kube.kubelet import MEBIBYTE
from tests.support.kube.metrics_apis import MetricsApis
from tests.support.waiting import until_now

EXACT = (
    # A pod is young for as long as a slow machine takes for all cases.
    "--horizontal-pod-autoscaler-cpu-initialization-period=1h",
)
NAME = "model"
_JUDGED_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Cases that are set up, each in a namespace of its own, and measured; `at` is when that began."""

    apis: MetricsApis
    places: Mapping[str, str]
    at: datetime

    @classmethod
    def of(cls, apis: MetricsApis, cases: Collection[Case]) -> Stage:
        """Set up all of these cases, once in a cluster: nothing is deleted before the cluster is."""
        stage = cls(apis, {case.name: f"case-{number}" for number, case in enumerate(cases)}, datetime.now(UTC))
        with apis.server.client() as client:
            for case in cases:
                _set_up(stage, client, case)
        for case in cases:
            apis.await_pods(stage.places[case.name], {pod.name for pod in case.pods if pod.is_measured})
        return stage

    def judge(self, cases: Collection[Case]) -> Mapping[str, Says]:
        """Have each case judged, and return what was said, by its name."""
        with self.apis.autoscaler(*EXACT), self.apis.server.client() as client:
            for case in cases:
                path = f"/apis/autoscaling/v2/namespaces/{self.places[case.name]}/horizontalpodautoscalers"
                client.post(path, json=_autoscaler(case)).raise_for_status()
            return {case.name: _verdict(client, case, self.places[case.name]) for case in cases}


def _set_up(stage: Stage, client: httpx.Client, case: Case) -> None:
    """Write the workload and its pods, and give their metrics."""
    apis, namespace = stage.apis, stage.places[case.name]
    client.post("/api/v1/namespaces", json={"metadata": {"name": namespace}}).raise_for_status()
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    client.post(deployments, json=_workload(case)).raise_for_status()
    _write_status(client, f"{deployments}/{NAME}", {"replicas": case.declared})
    for pod in case.pods:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        client.post(pods, json=pod_object(pod)).raise_for_status()
        _write_status(client, f"{pods}/{pod.name}", pod_status(pod, stage.at))
        if pod.terminating:
            client.delete(f"{pods}/{pod.name}").raise_for_status()
        for container in pod.everything:
            if container.uses is not None:
                used = container.memory * MEBIBYTE
                apis.kubelet.uses(namespace, pod.name, container.name, millicores=container.uses, memory=used)
    apis.adapter.serve(namespace, custom=case.custom, external=case.external)


def _workload(case: Case) -> dict[str, Any]:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "main", "image": "model"}]}}
    spec = {"replicas": case.declared, "selector": {"matchLabels": LABELS}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}


def _autoscaler(case: Case) -> dict[str, Any]:
    at_once = {"stabilizationWindowSeconds": 0, "tolerance": str(case.tolerance)}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "minReplicas": 1,
        "maxReplicas": 1000,
        "metrics": case.metrics,
        "behavior": {"scaleDown": at_once, "scaleUp": at_once},
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": NAME}, "spec": spec}


def _verdict(client: httpx.Client, case: Case, namespace: str) -> Says:
    """Wait until it was judged once, and return what was said."""
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{NAME}"
    status: dict[str, Any] = {}

    def is_judged() -> bool:
        status.update(client.get(path).raise_for_status().json().get("status", {}))
        return any(one["type"] == "ScalingActive" for one in status.get("conditions") or ())

    until_now(is_judged, f"{case.name!r} is judged", within=_JUDGED_WITHIN)
    (active,) = (one for one in status["conditions"] if one["type"] == "ScalingActive")
    verdict: Verdict = "unknown"
    if active["status"] == "True":
        wanted = status["desiredReplicas"]
        verdict = "same" if wanted == case.declared else "more" if wanted > case.declared else "fewer"
    return Says(verdict, tuple(_current(status, case)), active["reason"])


def _current(status: Mapping[str, Any], case: Case) -> Iterator[str | None]:
    """What is beside the target of each metric."""
    shown = status.get("currentMetrics") or [{} for _ in case.metrics]
    for metric, line in zip(case.metrics, shown, strict=True):
        field = metric["type"][0].lower() + metric["type"][1:]
        target = metric[field]["target"]
        wanted = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}[target["type"]]
        found = line.get(field, {}).get("current", {}).get(wanted)
        yield None if found is None else str(found)


def _write_status(client: httpx.Client, path: str, status: Mapping[str, Any]) -> None:
    client.patch(
        f"{path}/status",
        content=json.dumps({"status": status}),
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
