"""What holds of every decision, whatever happened before it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.route import Split
from controller.api.resources.model import Behavior
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
from controller.decision.rules import allocate
from controller.intent.intent import Override, Terms
from tests.support.decisions import NEVER_TOGETHER, met_in

START = datetime(2026, 1, 1, tzinfo=UTC)

seconds = st.integers(0, 60_000).map(lambda ms: timedelta(milliseconds=ms))
overrides = st.none() | st.builds(
    Override, remote=st.integers(0, 100), until=st.none() | seconds.map(lambda after: START + after)
)
# Most objects are enabled, and nobody directs them by hand: so what is measured decides often enough to be seen.
mostly = st.sampled_from([True, True, True, False])
terms = st.builds(
    Terms,
    enabled=mostly,
    paused=mostly.map(lambda usual: not usual),
    override=mostly.flatmap(lambda usual: st.none() if usual else overrides),
    behavior=st.builds(
        Behavior,
        mode=st.sampled_from(["Threshold", "Proportional", "Shadow"]),
        percentage=st.integers(0, 100),
        recover_after=seconds,
        step_interval=st.integers(100, 20_000).map(lambda ms: timedelta(milliseconds=ms)),
        offload_after=seconds,
        restore_after=seconds,
        tolerance=st.floats(0, 0.99),
        max_step=st.none() | st.integers(1, 100),
        on_unknown=st.sampled_from(["Hold", "Local", "Remote"]),
    ),
)
UNKNOWN, UP, DOWN = unknown("?"), RemoteHealth(healthy=True), RemoteHealth(healthy=False, message="503")
# None, one or two remote backends that may be used.
remotes = st.lists(st.sampled_from([UNKNOWN, UP, DOWN]), max_size=2).map(
    lambda healths: tuple(RemoteFacts(f"remote-{number}", health) for number, health in enumerate(healths, start=1))
)
ratios = st.floats(0, 1) | st.floats(0, 100)
traffics = st.just(Unknown("no Envoy reports load")) | st.builds(
    SentRequests, local=st.integers(0, 100), remote=st.integers(0, 100), seconds=st.floats(0, 10)
)


@st.composite
def signals(draw):
    """A metric that is unknown, or was measured lately: what it is at least, and at most."""
    name = draw(st.sampled_from(["cpu", "queue"]))
    if draw(st.booleans()):
        return Signal(name, "1", "Unknown", message="no answer")
    least, more = draw(ratios), draw(ratios)
    at = START + timedelta(seconds=draw(st.integers(-60, 300)))
    state = "Breached" if least >= 1 else "Clear"
    window = timedelta(seconds=draw(st.integers(0, 30)))
    return Signal(name, "1", state, str(least), at=at, window=window, least=least, most=least + more)


facts = st.builds(
    lambda ready, more, leaving, remotes, measured, traffic: Facts(
        LocalFacts(ready, ready + more, leaving), remotes, signals=tuple(measured), traffic=traffic
    ),
    *[st.integers(0, 3)] * 3,
    remotes,
    st.lists(signals(), max_size=2),
    traffics,
)
RECOVERABLE = Terms(enabled=True)
REMOTES = (RemoteFacts("remote", UP),)
HEALTHY = Facts(LocalFacts(1, 1), REMOTES)


def measured(state, ratio, after):
    """What is known when one metric is measured so many seconds after the start."""
    at = START + timedelta(seconds=after)
    return replace(HEALTHY, signals=(Signal("cpu", "1", state, str(ratio), at=at, least=ratio, most=ratio),))


SURGE = [(measured("Breached", 2, 0), 0), (measured("Breached", 2, 60), 60_000)]
CALM = [(measured("Clear", 0.1, 90), 30_000)]
SILENCE = [(replace(HEALTHY, signals=(Signal("cpu", "1", "Unknown", message="no answer"),)), 30_000)]
# What happened: what was known, and how long after the moment before. A clock may be set back. Some of it begins with
# an overload that lasts for a minute and is followed by what ends it, which chance hardly ever makes.
surges = st.sampled_from([[], SURGE, SURGE + CALM, SURGE + SILENCE])
passed = st.integers(-2_000, 30_000)
histories = st.builds(lambda surge, then: [*surge, *then], surges, st.lists(st.tuples(facts, passed), max_size=8))


def lived_through(asked, history):
    memory, now = Memory(), START
    for known, milliseconds in history:
        now += timedelta(milliseconds=milliseconds)
        _, memory = decide(asked, known, memory, now)
    return memory, now


@given(terms, histories, facts)
def test_a_split_is_a_hundred_and_explains_itself(asked, history, known):
    memory, now = lived_through(asked, history)
    decision, _ = decide(asked, known, memory, now)
    assert decision.split.local + decision.split.remote == 100
    assert decision.shares.split == decision.split
    assert {one.name for one in decision.shares.remotes} <= {one.name for one in known.remotes}
    assert decision.message and decision.returns
    assert decision.reason == next(verdict.reason for verdict in decision.verdicts if verdict.matched)
    assert [verdict.reason for verdict in decision.verdicts] == list(Reason)


@given(surges, st.lists(st.tuples(terms, facts, passed), min_size=1, max_size=8))
def test_rules_that_cannot_meet_never_do_whatever_is_edited_meanwhile(surge, edits):
    memory, now = lived_through(Terms(enabled=True, behavior=Behavior(percentage=50)), surge)
    for asked, known, milliseconds in edits:
        now += timedelta(milliseconds=milliseconds)
        decision, memory = decide(asked, known, memory, now)
        assert met_in(decision).isdisjoint(NEVER_TOGETHER)


@given(terms, histories, facts)
def test_the_same_is_decided_of_the_same(asked, history, known):
    memory, now = lived_through(asked, history)
    assert decide(asked, known, memory, now) == decide(asked, known, memory, now)


@given(terms, histories, facts)
def test_a_restart_changes_nothing(asked, history, known):
    memory, now = lived_through(asked, history)
    restarted = Memory.model_validate_json(memory.model_dump_json(by_alias=True, exclude_none=True))
    assert decide(asked, known, restarted, now) == decide(asked, known, memory, now)


@given(terms, histories, facts)
def test_to_look_again_at_once_changes_nothing(asked, history, known):
    memory, now = lived_through(asked, history)
    decision, after = decide(asked, known, memory, now)
    again, _ = decide(asked, known, after, now)
    assert (again.split, again.reason, again.wake_at) == (decision.split, decision.reason, decision.wake_at)


@given(terms, histories, facts, st.floats(0, 1, exclude_max=True))
def test_nothing_changes_before_wake_at(asked, history, known, part):
    memory, now = lived_through(asked, history)
    decision, after = decide(asked, known, memory, now)
    if decision.wake_at is None:
        later = now + timedelta(days=365 * part)
    else:
        assert decision.wake_at > now
        later = now + (decision.wake_at - now) * part
        if later >= decision.wake_at:
            return
    again, _ = decide(asked, known, after, later)
    assert (again.split, again.reason) == (decision.split, decision.reason)


def test_an_overload_that_begins_while_local_recovers_is_waited_for():
    behavior = Behavior(
        percentage=94,
        offload_after=timedelta(seconds=1),
        recover_after=timedelta(seconds=60),
        step_interval=timedelta(seconds=20),
    )
    asked, over = Terms(enabled=True, behavior=behavior), Signal("cpu", "1", "Breached", "2", at=START, least=2, most=2)
    busy = replace(HEALTHY, signals=(over,))
    memory, now = lived_through(asked, [(replace(busy, local=LocalFacts(0, 1)), 0), (busy, 500)])
    decision, memory = decide(asked, busy, memory, now)
    assert (decision.reason, decision.wake_at) == (Reason.RECOVERING, START + timedelta(seconds=1))
    assert decision.wake_at
    again = replace(busy, signals=(replace(over, at=decision.wake_at),))
    decision, _ = decide(asked, again, memory, decision.wake_at)
    assert (str(decision.split), decision.reason) == ("6/94", Reason.OVERLOADED)


@given(histories, seconds, st.integers(100, 20_000))
def test_prior_fault_1_traffic_returns_to_local_after_any_failure(history, recover_after, step):
    asked = Terms(True, behavior=Behavior(recover_after=recover_after, step_interval=timedelta(milliseconds=step)))
    memory, now = lived_through(asked, [*history, (Facts(LocalFacts(0, 1), REMOTES), 0)])
    shares = []
    while True:
        decision, memory = decide(asked, HEALTHY, memory, now)
        shares.append(decision.split.local)
        if decision.wake_at is None:
            break
        now = decision.wake_at
    assert (str(decision.split), decision.reason) == ("100/0", Reason.STEADY)
    assert shares == sorted(shares), "it only ever rises"
    assert memory.local_lost_at is None


@given(histories, st.integers(1, 100), st.integers(0, 60), st.sampled_from(["Threshold", "Proportional"]))
@settings(max_examples=10, deadline=None)
def test_prior_fault_2_a_surge_offloads_after_any_history_and_so_does_the_next(history, percentage, after, mode):
    wait = timedelta(seconds=after)
    behavior = Behavior(mode=mode, percentage=percentage, offload_after=wait, restore_after=timedelta(seconds=30))
    asked = Terms(True, behavior=behavior)
    memory, now = lived_through(asked, history)

    def measuring(ratio, seconds):
        """Say what is decided after a metric was at so many times its target for so long, measured each second."""
        nonlocal memory, now
        for _ in range(seconds):
            now += timedelta(seconds=1)
            state = "Breached" if ratio >= 1 else "Clear"
            signal = Signal("cpu", "1", state, str(ratio), at=now, least=ratio, most=ratio)
            decision, memory = decide(asked, replace(HEALTHY, signals=(signal,)), memory, now)
        return decision

    # Whatever was before is over by then, and no wait rests any more.
    assert measuring(0.0, 700).reason is Reason.STEADY
    for _ in range(2):
        assert measuring(4.0, 2 * after + 2).split.remote > 0
        assert str(measuring(0.0, 700).split) == "100/0"


@given(terms, histories, facts)
def test_prior_fault_12_what_is_not_enabled_or_may_not_leave_stays_local(asked, history, known):
    memory, now = lived_through(asked, history)
    decision, _ = decide(asked, known, memory, now)
    if not (asked.enabled and known.remotes):
        answers = known.local.ready or known.local.leaving
        reason = Reason.NO_REMOTE_BACKEND if answers else Reason.NOTHING_ANSWERS
        reason = Reason.SHADOW if asked.behavior.mode == "Shadow" else reason
        assert (str(decision.split), decision.reason) == ("100/0", reason if asked.enabled else Reason.DISABLED)


@given(terms, histories, facts)
def test_in_shadow_nothing_leaves_and_what_would_be_is_said(asked, history, known):
    asked = replace(asked, behavior=asked.behavior.model_copy(update={"mode": "Shadow"}))
    memory, now = lived_through(asked, history)
    decision, _ = decide(asked, known, memory, now)
    assert str(decision.split) == "100/0"
    assert (decision.reason == Reason.SHADOW) == asked.enabled
    behind = [one.reason for one in decision.verdicts if one.matched and one.reason != Reason.SHADOW]
    if decision.reason == Reason.SHADOW:
        assert decision.would_be and decision.would_be.reason == behind[0]
        assert f"would be {decision.would_be.split} ({behind[0]}): " in decision.message


@given(terms, histories, facts)
def test_replicas_that_leave_are_asked_where_nobody_else_answers(asked, history, known):
    memory, now = lived_through(asked, history)
    decision, _ = decide(asked, known, memory, now)
    if known.local.leaving and all(one.health == DOWN for one in known.remotes):
        assert decision.reason != Reason.LOCAL_DOWN


@given(histories, facts)
def test_what_could_not_be_used_for_a_while_ends_no_pause(history, known):
    paused = Terms(enabled=True, paused=True)
    held, memory = decide(paused, HEALTHY, Memory(split=Split.away(40)), START)
    for lived, _ in [*history, (known, 0)]:
        _, memory = decide(paused, lived, memory, START)
    again, _ = decide(paused, HEALTHY, memory, START)
    assert (held.split, held.reason) == (again.split, again.reason) == (Split.away(40), Reason.PAUSED)


@given(facts, st.integers(1, 100_000))
def test_a_memory_from_a_clock_that_is_ahead_is_understood(known, milliseconds):
    ahead = START + timedelta(milliseconds=milliseconds)
    memory = Memory(local_lost_at=ahead, local_back_at=ahead)
    decision, _ = decide(RECOVERABLE, known, memory, START)
    assert decision.split.local + decision.split.remote == 100


def test_what_leaves_goes_to_the_first_remote_that_is_not_down():
    def share(*healths):
        remotes = tuple(RemoteFacts(f"remote-{number}", one) for number, one in enumerate(healths, start=1))
        return {one.name: one.percent for one in allocate(Split.away(30), remotes).remotes}

    assert share(UP, UP) == share(UNKNOWN, UP) == share(UP, DOWN) == share(DOWN, DOWN) == {"remote-1": 30}
    assert share(DOWN, UP) == share(DOWN, UNKNOWN) == {"remote-2": 30}
    assert allocate(Split.away(0), ()).local == 100


def test_one_remote_that_may_answer_is_enough():
    remotes = (RemoteFacts("remote-1", DOWN), RemoteFacts("remote-2", UP))
    decision, _ = decide(RECOVERABLE, Facts(LocalFacts(0, 1), remotes), Memory(), START)
    assert (str(decision.split), decision.reason) == ("0/100", Reason.LOCAL_DOWN)
    asked = Terms(enabled=True, override=Override(30))
    assert str(decide(asked, Facts(LocalFacts(1, 1), remotes), Memory(), START)[0].split) == "70/30"
    down = Facts(LocalFacts(1, 1), (RemoteFacts("remote-1", DOWN), RemoteFacts("remote-2", DOWN)))
    assert decide(RECOVERABLE, down, Memory(), START)[0].reason == Reason.REMOTE_DOWN
