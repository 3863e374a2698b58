"""Taking over a Service, and giving it back: what is written next, from what is known of it. Pure.

A Service that is taken over leads its clients to the gateway, whose port for the model leads to the pods::

    clients -> Service S -> our slices of S -> gateway -> slices of the shadow of S -> pods

The shadow `S-beamlit` is a headless Service with the selector of S, so who is ready and who terminates stays what
Kubernetes says. The selector of S gets one key more (`beamlit.com/fronted`), which no pod has: Kubernetes empties its
own slices of S, and ours remain.

====================  =================================================================================================
the way in            then
====================  =================================================================================================
(the model)           it gets the finalizer: a deletion waits until S is as it was
(the shadow)          created, with the ports of the gateway that clients may be led to
(the route)           the leader lets it follow the shadow, once that has all pods; every Envoy acknowledges it
(our slices)          written: from here on both the pods and the gateway are behind S
(the selector)        narrowed: Kubernetes takes the pods out of S
(the fields)          the entry of ours in `managedFields` of S is removed: no apply of the owner conflicts with it
====================  =================================================================================================

====================  =================================================================================================
the way out           then
====================  =================================================================================================
(the selector)        widened: Kubernetes puts the pods into S again
(the fields)          no field of S is ours, as above
(our slices)          removed, once Kubernetes' own have every pod and kube-proxy had the time to see it
(the route)           free, once kube-proxy had the time to see that too
(the shadow)          removed once no route follows it, and with it everything that was remembered
(the model)           its finalizer goes
====================  =================================================================================================

Each step follows from what is there, so it does not matter which replica does it, or which did the one before and died.
What is not a part of the state (how long something has been so) only makes it wait longer.

`docs/adr/0043` says why; `docs/takeover.md` what owners see of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controller.api.kubernetes.fronting import (
    CONTROLLER_CLASS,
    FINALIZER,
    FRONTED_KEY,
    FRONTED_VALUE,
    GATEWAY_PORTS,
    NARROWED,
    RESETS,
    SHADOW_OF,
)
from controller.api.registry import SERVICE
from controller.api.timing import REAL, TakeoverTiming
from controller.frontend.gateway_slices import delete, leads_to_gateway, slice_changes
from controller.frontend.service_facts import (
    FrontedRoute,
    ServiceFacts,
    Stood,
    annotation,
    missing_gateways,
)
from controller.runtime.writes import Verb, Write, WrittenBy
from controller.store.objects import StoredObject
from controller.store.protocol import Precondition

TAKEN_OVER = "TakenOver"
CONTESTED = "TakeoverContested"


@dataclass(frozen=True, slots=True)
class TakeoverStep:
    """What is done next about one Service: the writes, in this order, or what is waited for.

    `reason` and `message` say in which state it is. `wait` are the seconds after which to look again though nothing
    happens. `confirmed` are the objects that have to be, right before the writes, what they were when this was planned:
    what a watch has not told yet must not cost a Service its endpoints. `if_ours` are written instead where a replica
    of ours was the last to change the selector of the Service: nobody contests it. `widens` says that clients get their
    pods back by it: that waits for no other write that failed.
    """

    reason: str
    message: str
    writes: tuple[Write, ...] = ()
    wait: float | None = None
    confirmed: tuple[StoredObject, ...] = ()
    if_ours: tuple[Write, ...] = ()
    widens: bool = False

    @property
    def is_taken_over(self) -> bool:
        """Whether clients of the Service are led to the gateway, and nothing but touching up is to be done."""
        return self.reason == TAKEN_OVER

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing of ours, nor shall be."""
        return self.reason == "Idle"


def next_step(facts: ServiceFacts, stood: Stood, timing: TakeoverTiming = REAL.takeover) -> TakeoverStep:
    """Plan what is done next about a Service."""
    if facts.is_of_another:
        return TakeoverStep("OtherController", f"{facts.key} is fronted by another controller")
    refusal = why_not(facts, stood.now, timing)
    if facts.wanted and refusal is None:
        return _towards_gateway(facts, stood, timing)
    return _towards_pods(facts, stood, timing, refusal)


