"""What an object store holds: Kubernetes objects, named and versioned as the API server does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from controller.api.schema.errors import FieldError, InvalidObjectError
from controller.api.schema.values import parse

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """The name of one object: kind (`Service`), namespace and name."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> ObjectRef:
        """Name a whole object. Without a namespace it is in `default`, as with kubectl. Raises KeyError."""
        metadata = raw["metadata"]
        return cls(raw["kind"], metadata.get("namespace") or "default", metadata["name"])

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
    _parsed: dict[type[BaseModel], BaseModel | tuple[FieldError, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The `metadata` of the object."""
        metadata: Mapping[str, Any] = self.raw["metadata"]
        return metadata

    @property
    def uid(self) -> str:
        """What tells this object from every other one, also from an earlier or later one of its name."""
        return str(self.metadata["uid"])

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

    def parsed_as(self, schema: type[Schema]) -> Schema:
        """Parse the whole object, once for all who read this version of it in this process.

        Raises InvalidObjectError, each time, when it does not fit the schema.
        """
        parsed = self._parsed.get(schema)
        if parsed is None:
            try:
                parsed = parse(schema, self.raw)
            except InvalidObjectError as error:
                parsed = error.errors
            self._parsed[schema] = parsed
        if isinstance(parsed, schema):
            return parsed
        assert isinstance(parsed, tuple)
        raise InvalidObjectError(parsed)


def micro_time(at: datetime) -> str:
    """Write a moment as a MicroTime of the API, as in `2026-01-01T12:00:00.000000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_micro_time(text: object) -> datetime | None:
    """Read a moment; None for what is none, or has no time zone."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None
