"""When to look at what Envoys report of their load, and which objects to plan anew: a cheap question before that.

Envoys report every second, of thousands of objects, and hardly ever does a report change what is decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, ParamSpec

from controller.decision import Cause, Facts, elsewhere
from controller.decision.decision import Overload
from controller.decision.proportional import Look
from controller.decision.signals import compare
from controller.observe.index import ObjectIndex, StoredIntent
from controller.observe.observation import Observer
from controller.plan.status import is_counted, is_first_of_split, is_shared, local_facts, traffic_status
from controller.plan.transitions import goes_elsewhere
from controller.signals.load_reports import LoadReports, SentTo
from controller.signals.source import Sampler, Subject
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

P = ParamSpec("P")


_REST = 9
"""Times as long as the last look took, until the next."""


class LoadTurns:
    """When the loads are looked at. All moments are UTC, of the clock of the controller.

    Those of all objects every `longest` seconds, for reports grow old; what is new when it is told. Before that it
    rests for `least` seconds, or nine times as long as the last look took with the plans that followed from it,
    whichever is longer: the reports of many Envoys are looked at together. While they are not all planned, it rests.
    """

    def __init__(self, least: float, longest: float) -> None:
        self._least = timedelta(seconds=least)
        self._longest = timedelta(seconds=longest)
        self._told = False
        self._all_at: datetime | None = None
        self._began: datetime | None = None
        self._rests_until: datetime | None = None

    def tell(self) -> None:
        """Note that there is something new."""
        self._told = True

    @property
    def at(self) -> datetime | None:
        """When the next look is due; None before the first."""
        if self._all_at is None or self._rests_until is None:
            return None
        due = self._all_at + self._longest
        return min(due, self._rests_until) if self._told else due

    def begins(self, now: datetime) -> Literal["all", "news"] | None:
        """Begin a look if one is due: say at what."""
        # A clock that was set back has not put it off.
        if self.at and now < self.at <= now + self._longest:
            return None
        is_of_news = self._all_at is not None and self._all_at <= now < self._all_at + self._longest
        self._told, self._began, self._rests_until = False, now, now + self._longest
        if not is_of_news:
            self._all_at = now
        return "news" if is_of_news else "all"

    def ends(self, now: datetime) -> None:
        """Note that what followed from the look that began last is planned, if that is not known yet."""
        if self._began is None:
            return
        rests_until = now + max(self._least, _REST * (now - self._began))
        self._rests_until = min(rests_until, self._began + self._longest)
        self._began = None


class LoadWatch:
    """Asks of every object whose requests are counted whether a report may change its status.

    It is sure to find what changes a decision; that a number is newer is none of its business, unless somebody waits
    for it: while requests leave for a metric, or it is over its target.
    """

    def __init__(self, index: ObjectIndex, observer: Observer, sampler: Sampler, loads: LoadReports) -> None:
        self._index = index
        self._observer = observer
        self._sampler = sampler
        self._loads = loads
        self._following: set[ObjectRef] = set()

    def follows(self, ref: ObjectRef, *, requests: bool) -> None:
        """Note whether what leaves of an object follows its requests: those in flight, or how many arrive."""
        if requests:
            self._following.add(ref)
        else:
            self._following.discard(ref)

    def look(self, now: datetime, at: Literal["all", "news"]) -> frozenset[ObjectRef]:
        """Say which objects to look at again, of all that follow their requests or of those of which there is news.

        `now` is UTC. It does not fail.
        """
        try:
            news, changed = self._loads.news(now), self._loads.changed(now)
        except Exception:
            logger.exception("reports of load not read")
            news, changed = frozenset[SentTo](), frozenset[ObjectRef]()
        following = self._following & changed if at == "news" else self._following
        found = {ref for ref in following if _answer(ref, self._may_have_crossed, ref, now)}
        sides = {one.ref for one in news if _answer(one.ref, self._may_go_elsewhere, one)}
        return frozenset(found | {ref for ref in sides - found if _answer(ref, self._changes_detour, ref, now)})

    def _may_go_elsewhere(self, sent: SentTo) -> bool:
        known = self._index.intent(sent.ref)
        split = known.status.split if known else None
        if known is None or split is None:
            return False
        return split.remote > 0 if sent.local else split.local > 0 or not is_counted(known.status)

    def _changes_detour(self, ref: ObjectRef, now: datetime) -> bool:
        """Whether requests begin to go elsewhere than the split says, or to leave for want of room; or are the first
        that are counted by a split, or begin or cease to be told from those of other models.
        """
        known = self._index.intent(ref)
        if known is None or known.intent is None or known.status.split is None:
            return False
        if goes_elsewhere(known.status):
            return True  # the numbers are told while it lasts, and its end
        is_limited = known.intent.terms.behavior.max_requests_per_replica is not None
        traffic = self._observer.traffic(known, now)
        if is_first_of_split(traffic_status(traffic, now), known.status):
            return True
        said = known.status.condition("FailingOver")
        if is_shared(traffic) != (said is not None and said.reason == Cause.SHARED):
            return True
        return any(elsewhere(known.status.split, traffic, local_facts(known.status), is_limited=is_limited))

    def _may_have_crossed(self, ref: ObjectRef, now: datetime) -> bool:
        """Whether the requests in flight are on another side of a target than the status says, or may bring it about
        that something begins or ends, or how many arrive that the share changes.
        """
        known = self._index.intent(ref)
        if known is None or known.intent is None:
            return False
        metrics, overload = tuple(one for one in known.intent.metrics if one.type == "Requests"), known.memory.overload
        if not metrics:
            return overload is not None and self._may_step(known, overload, now)
        if overload or known.memory.breached_since:
            return True
        states = {(one.name, one.target): one.state for one in known.status.signals or ()}
        for metric, sample in self._sampler.samples(Subject(ref), metrics, now):
            signal = compare(metric, sample, local_facts(known.status).ready)
            if signal.pending:
                continue  # it tells nothing, until it comes or is given up
            if signal.state == "Breached" or signal.state != states.get((signal.name, signal.target)):
                return True
        return False

    def _may_step(self, known: StoredIntent, overload: Overload, now: datetime) -> bool:
        """Whether by how many requests arrive the share may change before any metric tells, or their number is learned.

        Only then: what leaves may do so for hours, and a plan costs much more than this question.
        """
        assert known.intent is not None, "what cannot be read is not asked about"
        facts = Facts(local_facts(known.status), traffic=self._observer.traffic(known, now))
        return Look(known.intent.terms, facts, overload, now).follows_requests()


def _answer(ref: ObjectRef, question: Callable[P, bool], *args: P.args, **more: P.kwargs) -> bool:
    """Answer a question about an object: by a mistake of ours it is looked at again, and the others are asked on."""
    try:
        return question(*args, **more)
    except Exception:
        logger.exception("load of a model not compared", extra={"object": str(ref)})
        return True
