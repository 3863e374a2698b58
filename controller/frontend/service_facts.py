"""Everything that is known of one Service that is, was, or shall be taken over, and what follows from it at once. Pure.

A Service is read as it is stored, with all that its owner wrote: what is written back has to be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from controller.api.kubernetes.endpoints import ENDPOINT_CONTROLLER
from controller.api.kubernetes.fronting import (
    CONTROLLER_CLASS,
    FINALIZER,
    GATEWAY_PORTS,
    SHADOW_OF,
    SLICES_OF,
    is_narrowed,
    owners_selector,
    ports_in,
    shadow_name,
)
from controller.api.kubernetes.objects import MANAGED_BY
from controller.api.registry import MODEL_DEPLOYMENT, SERVICE
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import FIELD_MANAGER

Raw = Mapping[str, Any]


class ReadyEndpoint(NamedTuple):
    """A way to one ready pod: by which port of the Service, and where."""

    port_name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class FrontedRoute:
    """The route of a model that leads to the pods of the Service.

    `port` is the gateway's that serves it, `port_name` the Service's. `wanted` says that clients of the Service shall
    be led there, `follows_shadow` that the replicas are those of the shadow, `programmed` that every Envoy has it so.
    `written_by` is the controller that wrote this into the status, empty where none has a name.
    """

    model: StoredObject
    port: int
    port_name: str
    wanted: bool
    follows_shadow: bool
    programmed: bool
    written_by: str = ""

    @property
    def is_deleted(self) -> bool:
        """Whether the model is on its way out."""
        return "deletionTimestamp" in self.model.metadata

    @property
    def has_finalizer(self) -> bool:
        """Whether a deletion of the model waits for us."""
        return FINALIZER in (self.model.metadata.get("finalizers") or ())


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What is known of one Service (`key`) at one moment.

    `slices` and `shadow_slices` are all EndpointSlices of the Service and of its shadow, `gateway` are those of the
    gateway's Service `gateway_service`, None where none is named. `routes` lead to the Service's pods.
    `controller_class` is the class whose Services are ours, empty for those without one, None for whatever there is.
    `controller` is the name by which we write statuses, empty if we have none.
    """

    key: ObjectRef
    service: StoredObject | None = None
    shadow: StoredObject | None = None
    slices: tuple[StoredObject, ...] = ()
    shadow_slices: tuple[StoredObject, ...] = ()
    gateway_service: ObjectRef | None = None
    gateway: tuple[StoredObject, ...] = ()
    routes: tuple[FrontedRoute, ...] = ()
    controller_class: str | None = ""
    controller: str = ""

    @property
    def shadow_ref(self) -> ObjectRef:
        """The name of the shadow, whether it is there or not."""
        return ObjectRef(SERVICE.kind, self.key.namespace, shadow_name(self.key.name))

    @property
    def is_narrowed(self) -> bool:
        """Whether the selector of the Service carries our key."""
        return self.service is not None and is_narrowed(self.service.raw)

    @property
    def selector(self) -> dict[str, str]:
        """The selector that the owner wrote, without our key."""
        return owners_selector(self.service.raw) if self.service else {}

    @property
    def own_shadow(self) -> StoredObject | None:
        """The shadow, if what has its name is one: it has the label, and no address, so nobody calls it."""
        if self.shadow is None or _label(self.shadow, SHADOW_OF) != self.key.name:
            return None
        return self.shadow if self.shadow.raw.get("spec", {}).get("clusterIP") == "None" else None

    @property
    def is_selecting(self) -> bool:
        """Whether Kubernetes writes slices of the Service."""
        if self.service is None:
            return False
        return bool(self.selector) and self.service.raw.get("spec", {}).get("type") != "ExternalName"

    @property
    def own_slices(self) -> tuple[StoredObject, ...]:
        """The slices that we wrote for the Service."""
        return tuple(one for one in self.slices if _label(one, MANAGED_BY) == SLICES_OF)

    @property
    def slices_of_kubernetes(self) -> tuple[StoredObject, ...]:
        """The slices that Kubernetes' own controller wrote for the Service."""
        return tuple(one for one in self.slices if _label(one, MANAGED_BY) == ENDPOINT_CONTROLLER)

    @property
    def slices_of_others(self) -> tuple[StoredObject, ...]:
        """The slices that neither we nor that controller wrote: by hand, or mirrored of an Endpoints object."""
        return tuple(one for one in self.slices if _label(one, MANAGED_BY) not in (SLICES_OF, ENDPOINT_CONTROLLER))

    @property
    def is_of_another(self) -> bool:
        """Whether another controller has the Service: one of another class, or one that wrote what is wanted of it."""
        if self.controller and any(one.wanted and one.written_by not in ("", self.controller) for one in self.routes):
            return True
        return self.is_of_another_class

    @property
    def is_of_another_class(self) -> bool:
        """Whether what is there of a takeover is a controller's of another class, as the labels say."""
        return self.controller_class is not None and any(
            _label(one, CONTROLLER_CLASS) != self.controller_class
            for one in (self.own_shadow, *self.own_slices)
            if one is not None
        )

    @property
    def wanted(self) -> tuple[FrontedRoute, ...]:
        """The routes that clients of the Service shall be led to, one for each port of it."""
        by_port: dict[str, FrontedRoute] = {}
        for one in sorted(self.routes, key=lambda route: route.model.ref):
            if one.wanted and not one.is_deleted:
                by_port.setdefault(one.port_name, one)
        return tuple(by_port.values())

    @property
    def families(self) -> tuple[str, ...]:
        """The IP families of the Service."""
        spec = self.service.raw.get("spec", {}) if self.service else {}
        return tuple(spec.get("ipFamilies") or ("IPv4",))

    @property
    def is_in_use(self) -> bool:
        """Whether anything of ours is there."""
        return self.is_narrowed or self.own_shadow is not None or bool(self.own_slices)

    @property
    def selects_gateways(self) -> bool:
        """Whether pods of the gateway are behind the Service itself."""
        pods = {one.address for one in ready_endpoints((*self.slices, *self.shadow_slices))}
        return any(
            address in pods
            for one in self.gateway
            for endpoint in one.raw.get("endpoints") or ()
            for address in endpoint.get("addresses") or ()
        )

    @property
    def has_its_pods(self) -> bool:
        """Whether the Service's own slices, which Kubernetes writes, have every ready pod that the shadow has."""
        return ready_endpoints(self.shadow_slices) <= ready_endpoints(self.slices)

    @property
    def shadow_has_pods(self) -> bool:
        """Whether the shadow has every ready pod that the Service's own slices have."""
        return ready_endpoints(self.slices) <= ready_endpoints(self.shadow_slices)

    @property
    def gateway_ports(self) -> frozenset[int]:
        """The gateway's ports that clients may still be led to, as the shadow records them."""
        return ports_in(annotation(self.own_shadow, GATEWAY_PORTS))

    @property
    def ports_in_slices(self) -> frozenset[int]:
        """The gateway's ports that our slices lead to."""
        recorded = self.gateway_ports
        found = (port.get("port") for one in self.own_slices for port in one.raw.get("ports") or ())
        return frozenset(port for port in found if port in recorded)


