"""What is told of a backend, from its checks and from real traffic."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import CheckTiming
from xds_server.health.evidence import Evidence
from xds_server.health.judgement import NO_TRAFFIC, CheckHistory, health_after
from xds_server.health.judgement import assess as assess_by
from xds_server.health.outcome import CheckOutcome, host_refused
from xds_server.loads.loads import Answers

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = CheckOutcome(True, "Answering", "GET /healthz answers 200")
BAD = CheckOutcome(False, "ErrorAnswer", "GET /healthz answers 503")
GONE = CheckOutcome(False, "NameNotResolved", "x cannot be resolved: Name or service not known")


def assess(check, traffic):
    """Judge by a check and by requests of which nothing was known before."""
    return assess_by(check, traffic, Evidence().after(traffic, CheckTiming(ejection=30.0), 0.0, NOW).fault)


def checked(*outcomes, start=None):
    state = start or CheckHistory()
    for one in outcomes:
        state = state.after(one)
    return state


def test_the_first_check_of_a_backend_counts_at_once():
    assert checked().outcome is None
    assert checked(BAD).outcome == BAD
    assert checked(GOOD).outcome == GOOD


def test_one_failure_changes_nothing_and_asks_for_another_look():
    state = checked(GOOD, BAD)
    assert (state.outcome, state.in_doubt) == (GOOD, True)


def test_two_failures_in_a_row_are_believed_whatever_their_reasons():
    state = checked(GOOD, BAD, GONE)
    assert (state.outcome, state.in_doubt) == (GONE, False)


def test_failures_that_are_not_in_a_row_are_not():
    assert checked(GOOD, BAD, GOOD, BAD, GOOD, BAD).outcome == GOOD


def test_one_success_is_enough():
    state = checked(GOOD, BAD, BAD, GOOD)
    assert (state.outcome, state.in_doubt) == (GOOD, False)


def test_what_is_wrong_with_a_backend_that_is_down_is_always_the_newest():
    assert checked(BAD, GONE).outcome == GONE


def test_a_backend_that_changed_is_what_it_was_until_its_first_check_which_counts():
    state = checked(GOOD).of_changed_backend()
    assert state.outcome == GOOD
    assert state.after(BAD).outcome == BAD
    assert state.after(GOOD).after(BAD).outcome == GOOD


def test_nothing_is_judged_without_anything_known():
    assert assess(None, None) is None
    assert assess(None, Answers(0, 0)) is None
    assert NO_TRAFFIC.answers("backend/x", frozenset(), 0.0, 0.0) is None


@pytest.mark.parametrize("traffic", [None, Answers(0, 0), Answers(0, 4)], ids=["unknown", "none", "too little"])
def test_without_traffic_the_check_is_right_and_says_whose_view_it_is(traffic):
    assert assess(BAD, traffic) == CheckOutcome(False, "ErrorAnswer", f"seen from the xDS server: {BAD.message}")
    assert assess(GOOD, traffic) == CheckOutcome(True, "Answering", f"seen from the xDS server: {GOOD.message}")


def test_requests_that_are_answered_are_right_whatever_the_check_says():
    assert assess(GONE, Answers(1, 36)) == CheckOutcome(
        True, "Answering", f"requests are answered, though seen from the xDS server: {GONE.message}"
    )
    assert assess(None, Answers(1, 0)) == CheckOutcome(True, "Answering", "requests are answered")


def test_requests_that_come_and_go_are_nothing_new_while_the_check_says_the_same():
    first = health_after(None, assess(GOOD, None), NOW)
    for seconds, traffic in enumerate([Answers(0, 0), Answers(3, 0), Answers(2, 9), Answers(0, 0)]):
        assert health_after(first, assess(GOOD, traffic), NOW + timedelta(seconds=seconds)) is first


@pytest.mark.parametrize("check", [None, GOOD])
def test_requests_that_all_fail_are_right_whatever_good_the_check_says(check):
    assert assess(check, Answers(0, 37)) == CheckOutcome(
        False,
        "ErrorAnswers",
        "none of the last 37 requests was answered: 5xx or no answer; "
        "it is tried again at 2026-01-01T00:00:30Z at the earliest",
    )


def test_of_requests_that_all_fail_the_check_says_why():
    assert assess(BAD, Answers(0, 37)) == assess(BAD, None)


@given(st.sampled_from([None, GOOD, BAD]), st.integers(0, 9), st.integers(0, 9))
def test_who_was_answered_lately_is_healthy(check, succeeded, failed):
    outcome = assess(check, Answers(succeeded, failed))
    if succeeded:
        assert outcome.healthy
    elif failed >= 5:
        assert not outcome.healthy


def test_one_request_that_comes_back_at_once_tells_what_no_check_can():
    outcome = assess(GOOD, Answers(0, 1, came_back=1, lead_here=1))
    assert (outcome.healthy, outcome.reason) == (False, "LoopDetected")


@pytest.mark.parametrize(
    ("traffic", "reason"),
    [
        (Answers(0, 5, came_back=5), "LoopDetected"),
        (Answers(0, 9, came_back=5), "LoopDetected"),
        (Answers(0, 4, came_back=4), "Answering"),
        (Answers(0, 9, came_back=4), "ErrorAnswers"),
        (Answers(1, 9, came_back=9), "Answering"),
        (Answers(1, 9, came_back=9, lead_here=1), "Answering"),
    ],
)
def test_what_comes_back_by_way_of_others_is_a_loop_if_nothing_else_becomes_of_it(traffic, reason):
    assert assess(GOOD, traffic).reason == reason


def test_what_is_told_stays_while_it_is_the_same():
    first = health_after(None, GOOD, NOW)
    assert health_after(first, GOOD, NOW + timedelta(minutes=1)) is first


def test_a_name_that_leads_to_a_refused_address_cannot_be_used():
    """Or it would get what leaves while no replica is ready."""
    refused = health_after(None, assess(host_refused("models.example").outcome, None), NOW)
    assert (refused.healthy, refused.usable, refused.reason) == (None, False, "HostRefused")
    assert health_after(refused, assess(host_refused("models.example").outcome, None), NOW + timedelta(1)) is refused
    assert health_after(refused, GOOD, NOW).usable


def test_a_number_alone_is_nothing_new():
    evidence, health, told = Evidence(), None, []
    for second, failed in enumerate((37, 41, 40), 29):
        clock = NOW + timedelta(seconds=second)
        evidence = evidence.after(Answers(0, failed), CheckTiming(ejection=30.0), float(second), clock)
        health = health_after(health, assess_by(GOOD, None, evidence.fault), clock)
        told.append(health)
    assert told == [told[0]] * 3
    assert told[0].message.startswith("none of the last 37 requests")


def test_another_reason_is_told_with_the_time_since_when_it_is_down():
    first, later = health_after(None, BAD, NOW), NOW + timedelta(minutes=1)
    second = health_after(first, GONE, later)
    assert (second.healthy, second.reason, second.message) == (GONE.healthy, GONE.reason, GONE.message)
    assert second.since == NOW
    assert health_after(second, GOOD, later).since == later
