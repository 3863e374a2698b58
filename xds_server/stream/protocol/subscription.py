"""Which names of one type a client wants. Source: xDS protocol, "How the client specifies what resources to return"."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Everything (`wildcard`), some `names`, both, or nothing.

    `legacy` marks the wildcard of a client that never named anything: only for it do no names go on meaning everything.
    """

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    legacy: bool = False

    def covers(self, name: str) -> bool:
        """Whether the client wants the resource of this name, should it exist."""
        return self.wildcard or name in self.names

    def after_delta(self, subscribe: Collection[str], unsubscribe: Collection[str]) -> Subscription:
        """Return the subscription after these lists (X30: naming a resource leaves a wildcard in place)."""
        names = (self.names - frozenset(unsubscribe)) | (frozenset(subscribe) - {WILDCARD})
        wildcard = WILDCARD in subscribe or (self.wildcard and WILDCARD not in unsubscribe)
        return Subscription(wildcard, names)

    def after_sotw(self, names: Collection[str], first: bool) -> Subscription:
        """Return the subscription that these names state in full (X19, X20).

        No names mean everything in a first request and in those after it until something is named; afterwards nothing.
        """
        if not names:
            legacy = first or self.legacy
            return Subscription(wildcard=legacy, legacy=legacy)
        return Subscription(WILDCARD in names, frozenset(names) - {WILDCARD})


NOTHING = Subscription()
EVERYTHING = Subscription(wildcard=True, legacy=True)
