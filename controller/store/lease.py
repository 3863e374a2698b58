"""A lease: one record that everybody reads and only one candidate may hold, and the Lease object that it is kept in.

The words are those of `coordination.k8s.io/v1` Lease, the semantics those of client-go's leader election.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from controller.api.registry import LEASE
from controller.store.objects import ObjectRef, StoredObject, micro_time, parse_micro_time
from controller.store.protocol import NotFoundError, ObjectClient, Precondition


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Who holds the lease (empty: nobody), for how many seconds after each renewal, since when, after how many others.

    Its times are for people: no program may compare them with its own clock. Two records are equal when they say the
    same, whatever their `version` (resourceVersion; empty for one that is not written yet).
    """

    holder: str
    seconds: int
    acquired_at: datetime | None = None
    renewed_at: datetime | None = None
    transitions: int = 0
    version: str = field(default="", compare=False)


class Lease(Protocol):
    """One lease by its name."""

    async def read(self) -> LeaseRecord | None:
        """Return the record as it is now, None when there is no such lease. Raises StoreError."""
        ...

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """Write a record in place of that of `record.version`, or the first one; return it with its new version.

        Raises ConflictError or NotFoundError when the lease is no longer that, another StoreError when it is unknown
        whether it was written.
        """
        ...


class StoredLease:
    """A Lease object in a store. Labels, annotations and what else others wrote into it stay.

    Its writes are not fenced, as other writes of a leader are: leading follows from them, so a candidate could never
    make the first one, nor a leader give the lease back. Their resourceVersion is their fence.
    """

    def __init__(self, objects: ObjectClient, namespace: str, name: str) -> None:
        self._objects = objects
        self._ref = ObjectRef(LEASE.kind, namespace, name)
        self._last: StoredObject | None = None

    async def read(self) -> LeaseRecord | None:
        """See `Lease`."""
        try:
            return self._record(await self._objects.read(self._ref))
        except NotFoundError:
            return None

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """See `Lease`."""
        if not record.version or self._last is None:
            return self._record(await self._objects.create(lease_object(self._ref, record)))
        raw = lease_object(self._ref, record, self._last.raw)
        return self._record(await self._objects.update(raw, Precondition(self._last.uid, record.version)))

    def _record(self, stored: StoredObject) -> LeaseRecord:
        self._last = stored
        return lease_record(stored)


def lease_object(ref: ObjectRef, record: LeaseRecord, before: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return the Lease object that says what a record says, and else what the object said `before`."""
    before = before or {}
    spec = {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.seconds,
        "acquireTime": record.acquired_at and micro_time(record.acquired_at),
        "renewTime": record.renewed_at and micro_time(record.renewed_at),
        "leaseTransitions": record.transitions,
    }
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {**(before.get("metadata") or {}), "namespace": ref.namespace, "name": ref.name},
        "spec": {**(before.get("spec") or {}), **spec},
    }


def lease_record(stored: StoredObject) -> LeaseRecord:
    """Read a Lease object, also one that somebody made by hand and left half empty."""
    spec = stored.raw.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        seconds=spec.get("leaseDurationSeconds") or 0,
        acquired_at=parse_micro_time(spec.get("acquireTime")),
        renewed_at=parse_micro_time(spec.get("renewTime")),
        transitions=spec.get("leaseTransitions") or 0,
        version=stored.resource_version,
    )
