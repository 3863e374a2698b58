"""The EndpointSlices that lead clients of a taken-over Service to the gateway, and past it. Pure.

What is in them follows from the slices of the gateway's Service and of the shadow alone: every replica of the
controller writes the same, in any order. None has an owner: garbage collection never takes one away. But those of a
Service that is itself owned by a model (`gateway_service`) go with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.api.kubernetes.endpoints import ENDPOINT_CONTROLLER
from controller.api.kubernetes.fronting import CONTROLLER_CLASS, SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME
from controller.api.registry import ENDPOINT_SLICE, SERVICE
from controller.frontend.service_facts import Raw, ServiceFacts, owner_of
from controller.runtime.writes import Verb, Write, WrittenBy
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Precondition

# What is copied of an endpoint; who owns the address (`targetRef`) is another namespace's matter.
_COPIED = ("addresses", "conditions", "nodeName", "zone")
_OF_PORT = ("name", "protocol", "port", "appProtocol")


@dataclass(frozen=True, slots=True)
class SliceChanges:
    """What brings our slices up to date: `added` are those that are missing or differ, `removed` those too many."""

    added: tuple[Write, ...]
    removed: tuple[Write, ...]

    @property
    def writes(self) -> tuple[Write, ...]:
        """All of them: what is added comes before what is removed."""
        return (*self.added, *self.removed)


def slice_changes(facts: ServiceFacts, fronted: Mapping[str, int]) -> SliceChanges:
    """Compare our slices of the Service with those it shall have.

    `fronted` are the Service's ports that lead to the gateway, by name, with the gateway's port; the others lead to
    the pods.
    """
    wanted = {one["metadata"]["name"]: one for one in (*_to_gateway(facts, fronted), *_to_pods(facts, fronted))}
    present = {one.ref.name: one for one in facts.own_slices}
    added = [_write(facts, wanted[name], present.get(name)) for name in sorted(wanted)]
    return SliceChanges(
        tuple(one for one in added if one),
        tuple(delete(present[name]) for name in sorted(present.keys() - wanted.keys())),
    )


def leads_to_gateway(facts: ServiceFacts, port_name: str, port: int) -> bool:
    """Whether a slice of ours leads clients of this port of the Service to this port of the gateway."""
    return any(
        (given.get("name") or "", given.get("port")) == (port_name, port)
        for one in facts.own_slices
        for given in one.raw.get("ports") or ()
    )


def delete(stored: StoredObject) -> Write:
    """Return the deletion of an object as it was seen."""
    return Write(Verb.DELETE, stored.ref, precondition=Precondition.unchanged(stored), by=WrittenBy.ANY_REPLICA)


def _write(facts: ServiceFacts, wanted: Raw, present: StoredObject | None) -> Write | None:
    ref = ObjectRef(ENDPOINT_SLICE.kind, facts.key.namespace, wanted["metadata"]["name"])
    if present is None:
        return Write(Verb.CREATE, ref, wanted, by=WrittenBy.ANY_REPLICA)
    if _content(present.raw) == _content(wanted):
        return None
    changes = {
        "metadata": {"labels": wanted["metadata"]["labels"]},
        "endpoints": wanted["endpoints"],
        "ports": wanted["ports"],
    }
    return Write(Verb.PATCH, ref, changes, Precondition.unchanged(present), WrittenBy.ANY_REPLICA)


def _content(raw: Raw) -> tuple[Any, ...]:
    """Return what of a slice counts, whatever the API server adds to it."""
    labels = raw["metadata"].get("labels") or {}
    ports = [{name: port[name] for name in _OF_PORT if port.get(name)} for port in raw.get("ports") or ()]
    endpoints = [
        {name: one[name] for name in (*_COPIED, "hints") if one.get(name)} for one in raw.get("endpoints") or ()
    ]
    return raw.get("addressType"), endpoints, ports, {name: labels.get(name) for name in (SERVICE_NAME, MANAGED_BY)}


def _to_gateway(facts: ServiceFacts, fronted: Mapping[str, int]) -> Iterator[Raw]:
    """Copy the slices of the gateway: who is ready, draining or gone there is so for the Service's clients too."""
    for source in facts.gateway:
        endpoints = [_copied(one, facts) for one in source.raw.get("endpoints") or () if one.get("addresses")]
        if source.raw.get("addressType") not in facts.families or not endpoints:
            continue
        for port_name, number in sorted(fronted.items()):
            port = {"name": port_name, "protocol": "TCP", "port": number, **_app_protocol(facts, port_name)}
            yield _slice(facts, f"gateway {port_name} {source.ref.name}", source, endpoints, [port])


def _to_pods(facts: ServiceFacts, fronted: Mapping[str, int]) -> Iterator[Raw]:
    """Copy what Kubernetes wrote for the shadow, as far as it is about ports that do not lead to the gateway."""
    for source in facts.shadow_slices:
        if (source.metadata.get("labels") or {}).get(MANAGED_BY) != ENDPOINT_CONTROLLER:
            continue
        ports = [
            {name: port[name] for name in _OF_PORT if port.get(name) is not None}
            for port in source.raw.get("ports") or ()
            if (port.get("name") or "") not in fronted
        ]
        endpoints = [_copied(one, facts) for one in source.raw.get("endpoints") or () if one.get("addresses")]
        if ports and endpoints and source.raw.get("addressType") in facts.families:
            yield _slice(facts, f"pods {source.ref.name}", source, endpoints, ports)


def _copied(endpoint: Raw, facts: ServiceFacts) -> Raw:
    return {**{name: endpoint[name] for name in _COPIED if name in endpoint}, **_hints(endpoint, facts)}


def _hints(endpoint: Raw, facts: ServiceFacts) -> Raw:
    """Write the hints that the Service asks for, as the endpoint controller does: an endpoint is for its own zone.

    For `topology-mode: Auto` it shares endpoints out by the CPUs of each zone; without hints all are used by all.
    """
    spec = facts.service.raw.get("spec", {}) if facts.service else {}
    zone, node = endpoint.get("zone"), endpoint.get("nodeName")
    match spec.get("trafficDistribution"):
        case "PreferClose" | "PreferSameZone" if zone:
            return {"hints": {"forZones": [{"name": zone}]}}
        case "PreferSameNode" if zone and node:
            return {"hints": {"forZones": [{"name": zone}], "forNodes": [{"name": node}]}}
    return {}


def _app_protocol(facts: ServiceFacts, port_name: str) -> Raw:
    ports = facts.service.raw.get("spec", {}).get("ports") or () if facts.service else ()
    found = next((one.get("appProtocol") for one in ports if (one.get("name") or "") == port_name), None)
    return {"appProtocol": found} if found else {}


def _slice(facts: ServiceFacts, what: str, source: StoredObject, endpoints: Sequence[Raw], ports: Sequence[Raw]) -> Raw:
    digest = hashlib.blake2b(what.encode(), digest_size=6).hexdigest()
    labels = {SERVICE_NAME: facts.key.name, MANAGED_BY: SLICES_OF}
    if facts.controller_class:
        labels[CONTROLLER_CLASS] = facts.controller_class
    metadata = {"namespace": facts.key.namespace, "name": f"{facts.key.name}-beamlit-{digest}", "labels": labels}
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {**metadata, **_owned_by(facts.service)},
        "addressType": source.raw["addressType"],
        "endpoints": endpoints,
        "ports": ports,
    }


def _owned_by(service: StoredObject | None) -> Raw:
    if service is None or owner_of(service) is None:
        return {}
    owner = {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, "name": service.ref.name, "uid": service.uid}
    return {"ownerReferences": [owner]}
