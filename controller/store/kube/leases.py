"""A lease at the API server: an object of `coordination.k8s.io/v1`.

It is written with PUT and the resourceVersion that was read, as client-go does it, and not by server-side apply:
holding a lease is compare and swap of the whole record by writers that are each other's rivals. Apply would add what
nobody needs here (who owns which field, kept and merged at every renewal by as many field managers as there were
programs, or forced), and it would create a Lease that somebody deleted where PUT says that it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.store.kube.client import KubeClient
from controller.store.kube.microtime import micro_time, parse_micro_time
from controller.store.lease import LeaseRecord
from controller.store.protocol import NotFoundError

_API_VERSION = "coordination.k8s.io/v1"


class KubeLease:
    """One Lease. Labels, annotations and what else others wrote into it stay."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._leases = f"/apis/{_API_VERSION}/namespaces/{namespace}/leases"
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
        lease = {"apiVersion": _API_VERSION, "kind": "Lease", "spec": spec}
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
