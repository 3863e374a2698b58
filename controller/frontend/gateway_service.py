"""The Service that a model has at the gateway (`spec.gatewayService`): what is written next. Pure.

::

    clients -> Service NAME, port 80 (443 with TLS) -> our slices of it -> gateway, at the port of the model

It has no selector: its EndpointSlices are ours, copies of the gateway's. The model owns it (`ownerReferences`), so it
goes with the model, whether a controller runs or not. What has the name and is not owned by the model is left alone.

Its type, its annotations and everything else that is not named here stay as somebody sets them: whoever may write
Services there may make it a load balancer. What of that, or beside our slices, leads clients elsewhere is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.api.kubernetes.endpoints import MIRRORING_CONTROLLER
from controller.api.kubernetes.fronting import CONTROLLER_CLASS
from controller.api.kubernetes.objects import MANAGED_BY
from controller.api.registry import MODEL_DEPLOYMENT, SERVICE
from controller.frontend.claims import HTTP_PORT
from controller.frontend.gateway_slices import delete, leads_to_gateway, slice_changes
from controller.frontend.service_facts import ServiceFacts, is_ready, missing_gateways, owner_of
from controller.frontend.takeover import TakeoverStep
from controller.runtime.writes import Verb, Write, WrittenBy
from controller.store.objects import StoredObject
from controller.store.protocol import Precondition

AT_GATEWAY = "GatewayService"
"""The reason of `Fronted` when all is done."""

OTHER_ENDPOINTS = "OtherEndpoints"
"""The reason of `Fronted` while clients are led to the gateway and elsewhere, too."""

_NAME = "http"
_HTTPS_PORT = 443
_NO_GATEWAY = "the controller knows no gateway to lead clients to (its option --gateway-service, or proxyService)"


@dataclass(frozen=True, slots=True)
class GatewayServiceFacts:
    """What is known of the Service that a model has at the gateway.

    `named` is what is known of the Service of the name that it asks for, None if it asks for none; `others` are
    Services that it owns under another name, which are removed next. `port` is the gateway's that serves the model,
    None while none does, `programmed` says that every Envoy has it so. `over_tls` says that clients speak TLS with it.
    """

    model: StoredObject
    named: ServiceFacts | None
    others: tuple[StoredObject, ...] = ()
    port: int | None = None
    programmed: bool = False
    over_tls: bool = False

    @property
    def service_port(self) -> int:
        """The port of the Service: that of HTTP or of HTTPS."""
        return _HTTPS_PORT if self.over_tls else HTTP_PORT

    @property
    def ports(self) -> list[dict[str, Any]]:
        """The ports of the Service, as they are written."""
        spoken = "https" if self.over_tls else "http"
        return [{"name": _NAME, "protocol": "TCP", "port": self.service_port, "appProtocol": spoken}]


def gateway_service_step(facts: GatewayServiceFacts) -> TakeoverStep:
    """Plan what is done next about the Service of a model at the gateway."""
    if "deletionTimestamp" in facts.model.metadata:
        return TakeoverStep("Deleted", "the model is being deleted, and its Service at the gateway with it")
    needless = tuple(delete(one) for one in facts.others)
    named = facts.named
    if named is None:
        return TakeoverStep("NotAsked", "", needless)
    name = f"Service {named.key.namespace}/{named.key.name}"
    if named.gateway_service is None:
        return TakeoverStep("NoGateway", _NO_GATEWAY, needless)
    if named.service is None:
        if left := _left_behind(named):
            words = f"{name} is made once Kubernetes has removed what was behind one of that name: {left[0].ref}"
            return TakeoverStep("Pending", words, needless)
        return TakeoverStep("Pending", f"{name} is made", (_create(facts, named), *needless))
    owner = owner_of(named.service)
    if owner != (facts.model.ref, facts.model.uid):
        if owner and owner[0] == facts.model.ref:
            words = f"{name} is that of a former model of this name: it is removed with that"
            return TakeoverStep("Pending", words, needless)
        words = f"{name} is there already, and was not made for this model: give spec.gatewayService another name"
        return TakeoverStep("NameTaken", words, needless)
    return _led(facts, named, named.service, needless)


def _led(
    facts: GatewayServiceFacts, named: ServiceFacts, service: StoredObject, needless: tuple[Write, ...]
) -> TakeoverStep:
    """Lead clients of the Service that is the model's to the gateway, or say why they are not."""
    name = f"Service {named.key.namespace}/{named.key.name}"
    if refusal := _leads_nowhere(facts, service):
        return TakeoverStep("NotFrontable", f"{name} {refusal}", needless)
    if changes := _changes(facts, service):
        patch = Write(Verb.PATCH, named.key, changes, Precondition.unchanged(service), WrittenBy.ANY_REPLICA)
        return TakeoverStep("Pending", f"{name} gets its port back", (patch, *needless))
    port = _port(facts, named)
    # Whoever gave it a selector for a while left what Kubernetes wrote then: nobody else takes that away.
    needless = (*(delete(one) for one in named.slices_of_kubernetes), *needless)
    writes = (*slice_changes(named, {} if port is None else {_NAME: port}).writes, *needless)
    if port is None:
        return TakeoverStep("Pending", f"{name} waits until every Envoy serves the model", writes)
    if missing := missing_gateways(named):
        return TakeoverStep("GatewayNotReady", missing, writes)
    if not leads_to_gateway(named, _NAME, port):
        return TakeoverStep("Pending", f"{name} is about to lead to the gateway", writes)
    if others := _beside(named):
        return TakeoverStep(OTHER_ENDPOINTS, f"some clients of {name} are led past the gateway: {others}", writes)
    return TakeoverStep(AT_GATEWAY, f"clients of {name}, port {facts.service_port}, are led to the gateway", writes)


