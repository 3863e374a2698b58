"""Everything the controller watches, and which models an object concerns."""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from controller.api.contract.status import ModelDeploymentStatus
from controller.api.kubernetes.objects import EndpointSlice, Service, Workload
from controller.api.registry import MODEL_DEPLOYMENT, REFERENCE_GRANT, SERVICE, Program, watched_by
from controller.api.resources.model import ModelDeployment, class_of
from controller.api.schema.errors import FieldError, InvalidObjectError
from controller.api.schema.values import parse
from controller.decision import Memory
from controller.frontend.claims import Seniority
from controller.frontend.service_facts import owner_of
from controller.intent.consent import GrantTable, Permission, any_grant_in
from controller.intent.intent import Intent, intent_of_model
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch

MODEL = MODEL_DEPLOYMENT.kind
KINDS = watched_by(Program.CONTROLLER)

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class StoredIntent:
    """One object that can be served, at one version: as it is stored, what it asks for, the status it has, and what
    the decision remembers in it.

    `intent` is None when the store let in what does not fit the schema, and `errors` say why. Such an object is there
    all the same: it is not a deleted one.
    """

    stored: StoredObject
    intent: Intent | None
    errors: tuple[FieldError, ...]
    status: ModelDeploymentStatus
    memory: Memory

    @property
    def ref(self) -> ObjectRef:
        """Which object it is."""
        return self.stored.ref

    @property
    def seniority(self) -> Seniority:
        """How old it is."""
        return Seniority(str(self.stored.metadata["creationTimestamp"]), self.ref.namespace, self.ref.name)


class IndexChanges(NamedTuple):
    """What a batch changed: all objects that are new, changed or gone, and the models that they concern.

    A Service counts as changed when one of its EndpointSlices does.
    """

    objects: frozenset[ObjectRef]
    models: frozenset[ObjectRef]


