"""A run that breaks a promise is told from one that keeps them all."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from demo.outcome import Kill, Outcome
from demo.promises import promises_of
from tests.support.load import Report, Sample, Step

CAPACITY, WORKERS = 2, 2


def sample(start: float, route: str = "local", error: str = "", latency: float = 0.5, name: str = "") -> Sample:
    status, route = (0, "") if error else (200, route)
    return Sample(start, latency, status, route, 10, error, first_byte=0.1, note=name)


CALM, CUT = sample(5.0), sample(19.9, error="truncated", name="lost")
# Two stay, and the third finds them there.
BURST = (sample(15.0), sample(15.01), sample(15.1, "remote"))
DEAD, BACK, GONE = sample(25.0, "remote"), sample(35.0), sample(45.0)
FLIGHT = (Step(5.0, 1), Step(6.0, 0), Step(15.0, 1), Step(15.01, 2), Step(16.0, 0), Step(45.0, 9), Step(46.0, 0))
NO_ANSWERS: Mapping[str, tuple[float, float]] = {}
LOCAL, REMOTE = (5.0, 15.0, 15.01, 19.9, 35.0, 45.0), (15.1, 25.0)


def broken(
    *samples: Sample,
    workers: int = WORKERS,
    flight: tuple[Step, ...] = FLIGHT,
    local: tuple[float, ...] = LOCAL,
    remote: tuple[float, ...] = REMOTE,
    answers: Mapping[str, tuple[float, float]] = NO_ANSWERS,
) -> list[str]:
    """Return the promises that are broken by a run of these requests, which came to the servers at these moments."""
    outcome = Outcome(
        report=Report(tuple(sorted(samples, key=lambda one: one.start)), 60.0),
        capacity=CAPACITY,
        burst=10.0,
        killed=Kill("local", 19.95, 20.0, frozenset({"lost"})),
        back=30.0,
        remote_killed=Kill("remote", 40.0, 40.0, frozenset()),
        decisions=(),
        local_flight=flight,
        begun=(local, remote),
        local_answers=answers,
    )
    return [one.text for one in promises_of(outcome, workers) if not one.kept]


GOOD = (CALM, *BURST, CUT, DEAD, BACK, GONE)


def test_a_good_run():
    assert broken(*GOOD) == []


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ((*GOOD, sample(15.0, error="status 503")), "no request fails"),
        ((*GOOD, CUT), "only answers that had begun are cut off, by the death of their server"),
        ((*GOOD, sample(6.0, "remote")), "below capacity nothing leaves"),
        ((*BURST, CUT, DEAD, BACK, GONE), "below capacity nothing leaves"),
        ((CALM, *BURST[:2], DEAD, BACK, GONE), "only the excess leaves"),
        ((*GOOD, sample(12.0, "remote")), "only the excess leaves"),
        ((*GOOD, sample(45.0, "remote")), "with the remote backend gone everything stays, slower"),
        ((*GOOD[:-1], replace(GONE, route="")), "with the remote backend gone everything stays, slower"),
    ],
)
def test_each_promise_can_be_broken_alone_by_what_clients_see(samples, text):
    assert broken(*samples) == [text]


@pytest.mark.parametrize(
    ("local", "remote", "text"),
    [
        ((*LOCAL, 25.0), REMOTE, "with no replica left the remote backend serves everything"),
        (LOCAL, (15.1,), "with no replica left the remote backend serves everything"),
        ((5.0, 15.0, 15.01, 19.9, 45.0), REMOTE, "what is ready again serves again"),
    ],
)
def test_each_promise_can_be_broken_alone_by_what_servers_see(local, remote, text):
    assert broken(*GOOD, local=local, remote=remote) == [text]


def test_an_answer_that_breaks_off_without_the_death_of_its_server_is_a_failure():
    assert broken(*GOOD, replace(CUT, note="another")) == [
        "no request fails",
        "only answers that had begun are cut off, by the death of their server",
    ]


def test_a_busy_client_breaks_no_promise():
    """It sends late, sees the end of a cut answer late, and what arrived in the dead time comes when there is room."""
    late = replace(sample(29.9, latency=3.0), late=2.0)
    assert broken(CALM, *BURST, replace(CUT, latency=9.0), DEAD, late, BACK, GONE, local=(*LOCAL, 31.9)) == []
    full = (Step(4.9, 2), *FLIGHT)
    calm = (sample(4.9), sample(4.95), replace(sample(5.0, "remote"), first_byte=0.2))
    assert broken(*GOOD, *calm, flight=full) == []


def test_the_replicas_got_too_much():
    most = CAPACITY + WORKERS - 1
    assert broken(*GOOD, flight=(*FLIGHT[:3], Step(15.5, most), *FLIGHT[4:])) == []
    assert broken(*GOOD, flight=(*FLIGHT[:3], Step(15.5, most + 1), *FLIGHT[4:])) == [
        "the replicas get what they take, and one request for each further worker of Envoy"
    ]


def test_the_last_place_may_look_taken_while_another_worker_takes_the_one_before_it():
    last = sample(5.1, "remote")
    assert broken(*GOOD, last) == []
    assert broken(*GOOD, last, workers=1, flight=(*FLIGHT[:3], *FLIGHT[4:])) == ["below capacity nothing leaves"]


def test_what_met_the_kill_was_not_too_early():
    one_worker = {"workers": 1, "flight": (*FLIGHT[:3], *FLIGHT[4:])}
    waited = replace(sample(19.8, "remote"), first_byte=0.16)
    assert broken(*GOOD, waited) == []
    assert broken(*GOOD, replace(waited, first_byte=0.14), **one_worker) == ["only the excess leaves"]


def test_no_answer_is_no_time():
    assert "no request fails" in broken(*GOOD, replace(CUT, note="", first_byte=math.nan))


TAKEN = "the replicas get what they take, and one request for each further worker of Envoy"


@pytest.mark.parametrize(
    ("late", "more", "told"),
    [
        (2.0, 0, []),  # they came back from a remote backend that took no connection
        (1.9, 0, [TAKEN]),  # too soon for that
        (2.0, 2, [TAKEN]),  # that does not explain these
    ],
)
def test_what_came_back_from_a_silent_remote_backend_is_not_what_the_replicas_were_sent_too_much(late, more, told):
    back = [sample(16.0, latency=3.0, name=f"back-{number}") for number in range(9)]
    answers = {one.note: (one.sent + late, one.end) for one in back}
    answers |= {f"first-{number}": (16.5, 18.5) for number in range(CAPACITY + WORKERS - 1 + more)}
    flight = (*FLIGHT[:-2], Step(18.0, 12 + more), Step(19.0, 0), *FLIGHT[-2:])
    assert broken(*GOOD, *back, flight=flight, answers=answers) == told
