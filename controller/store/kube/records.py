"""Events and Leases as the API server has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.store.events import EventSeries
from controller.store.kube.client import MERGE, KubeClient
from controller.store.kube.collection import RESOURCES
from controller.store.lease import LeaseRecord
from controller.store.protocol import NotFoundError


def micro_time(at: datetime) -> str:
    """Write a moment, as in `2026-01-01T12:00:00.000000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_micro_time(text: object) -> datetime | None:
    """Read a moment; None for what is none, or has no time zone."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None


_EVENTS = "events.k8s.io/v1"
_CONTROLLER = "beamlit.com/controller"
_ACTION = "Reconcile"  # What the controller was about; the API wants a word for it.

# The API server refuses longer ones (pkg/apis/core/validation/events.go); the note is counted in bytes of UTF-8.
_LONGEST_NOTE = 1024
_LONGEST_INSTANCE = 128


class KubeEventSink:
    """Writes events in the namespace of their objects. `instance` says which replica it was that told them."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client = client
        self._instance = instance[:_LONGEST_INSTANCE]

    async def create(self, series: EventSeries) -> None:
        """See `EventSink`."""
        await self._client.request("POST", _events_in(series), body=self._body(series))

    async def update(self, series: EventSeries) -> None:
        """See `EventSink`. The API allows that nothing but the series of an event changes."""
        path = f"{_events_in(series)}/{series.name}"
        await self._client.request("PATCH", path, body={"series": _repeated(series)}, content_type=MERGE)

    def _body(self, series: EventSeries) -> dict[str, Any]:
        first = series.first
        regarding = {
            "apiVersion": RESOURCES[first.object.kind].api_version,
            "kind": first.object.kind,
            "namespace": first.object.namespace,
            "name": first.object.name,
            "uid": first.uid,
        }
        return {
            "apiVersion": _EVENTS,
            "kind": "Event",
            "metadata": {"namespace": first.object.namespace, "name": series.name},
            "eventTime": micro_time(first.at),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance,
            "action": _ACTION,
            "type": first.type,
            "reason": first.reason,
            "regarding": regarding,
            "note": _shortened(first.message),
            **({"series": _repeated(series)} if series.count > 1 else {}),
        }


def _events_in(series: EventSeries) -> str:
    return f"/apis/{_EVENTS}/namespaces/{series.first.object.namespace}/events"


def _repeated(series: EventSeries) -> dict[str, Any]:
    return {"count": series.count, "lastObservedTime": micro_time(series.last_at)}


def _shortened(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= _LONGEST_NOTE:
        return note
    more = "..."
    return encoded[: _LONGEST_NOTE - len(more)].decode(errors="ignore") + more


_LEASES = "coordination.k8s.io/v1"


class KubeLease:
    """One Lease. Labels, annotations and what else others wrote into it stay."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._leases = f"/apis/{_LEASES}/namespaces/{namespace}/leases"
        self._lease = f"{self._leases}/{name}"
        self._raw: Mapping[str, Any] = {"metadata": {"namespace": namespace, "name": name}}

    async def read(self) -> LeaseRecord | None:
        """See `Lease`."""
        try:
            return self._took(await self._client.request("GET", self._lease))
        except NotFoundError:
            return None

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """See `Lease`."""
        metadata, spec = dict(self._raw["metadata"]), {**(self._raw.get("spec") or {}), **_spec_of(record)}
        lease = {"apiVersion": _LEASES, "kind": "Lease", "spec": spec}
        if record.version:
            metadata["resourceVersion"] = record.version
            return self._took(await self._client.request("PUT", self._lease, body={**lease, "metadata": metadata}))
        created = {"metadata": {"name": metadata["name"], "namespace": metadata["namespace"]}}
        return self._took(await self._client.request("POST", self._leases, body={**lease, **created}))

    def _took(self, raw: Mapping[str, Any]) -> LeaseRecord:
        self._raw = raw
        return _record_of(raw)


def _spec_of(record: LeaseRecord) -> dict[str, Any]:
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.seconds,
        "acquireTime": record.acquired_at and micro_time(record.acquired_at),
        "renewTime": record.renewed_at and micro_time(record.renewed_at),
        "leaseTransitions": record.transitions,
    }


def _record_of(raw: Mapping[str, Any]) -> LeaseRecord:
    """Read a Lease, also one that somebody made by hand and left half empty."""
    spec = raw.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        seconds=spec.get("leaseDurationSeconds") or 0,
        acquired_at=parse_micro_time(spec.get("acquireTime")),
        renewed_at=parse_micro_time(spec.get("renewTime")),
        transitions=spec.get("leaseTransitions") or 0,
        version=raw["metadata"]["resourceVersion"],
    )
