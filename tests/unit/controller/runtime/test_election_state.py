"""The rules of the election, without a lease to hold and without a clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.timing import LeaseTiming
from controller.runtime.election import ElectionState, Step, release_record
from controller.store.lease import LeaseRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAR_AWAY = NOON + timedelta(days=400)
TIMING = LeaseTiming(lease=15, renew_deadline=10, renew_every=2, look_every=1, request=5)
OTHERS = LeaseRecord("other", 15, NOON, NOON, transitions=3, version="7")


def a_candidate(identity="me"):
    return ElectionState(identity, TIMING)


def a_leader(asked_at=100.0):
    free = a_candidate().on_read(None, asked_at)
    return free.on_write(replace(free.claim(NOON), version="1"), asked_at, asked_at)


def test_it_looks_before_it_writes():
    assert a_candidate().step(0.0) is Step.READ
    assert a_candidate().on_read(None, 0.0).step(0.0) is Step.WRITE


def test_a_lease_that_another_holds_is_left_alone_and_looked_at_each_second():
    waiting = a_candidate().on_read(OTHERS, 50.0)
    assert (waiting.step(50.9), waiting.wait(50.9)) == (Step.WAIT, pytest.approx(0.1))
    assert waiting.step(51.0) is Step.READ
    assert waiting.remaining(51.0) < 0


def test_a_lease_that_was_not_renewed_for_as_long_as_it_lasts_is_free():
    waiting = a_candidate().on_read(OTHERS, 50.0)
    for second in range(51, 65):
        waiting = waiting.on_read(OTHERS, float(second))
        assert waiting.step(float(second)) is Step.WAIT
    assert waiting.wait(64.0) == 1.0
    assert waiting.on_read(OTHERS, 65.0).step(65.0) is Step.WRITE


def test_what_counts_is_when_the_record_was_seen_to_change_and_not_what_time_it_says():
    waiting = a_candidate().on_read(replace(OTHERS, renewed_at=NOON - timedelta(days=400)), 50.0)
    assert waiting.step(50.0) is Step.WAIT
    waiting = waiting.on_read(replace(OTHERS, renewed_at=FAR_AWAY), 64.0)
    assert waiting.on_read(replace(OTHERS, renewed_at=FAR_AWAY), 78.9).step(78.9) is Step.WAIT
    assert waiting.on_read(replace(OTHERS, renewed_at=FAR_AWAY), 79.0).step(79.0) is Step.WRITE


def test_a_change_of_nothing_but_its_version_is_no_renewal():
    waiting = a_candidate().on_read(OTHERS, 50.0)
    assert waiting.on_read(replace(OTHERS, version="8"), 65.0).step(65.0) is Step.WRITE


def test_a_released_lease_is_free_at_once():
    assert a_candidate().on_read(release_record(OTHERS, NOON), 50.0).step(50.0) is Step.WRITE


def test_a_released_lease_keeps_who_it_was_and_how_often_it_changed_hands():
    given_back = release_record(OTHERS, FAR_AWAY)
    assert (given_back.holder, given_back.seconds) == ("", 1)
    assert (given_back.transitions, given_back.version) == (3, "7")


def test_the_first_claim_creates_the_lease():
    assert a_candidate().on_read(None, 0.0).claim(NOON) == LeaseRecord("me", 15, NOON, NOON, transitions=0)
    assert a_candidate().on_read(None, 0.0).claim(NOON).version == ""


def test_a_claim_of_what_was_anothers_counts_a_transition_and_names_the_version_it_replaces():
    claim = a_candidate().on_read(release_record(OTHERS, NOON), 0.0).claim(FAR_AWAY)
    assert claim == LeaseRecord("me", 15, FAR_AWAY, FAR_AWAY, transitions=4)
    assert claim.version == "7"


def test_a_renewal_keeps_since_when_it_leads():
    renewal = a_leader().claim(FAR_AWAY)
    assert (renewal.acquired_at, renewal.renewed_at, renewal.transitions) == (NOON, FAR_AWAY, 0)


def test_a_leader_renews_every_two_seconds_without_looking():
    leader = a_leader(asked_at=100.0)
    assert (leader.step(101.9), leader.wait(101.0)) == (Step.WAIT, 1.0)
    assert leader.step(102.0) is Step.WRITE


def test_leadership_counts_from_when_it_was_asked_for_and_not_from_the_answer():
    leader = a_candidate().on_read(None, 100.0).on_write(OTHERS, 100.0, 104.0)
    assert leader.remaining(104.0) == 6.0


def test_a_leader_that_cannot_renew_looks_again_each_second_and_gives_up_before_anybody_may_follow():
    cut_off = a_leader(asked_at=100.0).on_failure(102.0)
    assert (cut_off.step(102.9), cut_off.step(103.0)) == (Step.WAIT, Step.READ)
    assert cut_off.request_timeout(103.0) == 5.0
    assert cut_off.request_timeout(108.0) == 2.0
    assert cut_off.on_failure(109.5).wait(109.5) == 0.5
    assert cut_off.remaining(110.0) == 0.0
    follower = a_candidate("follower").on_read(a_leader().record, 100.0)
    assert follower.on_read(a_leader().record, 114.9).step(114.9) is Step.WAIT


def test_a_renewal_whose_answer_was_lost_is_found_and_leading_goes_on():
    leader = a_leader(asked_at=100.0).on_failure(103.0)
    written = replace(leader.claim(FAR_AWAY), version="2")
    found = leader.on_read(written, 104.0)
    assert found.step(104.0) is Step.WRITE
    assert found.remaining(104.0) == 6.0, "what it only looked at is not renewed"
    assert found.claim(NOON).version == "2"


def test_a_leader_that_finds_another_in_its_lease_leads_no_longer():
    deposed = a_leader(asked_at=100.0).on_read(OTHERS, 103.0)
    assert deposed.remaining(103.0) < 0
    assert deposed.step(103.0) is Step.WAIT


def test_a_leader_whose_lease_was_deleted_makes_it_anew_and_leads_on():
    leader = a_leader(asked_at=100.0).on_failure(102.0).on_read(None, 103.0)
    assert (leader.step(103.0), leader.remaining(103.0)) == (Step.WRITE, 7.0)
    assert leader.claim(NOON).version == ""


def test_a_leader_that_was_cut_off_for_long_takes_up_a_lease_that_nobody_took():
    back = a_leader(asked_at=100.0).on_failure(200.0).on_read(a_leader().record, 201.0)
    assert back.remaining(201.0) < 0
    assert back.step(201.0) is Step.WRITE


def test_a_candidate_that_slept_does_not_take_a_lease_that_was_renewed_meanwhile():
    asleep = a_candidate().on_read(OTHERS, 50.0)
    awake = asleep.on_read(replace(OTHERS, renewed_at=FAR_AWAY), 5000.0)
    assert awake.step(5000.0) is Step.WAIT


@pytest.mark.parametrize("wrong", [{"renew_deadline": 15.0}, {"renew_every": 10.0}, {"look_every": 12.0}])
def test_a_deadline_lies_between_the_steps_to_it_and_the_end_of_the_lease(wrong):
    with pytest.raises(ValueError, match="a lease must last longer"):
        replace(TIMING, **wrong)
