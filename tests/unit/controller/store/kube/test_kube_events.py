"""An event as the API server takes it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.store.events import Event, EventSeries
from controller.store.kube.records import KubeEventSink
from controller.store.objects import ObjectRef

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENT = Event(ObjectRef("ModelDeployment", "default", "a"), "u-1", "Warning", "Conflict", "port 80 is taken", NOON)
ONCE = EventSeries("a.1", EVENT, 1, NOON)


class Requests:
    """Keeps what was asked for."""

    def __init__(self):
        self.made = []

    async def request(self, method, path, *, query=None, body=None, content_type="application/json"):
        self.made.append((method, path, content_type, body))
        return {}


async def created(series, instance="me"):
    requests = Requests()
    await KubeEventSink(requests, instance).create(series)
    ((method, path, _, body),) = requests.made
    assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    return body


async def test_it_says_what_happened_to_which_object_and_who_says_so():
    body = await created(ONCE)
    assert body["regarding"] == {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "namespace": "default",
        "name": "a",
        "uid": "u-1",
    }
    assert (body["type"], body["reason"], body["note"]) == ("Warning", "Conflict", "port 80 is taken")
    assert (body["reportingController"], body["reportingInstance"]) == ("beamlit.com/controller", "me")
    assert body["eventTime"] == "2026-01-01T12:00:00.000000Z"
    assert "series" not in body


async def test_one_that_happened_more_often_before_it_was_written_says_so():
    body = await created(replace(ONCE, count=3, last_at=NOON + timedelta(seconds=1.5)))
    assert body["series"] == {"count": 3, "lastObservedTime": "2026-01-01T12:00:01.500000Z"}


async def test_nothing_but_its_series_changes():
    requests = Requests()
    await KubeEventSink(requests, "me").update(replace(ONCE, count=2))
    ((method, path, content_type, body),) = requests.made
    assert (method, path) == ("PATCH", "/apis/events.k8s.io/v1/namespaces/default/events/a.1")
    assert content_type == "application/merge-patch+json"
    assert body == {"series": {"count": 2, "lastObservedTime": "2026-01-01T12:00:00.000000Z"}}


async def test_a_message_that_is_too_long_for_the_api_is_cut_between_two_letters():
    body = await created(replace(ONCE, first=replace(EVENT, message="ä" * 600)))
    assert body["note"] == "ä" * 510 + "..."
    assert len(body["note"].encode()) <= 1024


async def test_an_instance_that_is_too_long_for_the_api_is_cut():
    assert len((await created(ONCE, instance="x" * 300))["reportingInstance"]) == 128
