"""For how long it is believed what real requests said against a backend."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import CheckTiming
from xds_server.health.evidence import Evidence
from xds_server.health.judgement import assess
from xds_server.health.outcome import CheckOutcome
from xds_server.loads.loads import Answers

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = CheckTiming()
CONNECTS = CheckOutcome(True, "Answering", "models.example:443 accepts connections")
WINDOW, EVERY = 10, 5
"""Seconds in which requests are counted, and between two judgements."""


def after(evidence, traffic, second):
    return evidence.after(traffic, TIMING, second, START + timedelta(seconds=second))


def judged(seconds, answers, others=lambda second: 0):
    """Yield each judgement of a backend that accepts connections, and with it the second.

    It is sent a request a second while it is healthy, and so many by `others`, who ask it whatever is judged.
    `answers` says whether it answers in a second.
    """
    evidence, healthy, sent = Evidence(), True, []
    for second in range(seconds):
        sent += [(second, answers(second))] * (healthy + others(second))
        if second % EVERY:
            continue
        lately = [is_answered for at, is_answered in sent if second - at < WINDOW]
        traffic = Answers(sum(lately), len(lately) - sum(lately))
        evidence = after(evidence, traffic, second)
        outcome = assess(CONNECTS, traffic, evidence.fault)
        healthy = outcome.healthy
        yield second, outcome


def changes(judgements):
    """At which seconds it was judged otherwise than before."""
    return [second for (_, was), (second, one) in itertools.pairwise(judgements) if was.healthy != one.healthy]


def test_a_backend_that_accepts_connections_and_answers_no_request_is_tried_ever_more_rarely():
    found = changes(judged(3600, lambda second: False))
    ejected = [tried - down for down, tried in zip(found[::2], found[1::2], strict=False)]
    assert ejected[:10] == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300]
    assert {*ejected[10:]} == {300}
    assert len(found) < 36, "every fifteen seconds it would be 240"


def test_it_says_when_it_is_tried_again():
    down = [(second, one.message) for second, one in judged(200, lambda second: False) if not one.healthy]
    assert [*dict.fromkeys(words.partition("; ")[2] for _, words in down)][:2] == [
        "it is tried again at 2026-01-01T00:00:35Z at the earliest",
        "it is tried again at 2026-01-01T00:01:40Z at the earliest",
    ]


def test_it_is_well_as_soon_as_a_request_is_answered_whoever_sent_it():
    """Envoy sends what fails at the replicas there, whatever the split is."""
    found = changes(judged(60, lambda second: second >= 17, others=lambda second: int(second == 17)))
    assert found == [5, 20]


def test_requests_that_go_there_all_the_same_and_fail_are_evidence_for_as_long_as_they_do():
    """No replica is ready, or they are sent by hand: it is one ejection, and it names no moment that has passed."""
    found = [*judged(600, lambda second: second > 300, others=lambda second: 1)]
    assert changes(found) == [5, 305]
    told = [(second, one.message) for second, one in found if not one.healthy]
    since = [next(seconds)[0] for _, seconds in itertools.groupby(told, lambda one: one[1])]
    assert [(second, dict(told)[second].partition("; it is tried again ")[2]) for second in since] == [
        (5, "at 2026-01-01T00:00:35Z at the earliest"),
        (35, "soon after the last of them"),
    ]


def test_what_is_found_against_it_later_takes_the_place_of_what_was_found_first():
    evidence = after(Evidence(), Answers(0, 5), 0)
    assert evidence.fault.reason == "ErrorAnswers"
    leads_back = after(evidence, Answers(0, 5, came_back=5), 5)
    assert (leads_back.fault.reason, leads_back.until) == ("LoopDetected", evidence.until)
    for one in (evidence, leads_back):
        assert one.fault.message.endswith("; it is tried again at 2026-01-01T00:00:30Z at the earliest")
    fails_again = after(leads_back, Answers(0, 5), 30)
    assert fails_again.fault.reason == "ErrorAnswers"
    assert fails_again.fault.message.endswith("; it is tried again soon after the last of them")


def test_what_was_so_long_ago_is_forgotten():
    bad, good = Answers(0, 9), Answers(9, 0)

    def again(pause):
        evidence = after(after(Evidence(), bad, 0), good, 5)
        return after(evidence, bad, 5 + pause).ejections

    assert (again(599), again(600)) == (2, 1)


def test_a_request_that_is_answered_ends_it_and_the_next_one_is_longer_all_the_same():
    """Else a backend that answers one request of a hundred would be tried every few seconds."""
    evidence = after(after(after(Evidence(), Answers(0, 9), 0), Answers(1, 9), 5), Answers(0, 9), 20)
    assert (evidence.ejections, evidence.until) == (2, 80)


def test_who_says_so_is_told_requests_for_a_minute_and_a_check_after_that():
    failing, well = after(Evidence(), Answers(0, 9), 0), after(Evidence(), Answers(1, 9), 0)
    healthy, down = CONNECTS, failing.fault
    assert failing.tells(down, TIMING, 0) and not failing.tells(healthy, TIMING, 0)
    assert well.tells(healthy, TIMING, 59) and not well.tells(healthy, TIMING, 60)
    assert not well.tells(CheckOutcome(False, "NotConnected", "x"), TIMING, 0)


def test_who_had_requests_fail_since_they_were_answered_is_not_told_by_those():
    """Or he would be right before another one, whose requests fail, and be so by the check alone."""
    answered = after(Evidence(), Answers(3, 0), 0)
    assert after(answered, Answers(0, 0), 15).tells(CONNECTS, TIMING, 15), "none were sent since"
    assert not after(answered, Answers(0, 1), 15).tells(CONNECTS, TIMING, 15)
    ejected = after(answered, Answers(0, 5), 15)
    tried_again = after(ejected, Answers(0, 0), 45)
    assert (tried_again.fault, tried_again.tells(CONNECTS, TIMING, 45)) == (None, False)
    assert after(tried_again, Answers(1, 9), 50).tells(CONNECTS, TIMING, 50), "one answer is enough again"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 400)), max_size=40))
def test_nothing_is_ejected_for_longer_than_five_minutes_after_the_last_request_that_failed(history):
    evidence, second, failed_at = Evidence(), 0, 0
    for succeeded, failed, pause in history:
        evidence = after(evidence, Answers(succeeded, failed), second)
        if evidence.fault:
            failed_at = second if failed >= 5 and not succeeded else failed_at
            assert second - failed_at < TIMING.longest_ejection
        second += pause
