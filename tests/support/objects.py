"""Kubernetes objects, said in a few words: a test states only what it is about.

::

    a_model("a").with_remote("models.example.com").annotated(**{"beamlit.com/paused": "true"})
    a_service("a").port(80, name="http", target="web")
    a_slice("a").ready("10.0.0.1").terminating("10.0.0.2")
    a_deployment("a").probed("/healthz", 8080)
    a_secret("s").holding(apiKey="abc")
    a_grant("g").of("team-a").to("Service", "a")

Every word returns a new value; `.raw` is the object as YAML has it, `.parsed()` as the program reads it and `.stored()`
as a store holds it. The name alone gives one whole: the model "a" fronts the only port of the Service "a".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

from controller.api.contract.credentials import CREDENTIAL, CREDENTIAL_HOSTS
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME, EndpointSlice, Service, Workload
from controller.api.registry import MODEL_DEPLOYMENT, REFERENCE_GRANT
from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from controller.intent.intent import Intent, intent_of_model
from controller.store.objects import ObjectRef, StoredObject

CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class KubeObject:
    """Any object; what there is to say of each kind is in the classes below."""

    raw: dict[str, Any]

    @property
    def ref(self) -> ObjectRef:
        metadata = self.raw["metadata"]
        return ObjectRef(self.raw["kind"], metadata.get("namespace", "default"), metadata["name"])

    def stored(self, *, status: dict[str, Any] | None = None, generation: int = 1, version: str = "1") -> StoredObject:
        raw = copy.deepcopy(self.raw)
        raw["metadata"] = {
            "namespace": "default",
            "uid": f"uid-of-{self.ref.name}",
            "creationTimestamp": CREATED,
            **raw["metadata"],
            "generation": generation,
            "resourceVersion": version,
        }
        if status is not None:
            raw["status"] = status
        return StoredObject(self.ref, raw)

    def in_namespace(self, namespace: str) -> Self:
        return self._with(namespace, "metadata", "namespace")

    def named(self, name: str) -> Self:
        return self._with(name, "metadata", "name")

    def created(self, moment: str) -> Self:
        return self._with(moment, "metadata", "creationTimestamp")

    def annotated(self, **annotations: str) -> Self:
        return self._with(annotations, "metadata", "annotations")

    def saying(self, value: Any, *path: str) -> Self:
        """Say anything else, in the field at the end of the path."""
        return self._with(value, *path)

    def _with(self, value: Any, *path: str) -> Self:
        raw = copy.deepcopy(self.raw)
        here = raw
        for step in path[:-1]:
            here = here.setdefault(step, {})
        here[path[-1]] = value
        return type(self)(raw)

    def _adding(self, value: Any, *path: str) -> Self:
        here: Any = self.raw
        for step in path:
            here = here.get(step, {})
        return self._with([*here, value], *path)


class AModel(KubeObject):
    def parsed(self) -> ModelDeployment:
        return parse(ModelDeployment, self.raw)

    def intent(self) -> Intent:
        return intent_of_model(self.parsed(), 1)

    def disabled(self) -> Self:
        return self._with(False, "spec", "enabled")

    def of_model(self, model: str) -> Self:
        return self._with(model, "spec", "model")

    def measuring(self, *metrics: dict[str, Any]) -> Self:
        return self._with(list(metrics), "spec", "offloadingConfig", "metrics")

    def offloading(self, **behavior: Any) -> Self:
        return self._with(behavior, "spec", "offloadingConfig", "behavior")

    def with_remote(self, host: str = "remote.example:80", **backend: Any) -> Self:
        return self._with({"host": host, **backend}, "spec", "offloadingConfig", "remoteBackend")

    def fronting(self, service: str | None, port: int | str | None = None, namespace: str = "") -> Self:
        if service is None:
            return self._with(None, "spec", "serviceRef")
        wanted = {"name": service, "namespace": namespace, "targetPort": port}
        return self._with({name: value for name, value in wanted.items() if value}, "spec", "serviceRef")

    def fixing(self, port: int) -> Self:
        return self._with(port, "spec", "servingPort")

    def at_gateway(self, service: str) -> Self:
        """Ask for a Service that leads to the gateway."""
        return self.saying("Gateway", "spec", "frontend")._with({"name": service}, "spec", "gatewayService")

    def paused(self) -> Self:
        return self.annotated(**{"beamlit.com/paused": "true"})

    def overridden(self, text: str) -> Self:
        return self.annotated(**{"beamlit.com/override": text})


class AService(KubeObject):
    def parsed(self) -> Service:
        return parse(Service, self.raw)

    def port(self, number: int, *, name: str = "", target: int | str | None = None, **more: Any) -> Self:
        port = {"name": name, "port": number, "targetPort": target, **more}
        return self._adding({key: value for key, value in port.items() if value}, "spec", "ports")

    def headless(self) -> Self:
        return self._with("None", "spec", "clusterIP")

    def selecting(self, **labels: str) -> Self:
        return self._with(labels, "spec", "selector")

    def owned_by(self, model: StoredObject, uid: str | None = None) -> Self:
        """Name a model as the owner, whoever wrote that; with `uid`, one that had its name."""
        owner = {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.kind,
            "name": model.ref.name,
            "uid": uid or model.uid,
            "controller": True,
        }
        return self._with([owner], "metadata", "ownerReferences")


class ASlice(KubeObject):
    def parsed(self) -> EndpointSlice:
        return parse(EndpointSlice, self.raw)

    def of(self, address_type: str) -> Self:
        return self._with(address_type, "addressType")

    def written_by(self, controller: str) -> Self:
        return self._with(controller, "metadata", "labels", MANAGED_BY)

    def ready(self, *addresses: str) -> Self:
        return self._endpoints(addresses, {"ready": True})

    def not_ready(self, *addresses: str) -> Self:
        return self._endpoints(addresses, {"ready": False})

    def terminating(self, *addresses: str) -> Self:
        return self._endpoints(addresses, {"ready": False, "serving": True, "terminating": True})

    def saying_nothing(self, *addresses: str) -> Self:
        return self._endpoints(addresses, {})

    def port(self, number: int | None, name: str = "") -> Self:
        return self._with([{"name": name, "port": number}], "ports")

    def and_port(self, number: int | None, name: str = "") -> Self:
        return self._adding({"name": name, "port": number}, "ports")

    def _endpoints(self, addresses: tuple[str, ...], conditions: dict[str, bool]) -> Self:
        changed = self
        for address in addresses:
            changed = changed._adding({"addresses": [address], "conditions": conditions}, "endpoints")
        return changed


class ADeployment(KubeObject):
    def parsed(self) -> Workload:
        return parse(Workload, self.raw)

    def container(self, *ports: tuple[str, int], **container: Any) -> Self:
        listed = [{"name": name, "containerPort": number} for name, number in ports]
        return self._adding({"ports": listed, **container}, "spec", "template", "spec", "containers")

    def probed(self, path: str, port: int | str, *ports: tuple[str, int], scheme: str = "HTTP") -> Self:
        probe = {"httpGet": {"path": path, "port": port, "scheme": scheme}}
        return self.container(*ports, readinessProbe=probe)


class ASecret(KubeObject):
    def unlabelled(self) -> Self:
        """Say nothing of what it may be used for."""
        return self._with({}, "metadata", "labels")

    def for_hosts(self, hosts: str) -> Self:
        """Say for which hosts it may be used."""
        return self.annotated(**{CREDENTIAL_HOSTS: hosts})

    def holding(self, **text: str) -> Self:
        """Say what it holds; of a name that has no place in Python, "__" is a dot."""
        return self._with({key.replace("__", "."): value for key, value in text.items()}, "stringData")

    def encoded(self, **data: str) -> Self:
        return self._with({key.replace("__", "."): value for key, value in data.items()}, "data")


class AGrant(KubeObject):
    def of(self, namespace: str, *, kind: str = MODEL_DEPLOYMENT.kind, group: str = MODEL_DEPLOYMENT.group) -> Self:
        """Say who may refer: our objects in a namespace, unless another kind is said."""
        return self._adding({"group": group, "kind": kind, "namespace": namespace}, "spec", "from")

    def to(self, kind: str, name: str = "", *, group: str = "") -> Self:
        """Say what may be referred to: all of a kind, or one."""
        return self._adding({"group": group, "kind": kind, **({"name": name} if name else {})}, "spec", "to")


def a_model(name: str = "a") -> AModel:
    spec = {
        "model": name,
        "modelSourceRef": {"kind": "Deployment", "name": name},
        "serviceRef": {"name": name},
    }
    return AModel(
        {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.kind,
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def a_service(name: str = "a") -> AService:
    return AService({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": []}})


def a_slice(service: str = "a", suffix: str = "1") -> ASlice:
    return ASlice(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{service}-{suffix}", "labels": {SERVICE_NAME: service}},
            "addressType": "IPv4",
            "endpoints": [],
            "ports": [{"name": "", "port": 8080}],
        }
    )


def a_deployment(name: str = "a") -> ADeployment:
    return ADeployment(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"template": {"spec": {"containers": []}}},
        }
    )


def a_secret(name: str = "s") -> ASecret:
    """A Secret that may be used as a credential."""
    metadata = {"name": name, "labels": {CREDENTIAL: "true"}}
    return ASecret({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})


def a_grant(name: str = "g") -> AGrant:
    """Consent of the namespace `b` to whoever is said."""
    metadata = {"name": name, "namespace": "b"}
    return AGrant({"apiVersion": REFERENCE_GRANT.api_version, "kind": REFERENCE_GRANT.kind, "metadata": metadata})