def why_not(facts: ServiceFacts, now: datetime, timing: TakeoverTiming = REAL.takeover) -> tuple[str, str] | None:
    """Say why a Service cannot be taken over, as a reason and in words with what to do; None if it can be."""
    if facts.service is None:
        return "ServiceNotFound", f"{facts.key} does not exist"
    if facts.gateway_service is None:
        return (
            "NoGateway",
            "the controller knows no gateway to put before a Service (its option --gateway-service, or proxyService of "
            "its configuration): clients reach the model on the gateway's port alone, as with frontend: Gateway",
        )
    return _kind_refusal(facts) or _contest(facts, now, timing)


def _kind_refusal(facts: ServiceFacts) -> tuple[str, str] | None:
    assert facts.service is not None
    spec, name = facts.service.raw.get("spec", {}), f"Service {facts.key.namespace}/{facts.key.name}"
    instead = "call the gateway (frontend: Gateway)"
    if SHADOW_OF in (facts.service.metadata.get("labels") or {}):
        return "NotFrontable", f"{name} is the shadow of another Service: name that one in spec.serviceRef"
    if facts.key == facts.gateway_service or facts.selects_gateways:
        return "NotFrontable", f"{name} has the gateway's own pods: what is sent there would come back"
    if spec.get("type") == "ExternalName":
        return (
            "NotFrontable",
            f"{name} is of type ExternalName, another name of a host, and has no endpoints: {instead}",
        )
    if spec.get("clusterIP") == "None":
        return (
            "NotFrontable",
            f"{name} is headless: its clients ask the DNS for the pods and call them at the pods' own port. Give it a "
            f"cluster IP, or {instead}",
        )
    if other := [str(port.get("port")) for port in spec.get("ports") or () if port.get("protocol", "TCP") != "TCP"]:
        return (
            "NotFrontable",
            f"{name} has ports that are not TCP ({', '.join(other)}): put them into a Service of their own, or "
            f"{instead}",
        )
    if not facts.selector:
        return (
            "NotFrontable",
            f"{name} has no selector: its endpoints are written by somebody else. Give it a selector, or {instead}",
        )
    if facts.shadow is not None and facts.own_shadow is None:
        return (
            "NameTaken",
            f"{facts.shadow_ref} is needed for the pods of {name}, and is there already, as a Service of its own: "
            "rename it",
        )
    return None


def resets_of(
    shadow: StoredObject | None, now: datetime, timing: TakeoverTiming = REAL.takeover
) -> tuple[datetime, ...]:
    """Return when the selector was set back by others, lately."""
    moments = []
    for word in annotation(shadow, RESETS)[:1000].split(","):
        try:
            moment = datetime.fromisoformat(word)
        except ValueError:
            continue
        if moment.tzinfo and now - timedelta(seconds=timing.resets_within) < moment <= now:
            moments.append(moment)
    return tuple(moments)


def _contest(facts: ServiceFacts, now: datetime, timing: TakeoverTiming) -> tuple[str, str] | None:
    resets = resets_of(facts.own_shadow, now, timing)
    if len(resets) < timing.resets_tolerated:
        return None
    return (
        CONTESTED,
        f"somebody set the selector of Service {facts.key.namespace}/{facts.key.name} back {len(resets)} times within "
        f"{timing.resets_within / 60:.0f} minutes: it is left as it was. Let that tool leave "
        f"spec.selector[{FRONTED_KEY}] alone (docs/takeover.md), then change the spec of the model to try again",
    )


# The way in.


def _towards_gateway(facts: ServiceFacts, stood: Stood, timing: TakeoverTiming) -> TakeoverStep:
    missing = missing_gateways(facts)
    if facts.is_narrowed and missing:
        # Whatever else is to be done: nobody would answer.
        return TakeoverStep("GatewayNotReady", f"{missing}: clients reach the pods", _widened(facts), widens=True)
    if missing and not facts.is_in_use:
        return TakeoverStep("GatewayNotReady", missing)
    reason = TAKEN_OVER if facts.is_narrowed else "Pending"
    if without := [one for one in facts.wanted if not one.has_finalizer]:
        return TakeoverStep(reason, "the finalizer is set", tuple(_add_finalizer(one) for one in without))
    if facts.own_shadow is None:
        return TakeoverStep(reason, "the shadow Service is created", (_create_shadow(facts),))
    if changes := _shadow_changes(facts, stood, timing):
        return TakeoverStep(reason, "the shadow Service follows the Service", (changes,))
    if facts.is_narrowed:
        return _narrowed(facts, timing)
    return _wide(facts, stood, timing, missing)


