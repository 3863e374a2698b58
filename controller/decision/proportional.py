"""The proportional law: how many requests leave so that the replicas are at their target. Pure.

A metric over its target tells that too little leaves, and often not how much too little: what waits at the replicas is
what came in excess since the excess began, not what comes now, and a queue that is empty tells that enough leaves, not
that less would do. So what is measured is divided by the local share only where nothing better is known, and the law
remembers two shares, for a number of requests a second: one that was too little, and the least that was enough. While
as many requests arrive, the share stays between these two, and each time that it is found to be too little what stays
is less by the tolerance. So it comes to rest at a constant demand, whatever the metric is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from controller.api.contract.route import Split
from controller.decision.chance import Change, change_of, noise, peak, times_served
from controller.decision.decision import Overload
from controller.decision.demand import LEAST_SHARE, Demand, NotYet, Projected, request_rate
from controller.decision.facts import Facts, SentRequests, Signal, Unknown
from controller.decision.waits import begins_at, ends_at, is_over, waits_since
from controller.intent.intent import Terms

# So many times `restoreAfter` passes before requests return on what a signal shows while as many of them arrive as when
# it was reached: a queue is empty as soon as a part of its requests leaves, and full again when they are back.
DOUBTED = 10

# The law leaves enough at the replicas to measure the demand there.
_MOST_AWAY = round(100 * (1 - LEAST_SHARE))

# For so many `stepInterval` after a series of steps began, requests of before it may still be in flight.
_SETTLES = 5

# A part of a percent that is lost in a moment's microseconds.
_ROUNDED = 1e-3

# After a step that was not enough, the number of requests is known within so long, or nobody counts them.
_COUNTED_WITHIN = timedelta(seconds=15)


def settles(terms: Terms) -> timedelta:
    """Say for how long after a series of steps began requests of before it may be in flight."""
    return _SETTLES * terms.behavior.step_interval


def lasts(terms: Terms) -> timedelta:
    """Say how long the replicas must be below their target before less leaves."""
    return terms.behavior.restore_after / 4


def rested_at(terms: Terms, overload: Overload) -> datetime | None:
    """Say when it is waited again for requests to return, after such a wait was broken off; None for at once."""
    return begins_at(terms.behavior.restore_after, overload.stepped_at or overload.since, overload.broken_off_at)


def moments(terms: Terms, overload: Overload) -> tuple[datetime, ...]:
    """Say when the share may change with nothing else measured."""
    behavior = terms.behavior
    percent = timedelta(seconds=1 / behavior.max_step) if behavior.max_step else timedelta(0)
    found = (
        overload.stepped_at and overload.stepped_at + max(behavior.step_interval, percent),
        overload.stepped_at and overload.stepped_at + _COUNTED_WITHIN,
        overload.series_since and overload.series_since + settles(terms),
        overload.over_at and overload.over_at + DOUBTED * behavior.restore_after,
    )
    below = ends_at(lasts(terms), overload.below_since) if overload.below_since else ()
    return (*(one for one in found if one), *below)


def measured_at(facts: Facts, now: datetime) -> datetime:
    """Say what moment is the latest of which everything that is known was measured."""
    return min((one.at for one in facts.signals if one.at), default=now)


@dataclass(frozen=True, slots=True)
class Look:
    """One look of the law: what is asked for, what is known, what is remembered, and when."""

    terms: Terms
    facts: Facts
    overload: Overload
    now: datetime

    def step(self, measured: Collection[Projected], in_force: Split | None) -> Overload | None:
        """Send as much as brings the largest demand to its target, in steps; None when nothing is left to send.

        More leaves when a metric is surely over its target, less when every one surely is below, and has been for a
        quarter of `restoreAfter`. It goes back slowly: all of it in `restoreAfter` at the least. An average tells how
        much once its whole window is of after the last step; before that, only that it is surely more. Another metric
        that tells more is not kept waiting by it: one at its target is enough.
        """
        bound, stepped = min(self.terms.behavior.percentage, _MOST_AWAY), self.overload.stepped_at
        share = min(self.overload.share, bound)
        look = self._with(share=share, probing_since=None, **self._counted())
        demands = [one for one in measured if isinstance(one.demand, Demand)]
        waits = any(isinstance(one.demand, NotYet) for one in measured)
        is_elsewhere = stepped is not None and in_force is not None and in_force.remote != share
        if demands:
            look = look._with(**look._waiting(measured))
        too_early = stepped is not None and self.now - stepped < self.terms.behavior.step_interval
        if is_elsewhere or too_early:
            return look.overload
        if (again := look._within_max_step(min(look._again(measured), bound))) > share:
            return look._stepped(again, {})
        surely = max(map(look._surely, measured), default=0)
        more, decides = max(((look._more(one), one) for one in demands), key=itemgetter(0), default=(0, None))
        if surely > max(share, more):
            return look._up(min(surely, bound), 1.0)
        if decides is None:
            return look.overload
        # A share that another mode chose is found anew. What is known at the least tells of no smaller one.
        is_found = stepped is None and not waits and not (share and any(one.signal.at_least for one in demands))
        if is_found or more > share:
            return look._up(min(max(more, 1), bound), look._times_served(decides.signal))
        if waits:
            return look.overload
        if (since := look.overload.below_since) and is_over(lasts(self.terms), since, self._measured_at(), self.now):
            enough = max(look.least_away(), *(look._enough(one) for one in demands))
            return look._back(max(enough, share - look._step_back(measured)))
        return look.overload

    def least_away(self) -> int:
        """Say how many percent leave at the least, whatever is measured: what stays was too much for the replicas.

        So it is until so many requests do not arrive any more, or it has been for ten times `restoreAfter`. 100 while
        the requests are not counted yet. Where nobody counts them a metric is believed until it has misled, by telling
        that less might leave where that was too little: then it is as if as many arrived.
        """
        overload, rate = self.overload, request_rate(self.facts)
        was = overload.rate
        is_old = overload.over_at is None or self.now - overload.over_at >= DOUBTED * self.terms.behavior.restore_after
        if is_old:
            return 0
        if not was or self._uncounted():
            return share_for(1.0, self._may_stay()) if overload.misled else 0
        if rate is None:
            return 100
        return share_for(was if self.change() == "as many" else rate, self._borne())

    def _uncounted(self) -> bool:
        """Whether how many requests arrive is not compared: nobody counts them, or did when the share was found."""
        return not self.overload.rate or isinstance(self.facts.traffic, Unknown)

    def change(self) -> Change | None:
        """Compare how many requests arrive with how many there were when the share was too little; None: not known."""
        rate, was, traffic = request_rate(self.facts), self.overload.rate, self.facts.traffic
        if rate is None or was is None or was <= 0 or not isinstance(traffic, SentRequests):
            return None
        return change_of(rate, was, traffic.seconds, self.terms.behavior.tolerance)

    def _more(self, one: Projected) -> int:
        """Say how many percent must leave, by one signal: no more than do, if it does not tell that more must."""
        overload, signal, tolerance = self.overload, one.signal, self.terms.behavior.tolerance
        varies, enough = noise(self.terms, signal), overload.enough_share
        if overload.stepped_at is None:
            return self._by_measure(one)
        rises = self._rises()
        goes_back = enough is not None and overload.share < enough
        change, is_counted = self.change(), isinstance(self.facts.traffic, SentRequests)
        is_expected = goes_back or change == "more" or (rises and not overload.rate)
        if signal.least <= max(1 + tolerance, 0.0 if is_expected else peak(signal, varies)):
            return 0
        if is_counted and change is None and self._settled() and self.now - overload.stepped_at <= _COUNTED_WITHIN:
            return 0  # what waits drains, and the number of requests tells in a moment whether that is all
        if signal.window or not overload.rate or not is_counted:
            # An average over a window is no peak, and without a number of requests nothing tells more.
            return self._by_measure(one)
        # Without a tolerance it is one percent, for else nothing more would leave however much is measured.
        a_little = max(share_for(1.0, (1 - tolerance) * (1 - overload.share / 100)), overload.share + 1)
        if change is not None and self.facts.local.ready < overload.replicas:
            a_little = max(a_little, self.least_away())  # fewer replicas bear less, in proportion
        if change == "more" and enough is not None:
            as_before = share_for(request_rate(self.facts) or 0.0, (1 - enough / 100) * overload.rate)
            return max(min(self._by_measure(one), as_before), a_little)
        if goes_back and enough is not None:
            return max(enough, a_little)
        if change is None:
            return 0 if rises and not varies else self._by_measure(one)
        return a_little

    def _surely(self, one: Projected) -> int:
        """Say how many percent must leave by an average that is in part from before the last step; 0: not surely more.

        Wherever requests went in its window, with all of them it would have been no less than it was. That is less than
        the demand, so it is taken below its target by the tolerance. What saturates tells that it was full, no more.
        """
        signal, stays = one.signal, 1 - self.overload.share / 100
        if not isinstance(one.demand, NotYet) or not signal.window or signal.saturates or signal.least * stays <= 1:
            return 0
        return share_for(signal.least, 1 - self.terms.behavior.tolerance)

    def follows_requests(self) -> bool:
        """Whether how many requests arrive is news: it is learned now, or what was enough may leave again."""
        return bool(self._counted()) or self._enough_again() > self.overload.share

    def _again(self, measured: Iterable[Projected]) -> int:
        """Say how many percent were enough, if as many requests are back as what leaves now was too little for.

        Averages over a window would tell it after their next whole window; the number of requests does before.
        """
        late = all(one.signal.window and one.signal.state != "Unknown" for one in measured)
        return self._enough_again() if late else 0

    def _enough_again(self) -> int:
        """Say how many percent leave again by the number of requests alone; 0 where no such thing is known.

        They are back within the tolerance: what may be as many by chance is three quarters of 360 requests, and a third
        of 36, so at a constant demand of less the share would go to and fro.
        """
        overload, rate = self.overload, request_rate(self.facts)
        if overload.enough_share is None or not overload.rate or rate is None:
            return 0
        is_back = rate >= (1 - self.terms.behavior.tolerance) * overload.rate
        return overload.enough_share if is_back and overload.share < self.least_away() else 0

    def _by_measure(self, one: Projected) -> int:
        """Say how many percent must leave by the number that was measured.

        It brings the replicas to the middle of what is neither over nor clear, so that what waits has room to drain,
        or below the target by what varies by chance. More than a peak is a queue: it tells that, and not how much more.
        Full replicas show what they serve of a metric that saturates, and not what is sent to them.
        """
        assert isinstance(one.demand, Demand)
        varies, most = noise(self.terms, one.signal), one.demand.least
        most *= self._times_served(one.signal)
        if varies and one.signal.least:
            most *= min(1.0, peak(one.signal, varies) / one.signal.least)
        return share_for(most, self._level(one.signal))

    def _times_served(self, signal: Signal) -> float:
        """Say how many times as many requests are sent to the replicas as they serve, where only that tells it."""
        traffic = self.facts.traffic
        if not signal.saturates or signal.least < 1 or not isinstance(traffic, SentRequests):
            return 1.0
        return times_served(traffic)

    def _enough(self, one: Projected) -> int:
        assert isinstance(one.demand, Demand)
        return share_for(one.demand.most, min(self._level(one.signal), 1 - self.terms.behavior.tolerance))

    def _level(self, signal: Signal) -> float:
        return 1 - max(self.terms.behavior.tolerance / 2, noise(self.terms, signal))

    def _up(self, wanted: int, times: float) -> Overload:
        """Send more: the share was too little, and `wanted` is taken to be enough until more is known.

        A return to what was enough teaches nothing while it is not known to be for fewer requests, nor does a share
        that another mode chose and that was more. What waited already when the share was set says nothing of it, so of
        a series that rises the share before it was too little, until the series is settled. The number of requests
        stays what it was only where that is known; otherwise it is counted anew. Full replicas tell both at once: a
        share that leaves them just what they serve is too little for so many requests.
        """
        overload, change, wanted = self.overload, self.change(), self._within_max_step(wanted)
        stepped, share, enough = overload.stepped_at, overload.share, overload.enough_share
        if wanted == share and stepped:
            return overload
        if wanted <= share:
            return self._stepped(wanted, {})
        goes_back = enough is not None and share < enough
        learned: dict[str, Any] = {"over_at": self.now, "misled": overload.misled or goes_back}
        if not overload.rate or enough is None or wanted > enough or change in ("as many", "fewer"):
            rate = overload.rate if stepped and change == "as many" else None
            learned |= {"enough_share": wanted, "rate": rate if times == 1 else request_rate(self.facts)}
            if overload.over_share is None or not self._rises():
                full = 100 - math.ceil((100 - share) / times)
                learned |= {"over_share": full, "replicas": self.facts.local.ready}
        return self._stepped(wanted, learned)

    def _within_max_step(self, wanted: int) -> int:
        most, stepped = self.terms.behavior.max_step, self.overload.stepped_at
        if most is None:
            return wanted
        # As much as is due by now in whole percent; `moments` has when that is one, to the microsecond.
        due = math.floor(most * (self.now - stepped).total_seconds() + _ROUNDED) if stepped else most
        return min(wanted, self.overload.share + due)

    def _back(self, wanted: int) -> Overload | None:
        """Send less; None when nothing is left. While as many requests arrive, what left until now was enough."""
        share = self.overload.share
        if wanted >= share:
            return self.overload
        if not wanted:
            return None
        learns = self.change() == "as many"
        return self._stepped(wanted, {"enough_share": share} if learns else {})

    def _stepped(self, share: int, learned: dict[str, Any]) -> Overload:
        turns = share > self.overload.share and self.overload.share < self.overload.before_steps
        is_new = self.overload.series_since is None or turns or self._settled()
        series: dict[str, Any] = {"before_steps": self.overload.share, "series_since": self.now} if is_new else {}
        if share > self.overload.share and (self.overload.cleared_since or self.overload.below_since):
            # What was waited for is not so, whatever told it.
            series |= {"cleared_since": None, "below_since": None, "broken_off_at": self.now}
        return self._with(share=share, stepped_at=self.now, **series, **learned).overload

    def _step_back(self, measured: Iterable[Projected]) -> int:
        """Say how many percent may come back by one measurement.

        That is what it tells of: its window, and at least one step. Where the number of requests is awaited after each
        step, it is the time since the last one.
        """
        behavior, overload = self.terms.behavior, self.overload
        told = behavior.step_interval + max((one.signal.window for one in measured), default=timedelta(0))
        if overload.rate and overload.stepped_at and overload.below_since and request_rate(self.facts):
            told = max(told, self.now - max(overload.stepped_at, overload.below_since + lasts(self.terms)))
        if not behavior.restore_after:
            return 100
        return max(min(round(100 * (told / behavior.restore_after)), 100), 1)

    def _waiting(self, measured: Collection[Projected]) -> dict[str, Any]:
        """Say since when every metric is below its target by the tolerance, with what is away now.

        A metric that varies by chance is below what it is kept at. It is not waited for where no less may leave.
        """
        since = self.overload.below_since
        tolerance = self.terms.behavior.tolerance / (2 if since else 1)
        signals = [one.signal for one in measured if not isinstance(one.demand, NotYet)]
        is_below = all(one.state != "Unknown" and one.most < 1 - noise(self.terms, one) - tolerance for one in signals)
        if not is_below:
            return {"below_since": None, "broken_off_at": self.now} if since else {}
        if len(signals) < len(measured):
            return {}  # what is measured next tells
        is_bound = self.change() == "as many" or (self._uncounted() and self.overload.misled)
        if since is None and is_bound and self.least_away() >= self.overload.share:
            return {}
        here = max(self._measured_at(), self.overload.stepped_at or self.overload.since)
        return {"below_since": waits_since(since, rested_at(self.terms, self.overload), here, self.now)}

    def _measured_at(self) -> datetime:
        return measured_at(self.facts, self.now)

    def _counted(self) -> dict[str, Any]:
        """Take up how many requests there are, as soon as that is known after a step that it is not known of."""
        overload, rate = self.overload, request_rate(self.facts)
        if overload.rate or not rate or overload.over_at is None or self.now - overload.over_at > _COUNTED_WITHIN:
            return {}
        return {"rate": rate}  # `replicas` are those that it was too much for

    def _borne(self) -> float:
        """Say how many requests a second the replicas surely bear: less than were too many by the tolerance."""
        return self._may_stay() * (self.overload.rate or 0.0)

    def _may_stay(self) -> float:
        """Say which part of as many requests as were too many the replicas surely bear."""
        overload = self.overload
        ready = self.facts.local.ready / overload.replicas if overload.replicas else 1.0
        return (1 - self.terms.behavior.tolerance) * (1 - (overload.over_share or 0) / 100) * ready

    def _rises(self) -> bool:
        """Whether more leaves than before, since so lately that requests of before may still wait."""
        return self.overload.share > self.overload.before_steps and not self._settled()

    def _settled(self) -> bool:
        since = self.overload.series_since
        return since is None or self.now - since >= settles(self.terms)

    def _with(self, **changes: Any) -> Look:
        return Look(self.terms, self.facts, self.overload.model_copy(update=changes), self.now)


def share_for(demand: float, wanted: float) -> int:
    """Say how many percent must leave for a demand to be `wanted` at the replicas."""
    return math.ceil(100 * (1 - wanted / demand)) if demand > wanted else 0
