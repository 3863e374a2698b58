"""Consent across namespaces: which objects of other namespaces an object may refer to (docs/adr/0040).

A Service or a workload of another namespace may be referred to with the consent of that namespace alone. It is either a
ReferenceGrant of the Gateway API there, or an annotation on the Service or the workload, for each namespace that may:
`allow-from.beamlit.com/<namespace>: "true"`. What may not be referred to is treated as if it were not there, so that
nobody learns what another namespace has. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from controller.api.contract.route import LocalBackend, Route
from controller.api.kubernetes.objects import EndpointSlice, ReferenceGrant, Service, Workload
from controller.api.registry import KINDS, MODEL_DEPLOYMENT, REFERENCE_GRANT, SERVICE
from controller.api.schema.errors import InvalidObjectError
from controller.store.objects import ObjectRef, StoredObject

ALLOW_FROM = "allow-from.beamlit.com"
"""The prefix of the annotations that permit references; behind the slash is the namespace that may refer."""

AND_TAKEOVER = "takeover"
"""The value that permits to lead the Service's own clients elsewhere, too; `"true"` permits to refer to it, no more."""

# What the API server takes as a name (RFC 1123). Other text does not get into a command that somebody may copy.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class Permission(NamedTuple):
    """Objects of ours in `namespace` may refer to the object of this name, or, without a name, to all of the kind."""

    namespace: str
    group: str
    kind: str
    name: str


_NOTHING: frozenset[Permission] = frozenset()
"""One for all namespaces without a grant: whoever keeps what follows from it sees that it is the same."""


def permissions_of(grant: ReferenceGrant) -> Iterator[Permission]:
    """List what a ReferenceGrant permits to our objects; what it permits to other kinds is none of ours."""
    ours = (MODEL_DEPLOYMENT.group, MODEL_DEPLOYMENT.kind)
    for who in grant.spec.from_:
        if (who.group, who.kind) == ours:
            for what in grant.spec.to:
                yield Permission(who.namespace, what.group, what.kind, what.name)


def any_grant_in(namespace: str) -> ObjectRef:
    """Name all ReferenceGrants of a namespace at once, for those who depend on each of them."""
    return ObjectRef(REFERENCE_GRANT.kind, namespace, "")


class GrantTable:
    """What the ReferenceGrants of each namespace permit."""

    def __init__(self) -> None:
        self._grants: dict[str, dict[ObjectRef, StoredObject]] = {}
        self._permissions: dict[str, frozenset[Permission]] = {}

    def take(self, ref: ObjectRef, grant: StoredObject | None) -> None:
        """Take in a ReferenceGrant that is new or changed, or (None) gone."""
        self._permissions.pop(ref.namespace, None)
        grants = self._grants.setdefault(ref.namespace, {})
        grants.pop(ref, None)
        if grant:
            grants[ref] = grant
        if not grants:
            del self._grants[ref.namespace]

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """Return what the grants of a namespace permit to our objects; one that cannot be read permits nothing."""
        if namespace not in self._grants:
            return _NOTHING
        if namespace not in self._permissions:
            self._permissions[namespace] = frozenset(
                permission for one in self._grants[namespace].values() for permission in _permissions_of(one)
            )
        return self._permissions[namespace]


def _permissions_of(stored: StoredObject) -> Iterable[Permission]:
    try:
        return permissions_of(stored.parsed_as(ReferenceGrant))
    except InvalidObjectError:
        return ()


class Lookups(Protocol):
    """How to find the objects that a model refers to."""

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""

    def workload(self, ref: ObjectRef) -> Workload | None:
        """Find a Deployment or StatefulSet."""

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """List the EndpointSlices of a Service."""

    def is_at_gateway(self, service: ObjectRef) -> bool:
        """Say whether a Service was made for a model at the gateway."""


class GrantedLookups(Lookups, Protocol):
    """How to find the objects of all namespaces, and what these permit."""

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """Return what the ReferenceGrants of a namespace permit."""


@dataclass(frozen=True, slots=True)
class View:
    """What objects of one namespace may refer to: everything in it, and what other namespaces permit.

    Where consent is not `needed`, since all namespaces are one user's, that is everything.
    """

    everything: GrantedLookups
    namespace: str
    needed: bool = True

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""
        found = self.everything.service(namespace, name)
        return found if found and self._may_see(service_ref(namespace, name), found) else None

    def workload(self, ref: ObjectRef) -> Workload | None:
        """Find a Deployment or StatefulSet."""
        found = self.everything.workload(ref)
        return found if found and self._may_see(ref, found) else None

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """List the EndpointSlices of a Service."""
        return self.everything.slices(namespace, service) if self.permits(service_ref(namespace, service)) else ()

    def is_at_gateway(self, service: ObjectRef) -> bool:
        """Say whether a Service was made for a model at the gateway."""
        return self.permits(service) and self.everything.is_at_gateway(service)

    def slices_behind(self, local: LocalBackend) -> Iterable[EndpointSlice]:
        """List the EndpointSlices that replicas are read from; whose they are is a matter of the Service in front.

        Those of a shadow may come later than it, or go before the route that has it: then they are the Service's own.
        """
        if not self.permits(service_ref(local.namespace, local.clients_service)):
            return ()
        return self.everything.slices(local.namespace, local.service) or self.everything.slices(
            local.namespace, local.clients_service
        )

    def permits(self, ref: ObjectRef) -> bool:
        """Say whether a Service or a workload may be referred to, whether it is there or not."""
        if ref.kind == SERVICE.kind:
            return self._may_see(ref, self.everything.service(ref.namespace, ref.name))
        return self._may_see(ref, self.everything.workload(ref))

    def permits_route(self, route: Route) -> bool:
        """Say whether a route may go on to lead to its Service."""
        return self.permits(service_ref(route.local.namespace, route.local.clients_service))

    def is_foreign(self, ref: ObjectRef) -> bool:
        """Say whether consent is needed for a reference."""
        return self.needed and ref.namespace != self.namespace

    def _may_see(self, ref: ObjectRef, found: Service | Workload | None) -> bool:
        if not self.is_foreign(ref):
            return True
        return may_refer(self.namespace, ref, found, self.everything.permissions(ref.namespace))


def may_refer(namespace: str, ref: ObjectRef, found: Service | Workload | None, granted: frozenset[Permission]) -> bool:
    """Say whether objects of another namespace than its own may refer to an object, which was `found` or is not there.

    `granted` is what the ReferenceGrants of its own namespace permit.
    """
    if found and found.metadata.annotations.get(f"{ALLOW_FROM}/{namespace}") in ("true", AND_TAKEOVER):
        return True
    kind = KINDS.get(ref.kind)
    return kind is not None and any(
        Permission(namespace, kind.group, kind.kind, name) in granted for name in (ref.name, "")
    )


def service_ref(namespace: str, name: str) -> ObjectRef:
    """Name a Service."""
    return ObjectRef(SERVICE.kind, namespace, name)


def not_permitted(ref: ObjectRef, namespace: str) -> str:
    """Say that a reference from a namespace is not permitted, and by which command it would be.

    The words are the same whether the object is there or not.
    """
    words = f"{ref} does not permit references from namespace {namespace}, or its own namespace is not watched"
    if not (_NAME.fullmatch(ref.namespace) and _NAME.fullmatch(ref.name)):
        return words
    command = f"kubectl -n {ref.namespace} annotate {ref.kind.lower()} {ref.name} --overwrite"
    return f"{words}; to permit them: `{command} {ALLOW_FROM}/{namespace}=true`"
