"""Metrics that are averages over a window: a share that is found by one does not swing, if the window is known.

Requests are a flow here, without chance, and the metric is in proportion to what stays. It is looked at every five
seconds, as Prometheus and the metrics APIs are asked.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.resources.model import Behavior
from controller.decision import Memory, SentRequests, Signal, Unknown, decide
from controller.intent.intent import Terms
from tests.support.decisions import facts_with

START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY, COUNTED, PER_TARGET = 5, 10, 100
"""Seconds between two samples; seconds in which requests are counted; requests a second that are the target."""


@dataclass
class Averaged:
    """A metric that is an average over so many seconds, and what is `known` of that to the law.

    It is measured every `held` seconds: until then it is what it was. `dated` tells the law when that was. `calm` are
    the seconds of another average beside it, which is a third of its target where this one is at its own.
    """

    over: int
    known: int
    behavior: Behavior = field(default_factory=lambda: Behavior(mode="Proportional"))
    counted: bool = True
    held: int = EVERY
    dated: bool = False
    calm: int = 0

    def shares(self, demand: Callable[[int], float], seconds: int) -> Iterator[int]:
        """What leaves, in percent, at each sample."""
        memory, away = Memory(), 0.0
        measured_at, mean = START, 0.0
        stayed, beside = deque[float](maxlen=self.over), deque[float](maxlen=self.calm)
        sent = deque[tuple[float, float]](maxlen=COUNTED)
        for second in range(seconds):
            now, arriving = START + timedelta(seconds=second), demand(second)
            stayed.append(arriving * (1 - away))
            beside.append(arriving * (1 - away) / 3)
            sent.append((arriving * (1 - away), arriving * away))
            if second % self.held == 0:
                measured_at, mean = now, sum(stayed) / len(stayed)
            if second % EVERY:
                continue
            state = "Breached" if mean >= 1 else "Clear"
            window = timedelta(seconds=self.known)
            at = measured_at if self.dated else now
            signal = Signal("mean", "1", state, str(mean), at=at, window=window, least=mean, most=mean)
            signals = (signal, average("calm", beside, now)) if beside else (signal,)
            facts = facts_with(*signals, traffic=self.traffic(sent, memory, now))
            decision, memory = decide(Terms(True, behavior=self.behavior), facts, memory, now)
            away = decision.split.remote / 100
            yield decision.split.remote

    def traffic(self, sent: deque[tuple[float, float]], memory: Memory, now: datetime) -> SentRequests | Unknown:
        if not self.counted:
            return Unknown("nothing reports load")
        since = (now - (memory.split_since or START)).total_seconds()
        lately = list(sent)[-int(min(since, COUNTED)) :] if since else []
        local, remote = (round(PER_TARGET * sum(one)) for one in zip(*lately, strict=True)) if lately else (0, 0)
        return SentRequests(local, remote, float(len(lately)))


def average(name: str, measured: deque[float], now: datetime) -> Signal:
    mean, window = sum(measured) / len(measured), timedelta(seconds=measured.maxlen or 0)
    state = "Breached" if mean >= 1 else "Clear"
    return Signal(name, "1", state, str(mean), at=now, window=window, least=mean, most=mean)


def surge(second: int) -> float:
    return 0.6 if second < 300 else 1.5


def turns(shares: list[int]) -> int:
    """How often a share went back by ten percent or more."""
    found, direction, extreme = 0, 1, shares[0]
    for share in shares:
        if (share - extreme) * direction >= 0:
            extreme = share
        elif abs(share - extreme) >= 10:
            found, direction, extreme = found + 1, -direction, share
    return found


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("over", [60, 120, 300])
def test_a_share_that_is_found_by_an_average_comes_to_rest(over, counted):
    """Of a demand of 1.5 a third is too much."""
    shares = list(Averaged(over, over, counted=counted).shares(surge, 1800))
    assert turns(shares) == 0
    assert 25 <= shares[-1] < 45 and max(shares) < 45


def test_without_its_window_it_swings():
    shares = list(Averaged(120, 0, counted=False).shares(surge, 1800))
    assert max(shares) > 70 and turns(shares) > 5


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("held", [15, 30, 60])
@pytest.mark.parametrize("after", [0, 7], ids=["surge at a scrape", "surge in between"])
@pytest.mark.parametrize(("known", "dated"), [(0, True), (60, False)], ids=["its time is told", "a minute is assumed"])
def test_a_number_that_is_held_until_the_next_scrape_is_acted_on_once(known, dated, after, held, counted):
    """A gauge that Prometheus scrapes every 15 to 60 seconds, and that is asked for every five."""
    metric = Averaged(1, known, counted=counted, held=held, dated=dated)
    shares = list(metric.shares(lambda second: surge(second - after), 1800))
    assert turns(shares) == 0
    assert 25 <= shares[-1] < 45 and max(shares) < 45


@pytest.mark.parametrize(("held", "at_least"), [(30, 60), (60, 80)])
def test_taken_for_one_of_now_it_is_acted_on_again_and_again(held, at_least):
    assert max(Averaged(1, 0, held=held).shares(surge, 1800)) > at_least


@pytest.mark.parametrize("over", [60, 300])
def test_more_leaves_before_an_average_is_all_new_where_it_tells_that_surely(over):
    """It came to its target by a part of the surge, and a whole window of overload would follow."""
    shares = list(Averaged(over, over).shares(surge, 300 + over + 60))
    begun = next(number for number, share in enumerate(shares) if share)
    assert shares[begun] < 15
    within = shares[begun : begun + over // EVERY // 2 + 1]
    assert 1.5 * (1 - within[-1] / 100) <= 1.15


def test_what_is_no_average_is_followed_all_the_same_when_it_is_taken_for_one():
    """Where nobody says over what it is measured: it costs no search and no swing."""

    def rising(second):
        return 0.6 if second < 300 else 1.2 if second < 600 else 2.0 if second < 1200 else 0.6

    shares = list(Averaged(1, 60).shares(rising, 1800))
    assert turns(shares) <= 1
    for second, demand in ((305, 1.2), (665, 2.0)):
        assert demand * (1 - shares[second // EVERY] / 100) <= 1.1
    assert shares[-1] == 0


def test_with_a_threshold_a_tenth_that_stays_is_measured_for_a_whole_window():
    """What was measured while all were away says that there is no demand, and all would return to an overload."""
    behavior = Behavior(percentage=100)
    shares = list(Averaged(300, 300, behavior, counted=False).shares(surge, 1800))
    unknown = list(Averaged(300, 0, behavior, counted=False).shares(surge, 1800))
    begun = next(number for number, share in enumerate(shares) if share)
    assert min(shares[begun:]) == 90 and max(shares) == 100
    assert min(unknown[begun:]) == 0


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("calm", [30, 60, 300])
def test_a_calm_average_does_not_hide_that_another_metric_needs_more(calm, counted):
    """It has its window partly before each step, and would keep the next one waiting for as long."""

    def twice(second):
        return 0.6 if second < 330 else 1.2 if second < 360 else 2.5

    shares = list(Averaged(1, 0, counted=counted, calm=calm).shares(twice, 1200))
    for second, demand in ((340, 1.2), (370, 2.5)):
        assert demand * (1 - shares[second // EVERY] / 100) <= 1.15
    assert turns(shares) == 0
    assert max(shares) < 70
