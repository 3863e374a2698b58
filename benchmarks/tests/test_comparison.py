"""What many rounds say, and when they have said enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.proxies.comparison import GOALS, VARIANTS, Goal, Kind, Ratios, Variant, failed, turns
from benchmarks.proxies.slots import Slot
from benchmarks.proxies.table import table, verdict, verdict_on_failures

PRODUCT, STATIC = Variant(Kind.PRODUCT, 100), Variant(Kind.STATIC, 100)
GOAL = Goal("local leg", PRODUCT, STATIC, 0.90)


def slot(microseconds: float = 50.0, *, requests: int = 1000, failed: int = 0) -> Slot:
    return Slot(requests, requests // 2, failed, cpu_seconds=microseconds * requests / 1e6, seconds=0.05)


def rounds(*product: float):
    """Rounds in which the product takes so many microseconds and everyone else 50."""
    return [dict.fromkeys(VARIANTS, slot()) | {PRODUCT: slot(one)} for one in product]


def test_a_ratio_is_of_the_same_round():
    noisy = [{STATIC: slot(50 * noise), PRODUCT: slot(62.5 * noise)} for noise in (1, 2, 3, 4)]
    assert GOAL.ratios(noisy).median == pytest.approx(0.8)


def test_a_goal_is_judged_by_the_median():
    assert GOAL.met(rounds(50, 50, 100))
    assert not GOAL.met(rounds(50, 60, 60))


def test_a_goal_is_settled_when_noise_cannot_change_the_judgement():
    assert GOAL.settled(rounds(*[50] * 50))
    assert GOAL.settled(rounds(*[60] * 50))
    assert not GOAL.settled(rounds(*[50, 60] * 25))


def test_few_rounds_settle_only_what_all_agree_on():
    assert not GOAL.settled(rounds(50, 50, 60))


@given(st.lists(st.integers(1, 1000), min_size=2))
def test_the_median_lies_within_the_quartiles_and_the_interval(values):
    ratios = Ratios.of(values)
    assert ratios.quartiles[0] <= ratios.median <= ratios.quartiles[1]
    assert ratios.interval[0] <= ratios.median <= ratios.interval[1]


def test_the_interval_of_a_hundred_values_is_known():
    # Binomial(100, 1/2): the 41st and the 60th value, as in the tables for the sign test.
    assert Ratios.of(range(1, 101)).interval == (41, 60)


@given(st.integers(0, 1000))
def test_everyone_has_one_turn_in_a_round(number):
    assert sorted(turns(number), key=str) == sorted(VARIANTS, key=str)


def test_over_the_rounds_everyone_is_first_and_follows_different_ones():
    orders = [turns(number) for number in range(2 * len(VARIANTS))]
    assert {order[0] for order in orders} == set(VARIANTS)
    assert len({order[order.index(PRODUCT) - 1] for order in orders}) > 1


def test_the_table_has_a_row_for_each_variant_as_wide_as_its_header():
    header, *rows = table(rounds(50, 55, 60)).splitlines()
    assert len(rows) == len(VARIANTS)
    assert {len(row) for row in rows} == {len(header)}
    assert "0.909" in rows[VARIANTS.index(PRODUCT)]


def test_a_verdict_names_the_figure():
    assert verdict(GOAL, rounds(50, 50, 50)).split()[0] == "met"
    line = verdict(GOAL, rounds(100, 100, 100))
    assert line.split()[0] == "missed"
    assert "0.500" in line


def test_one_failed_request_is_one_too_many():
    some = [dict.fromkeys(VARIANTS, slot(failed=0)) | {PRODUCT: slot(failed=1)}]
    assert failed(some) == 1
    assert verdict_on_failures(some).startswith("missed")
    assert verdict_on_failures(rounds(50)).startswith("met")


def test_the_goals_are_about_variants_that_run():
    assert {variant for goal in GOALS for variant in (goal.variant, goal.base)} <= set(VARIANTS)
