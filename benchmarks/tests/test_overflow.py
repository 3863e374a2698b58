"""What must leave, what did, and how both are judged."""

import asyncio
import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.overflow.oracle import must_leave
from benchmarks.overflow.outcome import Burst, Outcome, longest, typical
from benchmarks.overflow.plan import plan_for
from benchmarks.overflow.policies import POLICIES, share_away
from benchmarks.overflow.pool import Pool, pool_for
from benchmarks.overflow.replicas import Places
from benchmarks.overflow.table import GOALS, table, verdict
from tests.support.load import (
    Report,
    Sample,
    TracedRequest,
    azure_code_trace,
    azure_conversation_trace,
)

POOL = Pool(replicas=3, places=4, service=2.0)


def sample(at: float, note: str = "free", *, route: str = "local", first_byte: float = 0.01, error: str = "") -> Sample:
    return Sample(at, 1.0, 0 if error else 200, "" if error else route, 10, error, first_byte=first_byte, note=note)


def outcome(*samples: Sample, scale: float = 1.0) -> Outcome:
    return Outcome(Report(samples, 100.0), POOL, scale)


def test_the_replicas_serve_twice_the_mean_rate():
    trace = [TracedRequest(at / 2, 1, 1) for at in range(101)]  # 2.02 requests a second
    pool = pool_for(trace)
    assert pool.size == 12
    assert pool.capacity == pytest.approx(4.04)


def test_everything_is_faster_alike():
    trace = [TracedRequest(float(at), 1, 1) for at in range(101)]
    plan = plan_for(trace, share=0.5, seconds=10)
    assert plan.scale == pytest.approx(0.1)
    assert plan.arrivals == pytest.approx([at / 10 for at in range(50)])
    assert plan.service / plan.pool.service == pytest.approx(0.1)
    assert plan.capacity * plan.service == pytest.approx(plan.pool.size)
    assert plan_for(trace, 1.0, 10).arrivals[-1] == pytest.approx(10)


def test_who_finds_a_place_stays():
    # Two places: the third leaves, the fourth comes when the first place is free again.
    assert must_leave([0.0, 0.1, 0.2, 1.0, 1.05], service=1.0, places=2) == (False, False, True, False, True)


