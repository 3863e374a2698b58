"""The load of a model, merged over Envoys and over the replicas they report to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.reports import Count, LoadReport
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import REAL
from controller.decision import Cause, Known, SentRequests, Unknown
from controller.decision.signals import compare
from controller.signals.fleet_loads import FleetLoads
from controller.signals.load_reports import Load, Rate, SentTo
from controller.signals.requests_in_flight import RequestsInFlight
from controller.signals.source import Subject
from controller.store.objects import ObjectRef

MODEL = ObjectRef("ModelDeployment", "default", "a")
START = datetime(2026, 1, 1, tzinfo=UTC)
OLD = REAL.reports.old_after + 0.1


def at(seconds):
    return START + timedelta(seconds=seconds)


class Told:
    """A fleet, told what replicas repeat: sums of the local side since a stream began."""

    def __init__(self):
        self.loads = FleetLoads()

    def hear(self, now, issued=0, failed=0, flying=0, **more):
        """The local side of the model through the Envoy "one", after as many seconds as `now` unless told otherwise."""
        given = {"node": "one", "began": 0.0, "seconds": float(now), "age": 0.0, "remote": Count(), **more}
        counts = {
            "model/default/a/local": Count(issued, 0, failed, flying),
            "model/default/a/remote": given.pop("remote"),
        }
        self.loads.add_report(LoadReport(counts=given.pop("counts", counts), **given), at(now))
        return self

    def load(self, now):
        return self.loads.load(MODEL, at(now))

    def value(self, now) -> Load:
        load = self.load(now)
        assert isinstance(load, Known), load
        return load.value


def test_nothing_heard_is_unknown():
    assert Told().load(0) == Unknown("no Envoy reports load", True, Cause.NO_SAMPLE)


def test_a_rate_is_what_was_new_by_the_seconds_that_envoy_measured():
    told = Told().hear(1, issued=10).hear(2, issued=30, failed=2, flying=3)
    assert told.load(2) == Known(Load(in_flight=3, local=Rate(15.0, 1.0), remote=Rate(0.0, 0.0)), at(2))


def test_what_was_long_ago_does_not_count():
    told = Told().hear(1, issued=100)
    for second in range(2, 20):
        told.hear(second, issued=100 + second)
    assert told.value(19).local == Rate(1.0, 0.0)


def test_a_report_that_is_old_is_unknown_and_not_zero():
    told = Told().hear(1, issued=1, flying=1)
    assert isinstance(told.load(1 + REAL.reports.old_after), Known)
    assert told.load(1 + OLD) == Unknown("no Envoy reports load", True, Cause.NO_SAMPLE)


def test_the_age_that_a_replica_says_counts():
    assert isinstance(Told().hear(1, age=OLD).load(1), Unknown)


def test_a_value_is_as_old_as_the_oldest_of_its_reports():
    told = Told().hear(1).hear(2, node="two", age=0.5)
    assert told.load(2).at == at(1)


def test_envoys_add_up():
    told = Told().hear(1, issued=1, flying=1).hear(1, issued=2, flying=2, node="two", began=0.5)
    assert told.value(1) == Load(in_flight=3, local=Rate(3.0, 0.0), remote=Rate(0.0, 0.0))


def test_remote_backends_add_up():
    first, second = (
        {
            "model/default/a/local": Count(),
            "model/default/a/remote": Count(issued, issued, 0, 0),
            "model/default/a/second": Count(5 * issued, 0, issued, 0),
            "model/default/b/second": Count(1000 * issued, 0, 0, 0),
        }
        for issued in (10, 20)
    )
    told = Told().hear(1, counts=first).hear(2, counts=second)
    assert told.value(2).remote == Rate(60.0, 10.0)


def test_with_an_envoy_that_is_connected_and_says_nothing_the_sum_is_at_least_what_the_others_say():
    told = Told().hear(1, issued=9, flying=4)
    told.loads.set_silent("replica", ["two"], at(1))
    silent = Unknown("Envoy two reports no load", True, Cause.NO_SAMPLE)
    assert told.load(1) == Known(Load(in_flight=4, local=silent, remote=silent, missing=silent), at(1))
    told.loads.set_silent("replica", [], at(1))
    assert told.value(1).missing is None


@pytest.mark.parametrize(("target", "state"), [("400", "Breached"), ("401", "Unknown")])
def test_one_envoy_that_hangs_hides_no_overload_that_the_others_show(target, state):
    """What it has in flight is more, and never less: below the target nothing is known."""
    metric = parse(MetricSpec, {"type": "Requests", "requests": {"target": {"type": "Value", "value": target}}})
    told = Told()
    for second in range(60):
        for node in ("one", "two", "three", "four"):
            told.hear(second, node=node, flying=100)
        told.loads.set_silent("replica", ["five"] if second else [], at(second))
        sample = RequestsInFlight(told.loads).sample(Subject(MODEL), metric, at(second))
    signal = compare(metric, sample, 1)
    assert (signal.state, signal.pending, signal.at_least) == (state, False, True)
    assert "Envoy five reports no load" in signal.message
    assert signal.least <= 1 < signal.most


AWAITED = REAL.reports.awaited


def pending(told, now):
    load = told.load(now)
    missing = load.value.missing if isinstance(load, Known) else load
    assert missing, load
    return missing.pending


def test_an_envoy_that_came_and_says_nothing_is_waited_for_and_then_it_means_something():
    told = Told()
    for second in range(20):
        told.hear(second)
        told.loads.set_silent("replica", ["two"] if second >= 2 else [], at(second))
        if second >= 2:
            assert pending(told, second) == (second < 2 + AWAITED)
    told.loads.set_silent("replica", [], at(19))
    assert told.value(19).missing is None
    # Another one is waited for anew.
    told.loads.set_silent("replica", ["three"], at(20))
    assert pending(told, 20)


def test_one_that_is_awaited_hides_none_that_was_for_too_long():
    told = Told()
    for second in range(20):
        told.hear(second)
        told.loads.set_silent("replica", ["two"] if second < 15 else ["a new one", "two"], at(second))
        last = pending(told, second)
    assert not last


@pytest.mark.parametrize("heard", [False, True], ids=["the program has just started", "all Envoys have gone"])
def test_when_no_envoy_reports_they_are_waited_for(heard):
    told, begun = Told(), 10
    if heard:
        told.hear(begun)
        assert isinstance(told.load(begun), Known)
        assert pending(told, begun + OLD)
    else:
        assert pending(told, begun)
    assert pending(told, begun + AWAITED - 1)
    assert not pending(told, begun + AWAITED)


def test_a_clock_that_was_set_back_has_nobody_waited_for_longer():
    told = Told()
    assert pending(told, 10)
    assert not pending(told, 5)


def test_one_that_reports_to_another_replica_is_not_silent():
    told = Told().hear(1)
    told.loads.set_silent("replica", ["one"], at(1))
    assert told.value(1).missing is None
    assert told.load(1 + OLD) == Unknown("Envoy one reports no load", True, Cause.NO_SAMPLE)


def test_what_a_replica_that_is_gone_said_of_silence_is_forgotten():
    told = Told().hear(1)
    told.loads.set_silent("replica", ["two"], at(1))
    told.loads.drop("replica", at(1))
    assert told.value(1).missing is None


def test_an_envoy_that_died_is_left_out_once_its_last_word_is_old():
    told = Told().hear(1, flying=5, node="two").hear(1, flying=1)
    assert told.value(1).in_flight == 6
    told.hear(4, flying=1)
    assert told.value(1 + OLD).in_flight == 1


def test_a_model_that_an_envoy_does_not_report_yet_has_at_least_what_the_others_report():
    told = Told().hear(1, flying=2).hear(1, node="two", counts={})
    missing = Unknown("Envoy two reports no load of the model yet", True, Cause.NO_SAMPLE)
    assert (told.value(1).in_flight, told.value(1).missing) == (2, missing)
    for second in range(2, 20):
        told.hear(second).hear(second, node="two", counts={})
        assert pending(told, second) == (second < 1 + AWAITED)


def test_an_envoy_that_goes_to_another_replica_is_neither_lost_nor_doubled():
    told = Told().hear(1, issued=10, flying=4)
    # Its new stream counts from zero, and says first what was new since the last report.
    told.hear(2, issued=10, flying=2, began=1.5, seconds=1.0)
    assert told.value(2) == Load(in_flight=2, local=Rate(10.0, 0.0), remote=Rate(0.0, 0.0))
    # The one it left repeats what it knows.
    told.hear(2.5, issued=10, flying=4, seconds=1.0, age=1.5)
    assert told.value(2.5) == Load(in_flight=2, local=Rate(10.0, 0.0), remote=Rate(0.0, 0.0))


def test_a_replica_that_is_heard_again_repeats_its_sums_and_they_count_once():
    told = Told().hear(1, issued=10).hear(2, issued=20).hear(2, issued=20).hear(3, issued=30)
    assert told.value(3).local == Rate(10.0, 0.0)


def test_who_begins_to_follow_an_old_stream_does_not_take_its_past_for_now():
    told = Told().hear(100, issued=10_000, flying=1)
    load = told.value(100)
    assert load.in_flight == 1
    assert load.local == Unknown("the rate of requests is not known yet")
    told.hear(101, issued=10_003)
    assert told.value(101).local == Rate(3.0, 0.0)


def test_what_cannot_be_told_from_other_models_is_unknown_and_the_rest_is_not():
    told = Told().hear(1, issued=2, remote=None)
    load = told.value(1)
    assert load.local == Rate(2.0, 0.0)
    assert isinstance(load.remote, Unknown)
    told.hear(2, issued=2, remote=Count(50)).hear(3, issued=2, remote=Count(51))
    assert told.value(3).remote == Rate(1 / 3, 0.0), "what it counted before is not new"


def test_a_model_that_came_back_is_counted_from_zero():
    told = Told().hear(1, issued=10).hear(2, issued=3)
    assert told.value(2).local == Rate(6.5, 0.0)


def test_a_model_that_is_gone_is_forgotten_by_every_stream_though_its_envoys_stay():
    told = Told().hear(1, issued=1, remote=Count(1)).hear(1, node="two", issued=1)
    told.loads.forget(MODEL)
    assert "reports no load of the model yet" in told.load(1).why
    told.hear(2, issued=4, node="one").hear(2, issued=4, node="two")
    assert isinstance(told.load(2), Known)


def test_whether_the_clock_was_set_back_is_not_asked_of_each_envoy_for_each_model():
    compared = []

    class Now(datetime):
        def __lt__(self, other):
            compared.append(other)
            return super().__lt__(other)

    told = Told()
    for number in range(100):
        told.hear(1, node=str(number))
    assert isinstance(told.loads.load(MODEL, Now.fromtimestamp(at(2).timestamp(), UTC)), Known)
    assert len(compared) < 10


@pytest.mark.parametrize("back", [1, 100])
def test_a_clock_that_is_set_back_is_survived(back):
    told = Told().hear(200, issued=1, seconds=1.0)
    told.hear(200 - back, issued=2, seconds=2.0)
    told.hear(201 - back, issued=3, seconds=3.0)
    assert isinstance(told.load(201 - back), Known)


@pytest.mark.parametrize("back", [1, 3600])
def test_what_an_envoy_said_that_is_gone_grows_old_though_the_clock_was_set_back(back):
    told = Told().hear(5000, node="two", flying=5).hear(5000, flying=1)
    now = 5000 - back
    assert told.value(now).in_flight == 6, "no gap for those that are there"
    told.hear(now + 3, flying=1, seconds=5003.0)
    assert told.value(now + OLD).in_flight == 1
    assert told.load(now + 3 + OLD) == Unknown("no Envoy reports load", True, Cause.NO_SAMPLE)


@pytest.mark.parametrize("back", [1, 3600])
def test_requests_of_before_the_clock_was_set_back_are_not_of_the_last_seconds_for_ever(back):
    told = hearing(["one", "two"], 5000)
    for second in range(1, 31):
        told.hear(5000 - back + second, node="one", issued=50_000 + 10 * second, seconds=5000.0 + second)
        traffic(told, 5000 - back + second)
    counted = traffic(told, 5030 - back)
    assert (counted.total, counted.seconds) == (100, 10.0)


def traffic(told, now, since=0.0):
    """Those of the last seconds, without the minutes before."""
    return replace(told.loads.traffic(MODEL, ("remote",), at(since), at(now)), run=None)


def test_where_requests_went_lately():
    told = Told().hear(1, issued=10, failed=4, remote=Count(7, 3, 1)).hear(2, issued=12, failed=4)
    told.hear(2, node="two", began=1.0, seconds=1.0, issued=5, flying=2)
    expected = SentRequests(6 + 2 + 5, 6, 2.0, answered=3, served=6 + 2 + 5 - 2, in_flight=2, failed=4)
    assert traffic(told, 2) == expected


def test_what_replicas_served_is_what_they_were_sent_without_what_they_have_now_and_had_not_before():
    """However it ended: a client that goes makes no request good or bad."""
    told = Told().hear(1, issued=10, flying=10)
    assert traffic(told, 1).served == 0
    assert traffic(told.hear(2, issued=30, flying=20), 2).served == 10
    told.hear(3, issued=35, failed=2, flying=4)
    expected = SentRequests(local=20 + 3, remote=0, seconds=2.0, served=20 + 3 + 6, in_flight=4, failed=2)
    assert traffic(told, 3, since=1) == expected


def test_tries_that_failed_at_replicas_are_counted_as_those_of_the_same_seconds_through_all_envoys():
    """One that reached nobody is not sent, and yet failed; those at a remote backend are none of them."""
    told = Told().hear(1, issued=10, failed=4).hear(2, issued=10, failed=7, remote=Count(9, 0, 9))
    told.hear(2, node="two", began=1.0, seconds=1.0, issued=5, failed=1)
    assert (traffic(told, 2).failed, traffic(told, 2, since=1).failed) == (8, 4)
    assert traffic(told, 2, since=1).local == 4


def test_what_replicas_had_before_anybody_counted_is_not_less_than_nothing_served():
    assert traffic(Told().hear(1, issued=5, flying=300), 1).served == 0


def test_what_was_in_flight_before_a_stream_began_was_not_sent_in_it():
    """An Envoy that goes to another replica of the xDS server, or a controller that starts, finds long requests."""
    local = "model/default/a/local"
    told = Told().hear(1, counts={local: Count(100, 0, 0, 100)})
    told.hear(2, began=1.0, seconds=1.0, counts={local: Count(10, 9, 0, 101)})
    assert traffic(told, 2, since=1).served == 9
    told.hear(3, began=1.0, seconds=2.0, counts={local: Count(4, 3, 0, 101)})
    assert traffic(told, 3, since=2).served == 3, "counted from zero"


def test_what_was_sent_by_another_split_does_not_count():
    told = Told().hear(1, issued=10, remote=Count(5)).hear(2, issued=12).hear(3, issued=15)
    assert traffic(told, 3, since=0.5) == SentRequests(local=5, remote=0, seconds=2.0, served=5)
    assert traffic(told, 3, since=3) == SentRequests(local=0, remote=0, seconds=0.0)


def hearing(nodes, last, told=None, after=0):
    """Ten requests a second through each of some Envoys, after a second and up to another."""
    told = told or Told()
    for second in range(after + 1, last + 1):
        for node in nodes:
            told.hear(second, node=node, issued=10 * second)
    return told


def test_requests_that_were_not_reported_yet_are_not_none():
    told = hearing(["one"], 12)
    counted = traffic(told, 12 + REAL.reports.old_after)
    assert counted.total / counted.seconds == 10.0
    assert counted.seconds < REAL.reports.window


@pytest.mark.parametrize("others", [[], ["two"]], ids=["the only one", "one of two"])
def test_of_an_envoy_that_is_not_heard_nobody_says_how_many_requests_there_are(others):
    """Fewer of them would return, and these are not fewer: the xDS server ends, or a network is cut."""
    told = hearing(["one", *others], 12)
    hearing(others, 12 + 3, told, after=12)
    counted = traffic(told, 12 + OLD)
    assert (counted.total > 0, counted.seconds) == (True, 0.0)


def test_an_envoy_that_is_gone_for_longer_is_not_missed():
    told = hearing(["two"], 30, hearing(["one"], 12).hear(12, seconds=12.5, flying=9), after=12)
    assert traffic(told, 30) == SentRequests(local=100, remote=0, seconds=10.0, served=100)


@pytest.mark.parametrize("knows", [[], ["one"]], ids=["never heard", "heard long ago"])
def test_an_envoy_that_is_connected_and_says_nothing_is_missed(knows):
    told = hearing(["two"], 30, hearing(knows, 12), after=12)
    told.loads.set_silent("replica", ["one"], at(30))
    assert traffic(told, 30).seconds == 0.0
    told.loads.drop("replica", at(30))
    assert traffic(told, 30).seconds == 10.0


def test_where_requests_went_is_unknown_where_they_cannot_be_told_from_those_of_others():
    found = Told().hear(1, issued=2, remote=None).loads.traffic(MODEL, ("remote",), at(-60), at(1))
    assert isinstance(found, Unknown) and found.cause is Cause.SHARED


def test_the_sides_that_got_requests_are_news_once():
    told = Told().hear(1, issued=10).hear(1, node="two", remote=Count(1))
    assert told.loads.news(at(1)) == {SentTo(MODEL, local=True), SentTo(MODEL, local=False)}
    assert told.loads.news(at(1)) == frozenset()
    told.hear(2, issued=10)
    assert told.loads.news(at(2)) == frozenset()


def test_of_which_objects_anything_was_counted_is_said_once():
    told = Told().hear(1, issued=1)
    assert told.loads.changed(at(1)) == {MODEL}
    told.hear(2, counts={})
    assert told.loads.changed(at(2)) == frozenset()
