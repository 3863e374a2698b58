"""A model on a node whose Service is taken over and given back, and what clients see meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.support.node import errand, platform, seed
from tests.support.node.node import Node
from tests.support.waiting import until_now
from xds_server.resources.names import ROUTE_HEADER

MARK = "beamlit.com/fronted"
"""What the selector of a Service that is taken over has in addition."""
_OAUTH = "config.defaultRemoteBackend.authConfig.oauthConfig"
EVERYWHERE = (
    "allowedNamespaces=null",
    "config.namespaces=null",
    f"{_OAUTH}.clientId={platform.CLIENT_ID}",
    f"{_OAUTH}.clientSecret={platform.CLIENT_SECRET}",
    "gateway.drainSeconds=25",
)
"""The settings of a release for models in every namespace, whose remote backend is the platform."""
_KUBERNETES_OWN = ("resourceVersion", "managedFields", "generation")


@dataclass(frozen=True, slots=True)
class FrontedModel:
    """The model of the quick start in one namespace."""

    node: Node
    namespace: str

    def deploy(self, *, replicas: int = 2, options: tuple[str, ...] = ("--work=1000",)) -> None:
        """Have its pods and its Service, and wait until they answer."""
        pods = seed.deployment(replicas=replicas, options=options, resources=False)
        self.node.apply(pods, seed.service(), namespace=self.namespace)
        self.node.await_rollout(f"deployment/{seed.NAME}", self.namespace)
        # That they are ready is known to kube-proxy within a second.
        answers = partial(errand.run, self.node, self.namespace, "--silent", "--fail", f"http://{seed.NAME}")
        until_now(lambda: answers().code == 0, "the pods answer behind their Service")

    def take_over(self) -> None:
        """Have a model for it, and wait until its Service is taken over, and clients come to the gateway.

        The condition tells what was written; that a selector is narrower is known to kube-proxy a moment later.
        """
        self.node.apply(seed.model(), namespace=self.namespace)
        self.await_taken_over()
        answer = partial(errand.run, self.node, self.namespace, "--silent", "--include", f"http://{seed.NAME}")
        until_now(lambda: f"\n{ROUTE_HEADER}:" in answer().said.lower(), "the gateway answers behind the Service")

    def await_taken_over(self) -> None:
        """Wait until the model says that clients reach it through the gateway."""
        until_now(lambda: self.fronted.startswith("True/TakenOver"), f"{self.namespace} is taken over", within=120)

    def give_back(self) -> None:
        """Delete the model; it is gone when its Service is given back."""
        self.node.kubectl("delete", "modeldeployment", seed.NAME, f"--namespace={self.namespace}", "--timeout=3m")

    @property
    def fronted(self) -> str:
        """What its condition Fronted says: status, reason and message."""
        raw = self._object(f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{self.namespace}/modeldeployments")
        conditions = raw.get("status", {}).get("conditions", ())
        fronted = [one for one in conditions if one["type"] == "Fronted"]
        return "".join(f"{one['status']}/{one['reason']}: {one['message']}" for one in fronted)

    @property
    def serving_port(self) -> int:
        """The port of the gateway that serves it."""
        raw = self._object(f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{self.namespace}/modeldeployments")
        return int(raw["status"]["servingPort"])

    @property
    def service(self) -> Mapping[str, Any]:
        """Its Service, but for what Kubernetes writes into any object that is written."""
        raw = self._object(f"/api/v1/namespaces/{self.namespace}/services")
        metadata = {key: value for key, value in raw["metadata"].items() if key not in _KUBERNETES_OWN}
        return {**raw, "metadata": metadata}

    @property
    def is_taken_over(self) -> bool:
        """Whether the Service leads to the gateway."""
        return MARK in self.service["spec"]["selector"]

    def slices(self) -> list[str]:
        """Who writes the EndpointSlices of the Service."""
        label = f"--selector=kubernetes.io/service-name={seed.NAME}"
        said = self.node.kubectl(
            "get", "endpointslices", f"--namespace={self.namespace}", label, "--output=json"
        ).stdout
        return [
            one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] for one in json.loads(said)["items"]
        ]

    def _object(self, collection: str) -> dict[str, Any]:
        with self.node.client() as client:
            raw: dict[str, Any] = client.get(f"{collection}/{seed.NAME}").raise_for_status().json()
        return raw


def owners_chart(folder: Path) -> Path:
    """A chart of the owner's, with the Service that the model has."""
    chart = folder / "owner"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "owner", "version": "1.0.0"}))
    (chart / "values.yaml").write_text("version: one\n")
    service = seed.service()
    service["metadata"]["labels"]["version"] = "{{ .Values.version }}"
    (chart / "templates" / "service.yaml").write_text(yaml.safe_dump(service))
    return chart
