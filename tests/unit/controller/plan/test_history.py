"""The history of a model: few entries, a useful time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.api.contract.route import Split
from controller.api.contract.status import HISTORY_LENGTH, HistoryEntry
from controller.decision import Reason, WouldBe
from controller.plan.status import with_decision
from tests.support.decisions import a_decision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = {Reason.STEADY: 0, Reason.RECOVERING: 50, Reason.LOCAL_DOWN: 100}
OUTAGE = (Reason.LOCAL_DOWN, Reason.RECOVERING, Reason.STEADY)


def history_of(*reasons: Reason, every: timedelta = timedelta(seconds=1)) -> tuple[HistoryEntry, ...]:
    history: tuple[HistoryEntry, ...] = ()
    for number, reason in enumerate(reasons):
        decision = a_decision(AWAY[reason], reason, f"decision {number}")
        history = with_decision(history, decision, NOW + number * every)
    return history


def test_what_would_be_in_shadow_is_told_and_its_steps_are_one_entry():
    history: tuple[HistoryEntry, ...] = ()
    would_be = [(0, Reason.STEADY), (100, Reason.LOCAL_DOWN), (67, Reason.RECOVERING), (33, Reason.RECOVERING)]
    for number, (away, reason) in enumerate(would_be):
        decision = replace(a_decision(0, Reason.SHADOW, "shadow"), would_be=WouldBe(Split.away(away), reason))
        history = with_decision(history, decision, NOW + number * timedelta(seconds=1))
    assert [one.would_be for one in history] == ["67/33 Recovering", "0/100 LocalDown", "100/0 Steady"]
    assert {(one.reason, one.split) for one in history} == {(Reason.SHADOW, "100/0")}


def told(history: tuple[HistoryEntry, ...]) -> list[tuple[str, int]]:
    return [(one.reason, one.times or 1) for one in history]


def test_one_outage_is_told_step_by_step():
    history = history_of(Reason.STEADY, *OUTAGE)
    assert told(history) == [("Steady", 1), ("Recovering", 1), ("LocalDown", 1), ("Steady", 1)]
    assert all(one.times is None and one.since is None for one in history)


def test_a_model_that_flaps_for_an_hour_leaves_few_entries_that_say_how_often_and_since_when():
    history = history_of(Reason.STEADY, *OUTAGE * 400, every=timedelta(seconds=3))
    assert len(history) <= HISTORY_LENGTH
    assert sum(times for reason, times in told(history) if reason == "LocalDown") == 400
    folded = max(history, key=lambda one: one.times or 1)
    assert folded.since <= NOW + timedelta(seconds=9)
    assert history[0].at == NOW + 1200 * timedelta(seconds=3)


def test_a_folded_entry_is_as_of_its_last_time():
    history = history_of(Reason.LOCAL_DOWN, Reason.STEADY, Reason.LOCAL_DOWN, Reason.STEADY)
    assert told(history) == [("Steady", 2), ("LocalDown", 2)]
    assert [(one.message, one.at, one.since) for one in history] == [
        ("decision 3", NOW + timedelta(seconds=3), NOW + timedelta(seconds=1)),
        ("decision 2", NOW + timedelta(seconds=2), NOW),
    ]


def test_what_happens_once_an_hour_stays_apart():
    history = history_of(*(Reason.LOCAL_DOWN, Reason.STEADY) * 4, every=timedelta(hours=1))
    assert len(history) == 8


def test_what_was_before_the_flapping_stays():
    history = history_of(Reason.STEADY, Reason.RECOVERING, *(Reason.LOCAL_DOWN, Reason.STEADY) * 20)
    assert told(history) == [("Steady", 20), ("LocalDown", 20), ("Recovering", 1), ("Steady", 1)]
