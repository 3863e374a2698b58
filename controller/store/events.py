"""What is told about an object, beside its status: Kubernetes Events, as values, and where they are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one object. `reason` is one word for programs, `message` a sentence for people."""

    object: ObjectRef
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EventSeries:
    """An event as it is written: how often it happened, last when, and the name of its Event object."""

    name: str
    first: Event
    count: int
    last_at: datetime


class EventSink(Protocol):
    """Where events are written. Both raise StoreError."""

    async def create(self, series: EventSeries) -> None:
        """Write a new event. Raises ConflictError when one of that name exists."""
        ...

    async def update(self, series: EventSeries) -> None:
        """Write the count of an event. Raises NotFoundError when it is gone, as all events are after a while."""
        ...
