"""The pods that metrics are measured of, by the selectors that somebody looks at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NamedTuple

from controller.api.kubernetes.pods import PodList, PodObject
from controller.api.kubernetes.selectors import terms_of
from controller.api.timing import SignalTiming
from controller.decision.facts import Known, Unknown
from controller.signals.kube_api import MOST_BYTES, ApiReader, Question, ask
from controller.signals.pods import MeasuredPod, NoAmountError, pod_of
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.source import Subject

MOST_COMPARED = 100_000
"""Pods that are looked at for the selectors of one answer: less than a tenth of a second. Who is left asks alone."""

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
        """Return the pods of an object, and go on asking for them."""
        return self._poller.look(PodsOf(subject.namespace, subject.selector), subject.ref, now)

    def known(self, key: PodsOf, now: datetime) -> tuple[MeasuredPod, ...] | None:
        """Return the pods of a selector, if they are known, and ask for nothing."""
        answer = self._poller.answer(key, now)
        return answer.value if answer else None

    async def run(self, tell: Tell) -> None:
        """Ask until cancelled."""
        await self._poller.run(tell)

    async def _list(self, key: PodsOf) -> tuple[MeasuredPod, ...]:
        found = await self._found(key.namespace, {"labelSelector": key.selector}, MOST_BYTES)
        return tuple(map(_measured, found))

    async def _list_all(self, namespace: str, keys: AbstractSet[PodsOf]) -> Mapping[PodsOf, tuple[MeasuredPod, ...]]:
        found = await self._found(namespace, {}, min(len(keys) * _WORTH, MOST_BYTES))
        chosen = chosen_by([one.metadata.labels for one in found], {key.selector for key in keys})
        read = {at: _measured(found[at]) for at in {at for places in chosen.values() for at in places}}
        return {key: tuple(read[at] for at in chosen[key.selector]) for key in keys if key.selector in chosen}

    async def _found(self, namespace: str, query: Mapping[str, str], most: int) -> Sequence[PodObject]:
        question = Question(
            "the API server",
            f"/api/v1/namespaces/{namespace}/pods",
            f"list pods in namespace {namespace}",
            query={**query, "resourceVersion": "0"},
            most=most,
        )
        return (await ask(self._reader, question, PodList)).items


def namespace_of(key: PodsOf) -> str:
    """Say on whose behalf pods are asked for."""
    return key.namespace


def chosen_by(labels: Sequence[Mapping[str, str]], selectors: AbstractSet[str]) -> Mapping[str, Sequence[int]]:
    """Say which of some objects each selector chooses, by their places in `labels`.

    Of the labels that a selector asks for, that which the fewest objects have says which of them are looked at. A
    selector is left out that cannot be read, or for which more would be looked at than is left of MOST_COMPARED.
    """
    having: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for at, one in enumerate(labels):
        for label in one.items():
            having[label].append(at)
    chosen, left = {}, MOST_COMPARED
    for selector in sorted(selectors):
        if (terms := terms_of(selector)) is None:
            continue
        equal = [(term.key, term.values[0]) for term in terms if term.operator == "In" and len(term.values) == 1]
        places = min((having.get(one, ()) for one in equal), key=len, default=range(len(labels)))
        if len(places) > left:
            continue
        left -= len(places)
        chosen[selector] = [at for at in places if all(term.holds(labels[at]) for term in terms)]
    return chosen


def _measured(pod: PodObject) -> MeasuredPod:
    try:
        return pod_of(pod)
    except NoAmountError as error:
        raise SourceError(f"a pod requests what cannot be: {error}") from error
