"""What follows from objects alone, kept while they are the same: numbers are new far more often than objects. Pure.

Nobody lists what a value depends on: while it is worked out, each answer of the lookups is noted with it, and it is
kept for as long as each of them is the very same answer. So it cannot be older than the objects that it is about.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from controller.api.kubernetes.objects import EndpointSlice, Service, Workload
from controller.intent.consent import GrantedLookups, Permission, View
from controller.store.objects import ObjectRef

Value = TypeVar("Value")
Answer = TypeVar("Answer")


class NotedLookups:
    """Lookups that note what was asked and answered. They are for one moment: nothing changes while they are used."""

    def __init__(self, everything: GrantedLookups) -> None:
        self._everything = everything
        self._answers: dict[tuple[Callable[..., Any], tuple[object, ...]], Any] = {}

    def service(self, namespace: str, name: str) -> Service | None:
        """See `GrantedLookups`."""
        return self._noted(self._everything.service, namespace, name)

    def workload(self, ref: ObjectRef) -> Workload | None:
        """See `GrantedLookups`."""
        return self._noted(self._everything.workload, ref)

    def slices(self, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
        """See `GrantedLookups`."""
        # Not a method of this one: what is noted would refer to it, and be freed by a search for garbage alone.
        return self._noted(_slices, self._everything, namespace, service)

    def is_at_gateway(self, service: ObjectRef) -> bool:
        """See `GrantedLookups`."""
        return self._noted(self._everything.is_at_gateway, service)

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """See `GrantedLookups`."""
        return self._noted(self._everything.permissions, namespace)

    def have_the_same_answers(self) -> bool:
        """Ask all of it again, and say whether each answer is the very same."""
        return all(_is_the_same(ask(*asked), answer) for (ask, asked), answer in self._answers.items())

    def _noted(self, ask: Callable[..., Answer], *asked: object) -> Answer:
        question = (ask, asked)
        if question not in self._answers:
            self._answers[question] = ask(*asked)
        answer: Answer = self._answers[question]
        return answer


def _slices(everything: GrantedLookups, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
    return tuple(everything.slices(namespace, service))


def _is_the_same(now: object, before: object) -> bool:
    """Whether two answers are one: what the store has at one version is parsed once."""
    if isinstance(now, tuple) and isinstance(before, tuple):
        return len(now) == len(before) and all(map(operator.is_, now, before))
    return now is before


@dataclass(frozen=True, slots=True)
class _KeptValue(Generic[Value]):
    given: object
    lookups: NotedLookups
    value: Value


class Kept(Generic[Value]):
    """One value for each object, which follows from what it is `given` and from what lookups answer; nothing else."""

    def __init__(self) -> None:
        self._entries: dict[ObjectRef, _KeptValue[Value]] = {}

    def value(self, ref: ObjectRef, given: object, view: View, work_out: Callable[[View], Value]) -> Value:
        """Return the value of an object; `work_out` finds it by what a view shows, if it is not kept.

        `given` is all else that it depends on: equal ones give equal values.
        """
        entry = self._entries.get(ref)
        if entry is None or entry.given != given or not entry.lookups.have_the_same_answers():
            lookups = NotedLookups(view.everything)
            value = work_out(replace(view, everything=lookups))
            entry = self._entries[ref] = _KeptValue(given, lookups, value)
        return entry.value

    def forget(self, ref: ObjectRef) -> None:
        """Forget an object that is gone."""
        self._entries.pop(ref, None)
