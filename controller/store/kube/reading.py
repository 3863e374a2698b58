"""The API server's words about objects, as values: items of lists and events of watches. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.store.kube.answers import error_of_event
from controller.store.kube.collection import Listing
from controller.store.kube.resources import Resource
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import UnavailableError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch: its type (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`), version, and object if it has one."""

    type: str
    version: int
    stored: StoredObject | None = None


def read_event(resource: Resource, line: bytes) -> Event:
    """Read one line of a watch. Raises ExpiredError or another StoreError that an `ERROR` event stands for."""
    try:
        event = json.loads(line)
        kind, raw = event["type"], event["object"]
        if kind == "ERROR":
            raise error_of_event(f"watch {resource.name}", raw)
        if kind == "BOOKMARK":
            return Event(kind, version_of(raw))
        stored = stored_object(resource, raw)
        return Event(kind, int(stored.resource_version), stored)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnavailableError(f"watch {resource.name}: not an event: {type(error).__name__}") from None


def read_list(resource: Resource, pages: Iterable[Mapping[str, Any]]) -> Listing:
    """Put the pages of one list together. Raises UnavailableError when that is not what they are."""
    try:
        stored = [stored_object(resource, raw) for page in pages for raw in page.get("items") or ()]
        version = max(version_of(page) for page in pages)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnavailableError(f"list {resource.name}: not a list: {type(error).__name__}") from None
    return Listing({one.ref: one for one in stored}, version)


def version_of(raw: Mapping[str, Any]) -> int:
    """The resourceVersion of an object or a list."""
    return int(raw["metadata"]["resourceVersion"])


def stored_object(resource: Resource, raw: Mapping[str, Any]) -> StoredObject:
    """The object without what nobody here reads and what fills half of the memory: who owns which field.

    Items of a list of core objects do not say their own kind.
    """
    metadata = {name: value for name, value in raw["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED in annotations:
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != LAST_APPLIED}
    return StoredObject(
        ObjectRef(resource.kind, metadata["namespace"], metadata["name"]),
        {**raw, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata},
    )
