"""A small cluster in memory: Services and their endpoint controller, pods, gateways, a leader and Envoys.

It has the objects that a takeover is about, each at a version, and refuses a write whose precondition does not hold.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY, shadow_name
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME
from controller.frontend.service_facts import (
    ENDPOINT_CONTROLLER,
    FrontedRoute,
    ServiceFacts,
    Steadiness,
    follows_shadow,
    is_ready,
    leads_clients_to,
)
from controller.frontend.takeover import TakeoverStep, finalizer_removal, next_step, why_not
from controller.runtime.writes import Verb, Write
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import AlreadyExistsError, ConflictError, NotFoundError

SERVICE = ObjectRef("Service", "default", "chat")
SHADOW = ObjectRef("Service", "default", shadow_name("chat"))
GATEWAY = ObjectRef("Service", "beamlit-system", "gateway")
START = datetime(2026, 11, 29, tzinfo=UTC)


@dataclass
class Pod:
    """A pod: its labels, whether it is ready, and on which node it runs."""

    labels: dict[str, str]
    ready: bool = True
    node: str = "node-1"


@dataclass
class Model:
    """A model: what its spec asks for, and the route in its status."""

    name: str
    port: int
    port_name: str = "http"
    asks: bool = True
    wanted: bool = False
    contested: bool = False
    service: str | None = None
    programmed: bool = False

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef("ModelDeployment", "default", self.name)


@dataclass
class SmallCluster:
    """Everything there is; `writes` counts what was written by the takeover.

    `selector_is_ours`: an apply of the owner that changes the selector of the Service would conflict with us.
    """

    pods: dict[str, Pod] = field(default_factory=dict)
    gateways: dict[str, bool] = field(default_factory=lambda: {"10.9.0.1": True})
    models: dict[str, Model] = field(default_factory=dict)
    objects: dict[ObjectRef, dict[str, Any]] = field(default_factory=dict)
    now: datetime = START
    writes: int = 0
    released: int = 0
    selector_is_ours: bool = False
    steadiness: Steadiness = field(default_factory=Steadiness)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def with_chat(cls, pods: int = 2, **spec: Any) -> SmallCluster:
        """A Service `chat` with pods, and a model that asks for it."""
        cluster = cls()
        for number in range(pods):
            cluster.pods[f"10.0.0.{number + 1}"] = Pod({"app": "chat"})
        cluster.models["chat"] = Model("chat", 10000)
        ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]
        cluster.put(
            SERVICE,
            {
                "spec": {
                    "clusterIP": "10.96.0.7",
                    "ipFamilies": ["IPv4"],
                    "type": "ClusterIP",
                    "selector": {"app": "chat"},
                    "ports": ports,
                    **spec,
                }
            },
        )
        cluster.put(ObjectRef("ModelDeployment", "default", "chat"), {})
        cluster.kubernetes()
        return cluster

    # Objects.

    def put(self, ref: ObjectRef, content: Mapping[str, Any]) -> None:
        """Write an object, as anybody may."""
        before = self.objects.get(ref, {}).get("metadata", {})
        raw = copy.deepcopy(dict(content))
        given = {name: value for name, value in raw.get("metadata", {}).items() if name != "resourceVersion"}
        metadata = {**given, "namespace": ref.namespace, "name": ref.name}
        metadata["uid"] = before.get("uid") or f"uid-{next(self._numbers)}"
        raw = {"kind": ref.kind, **raw, "metadata": {**metadata, "resourceVersion": before.get("resourceVersion")}}
        if raw != self.objects.get(ref):
            metadata["resourceVersion"] = str(next(self._numbers))
            self.objects[ref] = {**raw, "metadata": metadata}

    def edit(self, ref: ObjectRef, changes: Mapping[str, Any]) -> None:
        """Merge changes into an object (RFC 7386)."""
        self.put(ref, _merged(self.objects[ref], changes))

    def stored(self, ref: ObjectRef) -> StoredObject | None:
        raw = self.objects.get(ref)
        return StoredObject(ref, raw) if raw else None

    def slices_of(self, service: ObjectRef) -> tuple[StoredObject, ...]:
        return tuple(
            StoredObject(ref, raw)
            for ref, raw in sorted(self.objects.items())
            if ref.kind == "EndpointSlice"
            and ref.namespace == service.namespace
            and raw["metadata"]["labels"].get(SERVICE_NAME) == service.name
        )

    @property
    def selector(self) -> dict[str, str]:
        return dict(self.objects[SERVICE]["spec"].get("selector") or {})

    @property
    def is_narrowed(self) -> bool:
        return FRONTED_KEY in self.selector

    # Kubernetes.

    def kubernetes(self) -> None:
        """Let the endpoint controller write the slices of every Service with a selector, and those of the gateway."""
        services = [ref for ref in self.objects if ref.kind == "Service"]
        for ref in services:
            spec = self.objects[ref]["spec"]
            if selector := spec.get("selector"):
                found = {address: pod for address, pod in self.pods.items() if selector.items() <= pod.labels.items()}
                ports = [
                    {"name": one.get("name", ""), "protocol": "TCP", "port": one.get("targetPort") or one["port"]}
                    for one in spec["ports"]
                ]
                self._write_slice(ref, {address: (pod.ready, pod.node) for address, pod in found.items()}, ports)
        for ref in [one for one in self.objects if one.kind == "EndpointSlice"]:
            labels = self.objects[ref]["metadata"]["labels"]
            owner = ObjectRef("Service", ref.namespace, labels[SERVICE_NAME])
            if labels[MANAGED_BY] == ENDPOINT_CONTROLLER and owner not in services and owner != GATEWAY:
                del self.objects[ref]
        gateways = {address: (ready, "node-1") for address, ready in self.gateways.items()}
        self._write_slice(GATEWAY, gateways, [{"name": "admin", "protocol": "TCP", "port": 19000}])

    def _write_slice(self, service: ObjectRef, found: dict[str, tuple[bool, str]], ports: list[dict[str, Any]]) -> None:
        endpoints = [
            {"addresses": [address], "conditions": {"ready": ready}, "nodeName": node}
            for address, (ready, node) in sorted(found.items())
        ]
        self.put(
            ObjectRef("EndpointSlice", service.namespace, f"{service.name}-kube"),
            {
                "metadata": {"labels": {SERVICE_NAME: service.name, MANAGED_BY: ENDPOINT_CONTROLLER}},
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports if endpoints else [],
            },
        )

    # The leader, and the Envoys.

    def leader(self) -> None:
        """Let the leader write the statuses: what is wanted, and whose pods the routes have."""
        for model in self.models.values():
            stored, facts = self.stored(model.ref), self.facts()
            deleted = stored is None or "deletionTimestamp" in stored.metadata
            if (why_not(facts, self.now) or ("",))[0] == "TakeoverContested":
                model.contested = True
            if not model.asks:
                model.contested = False
            following = model.service == SHADOW.name
            serves = model.service is not None
            model.wanted = model.asks and not model.contested and not deleted and why_not(facts, self.now) is None
            if deleted and not (serves and (leads_clients_to(facts, model.port) or facts.is_narrowed)):
                model.service = None
                continue
            service = SHADOW.name if follows_shadow(facts, following=following, wanted=model.wanted) else SERVICE.name
            if service != model.service:
                model.service, model.programmed = service, False

    def envoys(self) -> None:
        """Let every Envoy acknowledge every route."""
        for model in self.models.values():
            model.programmed = model.service is not None and any(self.gateways.values())

    # What is known, and done.

    def facts(self) -> ServiceFacts:
        """What a replica of the controller knows that sees everything as it is."""
        routes = tuple(
            FrontedRoute(
                model=stored,
                port=model.port,
                port_name=model.port_name,
                wanted=model.wanted,
                follows_shadow=model.service == SHADOW.name,
                programmed=model.programmed,
            )
            for model in self.models.values()
            if model.service and (stored := self.stored(model.ref))
        )
        return ServiceFacts(
            key=SERVICE,
            service=self.stored(SERVICE),
            shadow=self.stored(SHADOW),
            slices=self.slices_of(SERVICE),
            shadow_slices=self.slices_of(SHADOW),
            gateway_service=GATEWAY,
            gateway=self.slices_of(GATEWAY),
            routes=routes,
        )

    def step(self, facts: ServiceFacts | None = None) -> TakeoverStep:
        """Plan the next step."""
        facts = facts or self.facts()
        return next_step(facts, self.steadiness.see(facts, self.now))

    def do(self, step: TakeoverStep, kills_after: int | None = None) -> Iterator[Write]:
        """Do the writes of a step, each of which is yielded once it is done, until one fails or the process dies."""
        for confirmed in step.confirmed:
            present = self.stored(confirmed.ref)
            if present is None or not present.same_as(confirmed):
                return
        for number, write in enumerate(step.writes):
            if number == kills_after:
                return
            try:
                self.write(write)
            except (ConflictError, NotFoundError):
                return
            yield write

    def finalizers(self) -> None:
        """Take the finalizer off models that front nothing any more."""
        for model in self.models.values():
            stored = self.stored(model.ref)
            is_free = not model.wanted and not leads_clients_to(self.facts(), model.port)
            if stored and is_free and (write := finalizer_removal(stored)):
                self.write(write)

    def write(self, write: Write) -> None:
        """Do one write, as the API server does it."""
        self.writes += 1
        present = self.stored(write.ref)
        if write.verb is Verb.CREATE:
            if present:
                raise AlreadyExistsError(str(write.ref))
            self.put(write.ref, write.content)
            return
        if present is None:
            raise NotFoundError(str(write.ref))
        write.precondition.check(present)
        match write.verb:
            case Verb.PATCH:
                self.edit(write.ref, write.content)
                self.selector_is_ours |= "selector" in write.content.get("spec", {}) and write.ref == SERVICE
                metadata = self.objects[write.ref]["metadata"]
                if "deletionTimestamp" in metadata and FINALIZER not in (metadata.get("finalizers") or ()):
                    del self.objects[write.ref]
            case Verb.DELETE:
                del self.objects[write.ref]
            case Verb.RELEASE_FIELDS:
                self.released += 1
                self.selector_is_ours = False
            case _:
                raise AssertionError(write)

    def delete_model(self, name: str) -> None:
        """Delete a model, as a user does it: with a finalizer it stays until that is gone."""
        ref = self.models[name].ref
        if ref not in self.objects:
            return
        if self.objects[ref]["metadata"].get("finalizers"):
            self.edit(ref, {"metadata": {"deletionTimestamp": "2026-11-29T00:00:00Z"}})
        else:
            del self.objects[ref]

    def settle(self, rounds: int = 60) -> None:
        """Let everybody do what there is to do, until nothing is."""
        for _ in range(rounds):
            before = (copy.deepcopy(self.objects), [copy.copy(one) for one in self.models.values()])
            self.kubernetes()
            self.leader()
            self.envoys()
            step = self.step()
            for _ in self.do(step):
                self.kubernetes()
            self.finalizers()
            if not step.writes and step.wait is None and before == (self.objects, list(self.models.values())):
                return
            self.now += timedelta(seconds=1)
        raise AssertionError(f"not settled after {rounds} rounds: {self.step()}")

    # What clients meet.

    def answers(self) -> bool:
        """Whether a new connection to the Service is answered, wherever kube-proxy leads it that says it is ready."""
        ready = [
            (endpoint["addresses"][0], port["port"])
            for one in self.slices_of(SERVICE)
            for endpoint in one.raw["endpoints"]
            for port in one.raw["ports"]
            if is_ready(endpoint) and port.get("name") == "http"
        ]
        return any(self._answers(address, port) for address, port in ready)

    def _answers(self, address: str, port: int) -> bool:
        if address in self.pods:
            return self.pods[address].ready
        if not self.gateways.get(address):
            return False
        model = next((one for one in self.models.values() if one.port == port and one.service), None)
        if model is None or model.service is None:
            return False
        of = ObjectRef("Service", "default", model.service)
        return any(
            self.pods[endpoint["addresses"][0]].ready
            for one in self.slices_of(of)
            if one.raw["metadata"]["labels"][MANAGED_BY] == ENDPOINT_CONTROLLER
            for endpoint in one.raw["endpoints"]
            if endpoint["addresses"][0] in self.pods
        )


def _merged(raw: Any, changes: Any) -> Any:
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(raw) if isinstance(raw, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
