"""A cluster in which Services have endpoints: the real kube-controller-manager writes them; nodes and pods are written
by the test, which says of each pod what a kubelet would.

It has two IP families and a garbage collector, and no other controller runs in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.api.kubernetes.fronting import NARROWED, SHADOW_OF, SLICES_OF, shadow_name
from controller.api.kubernetes.objects import MANAGED_BY
from controller.store.protocol import FIELD_MANAGER
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import install_crds
from tests.support.processes import ROOT, Children
from tests.support.waiting import eventually, until_now
from tests.tools import binaries

GATEWAY = "gateway"
"""The Service of the gateways in a namespace. Nothing listens at their addresses."""

CONTROLLERS = ("endpoint", "endpointslice", "endpointslicemirroring", "garbagecollector")
"""By the names that Kubernetes 1.27 has for them, which later versions take, too."""

MODEL = {"apiVersion": "deployment.beamlit.com/v1alpha1", "kind": "ModelDeployment"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


class DualStackApiServer(ApiServer):
    """One that gives Services addresses of both families."""

    def _options(self) -> tuple[str, ...]:
        return (*super()._options(), "--service-cluster-ip-range=10.203.0.0/16,fd00:203::/112")


@contextmanager
def cluster_with_endpoints(folder: Path) -> Iterator[ApiServer]:
    """Such a cluster, with our custom resources and three nodes."""
    with DualStackApiServer.running(folder) as server, Children(folder) as children:
        install_crds(server)
        for number in (1, 2, 3):
            _write_node(server, f"node-{number}", f"zone-{number}")
        command = (
            binaries.kube_controller_manager(),
            f"--kubeconfig={server.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
        )
        children.start("kube-controller-manager", command)
        yield server


def _write_node(server: ApiServer, name: str, zone: str) -> None:
    labels = {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}
    with server.client() as client:
        client.post("/api/v1/nodes", json={"metadata": {"name": name, "labels": labels}}).raise_for_status()
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}
        client.patch(f"/api/v1/nodes/{name}/status", content=json.dumps({"status": ready}), headers=_MERGE)


class ServiceHand:
    """Writes Services, pods and gateways into a namespace, and sees what became of them. To be closed."""

    def __init__(self, server: Cluster, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        # Tests look again and again: a connection for each look would cost more than all else.
        self._looking = server.client()

    def close(self) -> None:
        self._looking.close()

    def pod(
        self,
        name: str,
        *addresses: str,
        labels: Mapping[str, str],
        ports: Mapping[str, int] | None = None,
        node: str = "node-1",
        ready: bool = True,
    ) -> None:
        """Write a pod, and its status as the kubelet of its node would."""
        container = {
            "name": "main",
            "image": "any",
            "ports": [{"name": name, "containerPort": port} for name, port in (ports or {}).items()],
        }
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        raw = {"metadata": {"name": name, "labels": dict(labels)}, "spec": spec}
        with self.server.client() as client:
            client.post(self._path("pods"), json=raw).raise_for_status()
        status = {
            "phase": "Running",
            "podIP": addresses[0],
            "podIPs": [{"ip": one} for one in addresses],
            "conditions": _ready(ready=ready),
        }
        self._patch(f"{self._path('pods')}/{name}/status", {"status": status})

    def set_ready(self, name: str, *, ready: bool) -> None:
        """Say that a pod is ready, or not, as its kubelet would."""
        self._patch(f"{self._path('pods')}/{name}/status", {"status": {"conditions": _ready(ready=ready)}})

    def remove_pod(self, name: str) -> None:
        """Take a pod away at once."""
        with self.server.client() as client:
            client.delete(f"{self._path('pods')}/{name}", params={"gracePeriodSeconds": 0}).raise_for_status()

    def gateways(self, *addresses: str, node: str = "node-1") -> None:
        """Write the Service of the gateways, and a pod at each address."""
        ports = [{"name": "admin", "port": 19000}]
        self.service({"selector": {"app": GATEWAY}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"}, GATEWAY)
        for number, one in enumerate(addresses):
            self.pod(f"gateway-{number}", *one.split(","), labels={"app": GATEWAY}, node=node)

    async def until_gateways(self, *addresses: str) -> None:
        """Wait until Kubernetes has put all of these gateways behind their Service, for who counts them."""
        await self.until_ways(*(f"{one}:19000" for one in addresses), service=GATEWAY)

    def model(self, name: str = "chat", service: str = "chat", port: int | str | None = None, **spec: Any) -> None:
        """Create a ModelDeployment in front of a Service."""
        reference = {"name": service, **({"targetPort": port} if port else {})}
        source = {"kind": "Deployment", "name": name}
        asked = {"model": name, "modelSourceRef": source, "serviceRef": reference, **spec}
        raw = {**MODEL, "metadata": {"name": name}, "spec": asked}
        with self.server.client() as client:
            answer = client.post(self._path("modeldeployments"), json=raw)
        assert answer.is_success, answer.text

    def patch_model(self, spec: Mapping[str, Any], name: str = "chat") -> None:
        """Edit the spec of a model."""
        self._patch(f"{self._path('modeldeployments')}/{name}", {"spec": dict(spec)})

    def delete_model(self, name: str = "chat") -> None:
        """Delete a model; it may stay for a while."""
        with self.server.client() as client:
            client.delete(f"{self._path('modeldeployments')}/{name}").raise_for_status()

    def force_delete_model(self, name: str = "chat") -> None:
        """Delete a model, and take off whatever its deletion waits for."""
        self._patch(f"{self._path('modeldeployments')}/{name}", {"metadata": {"finalizers": None}})
        self.delete_model(name)

    def patch_status(self, status: Mapping[str, Any], name: str = "chat") -> None:
        """Change the status of a model, as who has that right may."""
        self._patch(f"{self._path('modeldeployments')}/{name}/status", {"status": dict(status)})

    @staticmethod
    def rules(*roles: str) -> list[dict[str, Any]]:
        """What these roles of deploy/rbac allow."""
        found = yaml.safe_load_all((ROOT / "deploy" / "rbac" / "controller.yaml").read_text())
        return [rule for role in found if role["metadata"]["name"] in roles for rule in role["rules"]]

    def finalizers(self, name: str = "chat") -> list[str]:
        """What the deletion of a model waits for."""
        found = self.read("modeldeployments", name) or {"metadata": {}}
        finalizers: list[str] = found["metadata"].get("finalizers", [])
        return finalizers

    def status(self, name: str = "chat") -> dict[str, Any]:
        """The status of a model; empty while there is none."""
        found = self.read("modeldeployments", name) or {}
        status: dict[str, Any] = found.get("status") or {}
        return status

    def fronted(self, name: str = "chat") -> tuple[str, str, str]:
        """Status, reason and message of the condition Fronted of a model, for the generation that it has."""
        found = self.read("modeldeployments", name) or {"metadata": {}}
        for one in (found.get("status") or {}).get("conditions", ()):
            if one["type"] == "Fronted" and one["observedGeneration"] == found["metadata"]["generation"]:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    async def until_fronted(self, *expected: str, name: str = "chat") -> str:
        """Wait until the condition Fronted of a model has this status and reason; return its message."""
        seen = await eventually(
            lambda: asyncio.to_thread(self.fronted, name), lambda seen: seen[: len(expected)] == expected
        )
        return seen[2]

    def service(self, spec: Mapping[str, Any], name: str = "chat") -> None:
        """Create a Service."""
        with self.server.client() as client:
            answer = client.post(self._path("services"), json={"metadata": {"name": name}, "spec": dict(spec)})
        assert answer.is_success, answer.text

    def quota(self, **hard: int) -> None:
        """Limit how many objects the namespace may have, as the quota controller would have counted them."""
        counted = {"hard": {name: str(most) for name, most in hard.items()}}
        with self.server.client() as client:
            raw = {"metadata": {"name": "quota"}, "spec": counted}
            client.post(self._path("resourcequotas"), json=raw).raise_for_status()
        used = {"used": {name: str(most) for name, most in hard.items()}}
        self._patch(f"{self._path('resourcequotas')}/quota/status", {"status": {**counted, **used}})

    def until_no_more_services(self) -> None:
        """Wait until a quota that is used up is known to who admits objects: it learns of it a moment later."""
        one_more = {"metadata": {"name": "one-more"}, "spec": {"clusterIP": "None"}}
        with self.server.client() as client:

            def is_refused() -> bool:
                answer = client.post(self._path("services"), json=one_more)
                if answer.is_success:
                    self.delete_service("one-more")
                return answer.status_code == 403

            until_now(is_refused, "one Service more is refused")

    def delete_service(self, name: str = "chat") -> None:
        """Delete a Service."""
        with self.server.client() as client:
            client.delete(f"{self._path('services')}/{name}").raise_for_status()

    def delete_endpoints(self, name: str) -> None:
        """Delete the Endpoints object of a Service, if there is one: Kubernetes mirrors it into slices no more."""
        with self.server.client() as client:
            answer = client.delete(f"{self._path('endpoints')}/{name}")
        assert answer.status_code in (200, 404), answer.text

    def patch_service(self, changes: Mapping[str, Any], name: str = "chat") -> None:
        """Merge changes into a Service, as `kubectl edit` and `kubectl patch --type=merge` do."""
        self._patch(f"{self._path('services')}/{name}", changes)

    def read(self, resource: str, name: str) -> dict[str, Any] | None:
        """Read an object; None if it is not there."""
        answer = self._looking.get(f"{self._path(resource)}/{name}")
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def written_by_owners(self, name: str = "chat") -> dict[str, Any]:
        """A Service but for what Kubernetes itself keeps of it: byte for byte what its owner has."""
        found = self.read("services", name)
        assert found
        for kept in ("resourceVersion", "managedFields", "generation"):
            found["metadata"].pop(kept, None)
        return found

    def managers(self, name: str = "chat") -> list[str]:
        """Name the field managers of a Service."""
        found = self.read("services", name)
        assert found
        return [one["manager"] for one in found["metadata"].get("managedFields", ())]

    def selector(self, name: str = "chat") -> dict[str, str]:
        """The selector of a Service as it is now."""
        found = self.read("services", name)
        assert found
        selector: dict[str, str] = found["spec"].get("selector") or {}
        return selector

    async def until_released(self, name: str = "chat") -> None:
        """Wait until no field of a narrowed Service is ours: that is a write of its own, after the one that narrows."""
        await eventually(lambda: asyncio.to_thread(self.managers, name), lambda seen: FIELD_MANAGER not in seen)

    async def until_noted(self, name: str = "chat") -> None:
        """Wait until the shadow of a narrowed Service has it noted, which is the last write of the way in."""

        def is_so(shadow: dict[str, Any] | None) -> bool:
            return shadow is not None and NARROWED in shadow["metadata"].get("annotations", {})

        await eventually(lambda: asyncio.to_thread(self.read, "services", shadow_name(name)), is_so)

    def slices(self, service: str = "chat", version: str = "") -> list[dict[str, Any]]:
        """The EndpointSlices of a Service, now or as they were when the cluster was at a version."""
        then = {"resourceVersion": version, "resourceVersionMatch": "Exact"} if version else {}
        found: list[dict[str, Any]] = self.list_of_slices(service, **then)["items"]
        return found

    def list_of_slices(self, service: str = "chat", **query: str) -> dict[str, Any]:
        """The list of the EndpointSlices of a Service as the API server answers it."""
        answer = self._looking.get(self.path_of_slices, params=query | of_service(service))
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    @property
    def path_of_slices(self) -> str:
        """Where the EndpointSlices of the namespace are listed, and watched."""
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    def ways(self, service: str = "chat", port: str | None = None, version: str = "") -> set[str]:
        """Where kube-proxy leads clients of a Service: `ADDRESS:PORT` of what is ready, now or at a version."""
        return ways_in(self.slices(service, version), port)

    async def until_ways(self, *expected: str, service: str = "chat", port: str | None = None) -> None:
        """Wait until clients of a Service are led to these places and no other."""
        await eventually(lambda: asyncio.to_thread(self.ways, service, port), lambda seen: seen == set(expected))

    def traces(self) -> list[str]:
        """Name what of ours there is in the namespace, but for the key in a selector."""
        services = self._looking.get(self._path("services"), params={"labelSelector": SHADOW_OF}).json()["items"]
        slices = self._looking.get(self.path_of_slices, params={"labelSelector": f"{MANAGED_BY}={SLICES_OF}"}).json()[
            "items"
        ]
        return sorted(one["metadata"]["name"] for one in (*services, *slices))

    async def until_restored(self, before: Mapping[str, Any], name: str = "chat") -> None:
        """Wait until a Service is byte for byte what it was, and nothing of ours is left."""
        await eventually(lambda: asyncio.to_thread(self.written_by_owners, name), lambda seen: seen == before)
        await eventually(
            lambda: asyncio.to_thread(self.traces),
            lambda seen: not any(one.startswith(f"{name}-beamlit") for one in seen),
        )

    def _path(self, resource: str) -> str:
        group = "/apis/deployment.beamlit.com/v1alpha1" if resource == "modeldeployments" else "/api/v1"
        return f"{group}/namespaces/{self.namespace}/{resource}"

    def _patch(self, path: str, changes: Mapping[str, Any]) -> httpx.Response:
        with self.server.client() as client:
            answer = client.patch(path, content=json.dumps(changes), headers=_MERGE)
        assert answer.is_success, answer.text
        return answer


def of_service(service: str) -> dict[str, str]:
    """The query for the EndpointSlices of a Service."""
    return {"labelSelector": f"kubernetes.io/service-name={service}"}


def ways_in(slices: Iterable[Mapping[str, Any]], port: str | None = None) -> set[str]:
    """Where slices lead, for one port or all: `ADDRESS:PORT` of what is ready."""
    return {
        f"{endpoint['addresses'][0]}:{given['port']}"
        for one in slices
        for given in one.get("ports") or ()
        if port is None or given.get("name") == port
        for endpoint in one.get("endpoints") or ()
        if endpoint.get("conditions", {}).get("ready") is not False
    }


def _ready(*, ready: bool) -> list[dict[str, str]]:
    return [{"type": "Ready", "status": str(ready)}]
