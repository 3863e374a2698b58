"""The proportional law against replicas that serve a flow: it comes to rest, whatever the metric tells.

Requests are a flow here, without chance, so each figure is the same in every run. What is measured is a second old, as
a report or an answer of a metrics API is, and what is in flight falls only as fast as requests are served.
"""

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.route import Split
from controller.api.resources.model import Behavior
from controller.decision import Memory, SentRequests, Signal, Unknown, decide
from controller.decision.chance import noise
from controller.decision.decision import Overload
from controller.decision.demand import Demand, NotYet, Projected
from controller.decision.proportional import Look
from controller.intent.intent import Terms
from tests.support.decisions import facts_with

START = datetime(2026, 1, 1, tzinfo=UTC)
PLACES, TICKS = 24, 10
"""Requests that are served at once, each for a second; looks at the flow in one second."""


@dataclass
class Site:
    """Replicas that take a flow of so many times their capacity, and the law, which looks at them once a second."""

    metric: str
    behavior: Behavior = field(default_factory=lambda: Behavior(mode="Proportional"))
    counted: bool = True
    silent: bool = False
    ready: int = 3
    target: int = PLACES
    second: int = 0
    memory: Memory = field(default_factory=Memory)
    in_flight: float = 0.0
    seen: list[float] = field(default_factory=lambda: [0.0])
    sent: list[tuple[int, float, float]] = field(default_factory=list)
    said: str = ""

    def live(self, seconds: int, times: float) -> list[int]:
        """Return what leaves, in percent, at each second."""
        return [self.look(times) for _ in range(seconds)]

    def look(self, times: float) -> int:
        away = (self.memory.split or Split.away(0)).remote / 100
        arriving, places = times * PLACES, PLACES * self.ready / 3
        for _ in range(TICKS):
            self.in_flight += (arriving * (1 - away) - min(self.in_flight, places)) / TICKS
        self.second += 1
        self.sent.append((self.second, arriving * (1 - away), arriving * away))
        was, now = self.seen[-1], START + timedelta(seconds=self.second)
        self.seen.append(self.measured(places))
        counts = self.target * self.ready / 3 if self.metric == "in flight" else 0
        state = "Breached" if was >= 1 else "Clear"
        at = now - timedelta(seconds=1)
        signal = Signal(self.metric, "1", state, str(was), at=at, least=was, most=was, per_replica=True, counts=counts)
        facts = facts_with(signal, ready=self.ready, traffic=self.traffic())
        decision, self.memory = decide(Terms(True, behavior=self.behavior), facts, self.memory, now)
        self.said = f"{decision.reason}: {decision.message}"
        return decision.split.remote

    def measured(self, places: float) -> float:
        """In multiples of the target: of what is in flight, or a queue of one for each replica."""
        if self.metric == "in flight":
            return self.in_flight / (self.target * self.ready / 3)
        return max(self.in_flight - places, 0) / self.ready

    def traffic(self) -> SentRequests | Unknown:
        if not self.counted:
            return Unknown("nothing reports load")
        if self.silent:
            return SentRequests(0, 0, 0.0)
        since = self.memory.split_since or START
        begun = max(self.second - 10, (since - START).total_seconds() + 1)
        sent = [(local, remote) for second, local, remote in self.sent if second > begun]
        return SentRequests(round(sum(one[0] for one in sent)), round(sum(one[1] for one in sent)), float(len(sent)))


def turns(shares: list[int]) -> int:
    moves = [later - now for now, later in itertools.pairwise(shares) if later != now]
    return sum((one > 0) != (other > 0) for one, other in itertools.pairwise(moves))


@pytest.mark.parametrize("times", [1.2, 1.35, 1.5])
def test_requests_in_flight_settle_within_three_samples_of_a_step(times):
    site = Site("in flight")
    assert set(site.live(60, 0.6)) == {0}
    shares = site.live(300, times)
    begun = next(number for number, share in enumerate(shares) if share)
    settled = shares[begun + 2 :]
    assert all(abs(share - shares[-1]) <= 10 for share in settled)
    assert times * (1 - min(settled) / 100) < 1
    assert turns(shares) <= 1, "it goes up, and back once if that was too much"