def _narrowed(facts: ServiceFacts, timing: TakeoverTiming) -> TakeoverStep:
    """Keep our slices up to date, and give up what we own of the Service."""
    assert facts.service is not None
    assert facts.own_shadow is not None
    fronted = _fronted_ports(facts)
    words = _taken_over(facts, fronted)
    if writes := slice_changes(facts, fronted).writes:
        return TakeoverStep(TAKEN_OVER, words, writes)
    if annotation(facts.own_shadow, NARROWED) != facts.service.uid:
        return TakeoverStep(
            TAKEN_OVER, words, (_release_fields(facts), _note(facts.own_shadow, NARROWED, facts.service.uid))
        )
    return TakeoverStep(TAKEN_OVER, words, wait=_until_ports_are_free(facts, timing))


def _wide(facts: ServiceFacts, stood: Stood, timing: TakeoverTiming, missing: str) -> TakeoverStep:
    """Put the gateway behind the Service, and narrow its selector."""
    assert facts.service is not None
    assert facts.own_shadow is not None
    if mark := annotation(facts.own_shadow, NARROWED):
        forgotten = _forgotten(facts)
        if missing or mark != facts.service.uid:
            # It was widened by us, or is another Service of the name.
            return TakeoverStep(
                "GatewayNotReady" if missing else "Pending", missing or "another Service has its name", forgotten
            )
        resets = ",".join(one.isoformat() for one in (*resets_of(facts.own_shadow, stood.now, timing), stood.now))
        return TakeoverStep(
            "Pending",
            "the selector was set back by somebody, and is narrowed again",
            (_patch(facts.own_shadow, {"metadata": {"annotations": {NARROWED: None, RESETS: resets}}}),),
            if_ours=forgotten,
        )
    fronted = _fronted_ports(facts)
    changes = slice_changes(facts, fronted)
    if missing:
        # Who is gone is gone from our slices too.
        return TakeoverStep(
            "GatewayNotReady", f"{missing}: clients reach the pods", changes.writes if facts.own_slices else ()
        )
    if waiting := [one for one in facts.routes if not (one.follows_shadow and one.programmed)]:
        names = ", ".join(sorted(f"{one.model.ref.namespace}/{one.model.ref.name}" for one in waiting))
        return TakeoverStep(
            "Pending", f"every Envoy has to acknowledge that the pods are those of {facts.shadow_ref}: {names}"
        )
    if not fronted:
        return TakeoverStep("Pending", "no route leads to the gateway yet")
    if not facts.shadow_has_pods:
        return TakeoverStep("Pending", f"{facts.shadow_ref} does not have all pods yet")
    if changes.writes:
        return TakeoverStep("Pending", "the gateway is put behind the Service", changes.writes)
    # One that comes and goes costs each Service several writes, and its clients a moment, each time.
    steady_for = timing.gateway_steady_for * (1 << max(stood.losses - 1, 0))
    if stood.gateway < steady_for:
        often = f", and went away {stood.losses} times lately" if stood.losses > 1 else ""
        return TakeoverStep("Pending", f"the gateway has just become ready{often}", wait=steady_for - stood.gateway)
    return TakeoverStep(
        "Pending",
        "the selector is narrowed",
        (_select(facts, {FRONTED_KEY: FRONTED_VALUE}),),
        confirmed=(facts.service, facts.own_shadow, *facts.own_slices, *facts.gateway),
    )


def _fronted_ports(facts: ServiceFacts) -> dict[str, int]:
    """Return the Service's ports that lead to the gateway: those that do already, and those that every Envoy serves."""
    return {
        one.port_name: one.port
        for one in facts.wanted
        if one.port_name in _port_names(facts)
        and (leads_to_gateway(facts, one.port_name, one.port) or (one.follows_shadow and one.programmed))
    }


