"""Triage: of many objects that are to be planned at once, those go first that are overloaded now.

A source that measures all objects at the same moment has a new number for each: a thousand plans, and who waits at the
end of them is overloaded for as long as all others take. To ask whether a metric came to its target costs a tenth of a
plan, so that is asked of all of them before.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection
from datetime import datetime

from controller.decision.signals import compare
from controller.observe.index import ObjectIndex
from controller.observe.observation import Observer
from controller.plan.status import local_facts
from controller.store.objects import ObjectRef

logger = logging.getLogger(__name__)

_MANY = 20
"""So many are planned sooner than they are asked about."""


class Triage:
    """Which objects are to be asked about, each once for each time that it waits, and the question."""

    def __init__(self, index: ObjectIndex, observer: Observer) -> None:
        self._index = index
        self._observer = observer
        self._unasked: OrderedDict[ObjectRef, None] = OrderedDict()

    def add(self, refs: Collection[ObjectRef]) -> None:
        """Take in objects that begin to wait together; of a few it makes no difference who goes first."""
        if len(refs) > _MANY:
            self._unasked.update(dict.fromkeys(refs))

    def take(self) -> ObjectRef | None:
        """Return the next object to ask about; None if there is none."""
        return self._unasked.popitem(last=False)[0] if self._unasked else None

    def goes_first(self, ref: ObjectRef, now: datetime) -> bool:
        """Say whether a metric, other than one of the replicas themselves, has come to its target since the status was
        written, and that has requests leave. By a mistake of ours it does: to plan it tells of that, too.
        """
        try:
            return self._is_overloaded(ref, now)
        except Exception:
            logger.exception("metrics of a model not compared", extra={"object": str(ref)})
            return True

    def _is_overloaded(self, ref: ObjectRef, now: datetime) -> bool:
        known = self._index.intent(ref)
        if known is None or known.intent is None or known.memory.overload or known.memory.breached_since:
            return False
        terms, is_served = known.intent.terms, known.status.route is not None
        if not (is_served and terms.enabled and terms.behavior.percentage):
            return False  # Nothing remembers that it is over its target, so it would go first each time.
        # Which replicas are to be scraped is not known before all that it refers to is looked at.
        metrics = tuple(one for one in known.intent.metrics if one.type != "Scrape")
        samples, ready = self._observer.samples(known.intent, metrics, now), local_facts(known.status).ready
        return any(compare(metric, sample, ready).state == "Breached" for metric, sample in samples)
