"""Which resources of a response a client refuses, by the text of its NACK; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xds_server.stream.protocol.parts import Parts, batches

_LOOKED_FOR_AT_ONCE = 250
"""Names, in a text of 4 KB: some ten microseconds each."""
_MOST_PLACES = 5_000
"""In the text of a NACK at which names are looked for as whole ones: a microsecond each."""
_GOES_ON_BEFORE, _GOES_ON = re.compile(r"[\w/.\-]"), re.compile(r"[\w/\-]|[.:]\w")


def find_names(message: str, names: Iterable[str]) -> Parts[frozenset[str]]:
    """Return those of `names` that the message of a NACK contains as whole tokens.

    Envoy names what it refuses ("Error adding/updating listener(s) ns/a: cannot bind ..."). `ns/a` is not found in
    `remote/ns/a`, `ns/ab` or `ns/a.b`, but in `'ns/a'`, `ns/a:` and at the end of a sentence.

    A text can have each of a thousand names in it thousands of times. So only some places are looked at; what is not
    found is sent again, and named again by who means it.
    """
    found, places = set(), _MOST_PLACES
    for batch in batches(names, _LOOKED_FOR_AT_ONCE):
        for name in batch:
            at = message.find(name)
            while at >= 0 and places:
                places -= 1
                if _stands_alone(message, at, at + len(name)):
                    found.add(name)
                    break
                at = message.find(name, at + 1)
        yield
    return frozenset(found)


def _stands_alone(message: str, at: int, end: int) -> bool:
    return not (at and _GOES_ON_BEFORE.match(message, at - 1)) and not _GOES_ON.match(message, end)


def halves(names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Split suspects in two, so that the culprit among n resources is found in about log2(n) responses."""
    ordered = sorted(names)
    middle = len(ordered) // 2
    return tuple(frozenset(half) for half in (ordered[:middle], ordered[middle:]) if half)
