"""Rules in front of the law that come and go: what left for a metric ends by the demand all the same, and not before.

Requests are a flow here, without chance, and the metric is in proportion to what stays.
"""

import itertools
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Split
from controller.api.resources.model import Behavior
from controller.decision import Facts, LocalFacts, Memory, Reason, RemoteFacts, SentRequests, Signal, Unknown, decide
from controller.decision.decision import Overload
from controller.decision.stayed import Stayed, mean_of, with_another
from controller.intent.intent import Terms

START = datetime(2026, 1, 1, tzinfo=UTC)
UP, DOWN = RemoteHealth(healthy=True), RemoteHealth(healthy=False, message="503")
SURGE = 60
"""Seconds of twice the target."""


@dataclass
class Turns:
    """The remote backend, or every replica, is there for `here` seconds and gone for `gone`, in turns.

    A metric is an average over `window` seconds, and asked for every five.
    """

    window: int
    here: int = 10
    gone: int = 10
    percentage: int = 50
    local: bool = False
    mode: str = "Threshold"
    counted: bool = False

    def lived(self, calm, seconds=1200):
        """Yield each second with the decision and the memory after it: a demand of 2.0, and then of `calm`."""
        behavior = Behavior(mode=self.mode, percentage=self.percentage, recover_after=timedelta(0))
        memory, away, signal = Memory(), 0.0, None
        stayed, sent = deque([0.0], maxlen=max(self.window, 1)), deque(maxlen=10)
        for second in range(seconds):
            now = START + timedelta(seconds=second)
            demand = 2.0 if second < SURGE else calm
            stayed.append(demand * (1 - away))
            sent.append((demand * (1 - away), demand * away))
            is_here = second % (self.here + self.gone) < self.here
            if second % 5 == 0 or signal is None:
                mean = sum(stayed) / len(stayed)
                state = "Breached" if mean >= 1 else "Clear"
                # It is of before what is decided now.
                at, over = now - timedelta(milliseconds=1), timedelta(seconds=self.window)
                signal = Signal("load", "1", state, f"{mean}", at=at, window=over, least=mean, most=mean)
            facts = Facts(
                LocalFacts(3 if is_here or not self.local else 0, 3),
                (RemoteFacts("remote", UP if is_here or self.local else DOWN),),
                signals=(signal,),
                traffic=self.traffic(sent, memory, now),
            )
            decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
            away = decision.split.remote / 100
            yield second, decision, memory

    def traffic(self, sent, memory, now):
        if not self.counted:
            return Unknown("nothing reports load")
        since = int((now - (memory.split_since or START)).total_seconds())
        lately = list(sent)[-min(since, 10) :] if since else []
        local, remote = (round(100 * sum(one)) for one in zip(*lately, strict=True)) if lately else (0, 0)
        return SentRequests(local, remote, float(len(lately)))


WINDOWS = [0, 5, 15, 60, 300]


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(
    ("window", "local"), [*((one, False) for one in WINDOWS), *((one, True) for one in WINDOWS if one >= 15)]
)
def test_a_split_that_others_change_faster_than_a_metric_is_measured_ends_with_the_load(window, local, counted):
    moments = [*Turns(window, local=local, counted=counted).lived(0.2)]
    assert any(memory.overload for _, _, memory in moments)
    ended = next(second for second, _, memory in moments if second > SURGE and memory.overload is None)
    assert ended <= SURGE + 2 * window + 90
    assert {decision.reason for second, decision, _ in moments if second > ended} <= {
        Reason.STEADY,
        Reason.LOCAL_DOWN if local else Reason.REMOTE_DOWN,
        Reason.RECOVERING,
    }


@pytest.mark.parametrize("percentage", [50, 100])
@pytest.mark.parametrize("window", WINDOWS)
def test_so_does_a_load_of_little_less_than_the_target_and_a_share_of_all(window, percentage):
    """The mean of what stayed tells it; the least that did would never."""
    moments = [*Turns(window, percentage=percentage, counted=True).lived(0.7)]
    assert moments[-1][2].overload is None


@pytest.mark.parametrize("mode", ["Threshold", "Proportional"])
@pytest.mark.parametrize(("percentage", "local"), [(50, False), (50, True), (100, False)])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_load_above_the_target_stays_one_whoever_changes_the_split(window, percentage, local, mode):
    """Until all of a window is of after the last step of the law, it does not tell that less may leave."""
    turns = Turns(window, here=20, gone=40, percentage=percentage, local=local, mode=mode, counted=True)
    begun = False
    for _, _, memory in turns.lived(1.3, 600):
        begun = begun or memory.overload is not None
        assert memory.overload is not None or not begun


