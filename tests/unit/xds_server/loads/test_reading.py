"""What those who follow the loads are told."""

from controller.api.contract.reports import Count, LoadReport
from controller.api.schema.values import parse
from controller.api.timing import REAL
from tests.support.loads import hears, serves, to_backend, to_local
from tests.support.routes import A, B
from xds_server.loads.loads import LoadReader, Loads
from xds_server.stream.load_reporting.wire import LoadStream

STREAM = LoadStream("one", 1.0)


def loads_of(*models, **how):
    loads = Loads()
    for model in models:
        serves(loads, model, **how)
    return loads


def test_everything_is_told_first_and_then_what_changed():
    loads = loads_of(A, B)
    reader = LoadReader(loads)
    assert reader.news(0.0) == ()
    hears(loads, STREAM, (to_local(A, sent=1, now=1), to_local(B)), 1.0)
    (told,) = reader.news(1.5)
    assert (told.node, told.began, told.seconds, told.age) == ("one", 1.0, 1.0, 0.5)
    assert told.counts == {
        "model/default/a/local": Count(1, 0, 0, 1),
        "model/default/a/remote": Count(),
        "model/default/b/local": Count(),
        "model/default/b/remote": Count(),
    }
    hears(loads, STREAM, (to_local(A, ok=1), to_local(B)), 2.0)
    (told,) = reader.news(2.0)
    assert (told.seconds, told.counts) == (2.0, {"model/default/a/local": Count(1, 1)})


def test_an_envoy_that_has_nothing_new_is_told_to_be_there():
    loads = loads_of(A)
    reader = LoadReader(loads)
    for now in (1.0, 2.0):
        hears(loads, STREAM, (to_local(A),), now)
        (told,) = reader.news(now)
    assert told.counts == {}
    assert reader.news(2.5) == ()


def test_who_begins_later_is_told_the_sums():
    loads = loads_of(A)
    for now in (1.0, 2.0):
        hears(loads, STREAM, (to_local(A, sent=1, ok=1),), now)
    (told,) = LoadReader(loads).news(2.0)
    assert (told.seconds, told.counts["model/default/a/local"]) == (2.0, Count(2, 2))


def test_a_side_that_cannot_be_told_from_others_is_told_as_such_and_backends_are_not():
    loads = loads_of(A, B, away=50)
    hears(loads, STREAM, (to_local(A), to_local(B), to_backend(sent=1)), 1.0)
    (told,) = LoadReader(loads).news(1.0)
    assert told.counts == {
        "model/default/a/local": Count(),
        "model/default/a/remote": None,
        "model/default/b/local": Count(),
        "model/default/b/remote": None,
    }
    assert parse(LoadReport, told.model_dump(mode="json", by_alias=True)) == told


def test_a_stream_that_is_over_is_forgotten():
    loads = loads_of(A)
    hears(loads, STREAM, (to_local(A),), 1.0)
    reader = LoadReader(loads)
    reader.news(1.0)
    loads.stream_ended(STREAM, 1.0)
    hears(loads, LoadStream("two", 2.0), (), 2 + REAL.reports.window)
    (told,) = reader.news(2 + REAL.reports.window)
    assert told.node == "two"
