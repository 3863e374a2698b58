"""How clients of a Service reach its models: what is known of the Service, and what each model is told of it. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from controller.api.contract.route import LocalBackend, Route
from controller.api.contract.status import TakeoverStatus
from controller.api.kubernetes.fronting import shadow_name
from controller.api.registry import SERVICE
from controller.api.timing import REAL, TakeoverTiming
from controller.frontend.gateway_service import AT_GATEWAY, GatewayServiceFacts, gateway_service_step
from controller.frontend.gateway_slices import leads_to_gateway
from controller.frontend.service_facts import FrontedRoute, ServiceFacts, Stood, annotation, follows_shadow
from controller.frontend.takeover import CONTESTED, next_step, why_not
from controller.intent.consent import ALLOW_FROM, AND_TAKEOVER
from controller.observe.index import ObjectIndex, StoredIntent, service_in_route
from controller.store.objects import ObjectRef, StoredObject

GATEWAY_NOT_CONNECTED = "GatewayNotConnected"
"""The reason of `Fronted` while a gateway that is ready gets no configuration: no Service begins to lead there."""

# So many Services that a model owns and does not ask for are removed in one step.
_REMOVED_AT_ONCE = 10

Problem = tuple[str, str]
"""Why a Service cannot be written, as a reason and in words."""

Problems = Callable[[ObjectRef], Problem | None]


def no_problems(_: ObjectRef) -> None:
    """Say that whatever is to be written can be."""


@dataclass(frozen=True, slots=True)
class TakeoverRules:
    """Where the gateway is that Services are led to (None: nowhere), and who takes them over.

    `controller` is the name by which statuses are written, empty for one that changes with each start. `problems` says
    what keeps this replica from writing a Service.
    """

    gateway: ObjectRef | None = None
    controller_class: str = ""
    controller: str = ""
    needs_consent: bool = True
    problems: Problems = no_problems
    timing: TakeoverTiming = field(default=REAL.takeover)


@dataclass(frozen=True, slots=True)
class Fronting:
    """How clients reach one model: whether they are led to the gateway by their own Service, and why or why not.

    With `has_own_name` they are led there by a Service that was made for it.
    `takeover` is the Service that shall do so, None when it shall be as its owner wrote it. `reason` and `message` are
    those of the condition Fronted.
    """

    takeover: TakeoverStatus | None
    is_taken_over: bool
    reason: str
    message: str
    has_own_name: bool = False

    @property
    def leads_clients(self) -> bool:
        """Whether some Service leads clients to the gateway."""
        return self.is_taken_over or self.has_own_name


def service_of(local: LocalBackend) -> ObjectRef:
    """Name the Service that clients know."""
    return ObjectRef(SERVICE.kind, local.namespace, local.clients_service)


def shadow_of(service: ObjectRef) -> ObjectRef:
    """Name the shadow of a Service."""
    return ObjectRef(SERVICE.kind, service.namespace, shadow_name(service.name))


def services_in(status: Mapping[str, object]) -> frozenset[ObjectRef]:
    """Name the Services that a stored status is about: the one that is taken over, and the one that its route has."""
    takeover, found = status.get("takeover"), {service_in_route(status)}
    if isinstance(takeover, Mapping):
        namespace, name = takeover.get("namespace"), takeover.get("service")
        if isinstance(namespace, str) and isinstance(name, str):
            found.add(ObjectRef(SERVICE.kind, namespace, name))
    return frozenset(one for one in found if one)


def facts_of(index: ObjectIndex, key: ObjectRef, rules: TakeoverRules) -> ServiceFacts:
    """Bring together what is known of a Service."""
    shadow = shadow_of(key)
    routes = (_fronted_route(index, model, key, rules) for model in index.fronting(key))
    return replace(
        _facts(index, key, rules),
        shadow=index.stored(shadow),
        shadow_slices=index.stored_slices(shadow),
        routes=tuple(one for one in routes if one),
    )


def _facts(index: ObjectIndex, key: ObjectRef, rules: TakeoverRules) -> ServiceFacts:
    """Bring together what is known of a Service itself, whoever fronts it."""
    return ServiceFacts(
        key=key,
        service=index.stored(key),
        slices=index.stored_slices(key),
        gateway_service=rules.gateway,
        gateway=index.stored_slices(rules.gateway) if rules.gateway else (),
        controller_class=rules.controller_class,
        controller=rules.controller,
    )


def _fronted_route(index: ObjectIndex, model: ObjectRef, key: ObjectRef, rules: TakeoverRules) -> FrontedRoute | None:
    known = index.intent(model)
    route = known.status.route if known else None
    if known is None or route is None or service_of(route.local) != key:
        return None
    asked, programmed = known.status.takeover, known.status.condition("Programmed")
    is_deleted = "deletionTimestamp" in known.stored.metadata
    # A status may be written by others than us: consent is asked for again.
    is_permitted = _may_take_over(model, key, index.stored(key), rules)
    return FrontedRoute(
        model=known.stored,
        port=route.port,
        port_name=route.local.port_name,
        wanted=asked is not None and is_permitted and names_port_of(asked, route.local),
        # Nobody moves the route of a model that cannot be read: it goes with the model, and must not keep it.
        follows_shadow=route.local.fronted == key.name and not (is_deleted and known.intent is None),
        programmed=programmed is not None and programmed.status == "True",
        written_by=known.status.controller or "",
    )


def _may_take_over(model: ObjectRef, key: ObjectRef, service: StoredObject | None, rules: TakeoverRules) -> bool:
    """Whether the owner of a Service lets a model of this namespace have its clients (docs/adr/0051)."""
    is_own = model.namespace == key.namespace or not rules.needs_consent
    return is_own or annotation(service, f"{ALLOW_FROM}/{model.namespace}") == AND_TAKEOVER


def _not_permitted(known: StoredIntent, facts: ServiceFacts, rules: TakeoverRules) -> Problem | None:
    key, namespace = facts.key, known.ref.namespace
    if _may_take_over(known.ref, key, facts.service, rules):
        return None
    return (
        "TakeoverNotPermitted",
        f"{key} permits references from namespace {namespace}, not that its own clients are led to the gateway; to "
        f"permit that: `kubectl -n {key.namespace} annotate service {key.name} --overwrite "
        f"{ALLOW_FROM}/{namespace}={AND_TAKEOVER}`, or set spec.frontend to Gateway",
    )


def names_port_of(asked: TakeoverStatus, local: LocalBackend) -> bool:
    """Whether the clients that shall be led to the gateway are those of the port that a model serves."""
    return asked == TakeoverStatus(namespace=local.namespace, service=local.clients_service, port_name=local.port_name)


def fronting_of(
    known: StoredIntent, local: LocalBackend, facts: ServiceFacts, rules: TakeoverRules, now: datetime
) -> Fronting:
    """Say how clients reach a model that serves, or is about to serve, these replicas."""
    refusal = _not_asked(known) or _not_permitted(known, facts, rules) or why_not(facts, now, rules.timing)
    refusal = refusal or _not_http(local, facts) or _still_contested(known)
    if refusal is None and facts.is_of_another:
        refusal = ("OtherController", f"{facts.key} is fronted by another controller")
    mine = next((one for one in facts.routes if one.model.ref == known.ref), None)
    if refusal:
        problem = rules.problems(facts.key)
        if mine and leads_to_gateway(facts, mine.port_name, mine.port):
            words = f"{refusal[1]}; {problem[1] if problem else 'its Service is about to be as it was'}"
            return Fronting(None, facts.is_narrowed, refusal[0], words)
        return Fronting(None, False, *refusal)
    asked = TakeoverStatus(namespace=facts.key.namespace, service=facts.key.name, port_name=local.port_name)
    if mine is None:
        return Fronting(asked, False, "Pending", "the model is about to be served")
    wanted = facts if mine.wanted else _with(facts, replace(mine, wanted=True))
    step = next_step(wanted, Stood(now), rules.timing)
    if step.is_taken_over and not leads_to_gateway(facts, mine.port_name, mine.port):
        return Fronting(asked, False, "Pending", "the port of the Service is about to lead to the gateway")
    if step.is_taken_over:
        return Fronting(asked, True, step.reason, step.message)
    if problem := rules.problems(facts.key):
        return Fronting(asked, facts.is_narrowed, *problem)
    return Fronting(asked, False, step.reason, step.message)


def gateway_service_facts(index: ObjectIndex, known: StoredIntent, rules: TakeoverRules) -> GatewayServiceFacts | None:
    """Bring together what is known of the Service that a model has at the gateway; None if it cannot be read."""
    if known.intent is None:
        return None
    asked, route = known.intent.gateway_service, known.status.route
    programmed, fronted = known.status.condition("Programmed"), known.status.condition("Fronted")
    # Programmed counts the Envoys that are connected. Whether others are ready is told by who leads, of this very spec.
    may_begin = (
        fronted is not None
        and fronted.observed_generation == known.stored.generation
        and fronted.reason != GATEWAY_NOT_CONNECTED
    )
    owned = (index.stored(one) for one in index.removable(known.stored) if one != asked)
    return GatewayServiceFacts(
        model=known.stored,
        # It has no shadow: a Service that has the name of one is somebody else's, and so are its pods.
        named=_facts(index, asked, rules) if asked else None,
        others=tuple(itertools.islice(filter(None, owned), _REMOVED_AT_ONCE)),
        port=route.port if route else None,
        programmed=programmed is not None and programmed.status == "True" and may_begin,
        over_tls=known.intent.tls is not None,
    )


def at_gateway(index: ObjectIndex, known: StoredIntent, rules: TakeoverRules, away: str = "") -> Fronting | None:
    """Say how clients reach a model by a Service of its own at the gateway; None if it asks for none.

    `away` says which gateway gets no configuration: until it does, a Service that leads nowhere yet goes on so.
    """
    facts = gateway_service_facts(index, known, rules)
    if facts is None or facts.named is None:
        return None
    step = gateway_service_step(facts)
    if step.writes and (problem := rules.problems(known.ref)):
        return Fronting(None, False, *problem)
    if away and step.reason == "Pending" and not facts.named.own_slices:
        return Fronting(None, False, GATEWAY_NOT_CONNECTED, away)
    return Fronting(None, False, step.reason, step.message, has_own_name=step.reason == AT_GATEWAY)


def _with(facts: ServiceFacts, route: FrontedRoute) -> ServiceFacts:
    others = (one for one in facts.routes if one.model.ref != route.model.ref)
    return replace(facts, routes=(*others, route))


def _not_asked(known: StoredIntent) -> Problem | None:
    intent = known.intent
    if intent is None:
        return "Invalid", "the model cannot be read"
    if "deletionTimestamp" in known.stored.metadata:
        return "Deleted", "the model is being deleted"
    if not intent.terms.enabled:
        return "Disabled", "spec.enabled is false: clients reach the pods by their Service"
    if intent.frontend not in (None, "Takeover"):
        return (
            "NotAsked",
            f"spec.frontend is {intent.frontend}: clients call the gateway, and the Service is left alone",
        )
    return None


_HTTP = frozenset({"http", "http2", "h2c", "ws", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"})


def _not_http(local: LocalBackend, facts: ServiceFacts) -> Problem | None:
    """Say that clients of the port speak something that the gateway does not: it takes HTTP without TLS."""
    ports = facts.service.raw.get("spec", {}).get("ports") or () if facts.service else ()
    port: Mapping[str, Any] = next((one for one in ports if (one.get("name") or "") == local.port_name), {})
    protocol, check = str(port.get("appProtocol") or ""), local.health_check
    if protocol:
        why = "" if protocol.lower() in _HTTP else f"has the appProtocol {protocol}"
    elif check and check.tls:
        why = "is asked over HTTPS by the readiness probe of its pods"
    elif local.port_name.split("-")[0] in ("https", "tls"):
        why = "has the name of one that speaks TLS"
    else:
        why = "is the port of HTTPS" if port.get("port") == 443 else ""
    if not why:
        return None
    return (
        "NotFrontable",
        f"port {port.get('port')} of Service {facts.key.namespace}/{facts.key.name} {why}, and the gateway takes HTTP "
        "without TLS, so calls of its clients would fail. If they speak that, set appProtocol: http on the port, "
        "else name another port in spec.serviceRef or set spec.frontend to Gateway, which leaves the Service alone",
    )


def _still_contested(known: StoredIntent) -> Problem | None:
    """What was given up stays so until somebody edits the spec: who contests has not gone away by himself."""
    before = known.status.condition("Fronted")
    if before and before.reason == CONTESTED and before.observed_generation == known.stored.generation:
        return before.reason, before.message
    return None


def behind(local: LocalBackend, facts: ServiceFacts, before: Route | None, *, wanted: bool) -> LocalBackend:
    """Say whose slices the replicas are read from: those of the Service that clients know, or of its shadow."""
    was = before.local if before else None
    following = was is not None and was.fronted is not None and service_of(was) == facts.key
    if follows_shadow(facts, following=following, wanted=wanted):
        return local.model_copy(update={"service": facts.shadow_ref.name, "fronted": facts.key.name})
    return local.model_copy(update={"service": facts.key.name, "fronted": None})
