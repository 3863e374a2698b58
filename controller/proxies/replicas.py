"""Which replicas of the xDS server there are: the endpoints of its Service."""

from __future__ import annotations

import asyncio
import logging

from controller.api.base import InvalidObjectError, parse
from controller.api.core import EndpointSlice
from controller.api.endpoints import replicas_of
from controller.store.cache import Cache
from controller.store.objects import StoredObject
from controller.store.protocol import ObjectStore

logger = logging.getLogger(__name__)

ADMIN_PORT = "admin"


class ReplicaWatch:
    """Follows the EndpointSlices of one Service (namespace and name). `always` are replicas that it need not name."""

    def __init__(self, store: ObjectStore, service: tuple[str, str], always: frozenset[str] = frozenset()) -> None:
        self._store = store
        self._service = service
        self._always = always

    async def run(self, replicas: asyncio.Queue[frozenset[str]]) -> None:
        """Put the addresses (`host:port`) of all replicas into the queue, again whenever they change."""
        cache, last = Cache(), None
        async for batch in self._store.watch(["EndpointSlice"]):
            cache.apply(batch)
            now = self._always | addresses_of(cache.slices_of(*self._service))
            if now != last:
                last = now
                logger.info("replicas of the xDS server", extra={"count": len(now)})
                replicas.put_nowait(now)


def addresses_of(slices: tuple[StoredObject, ...]) -> frozenset[str]:
    """List where replicas that are there answer: ready or not, for one that is not still has its Envoys."""
    parsed = []
    for stored in slices:
        try:
            parsed.append(parse(EndpointSlice, stored.raw))
        except InvalidObjectError as error:
            logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
    found = replicas_of(parsed, ADMIN_PORT)
    return frozenset(
        f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}" for one in found
    )
