"""What an object store holds: Kubernetes objects, named and versioned as the API server does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """The name of one object: kind (`Service`), namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the store holds it: `raw` is the whole Kubernetes object with `metadata` and `status`.

    `raw` is shared and must not be changed. It always has `metadata.name`, `.namespace`, `.uid`, `.resourceVersion` (a
    string) and `.creationTimestamp` (RFC 3339, UTC).
    """

    ref: ObjectRef
    raw: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The `metadata` of the object."""
        metadata: Mapping[str, Any] = self.raw["metadata"]
        return metadata

    @property
    def resource_version(self) -> str:
        """The opaque version that changes with every write, the status included."""
        return str(self.metadata["resourceVersion"])

    @property
    def generation(self) -> int:
        """The number that grows with every change of anything but `metadata` and `status`.

        0 for the kinds that the API server does not number, such as Service and Secret.
        """
        return int(self.metadata.get("generation", 0))

    @property
    def status(self) -> Mapping[str, Any]:
        """The `status` of the object, empty when it was never written."""
        status: Mapping[str, Any] = self.raw.get("status") or {}
        return status

    def same_as(self, other: StoredObject) -> bool:
        """Whether this is the other's object at the other's version."""
        mine, others = self.metadata, other.metadata
        return (mine.get("uid"), mine["resourceVersion"]) == (others.get("uid"), others["resourceVersion"])
