"""Which resources of a response a NACK is about."""

from __future__ import annotations

import re
from collections.abc import Iterable


def names_in(message: str, names: Iterable[str]) -> frozenset[str]:
    """Return those of `names` that the message contains as whole tokens.

    Envoy names what it refuses ("Error adding/updating listener(s) ns/a: cannot bind ..."). `ns/a` is not found in
    `remote/ns/a`, `ns/ab` or `ns/a.b`, but in `'ns/a'`, `ns/a:` and at the end of a sentence.
    """
    return frozenset(name for name in names if name in message and re.search(_whole(name), message))


def _whole(name: str) -> str:
    return rf"(?<![\w/.\-]){re.escape(name)}(?![\w/\-]|[.:][\w])"


def halves(names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Split suspects in two, so that the culprit among n resources is found in about log2(n) responses."""
    ordered = sorted(names)
    middle = len(ordered) // 2
    return tuple(frozenset(half) for half in (ordered[:middle], ordered[middle:]) if half)