def _port_names(facts: ServiceFacts) -> frozenset[str]:
    ports = facts.service.raw.get("spec", {}).get("ports") or () if facts.service else ()
    return frozenset(str(one.get("name") or "") for one in ports)


def _taken_over(facts: ServiceFacts, fronted: dict[str, int]) -> str:
    assert facts.service is not None
    spec = facts.service.raw.get("spec", {})
    words = f"clients of Service {facts.key.namespace}/{facts.key.name} are led to the gateway"
    if others := sorted(_port_names(facts) - fronted.keys()):
        words = f"{words}; its other ports lead to the pods: {', '.join(others)}"
    if spec.get("sessionAffinity") == "ClientIP":
        words = f"{words}; its sessionAffinity keeps a client at one gateway, not at one pod"
    return words


def _until_ports_are_free(facts: ServiceFacts, timing: TakeoverTiming) -> float | None:
    used = facts.ports_in_slices | {one.port for one in facts.wanted}
    return timing.kube_proxy_within if facts.gateway_ports - used else None


# The way out.


def _towards_pods(
    facts: ServiceFacts, stood: Stood, timing: TakeoverTiming, refusal: tuple[str, str] | None
) -> TakeoverStep:
    reason, words = refusal or ("Idle", "")
    if not facts.is_in_use:
        return TakeoverStep(reason, words)
    reason, words = refusal or ("Restoring", f"{facts.key} is given back its pods")
    if facts.is_narrowed:
        return TakeoverStep(reason, words, _widened(facts, for_good=True), widens=True)
    shadow = facts.own_shadow
    if shadow and (changes := _shadow_changes(facts, stood, timing, keep_ports=True)):
        return TakeoverStep(reason, words, (changes,))
    if facts.own_slices:
        if facts.is_selecting and not facts.has_its_pods:
            return TakeoverStep(reason, f"{words}; its own EndpointSlices do not have all pods yet")
        if facts.is_selecting and stood.restored < timing.kube_proxy_within:
            return TakeoverStep(reason, words, wait=timing.kube_proxy_within - stood.restored)
        # Without a shadow they are the last that tells of the takeover.
        unremembered = (_release_fields(facts),) if facts.service and shadow is None else ()
        return TakeoverStep(
            reason,
            words,
            (*unremembered, *(delete(one) for one in facts.own_slices)),
            confirmed=(facts.service, *facts.slices_of_kubernetes) if facts.service else (),
        )
    if shadow is None:
        return TakeoverStep(reason, words)
    if facts.gateway_ports:
        rest = timing.kube_proxy_within - min(stood.unused_for(port) for port in facts.gateway_ports)
        if rest > 0:
            return TakeoverStep(reason, words, wait=rest)
        return TakeoverStep(reason, words, (_note(shadow, GATEWAY_PORTS, None),))
    if following := [one for one in facts.routes if one.follows_shadow]:
        names = ", ".join(sorted(f"{one.model.ref.namespace}/{one.model.ref.name}" for one in following))
        return TakeoverStep(reason, f"{words}; routes still follow its shadow: {names}")
    last = (_release_fields(facts),) if facts.service else ()
    return TakeoverStep(reason, words, (*last, delete(shadow)), confirmed=(facts.service,) if facts.service else ())


# Single writes.


def _widened(facts: ServiceFacts, *, for_good: bool = False) -> tuple[Write, ...]:
    """Give the Service its owner's selector, and give up the field.

    Unless it is `for_good`, a note of the shadow stays and has the field given up later: until then the field says
    whose word the selector is (`if_ours`).
    """
    widen = _select(facts, {FRONTED_KEY: None} if facts.selector else None)
    if not annotation(facts.own_shadow, NARROWED):
        return widen, _release_fields(facts)
    return (widen, *_forgotten(facts)) if for_good else (widen,)


def _select(facts: ServiceFacts, selector: Mapping[str, str | None] | None) -> Write:
    assert facts.service is not None
    return _patch(facts.service, {"spec": {"selector": selector}})


def _release_fields(facts: ServiceFacts) -> Write:
    return Write(Verb.RELEASE_FIELDS, facts.key, by=WrittenBy.ANY_REPLICA)


