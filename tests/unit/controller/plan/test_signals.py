"""Requests in flight, compared with their target."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.decision import Known, Measurement, Unknown
from controller.decision.facts import WindowFrom
from controller.decision.signals import compare
from controller.plan.signals import signal_statuses
from controller.signals.load_reports import Load
from controller.signals.requests_in_flight import RequestsInFlight
from controller.signals.source import NOT_MEASURED, Sampler, Subject
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model
from tests.support.observations import OneLoad

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SILENT = Unknown("no Envoy reports load")


def signal(load, ready=2, before=(), now=NOW, metric=None):
    ((measured, sample),) = samples(a_model().measuring(metric or in_flight_each("4")), load)
    (status,) = signal_statuses([compare(measured, sample, ready)], before, now)
    return status


def samples(model, load=SILENT):
    intent = model.intent()
    return Sampler({"Requests": RequestsInFlight(OneLoad(load))}).samples(Subject(intent.ref), intent.metrics, NOW)


@pytest.mark.parametrize(
    ("requests", "ready", "current", "state"),
    [
        (7, 2, "3.5", "Clear"),
        (8, 2, "4", "Breached"),
        (9, 2, "4.5", "Breached"),
        (10, 3, "3.333", "Clear"),
        (0, 1, "0", "Clear"),
    ],
)
def test_it_is_reached_at_its_target_for_each_ready_replica(requests, ready, current, state):
    said = signal(in_flight(requests, NOW), ready)
    assert (said.name, said.current, said.target, said.state, said.at) == ("Requests", current, "4", state, NOW)


def test_missing_reports_are_unknown_and_not_zero():
    said = signal(SILENT)
    assert (said.current, said.state, said.at, said.message) == (None, "Unknown", None, SILENT.why)


@pytest.mark.parametrize(
    ("heard", "shown"),
    [(8, ("4", "Breached", NOW, f"at least: {SILENT.why}")), (7, (None, "Unknown", None, SILENT.why))],
)
def test_what_some_envoy_says_nothing_of_is_at_its_target_or_unknown(heard, shown):
    said = signal(Known(Load(heard, SILENT, SILENT, SILENT), NOW))
    assert (said.current, said.state, said.at, said.message) == shown


def test_no_replica_is_unknown_and_not_zero():
    said = signal(in_flight(0, NOW), ready=0)
    assert (said.state, said.message) == ("Unknown", "no replica is ready, so there is no average")


def test_since_is_when_the_state_began():
    later = NOW + timedelta(seconds=5)
    first = signal(in_flight(1, NOW))
    same = signal(in_flight(2, later), before=[first], now=later)
    other = signal(in_flight(9, later), before=[first], now=later)
    assert (first.since, same.since, other.since) == (NOW, NOW, later)


def test_another_target_is_another_signal():
    later = NOW + timedelta(seconds=5)
    said = signal(in_flight(1, later), before=[signal(in_flight(1, NOW))], now=later, metric=in_flight_each("5"))
    assert said.since == later


@pytest.mark.parametrize(
    ("declared", "measured", "shown"),
    [
        ({}, timedelta(minutes=1), ("60s", "Assumed")),
        ({"window": "2m"}, timedelta(minutes=1), ("120s", "Spec")),
        ({"window": "0s"}, timedelta(minutes=1), (None, None)),
        ({}, timedelta(0), (None, None)),
        ({}, timedelta(seconds=14, milliseconds=1), ("15s", "Assumed")),
    ],
)
def test_what_an_average_is_over_is_shown_and_who_says_so(declared, measured, shown):
    target = {"type": "Value", "value": 10}
    metric = {"type": "External", "external": {"metric": {"name": "load"}, "target": target, **declared}}
    found = Measurement(Decimal(9), window=measured, window_from=WindowFrom.ASSUMED)
    (said,) = signal_statuses([compare(parse(MetricSpec, metric), Known(found, NOW), 1)], (), NOW)
    assert (said.window, said.window_from) == shown


def test_a_value_is_of_all_replicas_together():
    metric = {"type": "Requests", "requests": {"target": {"type": "Value", "value": "10"}}}
    assert [signal(in_flight(n, NOW), metric=metric).state for n in (9, 10)] == ["Clear", "Breached"]
    assert signal(in_flight(10, NOW), ready=0, metric=metric).state == "Breached"


def test_a_utilization_of_requests_is_unknown():
    metric = {"type": "Requests", "requests": {"target": {"type": "Utilization", "averageUtilization": 50}}}
    said = signal(in_flight(9, NOW), metric=metric)
    assert (said.state, said.current, said.target) == ("Unknown", None, "50%")


def test_quantities_are_compared_as_numbers():
    assert signal(in_flight(1, NOW), metric=in_flight_each("500m")).state == "Breached"


def test_a_metric_that_nothing_here_measures_is_unknown():
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}
    ((_, sample),) = samples(a_model().measuring(cpu))
    assert sample == NOT_MEASURED
    assert samples(a_model()) == ()
