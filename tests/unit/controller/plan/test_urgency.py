"""How urgent a write is: what it would change."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.contract.status import DetourStatus, ModelDeploymentStatus
from controller.decision import SentRequests, Unknown
from controller.plan.transitions import urgency
from controller.runtime.budget import Urgency
from controller.signals.load_reports import NO_LOAD
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import planned

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = a_model().with_remote("r")
TWO = a_slice().ready("10.0.0.1", "10.0.0.2")


def status_with(slices, model=MODEL, *, port: int = 80, before=None, load=NO_LOAD) -> ModelDeploymentStatus:
    return planned(model, a_service().port(port), slices, status=before, load=load)


def urgency_of(slices, model=MODEL, *, port: int = 80) -> Urgency:
    before = status_with(TWO)
    return urgency(before, status_with(slices, model, port=port, before=before))


def test_an_equal_status_is_nothing_to_write():
    assert urgency_of(TWO) is Urgency.NOTHING


def test_another_number_of_replicas_is_a_matter_of_numbers():
    assert urgency_of(a_slice().ready("10.0.0.1").not_ready("10.0.0.2")) is Urgency.NUMBERS


def test_a_condition_is_a_matter_of_words():
    assert urgency_of(TWO, MODEL.paused()) is Urgency.WORDS
    assert urgency_of(TWO, MODEL.overridden("remote=half")) is Urgency.WORDS


def test_a_split_a_port_and_a_backend_are_matters_of_the_route():
    assert urgency_of(a_slice().not_ready("10.0.0.1")) is Urgency.ROUTE
    assert urgency_of(TWO, port=81) is Urgency.ROUTE
    assert urgency_of(TWO, a_model().with_remote("other")) is Urgency.ROUTE


def test_a_first_status_without_a_route_is_a_matter_of_words():
    lost = ModelDeploymentStatus()
    assert urgency(lost, status_with(TWO, MODEL.fronting("nothing"))) is Urgency.WORDS


MEASURING = MODEL.measuring(in_flight_each("4"))


def urgency_of_loads(was: int | None, shall: int | None, model=MEASURING, at=NOW) -> Urgency:
    """How urgent it is that so many requests are in flight at two replicas, and not as many as before."""
    before = status_with(TWO, model, load=NO_LOAD if was is None else in_flight(was, NOW))
    after = status_with(TWO, model, before=before, load=NO_LOAD if shall is None else in_flight(shall, at))
    return urgency(before, after)


def test_a_number_that_nobody_acts_on_is_not_written_for_its_own_sake():
    assert urgency_of_loads(2, 3, at=NOW + timedelta(seconds=1)) is Urgency.NOTHING
    assert urgency_of_loads(2, 2, at=NOW + timedelta(seconds=1)) is Urgency.NOTHING


def test_a_number_over_its_target_or_while_requests_leave_is_a_matter_of_numbers():
    assert urgency_of_loads(8, 9) is Urgency.NUMBERS
    assert urgency_of_loads(2, 3, MEASURING.overridden("remote=10")) is Urgency.NUMBERS


def test_a_target_that_is_reached_is_a_matter_of_the_route_unless_something_else_decides():
    assert urgency_of_loads(7, 8) is Urgency.ROUTE
    assert urgency_of_loads(7, 8, MEASURING.overridden("remote=10")) is Urgency.WORDS


def test_a_target_that_is_reached_without_anything_that_follows_is_a_matter_of_numbers():
    """A metric that varies around its target would be written with each sample."""
    waiting = MEASURING.offloading(offloadAfter="30s")
    before = status_with(TWO, waiting, load=in_flight(8, NOW))
    broken_off = status_with(TWO, waiting, before=before, load=in_flight(7, NOW))
    again = status_with(TWO, waiting, before=broken_off, load=in_flight(8, NOW))
    assert [urgency(before, broken_off), urgency(broken_off, again)] == [Urgency.WORDS, Urgency.NUMBERS]
    assert urgency(again, status_with(TWO, waiting, before=again, load=in_flight(7, NOW))) is Urgency.NUMBERS


def test_a_number_that_is_lost_is_a_matter_of_words():
    assert urgency_of_loads(8, None) is Urgency.WORDS
    assert urgency_of_loads(7, None) is Urgency.WORDS


def test_what_is_said_beside_a_number_is_not_written_for_its_own_sake():
    before = status_with(TWO, MEASURING, load=in_flight(2, NOW))
    (signal,) = before.signals
    doubted = signal.model_copy(update={"message": "1 of 3 replicas show none"})
    assert urgency(before, before.model_copy(update={"signals": (doubted,)})) is Urgency.NOTHING
    reached = before.model_copy(update={"signals": (signal.model_copy(update={"state": "Breached"}),)})
    doubted = doubted.model_copy(update={"state": "Breached"})
    assert urgency(reached, reached.model_copy(update={"signals": (doubted,)})) is Urgency.NUMBERS


@pytest.mark.parametrize("load", [2, 8], ids=["nothing leaves", "requests leave"])
def test_how_many_requests_there_were_is_written_with_whatever_else_is_and_never_by_itself(load):
    sent = SentRequests(10, 0, 10.0)
    before = planned(MEASURING, a_service().port(80), TWO, load=in_flight(load, NOW), traffic=sent)
    more = before.traffic.model_copy(update={"local": 90})
    assert urgency(before, before.model_copy(update={"traffic": more})) is Urgency.NOTHING
    assert urgency(before, before.model_copy(update={"traffic": None})) is Urgency.NOTHING


def with_verdicts(status: ModelDeploymentStatus, **changes) -> ModelDeploymentStatus:
    """The same status, but that its last rule says something else."""
    *others, last = status.verdicts
    return status.model_copy(update={"verdicts": (*others, last.model_copy(update=changes))})


@pytest.mark.parametrize("slices", [TWO, a_slice().not_ready("10.0.0.1")], ids=["nothing leaves", "requests leave"])
def test_words_of_rules_with_other_numbers_are_never_written_for_their_own_sake(slices):
    before = status_with(slices)
    after = with_verdicts(before, message="7 of 9")
    moved = after.split.model_copy(update={"returns": "below 81 %", "changes_at": NOW + timedelta(seconds=3)})
    assert urgency(before, after.model_copy(update={"split": moved})) is Urgency.NOTHING


def test_a_rule_that_applies_or_no_longer_is_a_matter_of_words_and_so_is_another_rule():
    before = status_with(TWO)
    assert urgency(before, with_verdicts(before, matched=False)) is Urgency.WORDS
    assert urgency(before, with_verdicts(before, rule="OfTomorrow")) is Urgency.WORDS
    assert urgency(before.model_copy(update={"verdicts": None}), before) is Urgency.WORDS


def test_another_end_of_a_split_that_was_set_by_hand_is_a_matter_of_words():
    before = status_with(TWO, MODEL.overridden("remote=10 until=2026-01-01T00:10:00Z"))
    later = MODEL.overridden("remote=10 until=2026-01-01T00:20:00Z")
    assert urgency(before, status_with(TWO, later, before=before)) is Urgency.WORDS


def without_explanation(status: ModelDeploymentStatus) -> ModelDeploymentStatus:
    split = status.split.model_copy(update={"returns": None, "changes_at": None})
    return status.model_copy(update={"verdicts": None, "split": split})


@given(st.lists(st.integers(0, 20), min_size=2, max_size=12), st.sampled_from([0, 3]), st.sampled_from([0, 50, 100]))
@settings(max_examples=40, deadline=None)
def test_whatever_is_measured_an_explanation_causes_no_write_unless_a_rule_begins_or_ceases_to_apply(
    loads, offload_after, percentage
):
    model = MEASURING.offloading(offloadAfter=f"{offload_after}s", restoreAfter="3s", percentage=percentage)
    before = status_with(TWO, model, load=in_flight(loads[0], NOW))
    for second, load in enumerate(loads[1:], 1):
        at = NOW + timedelta(seconds=second)
        after = planned(model, a_service().port(80), TWO, status=before, load=in_flight(load, at), at=at)
        applied = [[(one.rule, one.matched) for one in status.verdicts] for status in (before, after)]
        if applied[0] == applied[1]:
            assert urgency(before, after) is urgency(without_explanation(before), without_explanation(after))
        before = after


def test_why_a_number_is_unknown_is_told_as_rarely_as_a_number():
    before = status_with(TWO, MEASURING, load=Unknown("no answer at 12:00:00"))
    after = status_with(TWO, MEASURING, before=before, load=Unknown("no answer at 12:00:01"))
    assert urgency(before, after) is Urgency.NUMBERS


def test_what_a_definition_of_before_drops_is_not_written_again_and_again():
    written = status_with(TWO, MEASURING)
    kept = [one.model_copy(update={"reason": None}) for one in written.signals]
    before = written.model_copy(update={"signals": tuple(kept), "traffic": None})
    assert written.signals[0].reason
    assert urgency(before, status_with(TWO, MEASURING, before=before)) is Urgency.NOTHING


def test_a_detour_that_somebody_wrote_into_a_status_is_taken_out_and_one_that_is_dropped_is_not_written_again():
    model, at = MODEL.overridden("remote=0"), NOW + timedelta(seconds=10)
    first = planned(model, a_service().port(80), TWO)
    fake = DetourStatus(reason="Overflow", message="all left", to_remote=True)
    written = first.model_copy(update={"detour": fake})
    assert urgency(written, planned(model, a_service().port(80), TWO, status=written, at=at)) is Urgency.NUMBERS
    assert urgency(written, written.model_copy(update={"detour": fake.model_copy()})) is Urgency.NOTHING
    assert urgency(first, written) is Urgency.NOTHING


def urgency_of_counts(sent: SentRequests, after: float, *, away: int = 30, before=None) -> Urgency:
    """How urgent it is to show where requests went so many seconds after a split was set by hand."""
    model, at = MODEL.overridden(f"remote={away}"), NOW + timedelta(seconds=after)
    before = before or planned(model, a_service().port(80), TWO, traffic=SentRequests(90, 10, 10.0))
    return urgency(before, planned(model, a_service().port(80), TWO, status=before, traffic=sent, at=at))


@pytest.mark.parametrize("away", [30, 100])
def test_the_first_that_are_counted_by_a_split_that_sends_some_away_are_a_matter_of_numbers(away):
    many, few = SentRequests(100 - away, away, 8.0), SentRequests(0, 3, 8.0)
    assert urgency_of_counts(many, 10, away=away) is Urgency.NUMBERS
    assert urgency_of_counts(few, 29, away=100) is Urgency.NOTHING
    assert urgency_of_counts(few, 30, away=100) is Urgency.NUMBERS
    assert urgency_of_counts(many, 300, away=away) is Urgency.NOTHING


def test_they_are_written_once_and_never_where_all_requests_stay():
    many, model = SentRequests(70, 30, 8.0), MODEL.overridden("remote=30")
    first = planned(model, a_service().port(80), TWO)
    at = NOW + timedelta(seconds=10)
    counted = planned(model, a_service().port(80), TWO, status=first, traffic=many, at=at)
    assert urgency(first, counted) is Urgency.NUMBERS
    assert urgency_of_counts(SentRequests(140, 60, 10.0), 25, before=counted) is Urgency.NOTHING
    assert urgency_of_counts(SentRequests(100, 0, 8.0), 10, away=0) is Urgency.NOTHING
