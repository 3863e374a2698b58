"""Waits are broken off rarely: each beginning and each end of one is a write to the API server."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.resources.model import Behavior
from controller.decision import Memory, Reason, SentRequests, Signal, Unknown, decide
from controller.decision.waits import is_over, rest, waits_since
from controller.intent.intent import Terms
from tests.support.decisions import facts_with

START = datetime(2026, 1, 1, tzinfo=UTC)
WHOLE = timedelta(seconds=40)

behaviors = st.builds(
    Behavior,
    mode=st.sampled_from(["Threshold", "Proportional"]),
    percentage=st.sampled_from([50, 100]),
    offload_after=st.just(WHOLE),
    restore_after=st.just(WHOLE),
)
# Of each look what is measured, in multiples of the target, and how many milliseconds come after it.
looks = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.8, 1.0, 1.5, 4.0]), st.integers(100, 20_000)), max_size=60)


def lived(behavior, history, *, counted=True):
    """Yield each moment with the memory after it. Requests are counted and as many, wherever they go, or not at all."""
    memory, now = Memory(), START
    for ratio, milliseconds in history:
        state = "Breached" if ratio >= 1 else "Clear"
        signal = Signal("load", "1", state, str(ratio), at=now, least=ratio, most=ratio)
        away = memory.split.remote if memory.split else 0
        traffic = SentRequests(400 - 4 * away, 4 * away, 10.0) if counted else Unknown("nothing reports load")
        facts = facts_with(signal, traffic=traffic)
        _, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        yield now, memory
        now += timedelta(milliseconds=milliseconds)


def waits_of(memory):
    """Which waits there are in a memory, each with what it belongs to."""
    overload = memory.overload
    return {
        "breach": (memory.breached_since, memory.split_since),
        "clear": (overload and overload.cleared_since, overload and overload.since),
        "below": (overload and overload.below_since, overload and overload.since),
    }


@given(behaviors, looks)
def test_no_input_begins_a_wait_more_often_than_eight_times_in_its_length(behavior, history):
    begun = {"breach": [], "clear": [], "below": []}
    before = waits_of(Memory())
    for _, memory in lived(behavior, history):
        now = waits_of(memory)
        for name, moments in begun.items():
            if now[name][0] and not before[name][0]:
                moments.append(now[name])
        before = now
    for moments in begun.values():
        for (since, part_of), (later, of_later) in itertools.pairwise(moments):
            if part_of == of_later:
                assert later - since >= WHOLE / 8


@pytest.mark.parametrize("mode", ["Threshold", "Proportional"])
def test_a_metric_that_turns_with_each_sample_changes_the_reason_once_in_restoreafter(mode):
    """Half of them say that all is clear. It is at rest for the longer the longer nothing else changed."""
    behavior = Behavior(mode=mode, percentage=50, restore_after=WHOLE)
    history = [(ratio, 500) for _ in range(1200) for ratio in (1.05, 0.2)]
    reasons, written, before = [], 0, Memory()
    for _, memory in lived(behavior, history):
        reasons.append(memory.reason)
        same_split = memory.split == before.split
        written, before = written + (memory != before and same_split), memory
    minutes = 1200 / WHOLE.total_seconds()
    assert {*reasons[10:]} == {Reason.OVERLOADED, Reason.COOLING_DOWN}
    assert sum(one != other for one, other in itertools.pairwise(reasons)) <= 2 * minutes + 20
    assert written <= 4 * minutes + 40


def test_a_metric_at_its_target_for_single_samples_rests_for_an_eighth_of_offloadafter():
    behavior = Behavior(offload_after=WHOLE)
    memories = [memory for _, memory in lived(behavior, [(ratio, 500) for _ in range(1200) for ratio in (1.0, 0.8)])]
    assert all(one.overload is None for one in memories)
    assert sum(one != other for one, other in itertools.pairwise(memories)) <= 2 * 8 * 1200 / WHOLE.total_seconds() + 2


def test_what_is_waited_for_comes_later_by_the_wait_itself_at_the_most():
    """The first sample breaks a wait off, and all that follow are clear."""
    behavior = Behavior(percentage=50, restore_after=WHOLE)
    noisy = [(4.0, 1000), (0.1, 1000)] * 100
    moments = [*lived(behavior, [*noisy, *[(0.1, 1000)] * 200], counted=False)]
    assert moments[len(noisy) - 1][1].overload is not None
    returned = next(now for now, memory in moments[len(noisy) :] if memory.overload is None)
    assert returned - moments[len(noisy)][0] <= 2 * WHOLE + timedelta(seconds=1)


@pytest.mark.parametrize(("after", "rests"), [(0, 5), (10, 5), (20, 10), (60, 30), (80, 40), (3600, 40), (-60, 5)])
def test_the_longer_nothing_changed_the_longer_a_wait_rests(after, rests):
    assert rest(WHOLE, START, START + timedelta(seconds=after)) == timedelta(seconds=rests)


def test_what_waits_for_nothing_does_not_rest():
    assert rest(timedelta(0), START, START + timedelta(hours=1)) == timedelta(0)


def after(seconds):
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("whole", "now", "measured", "over"),
    [
        (60, 60, 60, True),
        (60, 60, 50, True),
        (60, 60, 49, False),
        (60, 89, 49, False),
        (60, 59, 59, False),
        (12, 12, 10, True),
        (12, 12, 9, False),
        (0, 0, -90, True),
    ],
)
def test_a_wait_is_over_with_a_measurement_of_its_end(whole, now, measured, over):
    assert is_over(timedelta(seconds=whole), START, after(measured), after(now)) is over


def test_a_wait_begins_at_the_moment_that_is_measured_and_not_before_the_last_one_has_rested():
    assert waits_since(None, None, after(10), after(40)) == after(10)
    assert waits_since(None, after(50), after(10), after(40)) is None
    assert waits_since(None, after(30), after(10), after(40)) == after(30)
    assert waits_since(after(5), after(50), after(10), after(40)) == after(5)
    assert waits_since(None, None, after(90), after(40)) == after(40), "its clock is ahead"


# Of each look what was measured and how many seconds ago, or None for what was known before; and when it is.
lates = st.integers(0, 90)
seen = st.none() | st.tuples(st.sampled_from([0.0, 0.5, 1.5, 4.0]), lates)
late_looks = st.lists(st.tuples(seen, st.integers(1, 40)), max_size=60)


@given(behaviors, late_looks)
def test_no_wait_ends_on_what_was_measured_before_its_end(behavior, history):
    """A source may say something and then nothing: that is known until it is too old, and is of its own moment."""
    memory, now, signal = Memory(), START, None
    for found, seconds in history:
        now += timedelta(seconds=seconds)
        if found is not None:
            ratio, late = found
            state = "Breached" if ratio >= 1 else "Clear"
            signal = Signal("load", "1", state, f"{ratio}", at=now - timedelta(seconds=late), least=ratio, most=ratio)
        facts = facts_with(*filter(None, [signal]))
        before = memory
        _, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        was, left = before.overload, memory.overload
        if not signal:
            continue
        if was is None and left is not None:
            # The first measurement of a breach begins the wait, and a later one ends it.
            assert before.breached_since and signal.at >= before.breached_since + WHOLE * 5 / 6
        if was is not None and left is None and behavior.mode == "Threshold":
            assert was.cleared_since and signal.at >= was.cleared_since + WHOLE * 5 / 6
        if was is not None and left is not None and left.share < was.share and behavior.mode == "Proportional":
            assert was.below_since and signal.at >= was.below_since + WHOLE / 4 * 5 / 6


@pytest.mark.parametrize(
    ("mode", "late"),
    [("Threshold", 0), ("Threshold", 30), ("Threshold", 90), ("Proportional", 0), ("Proportional", 30)],
)
def test_a_metric_that_is_always_late_ends_a_wait_about_as_soon_as_one_that_is_not(mode, late):
    """It is measured every five seconds, and known so many seconds later."""
    behavior = Behavior(mode=mode, percentage=50, offload_after=WHOLE, restore_after=WHOLE)
    memory, begun, ended = Memory(), None, None
    for second in range(0, 600, 5):
        ratio = 1.3 if second - late < 150 else 0.1
        state = "Breached" if ratio >= 1 else "Clear"
        signal = Signal("load", "1", state, f"{ratio}", at=after(second - late), least=ratio, most=ratio)
        facts = facts_with(signal)
        _, memory = decide(Terms(True, behavior=behavior), facts, memory, after(second))
        begun = begun or (second if memory.overload else None)
        ended = ended or (second if begun and memory.overload is None else None)
    assert WHOLE * 5 / 6 <= timedelta(seconds=begun) <= WHOLE
    assert WHOLE * 5 / 6 <= timedelta(seconds=ended - 150 - late) <= WHOLE + timedelta(seconds=5)


def test_it_is_said_which_measurement_brings_requests_back_once_the_time_is_over():
    terms, memory = Terms(True, behavior=Behavior(percentage=50, restore_after=timedelta(seconds=60))), Memory()

    def seen(ratio, second, measured):
        nonlocal memory
        state = "Breached" if ratio >= 1 else "Clear"
        signal = Signal("load", "1", state, f"{ratio}", at=after(measured), least=ratio, most=ratio)
        decision, memory = decide(terms, facts_with(signal), memory, after(second))
        return decision

    seen(2.0, 0, 0)
    waits, late = seen(0.1, 10, 10), seen(0.1, 80, 15)
    assert (waits.returns, waits.wake_at) == ("it stays so for 60s", after(70))
    assert late.returns == "it stays so for 60s, and something measured at 2026-01-01T00:01:00Z or later says so"
    assert late.reason is Reason.COOLING_DOWN and (late.wake_at is None or late.wake_at > after(80))
    assert seen(0.1, 81, 60).reason is Reason.STEADY
