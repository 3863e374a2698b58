"""The lease that leaders hold: what the API server says of it, and what was asked of it while it changed hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.kube.cluster import Cluster
from tests.support.kube.elected import LEASE
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import Request
from tests.support.waiting import until


async def lease_of(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The lease as it is; who holds it, and since when, is its spec."""
    command = ("get", "lease", LEASE, f"--namespace={namespace}", "--output=json")
    lease: dict[str, Any] = json.loads((await asyncio.to_thread(cluster.kubectl, *command)).stdout)
    return lease


def is_of_the_lease(request: Request) -> bool:
    return request.resource == "leases"


def _holder_in(request: Request) -> str | None:
    """Whose it is, by a write of the lease, nobody's if it is empty; None if it is no such write."""
    if not (is_of_the_lease(request) and request.writes):
        return None
    holder: str = json.loads(request.body)["spec"]["holderIdentity"]
    return holder


@dataclass(slots=True)
class HandOver:
    """What was asked of the lease since its holder was told to give it back. Nothing of it depends on how busy the
    machine is: whoever looks and renews is as slow as whoever releases.
    """

    asked: Sequence[Request]
    """All that was asked, in order."""
    begun: int
    released: int = field(default=0, init=False)
    """How much of it was asked when the release was answered."""

    def until_release(self, holder: str) -> tuple[int, int]:
        """How often this holder renewed the lease, and anybody looked at it, before it was given back."""
        before = [one for one in self.asked[self.begun : self._released()] if is_of_the_lease(one)]
        return sum(_holder_in(one) == holder for one in before), sum(not one.writes for one in before)

    def looks_until_taken(self, holder: str) -> int:
        """How often the lease was looked at after it was given back, and before this holder claimed it."""
        taken = next(at for at in range(self.begun, len(self.asked)) if _holder_in(self.asked[at]) == holder)
        return sum(is_of_the_lease(one) and not one.writes for one in self.asked[self._released() : taken])

    def _released(self) -> int:
        """One that a renewal came before is tried again."""
        last = max(at for at in range(self.begun, len(self.asked)) if _holder_in(self.asked[at]) == "")
        return max(self.released, last)


@asynccontextmanager
async def handing_over(proxy: Proxy) -> AsyncIterator[HandOver]:
    """The block tells the leader to end; afterwards the lease was given back."""
    hand_over = HandOver(proxy.requests, len(proxy.requests))
    with proxy.answers_held(lambda request: _holder_in(request) == "") as release:
        yield hand_over
        await until(lambda: release.waiting, "the lease is given back", within=60)
        hand_over.released = len(proxy.requests)
