"""Events at the API server: objects of `events.k8s.io/v1`, which `kubectl describe` and `kubectl get events` show."""

from __future__ import annotations

from typing import Any

from controller.store.events import EventSeries
from controller.store.kube.client import MERGE, KubeClient
from controller.store.kube.microtime import micro_time
from controller.store.kube.resources import RESOURCES

_API_VERSION = "events.k8s.io/v1"
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
            "apiVersion": _API_VERSION,
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
    return f"/apis/{_API_VERSION}/namespaces/{series.first.object.namespace}/events"


def _repeated(series: EventSeries) -> dict[str, Any]:
    return {"count": series.count, "lastObservedTime": micro_time(series.last_at)}


def _shortened(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= _LONGEST_NOTE:
        return note
    more = "..."
    return encoded[: _LONGEST_NOTE - len(more)].decode(errors="ignore") + more