@given(
    st.lists(st.integers(0, 12), max_size=9).map(sorted),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_nobody_keeps_more(arrivals, service, places):
    def fits(kept):
        return all(sum(one <= moment < one + service for one in kept) <= places for moment in kept)

    most = max(count for count in range(len(arrivals) + 1) if any(fits(kept) for kept in combinations(arrivals, count)))
    assert must_leave(arrivals, service, places).count(False) == most


@pytest.mark.parametrize(("trace", "percent"), [(azure_code_trace, 52.9), (azure_conversation_trace, 2.7)])
def test_what_must_leave_of_the_traces(trace, percent):
    requests = trace()
    pool = pool_for(requests)
    leave = must_leave((request.at for request in requests), pool.service, pool.size)
    assert 100 * sum(leave) / len(leave) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(("demand", "percent"), [(0, 0), (5, 0), (10, 50), (50, 90), (5.01, 0)])
def test_a_metric_loop_sends_away_what_was_too_much(demand, percent):
    assert share_away(demand, capacity=5.0) == percent


@pytest.mark.parametrize(("waiting", "percent"), [(-12, 50), (0, 50), (1, 100)])
def test_a_metric_loop_sends_everything_away_while_some_wait(waiting, percent):
    assert share_away(10.0, 5.0, waiting) == percent


def test_a_request_is_full_however_many_replicas_are():
    one = outcome(sample(0), sample(1, "full"), sample(2, "none"), sample(3, route="remote"))
    assert (one.met_full, one.away) == (0.5, 0.25)


def test_what_failed_neither_stayed_nor_left():
    one = outcome(sample(0, error="timeout"), sample(1, route="remote"))
    assert (one.requests, one.failed, one.away) == (2, 1, 0.5)


def test_beyond_the_oracle_is_what_left_though_there_was_a_place():
    alone = [sample(10.0 * number, route="remote" if number < 2 else "local") for number in range(10)]
    assert outcome(*alone).beyond == pytest.approx(0.2)
    # Thirteen at once for twelve places: one must leave.
    burst = [sample(0, route="remote" if number == 12 else "local") for number in range(13)]
    assert outcome(*burst).beyond == 0


def test_the_oracle_sees_when_requests_were_really_sent():
    """A generator that was held up sends a burst that is not in the trace."""
    spread = [sample(10.0 * number) for number in range(13)]
    assert outcome(*spread).oracle == 0
    assert outcome(*(replace(one, late=120.0 - one.start) for one in spread)).oracle == pytest.approx(1 / 13)


def test_times_are_those_of_the_trace_and_without_the_generators_delay():
    one = outcome(replace(sample(0, first_byte=0.3), late=0.1), scale=0.1)
    assert one.first_byte(50) == pytest.approx(2.0)
    assert one.late(50) == 0.1


def test_a_burst_begins_with_what_is_too_much_after_some_calm():
    bursts = outcome(
        sample(0, "none"),
        sample(1, route="remote", first_byte=0.5),
        sample(3, "none"),  # still the same
        sample(9, route="remote", first_byte=0.2),
        sample(20, "full"),  # another replica has a place
    ).bursts()
    assert bursts == (
        Burst(same_request=False, first_answer=1.5),
        Burst(same_request=True, first_answer=pytest.approx(0.2)),
    )
    assert (typical(bursts), longest(bursts)) == (pytest.approx(0.85), 1.5)


def test_a_burst_of_which_nothing_left_is_never_answered():
    assert outcome(sample(0, "none")).bursts() == (Burst(same_request=False, first_answer=math.inf),)
    assert outcome(sample(0)).bursts() == ()
    assert math.isnan(longest(()))


def outcomes_with(product: Outcome):
    good = outcome(*(sample(10.0 * number) for number in range(100)))
    bad = outcome(*(sample(number / 100, "none") for number in range(100)))
    return {
        "code": {policy: good if policy.is_limited else bad for policy in POLICIES},
        "conversation": {policy: product if policy.is_limited else bad for policy in POLICIES},
    }


@pytest.mark.parametrize(
    ("samples", "missed"),
    [
        ([], []),
        ([sample(1 + number, "full") for number in range(2)], []),
        ([sample(1 + number, "full") for number in range(3)], ["requests that met a full replica"]),
        ([sample(1 + number, route="remote") for number in range(6)], ["sent away beyond the oracle's"]),
        ([sample(1, "none")], ["bursts, one worker: the first excess request stayed"]),
        ([sample(1, error="timeout")], ["failed requests"]),
    ],
    ids=["nothing wrong", "two met full", "three met full", "six left early", "late", "failed"],
)
def test_a_goal_is_judged_by_the_worst_of_the_product_alone(samples, missed):
    rest = [sample(1000 + 10.0 * number) for number in range(100 - len(samples))]
    outcomes = outcomes_with(outcome(*samples, *rest))
    assert [goal.text for goal in GOALS if not goal.met(outcomes)] == missed
    for goal in GOALS:
        words = verdict(goal, outcomes)
        assert words.split()[0] == ("missed" if goal.text in missed else "met")
        assert not missed or goal.text not in missed or "conversation" in words


def test_the_table_has_a_row_for_each_policy_as_wide_as_its_header():
    header, *rows = table(outcomes_with(outcome(sample(0)))["code"]).splitlines()
    assert [row[:20].strip() for row in rows] == [policy.name for policy in POLICIES]
    assert {len(row) for row in rows} == {len(header)}


class Client:
    """Keeps what a connection was sent."""

    def __init__(self) -> None:
        self.head = b""
        self.sent = b""
        self.done = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.sent += data
        if b"last" in data:
            self.done.set()


async def test_a_replica_serves_in_its_places_and_says_who_found_none():
    """Two replicas with one place: the second request finds one of them full, the fourth both."""
    replicas: list[Places] = []
    replicas += [Places(1, 0.01, replicas), Places(1, 0.01, replicas)]
    clients = [Client() for _ in range(5)]
    for client, number in zip(clients, (0, 0, 1, 1, 0), strict=True):
        replicas[number].take(client)

    said = [client.head.partition(b"x-on-arrival: ")[2].partition(b"\r\n")[0] for client in clients]
    assert said == [b"free", b"full", b"free", b"none", b"none"]
    assert [b"first" in client.sent for client in clients] == [True, False, True, False, False]
    await clients[1].done.wait()
    assert (clients[0].done.is_set(), clients[4].done.is_set()) == (True, False)
    await asyncio.gather(*(client.done.wait() for client in clients))
