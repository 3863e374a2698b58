"""When a backend is checked again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import CheckTiming
from xds_server.health.judgement import CheckParts, fair_rates, pause_after, token_pause_after, token_pause_within

MINUTE = timedelta(minutes=1)
TIMING = CheckTiming(first_token_pause=10, longest_token_pause=300, longest_token_life=24 * 3600)


def parts(**backends):
    found = CheckParts(5.0)
    for namespace, count in backends.items():
        for _ in range(count):
            found.add(namespace)
    return found


@given(st.floats(0, 1))
def test_checks_keep_about_to_their_interval(chance):
    assert 53.9 <= pause_after(MINUTE, None, chance) <= 66.1


def test_checks_that_began_together_do_not_stay_together():
    assert len({pause_after(MINUTE, None, chance / 10) for chance in range(11)}) == 11


def test_very_many_backends_are_checked_less_often_each():
    five = timedelta(seconds=5)
    assert [parts(a=count).interval(five, "a").total_seconds() for count in (1, 250, 1000)] == [5, 5, 20]
    assert parts(a=1000).interval(MINUTE, "a") == MINUTE


def test_a_namespace_with_many_backends_leaves_the_intervals_of_others_as_they_are():
    five, one = timedelta(seconds=5), parts(m=1000, f=2)
    assert one.interval(five, "f") == five
    # Two backends in five seconds are 0.4 of the 50 a second. The others have what is left.
    assert one.interval(five, "m").total_seconds() == pytest.approx(1000 / 49.6)
    assert one.interval(five, "mf") == five, "a backend that both use"
    for _ in range(2):
        one.remove("f")
    assert one.interval(five, "m").total_seconds() == pytest.approx(20)


def test_checks_a_second_are_shared_among_namespaces_by_what_each_wants():
    assert fair_rates({"a": 1, "b": 2}, 50) == {"a": 1, "b": 2}
    assert fair_rates({"few": 1, "many": 1000}, 50) == {"few": 1, "many": 49}
    assert fair_rates({"few": 10, "many": 1000, "more": 2000}, 50) == {"few": 10, "many": 20, "more": 20}
    assert fair_rates({}, 50) == {}


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0.2, 5000), max_size=8))
def test_no_namespace_has_less_because_another_one_wants_more(wanted):
    rates = fair_rates(wanted, 50)
    assert sum(rates.values()) <= 50.001
    for namespace, rate in rates.items():
        assert rate >= min(wanted[namespace], 50 / len(wanted)) - 0.001
        more = {**wanted, **{other: one * 1000 for other, one in wanted.items() if other != namespace}}
        assert fair_rates(more, 50)[namespace] >= min(wanted[namespace], 50 / len(wanted)) - 0.001


def test_a_doubt_is_settled_soon():
    assert 0.9 <= pause_after(MINUTE, 1.0, 0.3) <= 1.1


def test_a_token_endpoint_that_fails_is_asked_less_and_less():
    assert [token_pause_after(failures, TIMING) for failures in (1, 2, 3, 5, 6, 7, 10_000)] == [
        10,
        20,
        40,
        160,
        300,
        300,
        300,
    ]


@pytest.mark.parametrize(
    ("lifetime", "pause"), [(3600, 1800), (1, 0.5), (0, 0), (-5, 0), (float("inf"), 12 * 3600), (float("nan"), 0)]
)
def test_a_token_is_not_asked_for_before_half_its_life(lifetime, pause):
    assert token_pause_within(lifetime, TIMING) == pause
