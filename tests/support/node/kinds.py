"""One Service of every kind that can be taken over, each with a model of its own, and all ways to call them.

All of them have the same pods: what differs is how kube-proxy leads clients there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tests.support.node import errand, seed
from tests.support.node.node import Node
from tests.support.waiting import until_now

Spec = Mapping[str, Any]

NODE_PORT, NODE_PORT_LOCAL = "node-port", "node-port-local"
OTHER_PORT = "other port"
"""The way to the second port of a Service, which no model fronts: it leads to the pods all along."""
_BALANCED = {"type": "LoadBalancer"}
_LOCAL = {"externalTrafficPolicy": "Local"}
KINDS: Mapping[str, Spec] = MappingProxyType(
    {
        NODE_PORT: {"type": "NodePort"},
        NODE_PORT_LOCAL: {"type": "NodePort", **_LOCAL},
        "balancer": _BALANCED,
        "balancer-local": {**_BALANCED, **_LOCAL},
        "inside-local": {"internalTrafficPolicy": "Local"},
        "sticky": {"sessionAffinity": "ClientIP"},
        "two-ports": {"ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81, "targetPort": 80}]},
        "both-families": {"ipFamilyPolicy": "RequireDualStack"},
        "second-family": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
        "by-topology": {},
        "near": {"trafficDistribution": "PreferClose"},
        "not-ready": {"publishNotReadyAddresses": True, "selector": {"published": "not-ready"}},
    }
)
_ANNOTATIONS = {"by-topology": {"service.kubernetes.io/topology-mode": "Auto"}}
_BALANCERS = {"balancer": "10.204.0.1", "balancer-local": "10.204.0.2"}
"""The addresses that a load balancer would have given them: kube-proxy serves these, too."""
_ZONE = "topology.kubernetes.io/zone=one"
_KUBERNETES_OWN = ("resourceVersion", "managedFields", "generation")
_MODELS = "modeldeployments"


@dataclass(frozen=True, slots=True)
class ServiceKinds:
    """The Services of one namespace."""

    node: Node
    namespace: str

    def deploy(self) -> None:
        """Have them, and wait until each answers in every way."""
        self.node.kubectl("label", "--overwrite", "node", "--all", _ZONE)
        pods = seed.deployment(replicas=2, options=("--work=1000",), resources=False)
        self.node.apply(pods, _not_ready(), *map(_service, KINDS), namespace=self.namespace)
        for name, address in _BALANCERS.items():
            patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
            where = (f"--namespace={self.namespace}", "--subresource=status", "--type=merge")
            self.node.kubectl("patch", "service", name, *where, f"--patch={patch}")
        self.node.await_rollout(f"deployment/{seed.NAME}", self.namespace)
        # That pods are ready is known to kube-proxy within a second.
        patient = ("--silent", "--show-error", "--globoff", "--retry", "30", "--retry-all-errors", "--retry-delay", "1")
        ended = errand.run(self.node, self.namespace, *patient, "--fail-early", *self.ways().values())
        assert ended.code == 0, ended.said

    def ways(self) -> dict[str, str]:
        """The URLs by which pods call them: what each shows, and the URL."""
        services = self.services()
        two = services["both-families"]["spec"]["clusterIPs"]
        return {
            **{name: f"http://{name}" for name in KINDS},
            **{f"{name} at the node": url for name, url in self.node_ports().items()},
            **{f"{name} by its address": f"http://{address}" for name, address in _BALANCERS.items()},
            **{f"both families, {address}": f"http://{_in_url(address)}" for address in two},
            OTHER_PORT: "http://two-ports:81",
        }

    def node_ports(self) -> dict[str, str]:
        """The URLs of node ports, which lead there from outside, too."""
        services = self.services()
        ports = {name: services[name]["spec"]["ports"][0]["nodePort"] for name in (NODE_PORT, NODE_PORT_LOCAL)}
        return {name: f"http://{self.node.place.address}:{port}" for name, port in ports.items()}

    def take_over(self) -> None:
        """Have a model for each, and wait until all are taken over."""
        self.node.apply(*map(_model, KINDS), namespace=self.namespace)
        try:
            until_now(lambda: set(self._fronted().values()) == {"TakenOver"}, "all are taken over", within=120)
        except AssertionError as error:
            error.add_note(json.dumps(self._fronted(), indent=1))
            raise

    def give_back(self) -> None:
        """Delete the models; they are gone when their Services are given back."""
        self.node.kubectl("delete", _MODELS, "--all", f"--namespace={self.namespace}", "--timeout=3m")

    def services(self) -> dict[str, dict[str, Any]]:
        """All of them by name, but for what Kubernetes writes into any object that is written."""
        found = {}
        for raw in self._read("services"):
            metadata = {key: value for key, value in raw["metadata"].items() if key not in _KUBERNETES_OWN}
            found[metadata["name"]] = {**raw, "metadata": metadata}
        return found

    def _fronted(self) -> dict[str, str]:
        """What the models say of it: the reason, with the message where it is not so."""
        return {raw["metadata"]["name"]: _reason(raw) for raw in self._read(_MODELS)}

    def _read(self, kind: str) -> Iterator[dict[str, Any]]:
        said = self.node.kubectl("get", kind, f"--namespace={self.namespace}", "--output=json").stdout
        yield from json.loads(said)["items"]


def _reason(raw: Mapping[str, Any]) -> str:
    fronted = [one for one in raw.get("status", {}).get("conditions", ()) if one["type"] == "Fronted"]
    return "".join(
        one["reason"] if one["status"] == "True" else f"{one['reason']}: {one['message']}" for one in fronted
    )


def _service(name: str) -> dict[str, Any]:
    spec = {"ports": [{"port": 80}], "selector": dict(seed.LABELS), **KINDS[name]}
    metadata = {"name": name, "annotations": _ANNOTATIONS.get(name, {})}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _model(name: str) -> dict[str, Any]:
    model = seed.model()
    spec = {**model["spec"], "model": name, "serviceRef": {"name": name, "targetPort": 80}}
    spec["modelSourceRef"] = {**spec["modelSourceRef"], "name": name if name == "not-ready" else seed.NAME}
    return {**model, "metadata": {"name": name}, "spec": spec}


def _not_ready() -> dict[str, Any]:
    """A Deployment whose pod answers, and never becomes ready."""
    raw = seed.deployment(options=("--work=1000",), resources=False)
    labels = {"published": "not-ready"}
    (container,) = raw["spec"]["template"]["spec"]["containers"]
    probed = {**container, "readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1}}
    pod = {**raw["spec"]["template"]["spec"], "containers": [probed]}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {**raw, "metadata": {"name": "not-ready"}, "spec": spec}


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
