"""What holds of both laws, whatever is measured."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Split
from controller.api.resources.model import Behavior
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.decision import (
    Facts,
    LocalFacts,
    Memory,
    Reason,
    RemoteFacts,
    SentRequests,
    Signal,
    Unknown,
    decide,
)
from controller.decision.decision import Overload
from controller.decision.demand import Baseline, Demand, InForce, project
from controller.decision.laws import DOUBTED
from controller.intent.intent import Terms

START = datetime(2026, 1, 1, tzinfo=UTC)
HEALTHY = Facts(LocalFacts(3, 3), (RemoteFacts("remote", RemoteHealth(healthy=True)),))
NO_TRAFFIC = Unknown("no Envoy reports load")

durations = st.integers(0, 60_000).map(lambda ms: timedelta(milliseconds=ms))
behaviors = st.builds(
    Behavior,
    mode=st.sampled_from(["Threshold", "Proportional"]),
    percentage=st.integers(0, 100),
    offload_after=durations,
    restore_after=durations,
    step_interval=st.integers(100, 20_000).map(lambda ms: timedelta(milliseconds=ms)),
    tolerance=st.floats(0, 0.9),
    max_step=st.none() | st.integers(1, 100),
    on_unknown=st.sampled_from(["Hold", "Local", "Remote"]),
)
ratios = st.floats(0, 20)


class AtLeast(float):
    """What is known of a ratio of which a part is not."""


traffics = st.just(NO_TRAFFIC) | st.builds(
    SentRequests, local=st.integers(0, 2000), remote=st.integers(0, 2000), seconds=st.sampled_from([0.0, 1.0, 10.0])
)
# Of each metric its ratio, or a part of it, None for one that is not known; what was sent; how old it is; how long
# after the last.
looks = st.lists(
    st.tuples(
        st.lists(st.none() | ratios | ratios.map(AtLeast), min_size=2, max_size=2),
        traffics,
        st.integers(0, 60),
        st.integers(1, 40_000),
    ),
    max_size=20,
)


def signal(name, ratio, at):
    if ratio is None:
        return Signal(name, "1", "Unknown", message="no answer")
    if isinstance(ratio, AtLeast):
        state = "Breached" if ratio >= 1 else "Unknown"
        return Signal(name, "1", state, message="a part", at=at, least=ratio, most=1e9, at_least=True)
    return Signal(name, "1", "Breached" if ratio >= 1 else "Clear", str(ratio), at=at, least=ratio, most=ratio)


def measured(known, traffic, at):
    signals = tuple(signal(name, ratio, at) for name, ratio in zip(["cpu", "queue"], known, strict=True))
    return replace(HEALTHY, signals=signals, traffic=traffic)


def lived_through(behavior, history):
    """Yield each moment, its decision and its memory."""
    memory, now = Memory(), START
    for known, traffic, age, milliseconds in history:
        now += timedelta(milliseconds=milliseconds)
        facts = measured(known, traffic, now - timedelta(seconds=age))
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        yield now, decision, memory


def after(behavior, history):
    return next(reversed([(now, memory) for now, _, memory in lived_through(behavior, history)]), (START, Memory()))


def state_of(memory):
    """What of a memory is a state: whether there are moments, not which."""
    overload = memory.overload
    flags = {name: value is not None for name, value in overload if name != "share"} if overload else {}
    return memory.split, memory.reason, memory.breached_since is None, overload and overload.share, flags


@given(behaviors, looks, st.none() | ratios.filter(lambda one: one < 1))
def test_what_is_looked_for_the_first_time_is_no_news(behavior, history, other):
    """As after a restart: nothing begins, ends or is waited for anew, whatever `onUnknown` is."""
    now, memory = after(behavior, history)
    facts = measured([None, other], NO_TRAFFIC, now)
    asked = tuple(replace(one, pending=one.state == "Unknown") for one in facts.signals)
    decision, then = decide(Terms(True, behavior=behavior), replace(facts, signals=asked), memory, now)
    for name in ("overload", "breached_since", "unbreached_at"):
        assert getattr(then, name) == getattr(memory, name)
    if memory.split:
        assert (decision.split, decision.reason) == (memory.split, memory.reason)


@given(behaviors, looks)
def test_the_memory_changes_only_with_a_state(behavior, history):
    """Each change of it is a write to the API server, so a number that moves changes nothing."""
    before = Memory()
    for _, _, memory in lived_through(behavior, history):
        assert memory == before or state_of(memory) != state_of(before)
        before = memory


@given(behaviors, looks, traffics, st.lists(st.none() | ratios | ratios.map(AtLeast), min_size=2, max_size=2))
def test_to_wait_for_what_changes_is_never_a_busy_loop(behavior, history, traffic, known):
    now, memory = after(behavior, history)
    facts, moments = measured(known, traffic, now), []
    while len(moments) < 30:
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        if decision.wake_at is None:
            return
        assert decision.wake_at > now
        now = decision.wake_at
        moments.append(now)
    least = min(behavior.step_interval, behavior.restore_after)
    assert moments[-1] - moments[0] >= 10 * least


@given(behaviors, looks, st.sampled_from([NO_TRAFFIC, SentRequests(0, 0, 10.0)]))
def test_requests_return_when_the_load_is_gone(behavior, history, traffic):
    now, memory = after(behavior, history)
    # A probe may have begun just now, and two of them may be needed: one that was begun before tells nothing.
    deadline = now + 6 * behavior.restore_after + 400 * behavior.step_interval
    pause = max(behavior.restore_after / 4, behavior.step_interval)
    while True:
        decision, memory = decide(Terms(True, behavior=behavior), measured([0, 0], traffic, now), memory, now)
        if (str(decision.split), decision.reason, memory.overload) == ("100/0", Reason.STEADY, None):
            return
        assert now < deadline, decision.message
        now += pause


@given(behaviors, looks)
def test_requests_return_in_the_end_though_as_many_arrive(behavior, history):
    """A signal that was reached for another reason than the number of requests."""
    behavior = behavior.model_copy(update={"percentage": min(behavior.percentage, 90)})
    now, memory = after(behavior, history)
    deadline = now + (2 + DOUBTED) * behavior.restore_after + 400 * behavior.step_interval
    pause = max(behavior.restore_after / 2, behavior.step_interval)
    while now < deadline:
        away = round(20 * (memory.split or Split.away(0)).remote)
        facts = measured([0, 0], SentRequests(2000 - away, away, 10.0), now)
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        if memory.overload is None:
            return
        now += pause
    raise AssertionError(decision.message)


@given(
    st.integers(0, 100),
    st.floats(0, 20),
    traffics,
    st.none() | st.builds(Baseline, st.floats(0, 100), st.integers(0, 5), st.fixed_dictionaries({"cpu 1": ratios})),
)
@example(100, 0.0, SentRequests(0, 100, 10.0), Baseline(5e-324, 0, {"cpu 1": 0.0}))
def test_the_demand_is_never_less_than_what_is_measured(away, ratio, traffic, baseline):
    found = project(
        signal("cpu", ratio, START), measured([ratio, 0], traffic, START), InForce(Split.away(away), START), baseline
    )
    if isinstance(found, Demand):
        assert ratio <= found.most
        assert found.least <= found.most


def test_a_clock_that_is_set_back_leaves_nothing_in_the_future():
    later = START + timedelta(hours=1)
    overload = Overload(since=later, share=50, cause="load", cleared_since=START, stepped_at=later)
    memory = Memory(split_since=later, breached_since=START, overload=overload).not_after(START)
    assert (memory.split_since, memory.breached_since) == (START, START)
    assert memory.overload and (memory.overload.since, memory.overload.stepped_at) == (START, START)
    assert memory.not_after(START) is memory


@pytest.mark.parametrize(
    "written",
    [
        {"rate": "nan"},
        {"rate": "inf"},
        {"rate": -1},
        {"replicas": -1},
        {"ratios": {"cpu 1": "nan"}},
        {"ratios": {"cpu 1": "inf"}},
        {"overAt": "2026-01-01T00:00:00"},
        {"overShare": 101},
    ],
)
def test_a_memory_with_what_no_decision_remembers_is_refused(written):
    """It is in the status, which others may write, and the decision compares and divides by what is in it."""
    good = {"since": "2026-01-01T00:00:00Z", "share": 50, "cause": "load"}
    assert parse(Memory, {"overload": good}).overload
    with pytest.raises(InvalidObjectError):
        parse(Memory, {"overload": {**good, **written}})


def test_a_time_without_its_zone_is_refused():
    with pytest.raises(InvalidObjectError):
        parse(Memory, {"splitSince": "2026-01-01T00:00:00"})


@pytest.mark.parametrize("mode", ["Threshold", "Proportional"])
def test_while_requests_are_not_counted_as_after_a_restart_none_return(mode):
    """A queue is empty since a part of its requests left, and as many arrive as when it was reached."""
    memory, behavior, traffic = Memory(), Behavior(mode=mode, percentage=50), SentRequests(360, 0, 10.0)

    def away(second, queue, traffic):
        nonlocal memory
        facts = measured([queue, 0], traffic, START + timedelta(seconds=second))
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, START + timedelta(seconds=second))
        return decision.split.remote

    assert away(0, 20, traffic) == 50
    for second in range(1, 100):
        assert away(second, 0, SentRequests(180, 180, 10.0))
    assert away(100, 0, SentRequests(0, 0, 0.0))
    assert away(101, 0, SentRequests(18, 18, 1.0))


def test_of_two_metrics_with_one_name_and_one_target_the_quiet_one_brings_nothing_back():
    behavior, memory, share = Behavior(percentage=100, restore_after=timedelta(seconds=10)), Memory(), 0
    left = []
    for second in range(120):
        now, local = START + timedelta(seconds=second), 1 - share / 100
        signals = tuple(
            Signal("queue", "10", "Breached" if ratio >= 1 else "Clear", "-", at=now, least=ratio, most=ratio)
            for ratio in (2.0 * local, 0.1 * local)
        )
        traffic = SentRequests(local=1000 - 10 * share, remote=10 * share, seconds=10.0)
        decision, memory = decide(
            Terms(True, behavior=behavior), replace(HEALTHY, signals=signals, traffic=traffic), memory, now
        )
        share = decision.split.remote
        left.append(share)
    assert set(left) <= {90, 100}


def test_requests_that_stay_away_for_another_metric_than_they_left_for_say_so():
    behavior, lone = Behavior(percentage=50), []
    for queue in (0.2, 1.6, None):
        begun = (30, [2.0, 0.2]), (10, [1.0, queue])  # half of it is local by then, while the cause lasts
        *_, (_, held, _) = lived_through(behavior, [(known, NO_TRAFFIC, 0, 1000 * s) for s, known in begun])
        assert "kept for" not in held.message
        ended = (*begun, *[(30, [0.1, queue])] * 20)
        *_, (_, made, _) = lived_through(behavior, [(known, NO_TRAFFIC, 0, 1000 * s) for s, known in ended])
        lone.append((made.reason, made.message.partition(": 50 %")[0].partition(", kept for ")[2]))
    assert lone == [
        (Reason.STEADY, ""),
        (Reason.OVERLOADED, "queue"),
        (Reason.OVERLOADED, "queue, which is not known"),
    ]


@pytest.mark.parametrize(("ready", "would_be"), [(3, "100/0 NoRemoteBackend"), (0, "100/0 NothingAnswers")])
def test_shadow_says_that_nothing_could_leave_without_what_the_remote_backend_needs(ready, would_be):
    facts = Facts(LocalFacts(ready, 3), no_remote="Secret default/s does not exist")
    decision, _ = decide(Terms(True, behavior=Behavior(mode="Shadow")), facts, Memory(), START)
    assert (decision.reason, str(decision.split), str(decision.would_be)) == ("Shadow", "100/0", would_be)
    assert "Secret default/s does not exist" in decision.message
    # What would decide next is what would be.
    assert [str(one.reason) for one in decision.verdicts if one.matched][:2] == ["Shadow", would_be.split()[1]]


@pytest.mark.parametrize(
    ("flying", "words"),
    [
        (40, "what is more than 12 requests in flight (4 for each) would be sent away: 28 of 40 now (70%)"),
        (12, "what is more than 12 requests in flight (4 for each) would be sent away"),
    ],
)
def test_shadow_says_what_would_leave_for_want_of_room(flying, words):
    behavior = Behavior(mode="Shadow", max_requests_per_replica=4)
    facts = replace(HEALTHY, traffic=SentRequests(40, 0, 10.0, in_flight=flying))
    decision, _ = decide(Terms(True, behavior=behavior), facts, Memory(), START)
    unasked = "whether the remote backend answers is not looked at"
    assert decision.message.endswith(f"(Steady): 3 of 3 local replicas are ready; {words}; {unasked}")
    served = behavior.model_copy(update={"mode": "Threshold"})
    decision, _ = decide(Terms(True, behavior=served), facts, Memory(), START)
    assert decision.message.endswith("(4 for each) is sent away")
