"""Label selectors, as queries of the API server have them (Kubernetes documentation, "Labels and Selectors")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_Expression = tuple[str, str, Sequence[str]]


def query_of(labels: Mapping[str, str], expressions: Iterable[_Expression] = ()) -> str:
    """Write a selector in one line, always the same for the same; empty for one that would take every object.

    An operator that Kubernetes does not have makes the whole of it empty: less than it asks for is not it.
    """
    terms = [f"{key}={value}" for key, value in labels.items()]
    for key, operator, values in expressions:
        match operator:
            case "In" | "NotIn":
                terms.append(f"{key} {operator.lower()} ({','.join(sorted(values))})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case _:
                return ""
    return ",".join(sorted(terms))


class Term(NamedTuple):
    """A part of a selector: what it asks of one label. The operators are those of Kubernetes (LabelSelector)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for labels. As Kubernetes has it, what is not there is not one of some values either."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
        return value is None


LONGEST = 1000
"""Characters of a selector that is read: each is read anew each time, and a Service may have one of a megabyte."""
_KEY = "[A-Za-z0-9._/-]+"
_WRITTEN_TERM = re.compile(
    rf"!(?P<absent>{_KEY})|(?P<listed>{_KEY}) (?P<operator>in|notin) \((?P<values>[A-Za-z0-9._,-]*)\)"
    rf"|(?P<equal>{_KEY})=(?P<value>[A-Za-z0-9._-]*)|(?P<there>{_KEY})"
)


def terms_of(query: str) -> tuple[Term, ...] | None:
    """Read a selector that `query_of` wrote; None for what is none, has what no label can be, or is too long."""
    terms, at = [], 0
    if len(query) > LONGEST:
        return None
    while written := _WRITTEN_TERM.match(query, at):
        part = written.groupdict()
        match written.lastgroup:
            case "absent":
                terms.append(Term(part["absent"], "DoesNotExist"))
            case "values":
                operator = "In" if part["operator"] == "in" else "NotIn"
                terms.append(Term(part["listed"], operator, tuple(part["values"].split(","))))
            case "value":
                terms.append(Term(part["equal"], "In", (part["value"],)))
            case _:
                terms.append(Term(part["there"], "Exists"))
        at = written.end()
        if at == len(query):
            return tuple(terms)
        if query[at] != ",":
            break
        at += 1
    return None
