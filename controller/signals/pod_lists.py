"""The pods that metrics are measured of, by the selectors that somebody looks at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from controller.api.kubernetes.pods import PodObject
from controller.api.kubernetes.selectors import Term, terms_of
from controller.api.timing import SignalTiming
from controller.decision.facts import Cause, Known, Unknown
from controller.signals.kube_api import ApiReader, Question, ask_for_items, in_turns
from controller.signals.pods import MeasuredPod, NoAmountError, pod_of
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.source import Subject

MOST_COMPARED = 100_000
"""Pods that are looked at for the selectors of one answer, once for each label and value that a selector asks for: less
than a tenth of a second. Who is left asks alone.
"""
READ_AT_A_TIME = 250
"""Pods, or what is measured of so many, that are read before others have their turn: some milliseconds."""
CHOSEN_AT_A_TIME = 50
"""Selectors that are looked at before others have their turn."""

MOST_BYTES_OF_PODS = 16 * 2**20
"""Bytes of one answer: two thousand pods and more."""

# To read so many bytes of pods takes as long as to ask once more: twenty pods. A namespace that has more of them for
# each selector is cheaper to ask by selectors.
_WORTH = 128 * 1024


class PodsOf(NamedTuple):
    """Which pods: those of a namespace with some labels."""

    namespace: str
    selector: str


class PodLists:
    """The pods of each selector that somebody looks at, from the API server's own cache (resourceVersion 0)."""

    def __init__(self, reader: ApiReader, timing: SignalTiming, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._poller = Poller(self._list, timing.pods, clock, namespace_of, self._list_all)

    def look(self, subject: Subject, now: datetime) -> Known[tuple[MeasuredPod, ...]] | Unknown:
        """Return the pods of an object, and go on asking for them.

        That there was no answer says of what: a metric of the pods is another question.
        """
        found = self._poller.look(PodsOf(subject.namespace, subject.selector), subject.ref, now)
        if isinstance(found, Unknown) and found.cause is Cause.NOT_ANSWERING:
            return replace(found, why=f"the list of pods: {found.why}")
        return found

    def known(self, key: PodsOf, now: datetime) -> tuple[MeasuredPod, ...] | None:
        """Return the pods of a selector, if they are known, and ask for nothing."""
        answer = self._poller.answer(key, now)
        return answer.value if answer else None

    async def run(self, tell: Tell) -> None:
        """Ask until cancelled."""
        await self._poller.run(tell)

    async def _list(self, key: PodsOf) -> tuple[MeasuredPod, ...]:
        found = await self._found(key.namespace, {"labelSelector": key.selector}, MOST_BYTES_OF_PODS)
        return tuple([_measured(pod) async for pod in in_turns(found, READ_AT_A_TIME)])

    async def _list_all(self, namespace: str, keys: AbstractSet[PodsOf]) -> Mapping[PodsOf, tuple[MeasuredPod, ...]]:
        found = await self._found(namespace, {}, min(len(keys) * _WORTH, MOST_BYTES_OF_PODS))
        chosen = await chosen_by([one.metadata.labels for one in found], {key.selector for key in keys})
        wanted = {at for places in chosen.values() for at in places}
        read = {at: _measured(found[at]) async for at in in_turns(wanted, READ_AT_A_TIME)}
        return {key: tuple(read[at] for at in chosen[key.selector]) for key in keys if key.selector in chosen}

    async def _found(self, namespace: str, query: Mapping[str, str], most: int) -> Sequence[PodObject]:
        question = Question(
            "the API server",
            f"/api/v1/namespaces/{namespace}/pods",
            f"list pods in namespace {namespace}",
            query={**query, "resourceVersion": "0"},
            most=most,
        )
        return await ask_for_items(self._reader, question, PodObject)


def namespace_of(key: PodsOf) -> str:
    """Say on whose behalf pods are asked for."""
    return key.namespace


async def chosen_by(labels: Sequence[Mapping[str, str]], selectors: AbstractSet[str]) -> Mapping[str, Sequence[int]]:
    """Say which of some objects each selector chooses, by their places in `labels`; others have their turns meanwhile.

    Of the labels that a selector asks for, that which the fewest objects have says which of them are looked at. A
    selector is left out that cannot be read, or for which more would be looked at than is left of MOST_COMPARED.
    """
    read = {one: terms async for one in in_turns(sorted(selectors), CHOSEN_AT_A_TIME) if (terms := terms_of(one))}
    wanted = {label for terms in read.values() for label in _equal(terms)}
    having: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    async for at, one in in_turns(enumerate(labels), READ_AT_A_TIME):
        for label in one.items():
            if label in wanted:
                having[label].append(at)
    chosen, left = {}, MOST_COMPARED
    async for selector, terms in in_turns(read.items(), CHOSEN_AT_A_TIME):
        places = min((having.get(one, ()) for one in _equal(terms)), key=len, default=range(len(labels)))
        cost = len(places) * sum(len(term.values) or 1 for term in terms)
        if cost > left:
            continue
        left -= cost
        chosen[selector] = [at for at in places if all(term.holds(labels[at]) for term in terms)]
    return chosen


def _equal(terms: Sequence[Term]) -> Sequence[tuple[str, str]]:
    """Return the labels that whatever is chosen has."""
    return [(term.key, term.values[0]) for term in terms if term.operator == "In" and len(term.values) == 1]


def _measured(pod: PodObject) -> MeasuredPod:
    try:
        return pod_of(pod)
    except NoAmountError as error:
        raise SourceError(f"a pod requests what cannot be: {error}") from error