@pytest.mark.parametrize("times", [1.2, 1.5, 2.5])
@pytest.mark.parametrize("metric", ["in flight", "queue"])
def test_at_a_constant_demand_the_share_comes_to_rest(metric, times):
    site = Site(metric)
    site.live(60, 0.6)
    site.live(180, times)
    last = site.live(300, times)
    assert turns(last) == 0
    assert max(last) - min(last) < 10
    assert max(site.seen[-300:]) < 1.2


def test_a_queue_of_before_a_share_does_not_call_it_too_little():
    """It takes seconds to drain, while 77 % leave of a demand of which a third is too much."""
    site = Site("queue")
    site.live(60, 0.6)
    shares = site.live(240, 1.5)
    assert max(shares) > 70
    assert 34 <= shares[-1] < 50
    assert max(site.seen[-120:]) < 1.2


@pytest.mark.parametrize("who", ["nobody", "an Envoy that hangs", "somebody for a while"])
def test_without_a_number_of_requests_a_queue_swings_no_more_than_with_it(who):
    """It is empty on the way back until too little leaves, and tells no other time either that this will be so."""
    site = Site("queue", counted=who != "nobody", silent=who == "an Envoy that hangs")
    site.live(60, 0.6)
    first = site.live(300, 1.5)
    site.counted = site.counted and not site.silent and who != "somebody for a while"
    shares = [*first, *site.live(1500, 1.5)][300:]
    assert turns(shares) <= 12, "once in ten times restoreAfter"
    assert sum(later != now for now, later in itertools.pairwise(shares)) <= 130
    assert sum(shares) / len(shares) < 45
    assert sum(seen > 1.2 for seen in site.seen[-1500:]) <= 15


def test_what_was_too_little_is_told_while_it_keeps_requests_from_returning():
    site = Site("queue")
    site.live(240, 1.5)
    assert site.said.startswith("CoolingDown: ")
    assert "% were found to be too little at 2026-01-01T00:" in site.said
    assert site.said.endswith(" for 36 requests a second")


def test_with_few_places_more_leaves_for_less_than_twice_the_target():
    """Four requests in flight are the target, and with more requests seven are: too many, whatever varies by chance."""
    site = Site("in flight", target=4)
    site.live(30, 0.05)
    assert site.live(60, 0.5)[-1] > 60
    site.live(60, 1.0)
    assert site.seen[-1] < 1.1


@pytest.mark.parametrize(("places", "flying"), [(1, 3), (2, 5), (3, 6), (4, 7), (24, 34)])
def test_of_few_places_so_many_in_flight_are_no_chance(places, flying):
    """What is kept in flight of few is half of the target; one look in two thousand is above that, and no more."""

    def more(number):
        ratio = number / places
        signal = Signal("Requests", "1", "Breached", "", at=START, least=ratio, most=ratio, counts=places)
        asked = look(36, local=360)
        settled = asked.overload.model_copy(update={"stepped_at": START - timedelta(minutes=1)})
        after = replace(asked, overload=settled).step([Projected(signal, Demand(2 * ratio, 2 * ratio))], Split.away(50))
        return after.share > 50

    assert more(flying)
    assert not more(flying - 1)


def test_the_share_follows_the_requests_that_are_fewer_and_all_come_back():
    site = Site("queue")
    site.live(240, 2.0)
    held = site.live(30, 2.0)[-1]
    assert site.live(120, 1.3)[-1] < held
    assert site.live(120, 0.4)[-1] == 0
    assert site.memory.overload is None


def test_a_surge_that_comes_back_finds_what_was_enough():
    """The share of before is taken up in one step, without a search."""
    site = Site("in flight")
    enough = site.live(60, 1.5)[-1]
    assert 0 < site.live(30, 0.5)[-1] < enough
    again = site.live(30, 1.5)
    assert next(share for share in again if share > again[0]) == enough
    assert min(again[8:]) >= enough


def test_more_replicas_get_more():
    site = Site("queue")
    site.live(240, 1.5)
    held = site.live(30, 1.5)[-1]
    site.ready = 6
    assert site.live(150, 1.5)[-1] < held


def test_replicas_that_go_are_made_up_for_at_once():
    """As many requests arrive, and a third of the replicas bears a third of them: no search by the tolerance."""
    site = Site("queue")
    site.live(60, 0.6)
    assert site.live(200, 1.5)[-1] < 78
    site.ready = 1
    assert site.live(10, 1.5)[-1] >= 78
    assert site.live(60, 1.5)[-1] < 95
    assert site.seen[-1] == 0


