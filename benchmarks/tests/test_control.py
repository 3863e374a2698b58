"""The queueing model behind `make bench NAME=decision`."""

import itertools

import pytest
from click.testing import CliRunner

from benchmarks.control.demand import Load, constant, loads
from benchmarks.control.outcome import Outcome, play
from benchmarks.control.policies import POLICIES
from benchmarks.control.replicas import Replicas
from benchmarks.decision import main
from benchmarks.overflow.pool import Pool

POOL = Pool(replicas=2, places=1, service=1.0)
BY_NAME = {one.name: one for one in POLICIES}


def test_a_request_waits_for_the_place_of_its_replica():
    replicas = Replicas(POOL)
    assert [replicas.take(at, 1.0) for at in (0.0, 0.1, 0.2, 0.3)] == pytest.approx([0, 0, 0.8, 0.8])
    assert (replicas.in_flight(0.5), replicas.waiting(0.5)) == (4, 2)
    assert (replicas.in_flight(1.5), replicas.waiting(1.5)) == (2, 0)
    assert replicas.busy(0.0, 2.0) == pytest.approx((2.0 + 1.9) / 2 / 2)


def test_the_oracle_lets_nobody_wait_and_no_controller_sends_nothing():
    load = Load("two of three", POOL, tuple((number / 3, 1.0) for number in range(30)), 10)
    oracle, nothing = play(load, BY_NAME["oracle"]), play(load, BY_NAME["no controller"])
    assert oracle.waited == 0
    assert oracle.away == pytest.approx(1 / 3, abs=0.1)
    assert (nothing.away, nothing.waited > 0.8) == (0, True)


def test_turns_are_of_ten_percent_or_more():
    shares = (0, 50, 45, 50, 30, 30, 50, 0)
    outcome = Outcome(0, 0, 0, tuple(map(float, shares)))
    assert outcome.turns(0, 4) == 3
    assert outcome.changes == 2
    assert Outcome(0, 0, 0, (0.0, 33.0, 36.0, 35.0, 35.0, 35.0)).settled(0, 3) == 1


def test_without_a_controller_the_traces_wait_as_behind_a_real_envoy():
    """docs/surge.md measured 91.3 % and 5.7 % with the same replicas."""
    known = loads()
    assert play(known["code"], BY_NAME["no controller"]).waited == pytest.approx(0.913, abs=0.02)
    assert play(known["conversation"], BY_NAME["no controller"]).waited == pytest.approx(0.057, abs=0.02)


@pytest.mark.parametrize("kind", ["in flight", "cpu", "queue"])
@pytest.mark.parametrize("law", ["Proportional", "Threshold 50"])
def test_at_a_constant_demand_a_status_is_written_rarely(law, kind):
    """What is in flight varies by a fifth, and the demand is what the replicas serve: half of the samples are above."""
    outcome = play(constant("at the limit", 1.0, 600), BY_NAME[f"{law}, {kind}"])
    steps = sum(was != now for was, now in itertools.pairwise((0.0, *outcome.shares)))
    # Two waits, each begun and broken off, in `restoreAfter`. After a step, which is a write itself, rests are shorter.
    assert outcome.writes <= 4 * 600 / 60 + 12 * steps


def test_an_unknown_input_is_refused():
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
