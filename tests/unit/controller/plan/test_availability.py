"""Whether metrics can be read at all: what is said of it, when, and how often."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.contract.status import Condition, ModelDeploymentStatus, SignalStatus, with_transitions
from controller.decision import Cause, Known, Measurement, Signal, Unknown
from controller.observe.index import read_intent
from controller.observe.observation import Observation
from controller.plan.plan import plan
from controller.plan.signals import AVAILABLE, LASTS, availability, ready_since, signal_statuses
from controller.plan.transitions import transitions, urgency
from controller.runtime.budget import Urgency
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import observed

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = a_model().with_remote().measuring(in_flight_each("4")).offloading(recoverAfter="0s")
READY = a_slice().ready("10.0.0.1")
REFUSED = Unknown("it lets nobody in", cause=Cause.NOT_PERMITTED)
AWAITED = Unknown("it is asked for the first time", pending=True)
WELL = in_flight(1, START)
NOBODY = a_slice().not_ready("10.0.0.1")


class Story:
    """One model, looked at again and again; its status goes through the API server each time."""

    def __init__(self) -> None:
        self.status = ModelDeploymentStatus()
        self.told: list[tuple[int, str, str]] = []
        self.urgency = Urgency.NOTHING
        self.wakes: datetime | None = None

    def at(self, second: int, load, slices=READY) -> str:
        now = START + timedelta(seconds=second)
        known = observed(MODEL, a_service().port(80), slices, status=self.status, load=load)
        planned = plan(known, now)
        self.urgency, self.wakes = urgency(self.status, planned.status), planned.wake_at
        events = transitions(planned.stored, self.status, planned.status, now)
        self.told += [(second, one.type, one.message) for one in events if "Signals" in one.reason]
        self.status = ModelDeploymentStatus.model_validate(json.loads(json.dumps(planned.status.as_object())))
        return self.said

    @property
    def said(self) -> str:
        found = self.status.condition(AVAILABLE)
        return f"{found.status} {found.reason}" if found else ""

    @property
    def message(self) -> str:
        return self.status.condition(AVAILABLE).message


def test_a_metric_that_never_was_known_says_why_at_once_and_is_a_warning_after_a_minute():
    story = Story()
    assert story.at(0, REFUSED) == "Unknown NotPermitted"
    assert story.message == "Requests cannot be read: it lets nobody in"
    assert story.wakes == START + LASTS
    assert (story.at(59, REFUSED), story.told) == ("Unknown NotPermitted", [])
    assert story.at(60, REFUSED) == "False NotPermitted"
    assert (story.urgency, story.wakes, story.status.reason) == (Urgency.WORDS, None, "SignalsNotAvailable")
    assert story.at(600, REFUSED) == "False NotPermitted"
    assert story.at(601, WELL) == "True Measured"
    assert (story.urgency, story.status.reason) == (Urgency.WORDS, "Steady")
    assert story.told == [
        (60, "Warning", "NotPermitted: Requests cannot be read: it lets nobody in"),
        (601, "Normal", "every metric can be read"),
    ]


def test_a_sample_that_is_missed_takes_nothing_back():
    story = Story()
    assert story.at(0, WELL) == "True Measured"
    for second in range(10, 300, 20):
        assert story.at(second, REFUSED) == "True Measured"
        assert f"every metric could be read until 2026-01-01T00:0{second // 60}:{second % 60}" in story.message
        assert story.at(second + 10, WELL) == "True Measured"
    assert story.told == []


def test_what_is_asked_for_the_first_time_is_no_news():
    story = Story()
    assert story.at(0, AWAITED) == "Unknown Pending"
    assert (story.at(3600, AWAITED), story.wakes, story.told) == ("Unknown Pending", None, [])
    story = Story()
    story.at(0, AWAITED)
    assert (story.at(5, REFUSED), story.urgency) == ("Unknown NotPermitted", Urgency.WORDS), "and its answer is"
    story = Story()
    story.at(0, REFUSED)
    story.at(60, REFUSED)
    assert story.at(61, AWAITED) == "False NotPermitted", "a restart"
    assert len(story.told) == 1


def test_while_no_replica_is_ready_time_does_not_count():
    story = Story()
    assert (story.at(0, REFUSED, NOBODY), story.wakes) == ("Unknown NotPermitted", None)
    assert story.at(3600, REFUSED, NOBODY) == "Unknown NotPermitted"
    assert story.at(3610, REFUSED) == "Unknown NotPermitted"
    assert story.wakes == START + timedelta(seconds=3670)
    assert story.at(3669, REFUSED) == "Unknown NotPermitted"
    assert story.at(3670, REFUSED) == "False NotPermitted"
    # Gone again, it stays what it is.
    assert story.at(3680, REFUSED, NOBODY) == "False NotPermitted"
    assert [second for second, _, _ in story.told] == [3670]


def test_another_reason_is_no_event_and_waits_for_its_turn():
    story = Story()
    story.at(0, REFUSED)
    story.at(60, REFUSED)
    assert story.at(61, Unknown("no answer within 5 s", cause=Cause.NOT_ANSWERING)) == "False NotAnswering"
    assert (story.urgency, len(story.told)) == (Urgency.NUMBERS, 1)


def test_a_clock_that_is_set_back_makes_nobody_wait_for_it():
    story = Story()
    story.at(86_400, REFUSED)
    assert (story.at(0, REFUSED), story.wakes) == ("Unknown NotPermitted", START + LASTS)
    assert story.at(60, REFUSED) == "False NotPermitted"


def test_an_object_that_cannot_be_read_is_not_looked_at_for_what_was_due():
    story = Story()
    story.at(0, WELL)
    story.at(10, REFUSED)
    known = read_intent(MODEL.offloading(percentage=900).stored(status=story.status.as_object()))
    assert known.intent is None
    unreadable = Observation(known.stored, known.status, None, known.errors)
    # A moment that stays in the past would have it looked at again and again.
    assert plan(unreadable, START + timedelta(seconds=200)).wake_at is None


def test_of_metrics_with_one_name_and_one_target_each_has_its_own_time():
    said: tuple[SignalStatus, ...] = ()
    for second in (0, 59, 60):
        now = START + timedelta(seconds=second)
        said = signal_statuses([a_signal("queue", REFUSED), a_signal("queue", WELL)], said, now)
    assert availability(said, None, START, now).status == "False"
    assert {one.since for one in said} == {START}


def test_long_names_of_metrics_leave_room_for_what_else_is_in_a_status():
    def sampled(value):
        """As many metrics as there may be, with names as long as they may be."""
        target = {"type": "Value", "value": 10}
        names = [f"{number}\n\x1b{'x' * 4000}" for number in range(32)]
        external = [{"type": "External", "external": {"metric": {"name": one}, "target": target}} for one in names]
        known = observed(MODEL.measuring(*external), a_service().port(80), READY, status=story.status)
        sample = Known(Measurement(Decimal(value)), now) if value is not None else REFUSED
        return replace(known, samples=tuple((metric, sample) for metric in known.intent.metrics))

    story, reasons = Story(), set()
    for minutes, value in enumerate((None, None, 0, 20, 0, 0, 0)):
        now = START + timedelta(minutes=minutes)
        story.status = plan(sampled(value), now).status
        reasons.add(story.status.split.reason)
        written = story.status.as_object()
        sentences = [one["message"] for part in ("conditions", "verdicts", "history") for one in written[part]]
        sentences += [written["split"]["message"], written["split"]["returns"], written["memory"].get("returned", "")]
        # A status has about twenty of them, and etcd stores 1.5 MiB.
        assert max(map(len, sentences)) < 10_000
        assert all(one.isprintable() for one in sentences)
        if value is None:
            assert "0 xxx" in story.message and "... cannot be read: it lets nobody in; 1 xxx" in story.message
    assert reasons == {"Steady", "Overloaded", "CoolingDown"}


def test_what_is_said_of_many_metrics_is_cut_and_says_of_how_many_more():
    names = [{"name": f"metric-{number}-{'x' * 80}"} for number in range(32)]
    target = {"type": "Value", "value": 10}
    external = [{"type": "External", "external": {"metric": one, "target": target}} for one in names]
    known = observed(MODEL.measuring(*external), a_service().port(80), READY)
    sample = Known(Measurement(Decimal(20)), START)
    status = plan(replace(known, samples=tuple((one, sample) for one in known.intent.metrics)), START).status
    said = [status.history[0].message, status.split.message, status.split.returns, status.memory["overload"]["cause"]]
    assert all("more" in one and len(one) < 2_500 for one in said)
    assert len(status.signals) == 32


def test_a_status_stays_small_with_the_worst_metrics_that_are_accepted():
    """A control character takes six bytes in JSON. etcd stores 1.5 MiB, of which the spec may have half."""
    target = {"type": "Value", "value": "9" * 50 + "e9999999999"}
    names = [f"{number:02}{chr(1) * 4094}" for number in range(32)]
    external = [{"type": "External", "external": {"metric": {"name": one}, "target": target}} for one in names]
    status, reasons = ModelDeploymentStatus(), set()
    samples = [Decimal(0), Decimal("1e300"), Decimal(0), Decimal("1e300"), Unknown("\x01" * 20_000)] * 20
    for minutes, value in enumerate(samples):
        now = START + timedelta(minutes=10 * minutes)
        known = observed(MODEL.measuring(*external), a_service().port(80), READY, status=status)
        found = value if isinstance(value, Unknown) else Known(Measurement(value, note="\x01" * 20_000), now)
        status = plan(replace(known, samples=tuple((one, found) for one in known.intent.metrics)), now).status
        reasons.add(status.split.reason)
        written = {name: part for name, part in status.as_object().items() if name != "route"}
        assert len(json.dumps(written)) < 350_000
        assert max(len(one["message"]) for one in written["history"]) <= 4_000
    assert reasons >= {"Steady", "Overloaded"}
    assert any(" more" in one["message"] for one in written["history"])


def test_without_metrics_there_is_nothing_to_say():
    known = observed(a_model().with_remote(), a_service().port(80), READY)
    assert plan(known, START).status.condition(AVAILABLE) is None


@pytest.mark.parametrize("cause", list(Cause))
def test_each_cause_is_a_reason(cause):
    assert Story().at(0, Unknown("so it is", cause=cause)) == f"Unknown {cause}"


SAMPLES = (WELL, REFUSED, AWAITED, Unknown("other", cause=Cause.NO_SAMPLE))
# How many seconds after the moment before, what is known of each of two metrics, and whether a replica is ready.
looks = st.lists(
    st.tuples(st.integers(1, 90), st.sampled_from(SAMPLES), st.sampled_from(SAMPLES), st.booleans()), max_size=30
)


def a_signal(name, sample) -> Signal:
    if isinstance(sample, Known):
        return Signal(name, "1", "Clear", "0", at=sample.at)
    return Signal(name, "1", "Unknown", message=sample.why, pending=sample.pending, cause=sample.cause)


def lived(history) -> list[tuple[datetime, ModelDeploymentStatus]]:
    """The statuses of a history, as far as they are about metrics."""
    found, now, before = [], START, ModelDeploymentStatus()
    for seconds, one, other, ready in history:
        now += timedelta(seconds=seconds)
        signals = signal_statuses([a_signal("a", one), a_signal("b", other)], before.signals or (), now)
        since = (ready_since(before) or now) if ready else None
        said = availability(signals, before.condition(AVAILABLE), since, now)
        local = Condition(type="LocalHealthy", status=str(ready), reason="-", message="", observed_generation=1)
        told = local.model_copy(update={"type": AVAILABLE, "status": said.status, "reason": said.reason})
        conditions = with_transitions((local, told), before.conditions, now)
        before = ModelDeploymentStatus(conditions=conditions, signals=signals)
        found.append((now, before))
    return found


def is_unknown(signal: SignalStatus) -> bool:
    return signal.state == "Unknown"


@given(looks)
@settings(deadline=None)
def test_it_agrees_with_the_signals_and_tells_no_more_than_once_a_minute(history):
    told = []
    for (_, was), (now, status) in pairwise([(START, ModelDeploymentStatus()), *lived(history)]):
        said, unknown = status.condition(AVAILABLE), [*filter(is_unknown, status.signals)]
        assert said.status == "True" or unknown
        assert said.status != "False" or said.reason in {one.reason for one in unknown}
        if not unknown:
            assert (said.status, said.reason) == ("True", "Measured")
        events = transitions(MODEL.stored(), was, status, now)
        told += [(one.type, now) for one in events if "Signals" in one.reason]
        # What is unknown for a minute, with a replica that is ready, is told.
        since = [one.since for one in unknown if one.reason != "Pending"]
        if since and (ready := ready_since(status)) and now - max(min(since), ready) >= LASTS:
            assert said.status == "False"
    assert [kind for kind, _ in told] == (["Warning", "Normal"] * len(told))[: len(told)]
    warnings = [at for kind, at in told if kind == "Warning"]
    assert all(later - earlier >= LASTS for earlier, later in pairwise(warnings))