def _port(facts: GatewayServiceFacts, named: ServiceFacts) -> int | None:
    """Return the gateway's port that clients are led to: the model's, once every Envoy has it, else that of before."""
    if facts.port is None:
        return None
    if facts.programmed or leads_to_gateway(named, _NAME, facts.port):
        return facts.port
    found = (given.get("port") for one in named.own_slices for given in one.raw.get("ports") or ())
    return next((port for port in found if isinstance(port, int)), None)


def _left_behind(named: ServiceFacts) -> tuple[StoredObject, ...]:
    """List what Kubernetes has not removed yet of a former Service of the name.

    One that is made in that moment is the same to it: the Endpoints of the former one stay, and are mirrored.
    """
    mirrored = (one for one in named.slices_of_others if _is_mirrored(one))
    return (*named.slices_of_kubernetes, *mirrored)


def _is_mirrored(one: StoredObject) -> bool:
    return bool((one.metadata.get("labels") or {}).get(MANAGED_BY) == MIRRORING_CONTROLLER)


def _leads_nowhere(facts: GatewayServiceFacts, service: StoredObject) -> str:
    """Say why nobody is led by our slices of a Service, and what to do; empty where clients are."""
    spec, ref = service.raw.get("spec", {}), service.ref
    again = f"`kubectl -n {ref.namespace} delete service {ref.name}` has it made again"
    if spec.get("type") == "ExternalName":
        return (
            f"was made of type ExternalName, another name of {spec.get('externalName') or 'a host'}: its clients are "
            f"led there. Set its type to ClusterIP; or {again}"
        )
    if spec.get("clusterIP") == "None":
        port = facts.service_port
        return f"was made headless: its clients call the gateways at port {port}, which is no model's own. {again}"
    return ""


def _beside(named: ServiceFacts) -> str:
    """Say which slices beside ours have endpoints for the Service's port, and what to do; empty if none have."""
    found = [one for one in named.slices_of_others if _leads(one, named.families)]
    if not found:
        return ""
    first, more = found[0].ref, f", and {len(found) - 1} more" if len(found) > 1 else ""
    if _is_mirrored(found[0]):
        # Of an Endpoints object that somebody wrote, or that Kubernetes left when the Service lost a selector.
        made, what = "is mirrored of its Endpoints", f"endpoints {named.key.name}"
    else:
        made, what = "has endpoints of its own", f"endpointslice {first.name}"
    return f"{first} {made}{more}; take that away: `kubectl -n {first.namespace} delete {what}`"


def _leads(one: StoredObject, families: tuple[str, ...]) -> bool:
    """Whether kube-proxy sends requests there: by the name of the port, to what is ready."""
    has_port = any((port.get("name") or "") == _NAME for port in one.raw.get("ports") or ())
    has_ready = any(is_ready(endpoint) for endpoint in one.raw.get("endpoints") or ())
    return one.raw.get("addressType") in families and has_port and has_ready


def _create(facts: GatewayServiceFacts, named: ServiceFacts) -> Write:
    # As gateways can be reached. Kubernetes writes an empty slice of a family that the Service has and no pod.
    found = {str(one.raw.get("addressType")) for one in named.gateway if one.raw.get("endpoints")}
    families = sorted(found & {"IPv4", "IPv6"})
    policy = {"ipFamilies": families, "ipFamilyPolicy": "RequireDualStack" if len(families) > 1 else "SingleStack"}
    owner = {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.kind,
        "name": facts.model.ref.name,
        "uid": facts.model.uid,
        "controller": True,
    }
    metadata: dict[str, Any] = {
        "namespace": named.key.namespace,
        "name": named.key.name,
        "ownerReferences": [owner],
        **({"labels": {CONTROLLER_CLASS: named.controller_class}} if named.controller_class else {}),
    }
    spec = {"ports": facts.ports, **(policy if families else {})}
    content = {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, "metadata": metadata, "spec": spec}
    return Write(Verb.CREATE, named.key, content, by=WrittenBy.ANY_REPLICA)


def _changes(facts: GatewayServiceFacts, service: StoredObject) -> Mapping[str, Any]:
    """Return what somebody changed of the Service that would lead its clients elsewhere, as it has to be."""
    spec = service.raw.get("spec", {})
    ports = [(one.get("name"), one.get("port")) for one in spec.get("ports") or ()]
    changes: dict[str, Any] = {}
    if ports != [(_NAME, facts.service_port)]:
        changes["ports"] = facts.ports
    if spec.get("selector"):
        changes["selector"] = None
    return {"spec": changes} if changes else {}
