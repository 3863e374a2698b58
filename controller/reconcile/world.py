"""Everything the controller watches, parsed once per version, and which models an object concerns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from controller.api.base import InvalidObjectError, parse
from controller.api.core import EndpointSlice, Service, Workload
from controller.api.model import ModelDeployment
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch

MODEL = "ModelDeployment"
KINDS = (MODEL, "Service", "EndpointSlice", "Deployment", "StatefulSet")

Value = TypeVar("Value", bound=BaseModel)


class World:
    """The objects as they are now, and an index from each to the models that refer to it."""

    def __init__(self) -> None:
        self._cache = Cache()
        self._parsed: dict[ObjectRef, tuple[str, BaseModel | None]] = {}
        self._concerns: dict[ObjectRef, set[ObjectRef]] = {}
        self._references: dict[ObjectRef, frozenset[ObjectRef]] = {}

    def apply(self, batch: Batch) -> frozenset[ObjectRef]:
        """Take in a batch and return the models to look at again."""
        concerned: set[ObjectRef] = set()
        for ref in self._cache.apply(batch):
            if self._cache.find(ref) is None:
                self._parsed.pop(ref, None)
            if ref.kind == MODEL:
                concerned.add(ref)
            concerned |= self._concerns.get(ref, set())
        return frozenset(concerned)

    def refers(self, model: ObjectRef, to: Iterable[ObjectRef]) -> None:
        """Record what a model refers to, in place of what it referred to before."""
        for ref in self._references.pop(model, frozenset()):
            self._concerns[ref].discard(model)
            if not self._concerns[ref]:
                del self._concerns[ref]
        references = frozenset(to)
        if references:
            self._references[model] = references
        for ref in references:
            self._concerns.setdefault(ref, set()).add(model)

    def stored(self, ref: ObjectRef) -> StoredObject | None:
        """Find an object as it is stored."""
        return self._cache.find(ref)

    def model(self, ref: ObjectRef) -> ModelDeployment | None:
        """Find a ModelDeployment."""
        return self._find(ref, ModelDeployment)

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""
        return self._find(ObjectRef("Service", namespace, name), Service)

    def workload(self, ref: ObjectRef) -> Workload | None:
        """Find a Deployment or StatefulSet."""
        return self._find(ref, Workload)

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """List the EndpointSlices of a Service."""
        found = (self._find(one.ref, EndpointSlice) for one in self._cache.slices_of(namespace, service))
        return [one for one in found if one]

    def _find(self, ref: ObjectRef, schema: type[Value]) -> Value | None:
        stored = self._cache.find(ref)
        if stored is None:
            return None
        version, parsed = self._parsed.get(ref, ("", None))
        if version != stored.resource_version:
            try:
                parsed = parse(schema, stored.raw)
            except InvalidObjectError:
                # A store lets nothing invalid in; what another writer forced in counts as absent.
                parsed = None
            self._parsed[ref] = (stored.resource_version, parsed)
        return parsed if isinstance(parsed, schema) else None