def follows_shadow(facts: ServiceFacts, *, following: bool, wanted: bool) -> bool:
    """Whether a route to the pods of the Service reads them from the shadow; `following`: it does so already.

    It begins when the shadow has all the pods, and ends when nobody is led to the gateway any more and Kubernetes has
    written all pods into the Service's own slices, if it writes any: a Service that is gone has none. `wanted` says
    that the model of the route asks for the takeover.
    """
    if facts.own_shadow is None or facts.is_of_another:
        # Without a shadow a narrowed Service has no pods anywhere: who follows the shadow waits for the next one.
        return following and facts.is_narrowed
    someone_wants = wanted or bool(facts.wanted)
    if following:
        awaits_pods = facts.is_selecting and not facts.has_its_pods
        return someone_wants or facts.is_narrowed or bool(facts.gateway_ports) or awaits_pods
    return facts.is_narrowed or (someone_wants and bool(facts.shadow_slices) and facts.shadow_has_pods)


def leads_clients_to(facts: ServiceFacts, port: int) -> bool:
    """Whether clients of the Service may still be led to this port of the gateway, so that it has to go on serving."""
    if facts.own_shadow is not None:
        return port in facts.gateway_ports
    # The record is gone with the shadow, which somebody deleted by hand.
    return any(given.get("port") == port for one in facts.own_slices for given in one.raw.get("ports") or ())


