"""A publisher at work over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from controller.api.contract.route import RouteKey
from controller.store.objects import StoredObject
from tests.support.snapshots import LastSnapshot
from tests.support.store import MemoryStore, settled
from xds_server.routes.publisher import Publisher
from xds_server.routes.translation import ServingOptions


@dataclass
class Publishing:
    """The publisher, its store, what it published, and the routes it looked at again, in order."""

    store: MemoryStore
    publisher: Publisher
    published: LastSnapshot
    looked_at: list[frozenset[RouteKey]] = field(default_factory=list)


@asynccontextmanager
async def publishing(
    objects: Iterable[StoredObject] = (), options: ServingOptions | None = None
) -> AsyncIterator[Publishing]:
    store, published, looked_at = MemoryStore(objects), LastSnapshot(), list[frozenset[RouteKey]]()
    publisher = Publisher(store, published, options or ServingOptions(), looked_at.append)
    task = asyncio.create_task(publisher.run())
    await settled()
    try:
        yield Publishing(store, publisher, published, looked_at)
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