class ObjectIndex:
    """The objects as they are now, and an index from each to the models that refer to it.

    Models of another `controller_class` are not there (None: all are).
    """

    def __init__(self, controller_class: str | None = None) -> None:
        self._class = controller_class
        self._cache = Cache()
        self._intents: dict[ObjectRef, StoredIntent] = {}
        self._concerns: dict[ObjectRef, set[ObjectRef]] = {}
        self._references: dict[ObjectRef, frozenset[ObjectRef]] = {}
        self._grants = GrantTable()
        # By a Service the models that have a route to its pods, as their statuses say, and the other way.
        self._fronting: dict[ObjectRef, list[ObjectRef]] = {}
        self._fronted: dict[ObjectRef, ObjectRef] = {}
        # Who owns a Service, with the uid; which Services models of a name own, and which of them may be removed.
        self._owners: dict[ObjectRef, tuple[ObjectRef, str]] = {}
        self._owned: dict[ObjectRef, list[ObjectRef]] = {}
        self._removable: dict[tuple[ObjectRef, str], list[ObjectRef]] = {}

    def apply(self, batch: Batch) -> frozenset[ObjectRef]:
        """Take in a batch and return the models to look at again."""
        return self.take(batch).models

    def take(self, batch: Batch) -> IndexChanges:
        """Take in a batch and return what changed."""
        concerned, objects = set[ObjectRef](), self._cache.apply(batch)
        for ref in objects:
            if ref.kind == MODEL:
                concerned |= self._note_model(ref)
            if ref.kind == SERVICE.kind:
                concerned |= self._note_owner(ref)
            if ref.kind == REFERENCE_GRANT.kind:
                self._grants.take(ref, self._cache.find(ref))
                ref = any_grant_in(ref.namespace)  # noqa: PLW2901
            concerned |= self._concerns.get(ref, set())
        return IndexChanges(objects, frozenset(concerned))

    def _note_model(self, ref: ObjectRef) -> set[ObjectRef]:
        """Forget what was read of a model before, and return it and whom the Service that it asks for concerns.

        That is, of those that it owns, one that it asks for now, or did before, and not both times.
        """
        before, found = self._intents.pop(ref, None), {ref}
        if was := self._fronted.pop(ref, None):
            _remove(self._fronting, was, ref)
        if (stored := self._cache.find(ref)) and (service := service_in_route(stored.status)):
            self._fronted[ref] = service
            bisect.insort(self._fronting.setdefault(service, []), ref)
        if ref in self._owned:
            for service in _asked_for(before) ^ _asked_for(self.intent(ref)):
                found |= self._concerns.get(service, set())
        return found

    def _note_owner(self, service: ObjectRef) -> set[ObjectRef]:
        """Take in for which model a Service was made, and return the models that it was, or was before."""
        stored = self._cache.find(service)
        found, before = owner_of(stored), self._owners.pop(service, None)
        if before:
            _remove(self._owned, before[0], service)
            _remove(self._removable, before, service)
        if found and stored:
            self._owners[service] = found
            bisect.insort(self._owned.setdefault(found[0], []), service)
            if not (stored.raw.get("spec") or {}).get("selector") and "deletionTimestamp" not in stored.metadata:
                bisect.insort(self._removable.setdefault(found, []), service)
        return {one[0] for one in (before, found) if one}

    def fronting(self, service: ObjectRef) -> Sequence[ObjectRef]:
        """Name the models that have a route to the pods of a Service, in order."""
        return self._fronting.get(service, ())

    def owned_by(self, model: ObjectRef) -> Sequence[ObjectRef]:
        """Name the Services that were made for a model of this name, in order: anybody may add any number of them."""
        return self._owned.get(model, ())

    def removable(self, model: StoredObject) -> Sequence[ObjectRef]:
        """Name those of the Services that this very model owns that select nothing and are not being deleted, in order.

        One with a selector has pods of its own: whoever wrote the owner there, it is not for us to remove.
        """
        return self._removable.get((model.ref, model.uid), ())

    def is_at_gateway(self, service: ObjectRef) -> bool:
        """Whether a Service was made for a model at the gateway (docs/adr/0058), and so has no pods.

        It is if the model that owns it asks for it, also while somebody gives it a selector; and if it selects nothing.
        One with pods may have a model as its owner all the same: then somebody wants it to go with the model.
        """
        stored, owner = self.stored(service), self._owners.get(service)
        if stored is None or owner is None:
            return False
        known = self.intent(owner[0])
        is_asked_for = known is not None and known.intent is not None and known.intent.gateway_service == service
        return is_asked_for or not stored.raw.get("spec", {}).get("selector")

    def refers(self, model: ObjectRef, to: Iterable[ObjectRef]) -> None:
        """Record what a model refers to, in place of what it referred to before."""
        references = frozenset(to)
        before = self._references.pop(model, frozenset())
        for ref in before - references:
            self._concerns[ref].discard(model)
            if not self._concerns[ref]:
                del self._concerns[ref]
        if references:
            self._references[model] = references
        for ref in references - before:
            self._concerns.setdefault(ref, set()).add(model)

    def concerned(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Name the models that refer to an object."""
        return frozenset(self._concerns.get(ref, ()))

    def stored(self, ref: ObjectRef) -> StoredObject | None:
        """Find an object as it is stored."""
        return self._cache.find(ref)

    def models(self) -> Iterable[ObjectRef]:
        """Name every ModelDeployment."""
        return [ref for ref, stored in self._cache.objects(MODEL).items() if self._is_ours(stored)]

    def _is_ours(self, stored: StoredObject) -> bool:
        return self._class is None or class_of(stored.raw) == self._class

    def intent(self, ref: ObjectRef) -> StoredIntent | None:
        """Find an object that can be served; None means that there is none."""
        stored = self._cache.find(ref)
        if stored is None or not self._is_ours(stored):
            return None
        known = self._intents.get(ref)
        if known is None or known.stored is not stored:
            self._intents[ref] = known = read_intent(stored)
        return known

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""
        return self._find(ObjectRef(SERVICE.kind, namespace, name), Service)

    def workload(self, ref: ObjectRef) -> Workload | None:
        """Find a Deployment or StatefulSet."""
        return self._find(ref, Workload)

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """Return what the ReferenceGrants of a namespace permit to objects that can be served."""
        return self._grants.permissions(namespace)

    def stored_slices(self, service: ObjectRef) -> tuple[StoredObject, ...]:
        """List the EndpointSlices of a Service as they are stored, whether they can be read or not."""
        return self._cache.slices_of(service.namespace, service.name)

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """List the EndpointSlices of a Service."""
        found = (self._find(one.ref, EndpointSlice) for one in self._cache.slices_of(namespace, service))
        return [one for one in found if one]

    def _find(self, ref: ObjectRef, schema: type[Value]) -> Value | None:
        stored = self._cache.find(ref)
        if stored is None:
            return None
        try:
            return stored.parsed_as(schema)
        except InvalidObjectError:
            # Of what models only refer to, a thing that cannot be read is a thing that is missing.
            return None


def _remove(lists: dict[Key, list[ObjectRef]], key: Key, ref: ObjectRef) -> None:
    """Remove an object from one of some lists that are kept in order, if it is there."""
    found = lists.get(key, [])
    at = bisect.bisect_left(found, ref)
    if found[at : at + 1] == [ref]:
        del found[at]
        if not found:
            del lists[key]


def _asked_for(known: StoredIntent | None) -> frozenset[ObjectRef]:
    """Name the Service that a model asks for at the gateway, if it does."""
    asked = known.intent.gateway_service if known and known.intent else None
    return frozenset((asked,) if asked else ())


def read_intent(stored: StoredObject) -> StoredIntent:
    """Read an object that can be served."""
    status = previous_status(stored)
    try:
        model = stored.parsed_as(ModelDeployment)
    except InvalidObjectError as error:
        return StoredIntent(stored, None, error.errors, status, _memory(status))
    return StoredIntent(stored, intent_of_model(model, stored.generation), (), status, _memory(status))


def service_in_route(status: Mapping[str, object]) -> ObjectRef | None:
    """Name the Service that the route in a stored status is about, as clients know it; None if it has none."""
    route = status.get("route")
    local = route.get("local") if isinstance(route, Mapping) else None
    if not isinstance(local, Mapping):
        return None
    namespace, name = local.get("namespace"), local.get("fronted") or local.get("service")
    if not (isinstance(namespace, str) and isinstance(name, str)):
        return None
    return ObjectRef(SERVICE.kind, namespace, name)


def _memory(status: ModelDeploymentStatus) -> Memory:
    """Read what the decision remembers; what another version or somebody's hand wrote there counts as nothing."""
    try:
        return parse(Memory, status.memory or {})
    except InvalidObjectError:
        return Memory()


def previous_status(stored: StoredObject) -> ModelDeploymentStatus:
    """Read the status back; what another version or somebody's hand wrote there, and cannot be read, counts as none."""
    legible: dict[str, Any] = dict(stored.status)
    try:
        return parse(ModelDeploymentStatus, legible)
    except InvalidObjectError as error:
        for field in {fault.path[0] for fault in error.errors if fault.path}:
            legible.pop(str(field), None)
    try:
        return parse(ModelDeploymentStatus, legible)
    except InvalidObjectError:
        return ModelDeploymentStatus()
