"""What a first request makes of the books of a type: the same for all clients that say the same.

When a server is started again, every Envoy comes back with the same names and versions. To believe one of them costs
some microseconds for each resource; to believe the next one is to copy what came of that.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from xds_server.snapshot.snapshot import Layered, Resource
from xds_server.stream.protocol.holdings import Holdings
from xds_server.stream.protocol.messages import DeltaRequest, Subscription

_MOST_OPENINGS = 4
"""Of one type in one snapshot: what clients say who come back from the versions before."""
_MOST_NAMES = 4
"""A request may name so many times what there is: half of it may be gone, and each be claimed and asked for."""
_FEW = 100


@dataclass(frozen=True, slots=True)
class Opening:
    """A ledger after the first request of its type, before anything is sent."""

    subscription: Subscription
    held: Holdings
    pending: Set[str]
    owed: Set[str]
    reply_due: bool


class Openings:
    """The last openings of one type in one snapshot, by the request that each came of."""

    def __init__(self, resources: Layered[Resource]) -> None:
        self._most_names = _MOST_NAMES * max(len(resources), _FEW)
        self._kept: list[tuple[DeltaRequest, Opening]] = []

    def find(self, request: DeltaRequest) -> Opening | None:
        """Return what this very request came to before: equal ones are one value (`DeltaRequest.shared`)."""
        return next((opening for known, opening in self._kept if known is request), None)

    def keep(self, request: DeltaRequest, opening: Opening) -> None:
        """Keep what a request came to, in place of the oldest one if there are too many, unless it names too much."""
        if len(request.subscribe) + len(request.claimed) > self._most_names:
            return
        self._kept = [*self._kept, (request, opening)][-_MOST_OPENINGS:]
