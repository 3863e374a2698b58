"""When a backend is checked again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import CheckTiming
from xds_server.health.judgement import interval_among, pause_after, token_pause_after, token_pause_within

MINUTE = timedelta(minutes=1)
TIMING = CheckTiming(first_token_pause=10, longest_token_pause=300, longest_token_life=24 * 3600)


@given(st.floats(0, 1))
def test_checks_keep_about_to_their_interval(chance):
    assert 53.9 <= pause_after(MINUTE, None, chance) <= 66.1


def test_checks_that_began_together_do_not_stay_together():
    assert len({pause_after(MINUTE, None, chance / 10) for chance in range(11)}) == 11


def test_very_many_backends_are_checked_less_often_each():
    five = timedelta(seconds=5)
    assert [interval_among(five, count).total_seconds() for count in (1, 250, 1000)] == [5, 5, 20]
    assert interval_among(MINUTE, 1000) == MINUTE


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