@dataclass(frozen=True, slots=True)
class Stood:
    """For how many seconds something has been so without a break, as far as this process saw it.

    `gateway`: gateways are ready for all that the Service needs. `restored`: the Service has its owner's selector, and
    its own slices have all pods. `unused` are ports of the gateway that no slice of ours leads to. `losses` counts how
    often the gateways went away lately.
    """

    now: datetime
    losses: int = 0
    gateway: float = float("inf")
    restored: float = float("inf")
    unused: Mapping[int, float] = field(default_factory=dict)
    unused_by_default: float = float("inf")

    def unused_for(self, port: int) -> float:
        """For how long no slice of ours leads to a port."""
        return self.unused.get(port, self.unused_by_default)


# For how long the loss of the gateways counts, and how many of them are remembered.
_LOSSES_WITHIN = timedelta(minutes=10)
_LOSSES_COUNTED = 5


class Steadiness:
    """Remembers of each Service since when something is so."""

    def __init__(self) -> None:
        self._since: dict[ObjectRef, dict[str | int, datetime]] = {}
        self._losses: dict[ObjectRef, tuple[datetime, ...]] = {}

    def see(self, facts: ServiceFacts, now: datetime) -> Stood:
        """Take in what is so now."""
        unused = facts.gateway_ports - facts.ports_in_slices
        restored = not facts.is_narrowed and facts.has_its_pods
        true: set[str | int] = set(unused)
        true |= {"gateway"} if gateway_is_ready(facts) else set()
        true |= {"restored"} if restored else set()
        before, losses = self._since.get(facts.key, {}), self._losses.get(facts.key, ())
        if "gateway" in before and "gateway" not in true:
            self._losses[facts.key] = losses = (*losses, now)[-_LOSSES_COUNTED:]
        # A moment that is still to come is one of a clock that was set back.
        since = self._since[facts.key] = {what: min(before.get(what, now), now) for what in true}
        lasted = {what: (now - at) / timedelta(seconds=1) for what, at in since.items()}
        return Stood(
            now,
            losses=sum(now - _LOSSES_WITHIN < at <= now for at in losses),
            gateway=lasted.get("gateway", 0.0),
            restored=lasted.get("restored", 0.0),
            unused={port: lasted[port] for port in unused},
            unused_by_default=0.0,
        )

    def forget(self, key: ObjectRef) -> None:
        """Forget a Service."""
        self._since.pop(key, None)
        self._losses.pop(key, None)


def gateway_is_ready(facts: ServiceFacts) -> bool:
    """Whether gateways can answer every client of the Service."""
    return not missing_gateways(facts)


