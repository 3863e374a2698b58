"""What happened to an object: Kubernetes Events, as values and as objects of `events.k8s.io/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from controller.api.registry import EVENT, KINDS
from controller.store.objects import ObjectRef, micro_time

_CONTROLLER = "beamlit.com/controller"
_ACTION = "Reconcile"  # What the controller was about; the API wants a word for it.

# The API server refuses longer ones (pkg/apis/core/validation/events.go); the note is counted in bytes of UTF-8.
_LONGEST_NOTE = 1024
_LONGEST_INSTANCE = 128


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

    @property
    def ref(self) -> ObjectRef:
        """The Event object, in the namespace of the object that it is about."""
        return ObjectRef(EVENT.kind, self.first.object.namespace, self.name)


def event_object(series: EventSeries, instance: str) -> Mapping[str, Any]:
    """Return the Event object of a series. `instance` names the replica that reports it."""
    first, about = series.first, series.first.object
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"namespace": about.namespace, "name": series.name},
        "eventTime": micro_time(first.at),
        "reportingController": _CONTROLLER,
        "reportingInstance": instance[:_LONGEST_INSTANCE],
        "action": _ACTION,
        "type": first.type,
        "reason": first.reason,
        "regarding": {
            "apiVersion": KINDS[about.kind].api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": first.uid,
        },
        "note": _shortened(first.message),
        **(series_changes(series) if series.count > 1 else {}),
    }


def series_changes(series: EventSeries) -> Mapping[str, Any]:
    """Return what changes in the Event object when it happens again: the API allows nothing but its series."""
    return {"series": {"count": series.count, "lastObservedTime": micro_time(series.last_at)}}


def _shortened(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= _LONGEST_NOTE:
        return note
    more = "..."
    return encoded[: _LONGEST_NOTE - len(more)].decode(errors="ignore") + more