def test_a_share_that_is_too_little_for_fewer_requests_is_learned():
    """Else it goes back to what was enough for more of them, and down to the same share again, for ever."""
    known = {"rate": 48.0, "replicas": 3, "over_at": START, "over_share": 53, "enough_share": 65, "stepped_at": START}
    overload, now = Overload(since=START, share=42, cause="", **known), START + timedelta(seconds=60)
    queue = Signal("queue", "1", "Breached", "3", at=now, least=3, most=3)
    asked = replace(look(48, local=310), overload=overload, now=now)
    after = asked.step([Projected(queue, Demand(5, 5))], Split.away(42))
    assert after and (after.share, after.over_share, after.enough_share) == (65, 42, 65)
    counted = replace(asked, overload=after).step((), None)
    assert counted and counted.rate == 31
    assert replace(asked, overload=counted).least_away() == 48  # 0.9 times 58 % of as many


def test_without_a_tolerance_more_leaves_too():
    terms = Terms(True, behavior=Behavior(mode="Proportional", tolerance=0.0))
    for share in range(1, 95):
        known = {"rate": 36.0, "replicas": 3, "over_at": START, "over_share": 0, "stepped_at": START}
        overload = Overload(since=START, share=share, cause="", **known)
        now = START + timedelta(seconds=60)
        queue = Signal("queue", "1", "Breached", "3", at=now, least=3, most=3)
        facts = facts_with(queue, traffic=SentRequests(360, 0, 10.0))
        after = Look(terms, facts, overload, now).step([Projected(queue, Demand(3, 3))], Split.away(share))
        assert after and after.share == share + 1


def test_a_larger_share_of_another_mode_was_not_too_little():
    overload = Overload(since=START, share=50, cause="", rate=36.0, replicas=3)
    now = START + timedelta(seconds=60)
    load = Signal("load", "1", "Clear", "0.75", at=now, least=0.75, most=0.75)
    asked = replace(look(36, local=180), overload=overload, now=now)
    after = asked.step([Projected(load, Demand(1.5, 1.5))], Split.away(50))
    assert after and (after.share, after.over_share, after.over_at) == (37, None, None)
    assert replace(asked, overload=after).least_away() == 0


def test_replicas_that_come_before_the_requests_are_counted_bear_more():
    begun = look(None, local=360)
    overload = begun.overload.model_copy(update={"replicas": 1})
    counted = replace(begun, overload=overload).step((), None)
    assert counted and (counted.rate, counted.replicas) == (36, 1)
    assert replace(begun, overload=counted).least_away() == 0


def test_what_was_too_little_is_forgotten_in_the_end():
    """A queue for another reason than the number of requests, such as a slow disk, holds them for so long."""
    site = Site("queue", Behavior(mode="Proportional", restore_after=timedelta(seconds=8)))
    site.live(60, 1.5)
    assert site.memory.overload is not None
    site.ready, before = 3, site.memory.overload.over_at
    traffic = facts_with(traffic=SentRequests(200, 160, 10.0))
    terms = Terms(True, behavior=site.behavior)
    assert before
    look = Look(terms, traffic, site.memory.overload.model_copy(update={"rate": 36.0}), before)
    assert look.least_away() > 0
    assert replace(look, now=before + timedelta(seconds=80)).least_away() == 0


def test_without_a_number_of_requests_the_metric_alone_tells():
    site = Site("in flight", counted=False)
    shares = site.live(60, 1.5)
    assert site.memory.overload and site.memory.overload.rate is None
    assert shares[-1] > 33


def look(rate: float | None, *, local: int, seconds: float = 10.0) -> Look:
    facts = facts_with(traffic=SentRequests(local, 0, seconds))
    overload = Overload(since=START, share=50, cause="", rate=rate, replicas=3, over_at=START, over_share=30)
    return Look(Terms(True, behavior=Behavior(mode="Proportional")), facts, overload, START)


@pytest.mark.parametrize(
    ("was", "local", "seconds", "expected"),
    [
        (36, 360, 10.0, "as many"),
        (36, 450, 10.0, "as many"),  # 25 % more may be by chance of so few
        (36, 500, 10.0, "more"),
        (36, 220, 10.0, "fewer"),
        (3600, 45_000, 10.0, "more"),
        (1, 0, 10.0, "fewer"),
        (1, 20, 10.0, "as many"),
        (36, 100, 2.0, None),
        (None, 360, 10.0, None),
        (0, 360, 10.0, None),
    ],
)
def test_a_number_of_requests_differs_by_more_than_chance(was, local, seconds, expected):
    assert look(was, local=local, seconds=seconds).change() == expected