def _forgotten(facts: ServiceFacts) -> tuple[Write, ...]:
    """Give the fields of the Service up, and have the shadow forget that it was narrowed."""
    assert facts.own_shadow is not None
    return _release_fields(facts), _note(facts.own_shadow, NARROWED, None)


def _patch(stored: StoredObject, changes: dict[str, Any]) -> Write:
    return Write(Verb.PATCH, stored.ref, changes, Precondition.unchanged(stored), WrittenBy.ANY_REPLICA)


def _note(stored: StoredObject, name: str, value: str | None) -> Write:
    return _patch(stored, {"metadata": {"annotations": {name: value}}})


def _add_finalizer(route: FrontedRoute) -> Write:
    present = route.model.metadata.get("finalizers") or ()
    return _patch(route.model, {"metadata": {"finalizers": [*present, FINALIZER]}})


def finalizer_removal(model: StoredObject) -> Write | None:
    """Return what takes our finalizer off a model; None if it has none."""
    present = model.metadata.get("finalizers") or ()
    if FINALIZER not in present:
        return None
    # A null takes the list away: an empty one would stay.
    rest = [one for one in present if one != FINALIZER] or None
    return _patch(model, {"metadata": {"finalizers": rest}})


def _shadow_spec(facts: ServiceFacts) -> dict[str, Any]:
    """Return what of the Service the shadow has: what decides who is an endpoint, and how its ports are called."""
    assert facts.service is not None
    spec = facts.service.raw.get("spec", {})
    copied = ("name", "protocol", "port", "targetPort", "appProtocol")
    return {
        "selector": facts.selector,
        "ports": [{name: port[name] for name in copied if name in port} for port in spec.get("ports") or ()],
        "publishNotReadyAddresses": bool(spec.get("publishNotReadyAddresses")),
        "ipFamilies": list(facts.families),
        "ipFamilyPolicy": "SingleStack" if len(facts.families) == 1 else "RequireDualStack",
    }


def _create_shadow(facts: ServiceFacts) -> Write:
    labels = {SHADOW_OF: facts.key.name}
    if facts.controller_class:
        labels[CONTROLLER_CLASS] = facts.controller_class
    ports = _written_ports(frozenset(one.port for one in facts.wanted))
    metadata = {
        "namespace": facts.key.namespace,
        "name": facts.shadow_ref.name,
        "labels": labels,
        "annotations": {GATEWAY_PORTS: ports},
    }
    spec = {"clusterIP": "None", **_shadow_spec(facts)}
    content = {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, "metadata": metadata, "spec": spec}
    return Write(Verb.CREATE, facts.shadow_ref, content, by=WrittenBy.ANY_REPLICA)


def _shadow_changes(
    facts: ServiceFacts, stood: Stood, timing: TakeoverTiming, *, keep_ports: bool = False
) -> Write | None:
    """Return what brings the shadow up to date; None if nothing does."""
    shadow = facts.own_shadow
    if shadow is None or facts.service is None:
        return None
    wanted, changes, spec = _shadow_spec(facts), {}, shadow.raw.get("spec", {})
    if not facts.is_selecting:
        wanted = {}
    for name, value in wanted.items():
        present = spec.get(name, False if name == "publishNotReadyAddresses" else None)
        if present != value:
            # A patch merges maps: what is to go has to be named.
            gone = dict.fromkeys(present, None) if isinstance(present, dict) else {}
            changes[name] = {**gone, **value} if isinstance(value, dict) else value
    patch: dict[str, Any] = {"spec": changes} if changes else {}
    ports = facts.gateway_ports
    if not keep_ports:
        used = facts.ports_in_slices | {one.port for one in facts.wanted}
        ports = used | {port for port in ports - used if stood.unused_for(port) < timing.kube_proxy_within}
    if _written_ports(ports) != annotation(shadow, GATEWAY_PORTS) and not keep_ports:
        patch["metadata"] = {"annotations": {GATEWAY_PORTS: _written_ports(ports)}}
    return _patch(shadow, patch) if patch else None


def _written_ports(ports: frozenset[int]) -> str:
    return ",".join(map(str, sorted(ports)))
