"""What a sum over Envoys lacks while an xDS server is not reached, and when that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.reports import Count, LoadReport
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import REAL
from controller.decision import Cause, Known, SentRequests, Unknown
from controller.decision.signals import compare
from controller.signals.fleet_loads import FleetLoads
from controller.signals.requests_in_flight import RequestsInFlight
from controller.signals.source import Subject
from controller.store.objects import ObjectRef

MODEL = ObjectRef("ModelDeployment", "default", "a")
START = datetime(2026, 1, 1, tzinfo=UTC)
OLD, AWAITED = REAL.reports.old_after, REAL.reports.awaited
NOT_REACHED = "the xDS server old is not reached"


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


class Site:
    """Some xDS servers, each with its Envoys by name; through each Envoy four requests are in flight."""

    def __init__(self, **envoys: str) -> None:
        self.envoys = {server: set(names.split()) for server, names in envoys.items()}
        self.loads = FleetLoads()
        self.streams = dict[tuple[str, str], int]()
        self.second = 0
        self.unreached = set[str]()
        self.unnamed = set[str]()

    def names(self, server: str, *, is_open: bool = True) -> None:
        self.loads.expect(server, at(self.second), is_open=is_open)

    def goes_on(self, seconds: int) -> Site:
        """Every second each server is named, and says what it has heard."""
        for _ in range(seconds):
            self.second += 1
            for server, names in self.envoys.items():
                if server not in self.unreached | self.unnamed:
                    for envoy in sorted(names):
                        self._report(server, envoy)
                    self.loads.set_silent(server, (), at(self.second))
        return self

    def _report(self, server: str, envoy: str) -> None:
        began = self.streams.setdefault((server, envoy), self.second)
        seconds = float(self.second - began + 1)
        counts: dict[str, Count | None] = {
            "model/default/a/local": Count(int(10 * seconds), int(10 * seconds), 0, 4),
            "model/default/a/remote": Count(),
        }
        report = LoadReport(node=envoy, began=float(began), seconds=seconds, age=0.0, counts=counts)
        self.loads.add_report(report, at(self.second), server)

    def drops(self, server: str) -> None:
        self.unnamed.add(server)
        self.loads.drop(server, at(self.second))

    def missing(self) -> Unknown | None:
        load = self.loads.load(MODEL, at(self.second))
        return load.value.missing if isinstance(load, Known) else load

    def in_flight(self) -> int:
        load = self.loads.load(MODEL, at(self.second))
        assert isinstance(load, Known), load
        return load.value.in_flight

    def seconds_counted(self) -> float:
        sent = self.loads.traffic(MODEL, ("remote",), START, at(self.second))
        assert isinstance(sent, SentRequests)
        return sent.seconds


def a_site(**envoys: str) -> Site:
    site = Site(**envoys)
    for server in site.envoys:
        site.names(server)
    return site.goes_on(20)


@pytest.mark.parametrize(("target", "state"), [("4", "Breached"), ("5", "Unknown")])
def test_what_is_heard_is_the_least_while_an_xds_server_is_not_reached(target: str, state: str) -> None:
    """Its Envoys go on with what they were told, and have clients."""
    site = a_site(old="one", new="two")
    assert (site.in_flight(), site.missing()) == (8, None)
    site.unreached.add("old")
    for second in range(1, 600):
        site.goes_on(1)
        if second > OLD:
            assert site.missing() == Unknown(NOT_REACHED, second < AWAITED, Cause.NOT_ANSWERING)
            assert site.in_flight() == 4
            # Nor does anybody know how many there are a second.
            assert site.seconds_counted() == 0.0
    metric = parse(MetricSpec, {"type": "Requests", "requests": {"target": {"type": "Value", "value": target}}})
    signal = compare(metric, RequestsInFlight(site.loads).sample(Subject(MODEL), metric, at(site.second)), 1)
    assert (signal.state, signal.at_least, signal.pending) == (state, True, False)
    assert NOT_REACHED in (signal.message or "")
    site.unreached.clear()
    site.goes_on(1)
    assert (site.in_flight(), site.missing()) == (8, None)


def test_no_moment_has_a_part_for_the_whole() -> None:
    """From the last word of a server on, what is heard is all of it, or at least so much."""
    site = a_site(old="one", new="two")
    site.unreached.add("old")
    for tenth in range(80):
        now = at(site.second + tenth / 10)
        site.loads.set_silent("new", (), now)
        load = site.loads.load(MODEL, now)
        if not isinstance(load, Known) or load.value.in_flight < 8:
            assert tenth > 10 * OLD and (not isinstance(load, Known) or load.value.missing)


def test_an_xds_server_that_is_ready_and_not_reached_may_have_envoys_that_nobody_knows_of() -> None:
    site = a_site(new="two")
    site.names("old")
    for second in range(60):
        assert site.missing() == Unknown(NOT_REACHED, second < AWAITED, Cause.NOT_ANSWERING)
        site.goes_on(1)


def test_one_that_never_was_ready_has_none() -> None:
    """It does not start: a rollout that goes wrong keeps nothing away."""
    site = a_site(new="two")
    site.names("old", is_open=False)
    assert site.missing() is None
    site.goes_on(60)
    assert site.missing() is None


def test_one_that_becomes_ready_is_waited_for_from_then_on() -> None:
    site = a_site(new="two")
    site.names("old", is_open=False)
    site.goes_on(60)
    site.names("old")
    assert site.missing() == Unknown(NOT_REACHED, True, Cause.NOT_ANSWERING)


def test_one_whose_node_is_gone_is_missed_until_its_envoys_are_heard_by_way_of_others() -> None:
    """It is named for minutes more; once it is not ready, no Envoy can have come to it."""
    site = a_site(old="one", new="two")
    site.unreached.add("old")
    site.goes_on(50)
    site.names("old", is_open=False)
    assert site.missing() == Unknown(NOT_REACHED, False, Cause.NOT_ANSWERING)
    site.envoys["new"].add("one")
    site.goes_on(1)
    assert (site.in_flight(), site.missing()) == (8, None)
    # Where it is heard now says when it ends.
    site.envoys["new"].remove("one")
    site.goes_on(5)
    assert (site.in_flight(), site.missing()) == (4, None)


def test_in_a_rolling_update_envoys_are_waited_for_until_they_have_found_another_xds_server() -> None:
    site = a_site(old="one", new="two")
    site.drops("old")
    site.goes_on(5)
    words = "Envoy one is not heard since the xDS server old is gone"
    assert (site.in_flight(), site.missing()) == (4, Unknown(words, True, Cause.NO_SAMPLE))
    site.envoys["new"].add("one")
    site.goes_on(1)
    assert (site.in_flight(), site.missing()) == (8, None)


def test_one_that_is_gone_for_good_and_its_envoy_with_it_is_missed_no_longer_than_envoys_take() -> None:
    site = a_site(old="one", new="two")
    site.unreached.add("old")
    site.goes_on(100)
    site.drops("old")
    for second in range(60):
        missing = site.missing()
        assert (missing is not None) == (second < AWAITED)
        assert missing is None or missing.pending
        site.goes_on(1)
    assert site.seconds_counted() > 0.0


def test_an_envoy_that_ends_is_not_missed_where_its_xds_server_is_heard() -> None:
    site = a_site(old="one three", new="two")
    site.envoys["old"].remove("three")
    site.goes_on(5)
    assert (site.in_flight(), site.missing()) == (8, None)


def test_an_xds_server_that_is_heard_again_says_which_of_its_envoys_ended_meanwhile() -> None:
    site = a_site(old="one three", new="two")
    site.unreached.add("old")
    site.goes_on(100)
    site.envoys["old"].remove("three")
    site.unreached.clear()
    site.goes_on(1)
    assert (site.in_flight(), site.missing()) == (8, None)


def test_what_an_xds_server_said_of_silence_is_of_no_use_once_it_is_not_reached() -> None:
    """The Envoy may be heard by way of another one, or not: who is not reached is named, and not the Envoy."""
    site = a_site(old="one", new="two")
    site.loads.set_silent("old", ("three",), at(site.second))
    missing = site.missing()
    assert missing and missing.why == "Envoy three reports no load"
    site.unreached.add("old")
    site.goes_on(5)
    site.names("old", is_open=False)
    missing = site.missing()
    assert missing and missing.why == NOT_REACHED
    site.envoys["new"] |= {"one", "three"}
    site.goes_on(1)
    assert (site.in_flight(), site.missing()) == (12, None)


@pytest.mark.parametrize("back", [5, 1000])
def test_a_clock_that_is_set_back_has_nobody_missed_for_longer(back: int) -> None:
    site = a_site(old="one", new="two")
    site.drops("old")
    site.goes_on(1)
    site.second -= back
    site.streams.clear()
    site.goes_on(int(AWAITED) + 1)
    assert site.missing() is None
