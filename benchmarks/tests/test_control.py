"""The queueing model behind `make bench NAME=decision`."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmarks.control.demand import Load, another, constant, loads, surge
from benchmarks.control.outcome import Asked, Outcome, play
from benchmarks.control.policies import LIMIT_ALONE, LOOP_OF_CPU, POLICIES, TOLD, Counted, Cpu, Policy, Sent
from benchmarks.control.real import Comparison
from benchmarks.control.replicas import Replicas
from benchmarks.control.streams import Settled, Turned, table
from benchmarks.decision import beyond_the_oracle, main
from benchmarks.overflow.pool import Pool

POOL = Pool(replicas=2, places=1, service=1.0)
BY_NAME = {one.name: one for one in POLICIES}


@pytest.fixture(scope="module")
def known() -> Mapping[str, Load]:
    """Every input by its name."""
    return loads()


def test_a_request_waits_for_the_place_of_its_replica():
    replicas = Replicas(POOL)
    assert [replicas.take(at, 1.0) for at in (0.0, 0.1, 0.2, 0.3)] == pytest.approx([0, 0, 0.8, 0.8])
    assert (replicas.in_flight(0.5), replicas.waiting(0.5)) == (4, 2)
    assert (replicas.in_flight(1.5), replicas.waiting(1.5)) == (2, 0)
    assert replicas.busy(0.0, 2.0) == pytest.approx((2.0 + 1.9) / 2 / 2)


def test_the_oracle_lets_nobody_wait_and_no_controller_sends_nothing():
    load = Load("two of three", POOL, tuple((number / 3, 1.0) for number in range(30)), 10, lambda _: 1.5)
    oracle, nothing = play(load, BY_NAME["oracle"]), play(load, BY_NAME["no controller"])
    assert oracle.waited == 0
    assert oracle.away == pytest.approx(1 / 3, abs=0.1)
    assert (nothing.away, nothing.waited > 0.8) == (0, True)
    # A limit without a metric is the product's oracle: what is decided never changes.
    limit = play(load, BY_NAME[LIMIT_ALONE])
    assert (limit.waited, limit.away, set(limit.shares), limit.writes) == (0, oracle.away, {0}, 1)


def test_turns_are_of_ten_percent_or_more():
    shares = (0, 50, 45, 50, 30, 30, 50, 0)
    outcome = Outcome(0, 0, 0, tuple(map(float, shares)))
    assert outcome.turns(0, 4) == 3
    assert (outcome.changes, outcome.begun) == (2, 1)
    assert Outcome(0, 0, 0, (0.0, 33.0, 36.0, 35.0, 35.0, 35.0)).settled(0, 3) == 1


@pytest.mark.parametrize(
    ("loud", "quiet", "every", "asked"),
    [
        (1.5, 0.5, 60, Asked(turns=18, surges=1)),  # half a minute of quiet is the same surge
        (1.5, 0.5, 120, Asked(turns=8, surges=5)),
        (0.85, 0.75, 120, Asked(turns=0, surges=1)),  # never below the target by a tenth, and no turn of ten percent
        (0.75, 0.75, 120, Asked(turns=0, surges=0)),
    ],
)
def test_a_demand_asks_for_a_turn_when_it_goes_back_and_begins_anew_after_a_minute_of_quiet(loud, quiet, every, asked):
    def demand(at):
        return loud if at % every < 30 else quiet

    pool = Pool(replicas=2, places=10, service=1.0)
    requests = tuple((float(at), 1.0) for at in range(599) for _ in range(round(demand(at) * pool.size)))
    assert Asked.by(Load("", pool, requests, 599, demand), target=0.8) == asked


def test_the_demand_of_a_trace_is_what_arrived_in_ten_seconds(known):
    step, code = known["step"], known["code"]
    assert [step.demand(at) for at in (59.9, 60, 360)] == [0.6, 1.5, 0.6]
    first = code.requests[0][0]
    within = sum(first < at <= first + 10 for at, _ in code.requests[1:])
    assert code.demand(first + 10) == pytest.approx(within / 10 / code.pool.capacity)


def test_without_a_controller_the_traces_wait_as_behind_a_real_envoy(known):
    """docs/surge.md measured 91.3 % and 5.7 % with the same replicas."""
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


def test_who_is_told_the_requests_is_exact_about_those_since_the_metric_passed_its_target():
    """Two are served a second and 1.6 shall be: of what came since 60 % are too many at first."""
    law, replicas = Counted("in flight"), Replicas(POOL)
    arriving = (1, 0, 2, 2, 1, 1, 2)
    shares = []
    for look, count in enumerate(arriving, start=1):
        for _ in range(count):
            replicas.take(look / 2, 9.0)
        shares.append(law(replicas, Sent(count, 0), look / 2))
    since = pytest.approx(100 * (1 - 1.6 / 4)), pytest.approx(100 * (1 - 1.6 / (5 / 1.5)))
    assert shares == [0, 0, since[0], since[0], since[1], since[1], pytest.approx(100 * (1 - 1.6 / (8 / 2.5)))]


def test_a_peak_that_is_over_is_none_of_the_requests_of_a_step():
    law, replicas = Counted("queue"), Replicas(POOL)
    for _ in range(4):
        replicas.take(0.5, 1.0)
    assert law(replicas, Sent(0, 0), 1.0) == 0.0  # as many wait as replicas are, and fewer come than are served
    assert law(replicas, Sent(99, 0), 2.0) == 0.0  # nobody waits
    for _ in range(4):
        replicas.take(3.0, 9.0)
    assert law(replicas, Sent(1, 0), 3.0) == pytest.approx(100 * (1 - 1.6 / 2))


def _sends(share: float) -> Policy:
    return Policy(f"always {share}", lambda: lambda replicas, sent, at: share)


def test_other_streams_of_a_step_have_its_demand_and_other_arrivals(known):
    step = known["step"]
    one, two = another(step, 1, 120), another(step, 2, 120)
    assert one.demand is step.demand
    assert (one.steady, one.seconds) == (step.steady, 120)
    assert one.requests != two.requests
    assert len(one.requests) == pytest.approx(24 * (60 * 0.6 + 60 * 1.5), rel=0.15)


def test_how_soon_shares_are_settled_is_counted_over_streams(known):
    """A share that never changes is settled at once, in each of them."""
    found = Settled.of(_sends(40.0), known["step"], 2)
    assert (found.samples, found.rests) == ((1, 1), 2)
    many = Settled((1, 3, 4, 10, 60), rests=4, overload=5.4)
    assert [many.within(most) for most in (0, 3, 10, 60)] == [0, 2, 4, 5]
    assert str(many) == "2, half within 4 and the last with 60, and overloaded for 5 s"
    title, header, row = table(known["step"], [_sends(0.0)], 1)
    assert title.startswith("1 other streams of the step")
    assert row.split()[:-1] == ["always", "0.0", *("1" for _ in range(7))]
    assert float(row.split()[-1]) > 240  # of the 300 that the step lasts
    assert len(row) == len(header)


def test_a_share_oscillates_by_itself_if_it_turns_more_often_than_the_demand(known):
    """The square asks for 19 turns in ten minutes."""
    assert Turned.by(known["square"], Outcome(0, 0, 0, (0.0, 50.0) * 600)).own > 100
    assert Turned("square 3", 29, 19, 600).own == pytest.approx(1.0)
    (still,) = Turned.others(_sends(40.0), replace(known["square"], seconds=120.0), 1)
    assert still == Turned("square 0", 0, 3, 120.0)


def test_each_policy_with_a_limit_has_a_verdict_of_its_own():
    """What is beyond the oracle's is what a metric sends: the limit alone meets the goal."""
    away = {one.name: 0.3 if "Threshold" in one.name else 0.1 for one in POLICIES}
    by_policy = {name: Outcome(0.0, share, 1.0, (0.0,)) for name, share in away.items()}
    lines = [(text, met) for text, met in beyond_the_oracle({"code": by_policy})]
    assert [text.split(", beyond")[0] for text, _ in lines] == [one.name for one in POLICIES if one.limited]
    assert {text.split()[0]: met for text, met in lines} == {"no": True, "Threshold": False, "Proportional,": True}


