"""An edit of the spec, and the open streams of every way that a request may have taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.api.contract.route import HttpCheck
from tests.support.data_plane.impatience import CHECK, a_drain, change, impatient_stage_on, served
from tests.support.data_plane.open_streams import opened
from tests.support.data_plane.stage import KEY, WAYS, Stage
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(network: Network, folder: Path) -> AsyncIterator[Stage]:
    async with impatient_stage_on(network, folder) as stage:
        yield stage


EDITS: dict[str, tuple[dict[str, Any], set[str]]] = {
    # Each with the ways whose streams end when the listener that they go through has been drained.
    "path-prefix": ({"path_prefix": "/another"}, set()),
    "headers-to-add": ({"headers_to_add": (("x-new", "1"), ("authorization", "mine"))}, set()),
    "another-remote": ({"host": "127.0.0.1"}, set()),
    "checks": ({"check": CHECK, "remote_check": HttpCheck(path="/healthz", interval=timedelta(seconds=1))}, set()),
    "no-credential-any-more": ({"auth": None}, set()),
    "a-credential": ({"auth": KEY}, {"fallback"}),
    "enabled-false": ({"remote": False, "away": 0}, {"guarded", "limited-away", "failover", "fallback"}),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_of_the_spec_cuts_those_streams_only_whose_way_it_takes_away(stage: Stage, edit: str) -> None:
    changed, are_cut = EDITS[edit]
    models = dict(zip(WAYS, await asyncio.gather(*(served(stage, way) for way in WAYS)), strict=True))

    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(opened(stage, models[way], 6)) for way in WAYS)
        streams = dict(zip(WAYS, await asyncio.gather(*opening), strict=True))
        await asyncio.gather(*(change(stage, models[way], **changed) for way in WAYS))

        await a_drain(stage)
        await asyncio.gather(*(streams[way].go_on(2) for way in set(WAYS) - are_cut))
        for way in are_cut:

            async def all_are_cut(way: str = way) -> bool:
                return len(streams[way].cut) == 6

            await until(all_are_cut, f"streams that went the way {way} end", within=30)