def test_what_was_too_little_binds_without_a_number_of_requests_once_the_metrics_have_misled():
    asked = look(None, local=360)
    uncounted = replace(asked.facts, traffic=Unknown("nothing reports load"))
    for facts in (asked.facts, uncounted):
        assert replace(asked, facts=facts).least_away() == 0
        misled = replace(asked, facts=facts, overload=asked.overload.model_copy(update={"misled": True}))
        assert misled.least_away() == 37  # 0.9 times 70 % of as many
        assert replace(misled, now=START + timedelta(minutes=10)).least_away() == 0


def test_what_stays_is_less_than_what_was_too_much():
    assert look(36, local=360).least_away() == 37  # 0.9 times 70 % of as many
    assert look(36, local=180).least_away() == 0
    assert look(36, local=720).least_away() == 69


def test_requests_in_flight_vary_by_the_root_of_their_number_and_a_limit_takes_the_peaks():
    asked = Terms(True, behavior=Behavior(mode="Proportional"))
    limited = Terms(True, behavior=Behavior(mode="Proportional", max_requests_per_replica=8))
    one = Signal("Requests", "8", "Clear", counts=25)
    assert noise(asked, one) == pytest.approx(0.2)
    assert noise(limited, one) == noise(asked, replace(one, counts=0)) == 0
    assert noise(asked, replace(one, counts=1)) == 0.5


AT = START + timedelta(minutes=1)
CPU = Signal("cpu", "80%", "Breached", "100%", window=timedelta(seconds=15), least=1.25, most=1.25, saturates=True)


def begins(signal: Signal, sent: SentRequests, **behavior: int) -> Overload:
    """Look at full replicas for the first time, a second after 36 requests a second were learned."""
    now = START + timedelta(seconds=1)
    measured = replace(signal, at=now)
    facts = facts_with(measured, traffic=sent)
    overload = Overload(since=now, share=0, cause="", rate=36.0, replicas=3)
    terms = Terms(True, behavior=Behavior(mode="Proportional", **behavior))
    begun = Look(terms, facts, overload, now).step([Projected(measured, Demand(1.25, 1.25))], None)
    assert begun
    return begun


@pytest.mark.parametrize(
    ("signal", "sent", "share"),
    [
        (CPU, SentRequests(360, 0, 10.0, served=240), 50),
        (CPU, SentRequests(360, 0, 10.0, served=40), 62),  # most of them may be on their way: twice as many, no more
        (CPU, SentRequests(360, 0, 10.0, served=310), 24),  # by chance
        (CPU, SentRequests(360, 0, 10.0), 24),
        (CPU, SentRequests(100, 0, 2.0, served=50), 24),
        (CPU, SentRequests(360, 0, 10.0, served=240, in_flight=2880), 50),  # two minutes each
        (CPU, SentRequests(360, 0, 10.0, served=240, in_flight=2881), 24),  # so long that the surge may be over before
        (replace(CPU, saturates=False), SentRequests(360, 0, 10.0, served=240), 24),
        (replace(CPU, least=0.99), SentRequests(360, 0, 10.0, served=240), 24),
    ],
)
def test_full_replicas_tell_by_what_they_serve_how_much_is_too_much(signal, sent, share):
    assert begins(signal, sent).share == share


def test_what_full_replicas_serve_is_what_they_bear():
    """What would leave them just that is too little for as many requests, and what stays is less by the tolerance."""
    begun = begins(CPU, SentRequests(360, 0, 10.0, served=240))
    assert (begun.over_share, begun.enough_share, begun.rate) == (33, 50, 36.0)
    unknown = begins(CPU, SentRequests(360, 0, 10.0))
    assert (unknown.over_share, unknown.enough_share, unknown.rate) == (0, 24, None)