def missing_gateways(facts: ServiceFacts) -> str:
    """Say where no gateway could answer a client of the Service; empty while all can be."""
    ready = list(_ready_gateways(facts.gateway))
    if absent := [family for family in facts.families if not any(one.family == family for one in ready)]:
        name = f"{facts.gateway_service.namespace}/{facts.gateway_service.name}" if facts.gateway_service else "none"
        at = f" at an {' or '.join(absent)} address" if ready or len(facts.families) > 1 else ""
        what = "see its pods" if facts.gateway else "it has no EndpointSlices: see its name, and its pods"
        return f"no gateway is ready{at}: the Service of the gateway is {name}; {what}"
    if not (local := _local_policies(facts)):
        return ""
    nodes = nodes_of_ready((*facts.slices, *facts.shadow_slices)) - {one.node for one in ready}
    if not nodes:
        return ""
    names = ", ".join(sorted(nodes)[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
    return (
        f"{' and '.join(local)}: Local keeps requests on the node where they arrive, and no gateway is ready on "
        f"{names}, where pods are: run the gateway as a DaemonSet, or on these nodes too"
    )


def _local_policies(facts: ServiceFacts) -> list[str]:
    spec = facts.service.raw.get("spec", {}) if facts.service else {}
    policies = ["internalTrafficPolicy"]
    if spec.get("type") in ("NodePort", "LoadBalancer") or spec.get("externalIPs"):
        policies.append("externalTrafficPolicy")
    return [name for name in policies if spec.get(name) == "Local"]


class _Gateway(NamedTuple):
    family: str
    node: str


def _ready_gateways(slices: Iterable[StoredObject]) -> Iterator[_Gateway]:
    for one in slices:
        for endpoint in one.raw.get("endpoints") or ():
            if is_ready(endpoint):
                yield _Gateway(str(one.raw.get("addressType")), str(endpoint.get("nodeName") or ""))


def nodes_of_ready(slices: Iterable[StoredObject]) -> frozenset[str]:
    """Name the nodes of ready pods, as Kubernetes' own slices say them."""
    found = (
        str(endpoint.get("nodeName") or "")
        for one in slices
        if _label(one, MANAGED_BY) == ENDPOINT_CONTROLLER
        for endpoint in one.raw.get("endpoints") or ()
        if is_ready(endpoint)
    )
    return frozenset(filter(None, found))


def ready_endpoints(slices: Iterable[StoredObject]) -> frozenset[ReadyEndpoint]:
    """List the ready pods in the slices that Kubernetes' own controller wrote."""
    return frozenset(
        ReadyEndpoint(str(port.get("name") or ""), str(endpoint["addresses"][0]), int(port["port"]))
        for one in slices
        if _label(one, MANAGED_BY) == ENDPOINT_CONTROLLER
        for port in one.raw.get("ports") or ()
        if port.get("port")
        for endpoint in one.raw.get("endpoints") or ()
        if is_ready(endpoint) and endpoint.get("addresses")
    )


def owner_of(service: StoredObject | None) -> tuple[ObjectRef, str] | None:
    """Return the model that a Service was made for, with its uid; None for a Service that is somebody else's."""
    for one in (service.metadata.get("ownerReferences") or ()) if service else ():
        group = str(one.get("apiVersion") or "").partition("/")[0]
        if (group, one.get("kind")) == (MODEL_DEPLOYMENT.group, MODEL_DEPLOYMENT.kind) and one.get("controller"):
            assert service is not None
            return ObjectRef(MODEL_DEPLOYMENT.kind, service.ref.namespace, str(one.get("name"))), str(one.get("uid"))
    return None


def is_ready(endpoint: Raw) -> bool:
    """Whether an endpoint takes new connections; one that says nothing does (API reference, EndpointConditions)."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def annotation(stored: StoredObject | None, name: str) -> str:
    """Read an annotation; empty for none."""
    return str((stored.metadata.get("annotations") or {}).get(name) or "") if stored else ""


def selector_is_ours(service: StoredObject) -> bool:
    """Whether a replica of ours was who changed the selector of a Service last; it has to be read whole."""
    return any(
        one.get("manager") == FIELD_MANAGER
        and not one.get("subresource")
        and "f:selector" in (one.get("fieldsV1") or {}).get("f:spec", {})
        for one in service.metadata.get("managedFields") or ()
    )


def _label(stored: StoredObject, name: str) -> str:
    return str((stored.metadata.get("labels") or {}).get(name) or "")