def test_a_measurement_from_before_a_step_of_the_law_tells_nothing_whatever_came_after():
    terms = Terms(True, behavior=Behavior(percentage=50, restore_after=timedelta(0)))

    def at(second, ratio, health, measured):
        now, then = START + timedelta(seconds=second), START + timedelta(seconds=measured)
        state = "Breached" if ratio >= 1 else "Clear"
        over = timedelta(seconds=30)
        load = Signal("load", "1", state, f"{ratio}", at=then, window=over, least=ratio, most=ratio)
        return Facts(LocalFacts(3, 3), (RemoteFacts("remote", health),), signals=(load,)), now

    _, memory = decide(terms, *_with(at(0, 2.0, UP, 0), Memory()))
    for second in (10, 20):
        decision, memory = decide(terms, *_with(at(second, 0.1, DOWN, second), memory))
        assert (decision.reason, memory.overload is not None) == (Reason.REMOTE_DOWN, True)
    decision, memory = decide(terms, *_with(at(29, 0.1, UP, 29), memory))
    assert decision.reason is Reason.OVERLOADED and "before the split changed" in decision.returns
    decision, memory = decide(terms, *_with(at(30, 0.1, UP, 30), memory))
    assert decision.reason is Reason.STEADY


def _with(known, memory):
    facts, now = known
    return facts, memory, now


stays = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 100)), min_size=1, max_size=60)


def moments(history):
    """Each share with the seconds in which it was in force, one after the other."""
    ends = [*itertools.accumulate(seconds for seconds, _ in history)]
    return [
        (START + timedelta(seconds=end - lasts), START + timedelta(seconds=end))
        for end, (lasts, _) in zip(ends, history, strict=True)
    ]


@given(stays)
def test_few_are_remembered_and_their_mean_is_that_of_all(history):
    known = ()
    for (since, until), (_, percent) in zip(moments(history), history, strict=True):
        known = with_another(known, Stayed(since=since, local=percent / 100), until, None)
        assert len(known) <= 16
        assert known[0].since == START
    assert [one.since for one in known] == sorted({one.since for one in known})
    total = sum(seconds for seconds, _ in history)
    exact = sum(seconds * percent for seconds, percent in history) / 100 / total
    assert mean_of(known, START, START + timedelta(seconds=total)) == pytest.approx(exact)


@given(stays, st.integers(0, 600))
def test_what_nothing_is_measured_of_any_more_is_forgotten(history, window):
    """So a flap of hours leaves a memory of a few, each as it was."""
    known = ()
    for (since, until), (_, percent) in zip(moments(history), history, strict=True):
        oldest = until - timedelta(seconds=window)
        known = with_another(known, Stayed(since=since, local=percent / 100), until, oldest)
        assert known[0].since <= max(oldest, START)
        assert len(known) == 1 or known[1].since > oldest


def test_a_metric_of_one_moment_is_of_what_stayed_at_that_moment():
    known = [Stayed(since=START, local=0.5), Stayed(since=START + timedelta(seconds=10), local=1.0)]
    assert [mean_of(known, at, at) for at in (START, START + timedelta(seconds=9.9))] == [0.5, 0.5]
    assert mean_of(known, START + timedelta(seconds=10), START + timedelta(seconds=10)) == 1.0
    assert mean_of(known, START + timedelta(seconds=5), START + timedelta(seconds=15)) == 0.75


def test_what_failed_at_a_remote_backend_for_seconds_does_not_count_as_having_stayed_before():
    """So it is whenever a remote backend begins to fail: no request to it is counted, and then nothing leaves."""
    half = Split.away(50)
    memory = Memory(
        split=half, reason=Reason.OVERLOADED, split_since=START, overload=Overload(since=START, share=50, cause="load")
    )
    all_fail = SentRequests(1300, 0, 10.0)
    for second in range(900, 1000, 5):
        now = START + timedelta(seconds=second)
        value = 0.65 + 0.65 * (second - 900) / 300  # of a demand of 1.3, over 300 s
        load = Signal("load", "1", "Clear", f"{value}", at=now, window=timedelta(minutes=5), least=value, most=value)
        facts = Facts(LocalFacts(3, 3), (RemoteFacts("remote", DOWN),), signals=(load,))
        facts = facts if second > 900 else replace(facts, traffic=all_fail)
        _, memory = decide(Terms(True, behavior=Behavior(percentage=50)), facts, memory, now)
        assert memory.overload is not None