def test_cpu_that_asks_for_nothing_more_teaches_nothing_of_a_share_that_another_metric_asks_for():
    """Of CPU a little over its target, what was sent and not served would call 40 % too little, while 19 % leave."""
    cpu, queue = replace(CPU, least=1.05, most=1.05), Signal("queue", "1", "Breached", least=2.0, most=2.0)
    known = {"share": 10, "over_at": START, "enough_share": 10, "stepped_at": START, "rate": 36.0, "replicas": 3}
    traffic = SentRequests(360, 40, 10.0, served=240)
    facts = facts_with(cpu, queue, traffic=traffic)
    overload, terms = Overload(since=START, cause="", **known), Terms(True, behavior=Behavior(mode="Proportional"))
    measured = [Projected(one, Demand(one.least / 0.9, one.most / 0.9)) for one in (cpu, queue)]
    after = Look(terms, facts, overload, AT).step(measured, Split.away(10))
    assert after and (after.share, after.over_share) == (19, 10)


@pytest.mark.parametrize(
    ("signals", "local", "known", "share"),
    [
        ((CPU,), 360, {}, 50),
        ((CPU,), 720, {}, 50),
        ((CPU,), 120, {}, 20),  # fewer are back
        ((CPU,), 360, {"share": 40}, 40),  # which is not known to be too little
        ((CPU,), 360, {"over_at": START - timedelta(hours=1)}, 20),
        ((CPU, replace(CPU, window=timedelta(0))), 360, {}, 20),  # which tells it itself
        ((replace(CPU, state="Unknown"),), 360, {}, 20),
    ],
)
def test_what_was_enough_leaves_again_before_an_average_tells_of_as_many_requests(signals, local, known, share):
    known = {"share": 20, "over_share": 33, "over_at": START, "enough_share": 50, "below_since": START, **known}
    overload = Overload(since=START, cause="", rate=36.0, replicas=3, stepped_at=START, **known)
    facts = facts_with(*signals, traffic=SentRequests(local, 0, 10.0))
    asked = Look(Terms(True, behavior=Behavior(mode="Proportional")), facts, overload, START + timedelta(seconds=9))
    measured = [Projected(one, NotYet("it is older than the split")) for one in signals]
    after = asked.step(measured, Split.away(known["share"]))
    assert after and after.share == share
    assert (after.over_share, after.enough_share) == (33, 50), "nothing was learned by it"
    assert (after.below_since is None) == (share == 50), "less leaves only after it was measured with that share"
    slow = Terms(True, behavior=Behavior(mode="Proportional", max_step=2))
    limited = replace(asked, terms=slow).step(measured, Split.away(known["share"]))
    assert limited and limited.share == min(share, known["share"] + 2 * 9)


@pytest.mark.parametrize(("most", "seconds"), [(2, 10), (3, 10), (40, 1)])
def test_a_share_rises_by_max_step_a_second_however_often_it_may_step(most, seconds):
    """A whole percent is due half a second after the one before it, and not with each step of a tenth."""
    interval = timedelta(milliseconds=100)
    terms = Terms(True, behavior=Behavior(mode="Proportional", max_step=most, step_interval=interval))
    memory, now = Memory(), START
    while now < START + timedelta(seconds=seconds):
        signal = Signal("queue", "1", "Breached", "9", at=now, least=9, most=9)
        decision, memory = decide(terms, facts_with(signal), memory, now)
        assert decision.wake_at is not None
        now = min(decision.wake_at, now + interval)
    assert most * seconds * 0.8 <= decision.split.remote <= most * (seconds + 1)


@pytest.mark.parametrize(
    ("rate", "over", "counted", "share"), [(5.2, 63, 24, 17), (5.2, 63, 60, 71), (36.0, 33, 265, 17)]
)
def test_requests_that_may_be_as_many_by_chance_alone_are_not_back(rate, over, counted, share):
    """Of 5.2 a second, 1.5 to 8.9 are as many by chance, of 36 also 26.5: all that was enough left at these, and came
    back, again and again.
    """
    known = {"share": 17, "over_share": over, "over_at": START, "enough_share": 71, "rate": rate, "replicas": 3}
    overload = Overload(since=START, cause="", stepped_at=START, **known)
    facts = facts_with(CPU, traffic=SentRequests(counted, 0, 10.0))
    asked = Look(Terms(True, behavior=Behavior(mode="Proportional")), facts, overload, START + timedelta(seconds=9))
    after = asked.step([Projected(CPU, NotYet("it is older than the split"))], Split.away(17))
    assert after and after.share == share
