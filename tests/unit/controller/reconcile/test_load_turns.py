"""When the loads are looked at."""

from datetime import timedelta

import pytest

from controller.reconcile.load_watch import LoadTurns
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


def turns(clock, took=0.0):
    """Turns of which one has just been taken, and how long it took."""
    these = LoadTurns(least=0.1, longest=1.0)
    assert these.at is None
    assert these.begins(clock()) == "all"
    clock.advance(took)
    these.ends(clock())
    return these


def seconds_until_due(these, clock):
    return (these.at - clock()).total_seconds()


def test_when_nothing_is_told_they_are_looked_at_all_the_same(clock):
    these = turns(clock)
    assert seconds_until_due(these, clock) == 1.0
    clock.advance(0.99)
    assert not these.begins(clock())
    clock.advance(0.01)
    assert these.begins(clock()) == "all"


def test_what_is_told_is_looked_at_after_the_least_pause_and_once(clock):
    these = turns(clock)
    clock.advance(0.05)
    these.tell()
    assert not these.begins(clock())
    assert seconds_until_due(these, clock) == 0.05
    clock.advance(0.05)
    assert these.begins(clock()) == "news"
    these.ends(clock())
    # All of them are looked at as long after the last time as ever.
    assert seconds_until_due(these, clock) == 0.9
    these.tell()
    clock.advance(0.9)
    assert these.begins(clock()) == "all"


def test_what_is_told_while_it_is_looked_at_is_looked_at_again(clock):
    these = LoadTurns(least=0.1, longest=1.0)
    these.begins(clock())
    these.tell()
    these.ends(clock())
    assert seconds_until_due(these, clock) == 0.1


def test_while_what_followed_is_not_all_planned_there_is_no_other_look_but_that_at_all(clock):
    these = LoadTurns(least=0.1, longest=1.0)
    these.begins(clock())
    these.tell()
    clock.advance(0.99)
    assert not these.begins(clock())
    clock.advance(0.01)
    assert these.begins(clock()) == "all"


def test_who_has_no_more_to_plan_long_after_a_look_rests_no_longer_for_it(clock):
    these = turns(clock, took=0.01)
    these.tell()
    before = these.at
    clock.advance(0.05)
    these.ends(clock())
    assert these.at == before


@pytest.mark.parametrize(("took", "rests"), [(0.01, 0.1), (0.05, 0.45), (0.2, 0.8), (5.0, -4.0)])
def test_who_looks_rests_nine_times_as_long_and_is_no_later_than_without_news(clock, took, rests):
    these = turns(clock, took)
    these.tell()
    assert seconds_until_due(these, clock) == pytest.approx(rests)


def test_a_clock_that_was_set_back_puts_nothing_off(clock):
    these = turns(clock)
    clock.now -= timedelta(hours=1)
    assert these.begins(clock())
