"""An event as the API server takes it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.store.events import Event, EventSeries, event_object, series_changes
from controller.store.objects import ObjectRef

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENT = Event(ObjectRef("ModelDeployment", "default", "a"), "u-1", "Warning", "Conflict", "port 80 is taken", NOON)
ONCE = EventSeries("a.1", EVENT, 1, NOON)


def test_it_says_what_happened_to_which_object_and_who_says_so():
    body = event_object(ONCE, "me")
    assert ObjectRef.of(body) == ONCE.ref
    assert (body["apiVersion"], body["kind"]) == ("events.k8s.io/v1", "Event")
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


def test_one_that_happened_more_often_before_it_was_written_says_so():
    body = event_object(replace(ONCE, count=3, last_at=NOON + timedelta(seconds=1.5)), "me")
    assert body["series"] == {"count": 3, "lastObservedTime": "2026-01-01T12:00:01.500000Z"}


def test_nothing_but_its_series_changes():
    assert ONCE.ref == ObjectRef("Event", "default", "a.1")
    assert series_changes(replace(ONCE, count=2)) == {
        "series": {"count": 2, "lastObservedTime": "2026-01-01T12:00:00.000000Z"}
    }


def test_a_message_that_is_too_long_for_the_api_is_cut_between_two_letters():
    body = event_object(replace(ONCE, first=replace(EVENT, message="ä" * 600)), "me")
    assert body["note"] == "ä" * 510 + "..."
    assert len(body["note"].encode()) <= 1024


def test_an_instance_that_is_too_long_for_the_api_is_cut():
    assert len(event_object(ONCE, "x" * 300)["reportingInstance"]) == 128
