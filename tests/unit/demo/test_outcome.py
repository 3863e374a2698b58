"""What became of each request: served, cut off by a kill, or failed."""

import math

import pytest

from demo.outcome import Kill, Outcome, Tally
from tests.support.load import Report, Sample, Step

KILLED, REMOTE_KILLED = Kill("local", 20.0, 3), Kill("remote", 40.0, 1)


def sample(start: float = 0.0, latency: float = 0.3, error: str = "", **more: object) -> Sample:
    known = {"status": 200, "route": "local", "size": 10, "first_byte": 0.1}
    if error:
        known |= {"status": 0, "route": "", "size": 0}
    return Sample(start=start, latency=latency, error=error, **(known | more))


def outcome(*samples: Sample, flight: tuple[Step, ...] = ()) -> Outcome:
    return Outcome(Report(samples, 60.0), 12, 10.0, KILLED, 30.0, REMOTE_KILLED, (), flight)


def test_an_answer_that_had_begun_when_its_server_was_killed_is_cut():
    assert KILLED.cut(sample(19.9, 0.2, "truncated"))


@pytest.mark.parametrize(
    "failed",
    [
        sample(19.9, 0.2),
        sample(19.9, 0.2, "closed", first_byte=math.nan),
        sample(20.1, 0.2, "truncated"),
        sample(19.0, 0.5, "truncated"),
        sample(19.9, 9.0, "timeout"),
    ],
    ids=["whole", "had not begun", "came after", "ended before", "hung on"],
)
def test_nothing_else_is(failed):
    assert not KILLED.cut(failed)


def test_a_tally_counts_each_once():
    tally = Tally.of(
        [sample(), sample(route="remote", first_byte=0.2), sample(19.9, 0.2, "truncated"), sample(1.0, 1.0, "timeout")],
        [KILLED],
    )
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
