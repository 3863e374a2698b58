"""A run that breaks a promise is told from one that keeps them all."""

import math
from dataclasses import replace

import pytest

from demo.outcome import Kill, Outcome
from demo.promises import promises_of
from tests.support.load import Report, Sample, Step

CAPACITY, WORKERS = 2, 2


def sample(start: float, route: str = "local", error: str = "", latency: float = 0.5) -> Sample:
    return Sample(start, latency, 0 if error else 200, "" if error else route, 10, error, first_byte=0.1)


CALM, CUT = sample(5.0), sample(19.9, error="truncated")
# Two stay, and the third finds them there.
BURST = (sample(15.0), sample(15.01), sample(15.1, "remote"))
DEAD, BACK, GONE = sample(25.0, "remote"), sample(35.0), sample(45.0)
FLIGHT = (Step(5.0, 1), Step(6.0, 0), Step(15.0, 1), Step(15.01, 2), Step(16.0, 0), Step(45.0, 9), Step(46.0, 0))


def broken(*samples: Sample, flight: tuple[Step, ...] = FLIGHT, in_flight: int = 1) -> list[str]:
    """Return the promises that are broken by a run of these requests."""
    outcome = Outcome(
        report=Report(tuple(sorted(samples, key=lambda one: one.start)), 60.0),
        capacity=CAPACITY,
        burst=10.0,
        killed=Kill("local", 20.0, in_flight),
        back=30.0,
        remote_killed=Kill("remote", 40.0, 0),
        decisions=(),
        local_flight=flight,
    )
    return [one.text for one in promises_of(outcome, WORKERS) if not one.kept]


GOOD = (CALM, *BURST, CUT, DEAD, BACK, GONE)


def test_a_good_run():
    assert broken(*GOOD) == []


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ((*GOOD, sample(15.0, error="status 503")), "no request fails"),
        ((*GOOD, replace(CUT, start=19.8)), "only answers that had begun are cut off, by the death of their server"),
        ((*GOOD, sample(5.0, "remote")), "below capacity nothing leaves"),
        ((CALM, *BURST[:2], DEAD, BACK, GONE), "only the excess leaves"),
        ((*GOOD, sample(12.0, "remote")), "only the excess leaves"),
        ((*GOOD, sample(25.0)), "with no replica left the remote backend serves everything"),
        ((CALM, *BURST, DEAD, sample(35.0, "remote"), GONE), "what is ready again serves again"),
        ((*GOOD, sample(45.0, "remote")), "with the remote backend gone everything stays, slower"),
    ],
)
def test_each_promise_can_be_broken_alone(samples, text):
    assert broken(*samples) == [text]


def test_the_replicas_got_too_much():
    most = CAPACITY + WORKERS - 1
    assert broken(*GOOD, flight=(*FLIGHT[:3], Step(15.5, most), *FLIGHT[4:])) == []
    assert broken(*GOOD, flight=(*FLIGHT[:3], Step(15.5, most + 1), *FLIGHT[4:])) == [
        "the replicas get what they take, and one request for each further worker of Envoy"
    ]


def test_what_met_the_kill_was_not_too_early():
    waited = replace(sample(19.95, "remote"), first_byte=0.3)
    assert broken(*GOOD, waited) == []


def test_no_answer_is_no_time():
    assert broken(*GOOD, replace(CUT, first_byte=math.nan)) == ["no request fails"]
