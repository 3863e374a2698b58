"""The metrics APIs of a cluster behind its aggregation layer, and the HorizontalPodAutoscaler that asks them.

metrics.k8s.io is the real metrics-server, which scrapes a kubelet of the test; custom.metrics.k8s.io and
external.metrics.k8s.io are an adapter whose values the test gives; HorizontalPodAutoscalers are judged by the real
kube-controller-manager, which runs nothing else. Pods are plain objects whose status the test writes.

All of it is once in a cluster, so whoever uses it has an API server of his own.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.support.exposed import LOOPBACK
from tests.support.http import plain_http_now
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.kubelet import Kubelet
from tests.support.network import unused_port
from tests.support.processes import Child, Children
from tests.support.waiting import until_now
from tests.tools import binaries

RESOLUTION = 10
"""Seconds between two scrapes of metrics-server, the least that it takes. It knows the CPU of a container from two."""
SYSTEM = "kube-system"
_STARTED_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """One value of a custom or an external metric. Without a time it is always of this moment."""

    metric: str
    value: Decimal | int | str
    """As a quantity of Kubernetes has it."""
    of: tuple[str, str] = ("", "")
    """The object of a custom metric: its resource (`pods`, `services`, `namespaces`) and its name."""
    labels: tuple[tuple[str, str], ...] = ()
    time: str | None = None
    """RFC 3339."""
    window_seconds: int | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        resource, name = self.of
        given = {"resource": resource, "name": name, "metric": self.metric, "value": str(self.value)}
        return {**given, "labels": dict(self.labels), "time": self.time, "windowSeconds": self.window_seconds}


class Adapter:
    """The adapter for custom and external metrics, which says what it was given last, by namespace."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{LOOPBACK}:{port}"

    def serve(self, namespace: str, *, custom: Iterable[Series] = (), external: Iterable[Series] = ()) -> None:
        """Have these and no other metrics in a namespace from now on."""
        given = {"custom": [one.as_json for one in custom], "external": [one.as_json for one in external]}
        with plain_http_now() as client:
            client.put(f"{self._url}/namespaces/{namespace}", json=given).raise_for_status()


