"""The running server publishes what `translate` says, whatever the way in which the objects came."""

import asyncio
from pathlib import Path

import pytest

from controller.store.objects import StoredObject
from tests.golden.runner import Result, result_of
from tests.golden.test_golden import CASES
from tests.support.snapshots import LastSnapshot
from tests.support.store import MemoryStore, settled
from xds_server.routes.index import ROUTE_KINDS
from xds_server.routes.publisher import Publisher


def undecided(stored: StoredObject) -> StoredObject:
    """The object as it was before a controller saw it."""
    metadata = {**stored.metadata, "resourceVersion": f"before-{stored.resource_version}"}
    return StoredObject(stored.ref, {**stored.raw, "metadata": metadata, "status": {}})


async def published(result: Result, *, one_by_one: bool) -> LastSnapshot:
    """What a publisher has published once every object of a case came: with the first list, or each for itself."""
    routed = [one for one in result.objects if one.ref.kind in ROUTE_KINDS]
    store = MemoryStore([undecided(one) for one in routed] if one_by_one else result.objects)
    sink = LastSnapshot()
    task = asyncio.create_task(Publisher(store, sink, result.options, lambda routes: None).run())
    await settled()
    if one_by_one:
        for one in (*(one for one in result.objects if one not in routed), *routed):
            store.put(one)
            await settled()
    assert not task.done(), task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return sink


@pytest.mark.parametrize("one_by_one", [False, True], ids=["at once", "one by one"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_translated_is_what_is_published(case: Path, one_by_one: bool) -> None:
    result = await result_of(case)
    assert (await published(result, one_by_one=one_by_one)).snapshot.by_type == result.snapshot.by_type
