"""The objects of one watch, as they are known now."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.api.kubernetes.objects import SERVICE_NAME
from controller.api.registry import ENDPOINT_SLICE, SERVICE
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch


class Cache:
    """Applies the batches of one watch, in their order."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[ObjectRef, StoredObject]] = {}
        self._slices: dict[tuple[str, str], dict[ObjectRef, StoredObject]] = {}

    def objects(self, kind: str) -> Mapping[ObjectRef, StoredObject]:
        """All objects of a kind; a view that follows the cache while the kind has any."""
        return MappingProxyType(self._objects.get(kind, {}))

    def find(self, ref: ObjectRef) -> StoredObject | None:
        """One object, or None."""
        return self._objects.get(ref.kind, {}).get(ref)

    def slices_of(self, namespace: str, service: str) -> tuple[StoredObject, ...]:
        """The EndpointSlices of a Service, by its label `kubernetes.io/service-name`, in the order of their names."""
        found = self._slices.get((namespace, service), {})
        return tuple(found[ref] for ref in sorted(found))

    def apply(self, batch: Batch) -> frozenset[ObjectRef]:
        """Take a batch; give the objects that are new, at another version, or gone.

        A Service also counts when one of its EndpointSlices does, before or after the change.
        """
        gone = set(batch.deleted)
        if batch.complete:
            gone = {ref for held in self._objects.values() for ref in held} - {stored.ref for stored in batch.changed}
        touched: set[ObjectRef] = set()
        for stored in batch.changed:
            touched |= self._put(stored)
        for ref in gone:
            touched |= self._drop(ref)
        return frozenset(touched)

    def _put(self, stored: StoredObject) -> set[ObjectRef]:
        held = self.find(stored.ref)
        if held is not None and held.same_as(stored):
            return set()
        touched = self._drop(stored.ref) | _touched(stored)
        self._objects.setdefault(stored.ref.kind, {})[stored.ref] = stored
        service = _service_of(stored)
        if service is not None:
            self._slices.setdefault(service, {})[stored.ref] = stored
        return touched

    def _drop(self, ref: ObjectRef) -> set[ObjectRef]:
        stored = self._objects.get(ref.kind, {}).pop(ref, None)
        if stored is None:
            return set()
        service = _service_of(stored)
        if service is not None:
            del self._slices[service][ref]
            if not self._slices[service]:
                del self._slices[service]
        return _touched(stored)


def _service_of(stored: StoredObject) -> tuple[str, str] | None:
    """The Service, by namespace and name, that an EndpointSlice belongs to."""
    labels = stored.metadata.get("labels") or {}
    name = labels.get(SERVICE_NAME) if stored.ref.kind == ENDPOINT_SLICE.kind else None
    return None if name is None else (stored.ref.namespace, str(name))


def _touched(stored: StoredObject) -> set[ObjectRef]:
    service = _service_of(stored)
    return {stored.ref, ObjectRef(SERVICE.kind, *service)} if service else {stored.ref}