@dataclass(frozen=True, slots=True)
class MetricsApis:
    """A cluster with metrics APIs, and what a test changes of it."""

    server: ApiServer
    kubelet: Kubelet
    adapter: Adapter

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[MetricsApis]:
        """A cluster of its own, all whose metrics APIs answer."""
        with (
            ApiServer.running(folder) as server,
            Kubelet.running() as kubelet,
            Children(folder) as children,
            server.client() as client,
        ):
            node = client.post("/api/v1/nodes", json=kubelet.node).raise_for_status().json()
            _write_status(client, "/api/v1/nodes", node, kubelet.node["status"])
            metrics_server = _start_metrics_server(server, children)
            values = unused_port()
            adapter = _start_adapter(server, children, values)
            register_metrics_api(client, "metrics-server", metrics_server, {"metrics.k8s.io": ("v1beta1",)})
            apis = {"custom.metrics.k8s.io": ("v1beta1", "v1beta2"), "external.metrics.k8s.io": ("v1beta1",)}
            register_metrics_api(client, "metrics-adapter", adapter, apis)
            yield cls(server, kubelet, Adapter(values))

    def autoscaler(self, *options: str, period: float = 1.0) -> AbstractContextManager[Child]:
        """See `autoscaler`."""
        return autoscaler(self.server, *options, period=period)

    def pods_measured(self, namespace: str) -> dict[str, Mapping[str, Any]]:
        """The PodMetrics of a namespace by their name, none while metrics-server has none."""
        with self.server.client() as client:
            answer = client.get(f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods")
        items = answer.json()["items"] if answer.is_success else ()
        return {item["metadata"]["name"]: item for item in items}

    def await_pods(self, namespace: str, pods: Collection[str]) -> None:
        """Wait until metrics-server has measured these pods: twice its resolution, at the worst."""

        def measured() -> bool:
            return set(pods) <= self.pods_measured(namespace).keys()

        until_now(measured, f"metrics of the pods {sorted(pods)} in {namespace}", within=120)


@contextmanager
def autoscaler(server: Cluster, *options: str, period: float = 1.0) -> Iterator[Child]:
    """A kube-controller-manager that only judges HorizontalPodAutoscalers, each every `period` seconds."""
    command = (
        binaries.kube_controller_manager(),
        f"--kubeconfig={server.kubeconfig}",
        "--controllers=horizontalpodautoscaling",  # Its name in Kubernetes 1.27, which later versions take, too.
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=500",
        "--concurrent-horizontal-pod-autoscaler-syncs=2",
        f"--horizontal-pod-autoscaler-sync-period={period}s",
        *options,
    )
    with Children(server.folder) as children:
        yield children.start("kube-controller-manager", command)


def _start_metrics_server(server: ApiServer, children: Children) -> int:
    """Start metrics-server and return its port."""
    options = (
        f"--kubeconfig={server.kubeconfig}",
        f"--metric-resolution={RESOLUTION}s",
        "--kubelet-request-timeout=5s",
        "--kubelet-use-node-status-port",
        "--kubelet-preferred-address-types=InternalIP",
        "--deprecated-kubelet-completely-insecure",
    )
    return start_metrics_api(server, children, "metrics-server", (binaries.metrics_server(), *options))


def _start_adapter(server: ApiServer, children: Children, values: int) -> int:
    """Start the adapter, which takes values at a port, and return the port of its API."""
    options = (f"--lister-kubeconfig={server.kubeconfig}", f"--values-address={LOOPBACK}:{values}")
    return start_metrics_api(server, children, "metrics-adapter", (binaries.metrics_adapter(), *options))


def start_metrics_api(server: Cluster, children: Children, name: str, command: tuple[object, ...]) -> int:
    """Start an API server that an APIService may point at; return its port once it answers."""
    port = unused_port()
    child = children.start(
        name,
        (
            *command,
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--cert-dir={server.folder / name}",
            f"--authentication-kubeconfig={server.kubeconfig}",
            f"--authorization-kubeconfig={server.kubeconfig}",
        ),
    )

    def answers() -> bool:
        child.check()
        try:
            return httpx.get(f"https://{LOOPBACK}:{port}/livez", verify=_anybody(), trust_env=False).is_success
        except httpx.TransportError:
            return False

    until_now(answers, f"{name} answers", within=_STARTED_WITHIN)
    return port


def _anybody() -> ssl.SSLContext:
    """Trusts whoever answers: such a server has a certificate of its own making."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def register_metrics_api(client: httpx.Client, name: str, port: int, apis: Mapping[str, tuple[str, ...]]) -> None:
    """Put a server behind APIServices as an installer does, and wait until the API server reaches it there."""
    # An EndpointSlice takes no loopback address.
    service = {"metadata": {"name": name}, "spec": {"type": "ExternalName", "externalName": LOOPBACK}}
    client.post(f"/api/v1/namespaces/{SYSTEM}/services", json=service).raise_for_status()
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    written = []
    for group, versions in apis.items():
        for version in versions:
            spec = {
                "group": group,
                "version": version,
                "service": {"namespace": SYSTEM, "name": name, "port": port},
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            }
            object_name = f"{version}.{group}"
            client.post(services, json={"metadata": {"name": object_name}, "spec": spec}).raise_for_status()
            written.append(object_name)

    def reached() -> bool:
        objects = [client.get(f"{services}/{one}").raise_for_status().json() for one in written]
        return all(_is_true(one, "Available") for one in objects)

    until_now(reached, f"the API server reaches {', '.join(written)}", within=_STARTED_WITHIN)


def _is_true(raw: Mapping[str, Any], condition: str) -> bool:
    conditions = raw.get("status", {}).get("conditions", ())
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


def _write_status(client: httpx.Client, collection: str, raw: Mapping[str, Any], status: Mapping[str, Any]) -> None:
    client.patch(
        f"{collection}/{raw['metadata']['name']}/status",
        content=json.dumps({"status": status}),
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
