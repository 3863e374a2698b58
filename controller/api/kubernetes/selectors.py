"""Label selectors, as queries of the API server have them (Kubernetes documentation, "Labels and Selectors")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
