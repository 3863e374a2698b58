"""What became of each request: served, cut off by a kill, or failed."""

import math

import pytest

from demo.outcome import Kill, Outcome, Tally
from tests.support.load import Report, Sample, Step

Begun = tuple[tuple[float, ...], tuple[float, ...]]
KILLED = Kill("local", 19.9, 20.0, frozenset({"one", "two", "three"}))
REMOTE_KILLED = Kill("remote", 39.9, 40.0, frozenset({"four"}))


def sample(start: float = 0.0, latency: float = 0.3, error: str = "", **more: object) -> Sample:
    known = {"status": 200, "route": "local", "size": 10, "first_byte": 0.1, "note": "whole"}
    if error:
        known |= {"status": 0, "route": "", "size": 0, "note": "one"}
    return Sample(start=start, latency=latency, error=error, **(known | more))


def outcome(*samples: Sample, flight: tuple[Step, ...] = (), begun: Begun = ((), ())) -> Outcome:
    return Outcome(Report(samples, 60.0), 12, 10.0, KILLED, 30.0, REMOTE_KILLED, (), flight, begun)


@pytest.mark.parametrize(
    "broken",
    [
        sample(19.8, 0.2, "truncated"),
        sample(19.8, 0.2, "ConnectionResetError"),
        sample(19.8, 9.0, "truncated"),
        sample(19.0, 0.5, "truncated"),
    ],
    ids=["at once", "reset", "the client was busy", "the client was quicker than the one that killed"],
)
def test_an_answer_that_its_server_worked_on_when_it_was_killed_is_cut(broken):
    assert KILLED.cut(broken)
    assert not REMOTE_KILLED.cut(broken)


@pytest.mark.parametrize(
    "failed",
    [
        sample(19.9, 0.2),
        sample(19.9, 0.2, note="one"),
        sample(19.9, 0.2, "chunks of several answers", status=200, note="one"),
        sample(19.9, 0.2, "closed", note="", first_byte=math.nan),
        sample(19.9, 0.2, "truncated", note="another"),
        sample(19.9, 0.2, "truncated", note=""),
        sample(19.9, 30.0, "timeout", note=""),
    ],
    ids=["whole", "had ended", "wrong", "had not begun", "of a server that lived", "without a head", "hung on"],
)
def test_nothing_else_is(failed):
    assert not KILLED.cut(failed)


def test_a_kill_on_another_clock_is_the_same():
    moved = KILLED.since(-5.0)
    assert (moved.begin, moved.at, moved.in_flight) == (24.9, 25.0, 3)
    assert moved.cut(sample(error="truncated"))


def test_a_tally_counts_each_once():
    cut, timeout = sample(19.9, 0.2, "truncated"), sample(1.0, 1.0, "timeout", note="")
    tally = Tally.of([sample(), sample(route="remote", first_byte=0.2), cut, timeout], [KILLED])
    assert (tally.requests, tally.local, tally.remote, tally.cut, tally.failed) == (4, 1, 1, 1, 1)
    assert (tally.p50, tally.p99) == (0.1, 0.2)


def test_a_request_is_of_the_phase_it_arrived_in_and_a_cut_one_of_that_which_cut_it():
    seen = outcome(sample(9.9), sample(10.0), sample(19.9, 0.2, "truncated"), sample(30.0), sample(41.0, 2.0))
    assert [phase.tally.requests for phase in seen.phases] == [1, 1, 1, 1, 1]
    assert [phase.tally.cut for phase in seen.phases] == [0, 0, 1, 0, 0]
    assert (seen.tally.cut, seen.tally.failed, seen.end) == (1, 0, 43.0)


def test_each_phase_has_the_most_in_flight_at_the_replicas():
    flight = (Step(1.0, 2), Step(5.0, 1), Step(15.0, 12), Step(20.0, 0), Step(35.0, 9), Step(41.0, 30), Step(42.0, 0))
    phases = outcome(sample(41.0, 2.0), flight=flight).phases
    assert [phase.most for phase in phases] == [2, 12, 0, 9, 30]
    assert [phase.capacity for phase in phases] == [12, 12, 0, 12, 12]


def test_each_phase_has_what_came_to_the_servers_in_it():
    phases = outcome(sample(41.0, 2.0), begun=((1.0, 20.0, 29.9, 30.0), (10.0, 29.9, 39.0))).phases
    assert [phase.begun for phase in phases] == [(1, 0), (0, 1), (2, 1), (1, 1), (0, 0)]