def _compared(real: Outcome, late: float) -> bool:
    model = Outcome(0.1, 0.3, 10.0, (0.0,))
    ((_, met),) = Comparison(surge(), {"a law": (real, model, late)}).verdicts()
    return met


@pytest.mark.parametrize(
    ("real", "late", "met"),
    [
        (Outcome(0.12, 0.28, 20.0, (0.0,)), 0.4, True),
        (Outcome(0.14, 0.3, 10.0, (0.0,)), 0.1, False),
        (Outcome(0.1, 0.26, 10.0, (0.0,)), 0.1, False),
        (Outcome(0.1, 0.3, 21.0, (0.0,)), 0.1, False),
        (Outcome(0.1, 0.3, 10.0, (0.0,)), 0.6, False),
    ],
    ids=["near", "more waited", "fewer left", "longer", "another input"],
)
def test_the_model_is_near_to_what_is_real_or_not(real, late, met):
    assert _compared(real, late) is met


def test_cpu_is_of_a_whole_window_and_late():
    replicas, cpu = Replicas(POOL), Cpu()
    replicas.take(0.0, 15.0)
    known = [look / 2 for look in range(72) if cpu.is_new(replicas, look / 2)]
    assert known == [17.5, 32.5]
    assert cpu.newest == 0.0


def test_of_full_replicas_cpu_says_no_more_than_that():
    """One of two places, or both, however much waits: in multiples of 80 %."""
    for requests, busy in ((1, 0.5), (2, 1.0), (20, 1.0)):
        replicas, cpu = Replicas(POOL), Cpu()
        for _ in range(requests):
            replicas.take(0.0, 15.0)
        assert [cpu.is_new(replicas, at) for at in (15.0, 17.5)] == [False, True]
        assert cpu.newest == pytest.approx(busy / 0.8)


def test_who_is_told_the_demand_sends_what_is_above_the_target_once_it_is_measured():
    """Three requests a second where two are served, and 1.6 is the target of CPU: 47 % are too many."""
    law, replicas = BY_NAME[TOLD].law(), Replicas(POOL)
    shares = [law(replicas, Sent(1, 0) if look % 2 else Sent(1, 1), look / 2) for look in range(1, 61)]
    assert shares[:34] == [0.0] * 34
    assert shares[34:] == pytest.approx([100 * (1 - 1.6 / 3)] * 26, abs=1)


def test_the_loop_of_cpu_sends_away_again_for_what_was_measured_once():
    """It multiplies what stays by 0.8 at each of its looks, until the next measurement."""
    law, replicas = BY_NAME[LOOP_OF_CPU].law(), Replicas(POOL)
    for _ in range(POOL.size):
        replicas.take(0.0, 15.0)
    shares = [law(replicas, Sent(0, 0), float(at)) for at in range(0, 33)]
    stays = [0.8, 0.64, 0.512]
    assert shares[:20] == [0.0] * 20
    assert [shares[at] for at in (20, 25, 30)] == pytest.approx([100 * (1 - one) for one in stays])


def test_an_unknown_input_is_refused():
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
