"""Two controllers: one decides. What becomes of the models when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest

from tests.support.beamlit import eventually
from tests.support.kube.program import Program
from tests.support.kube.site import Site
from tests.support.objects import AModel

LEASE = 15.0
"""Seconds, as `beamlit controller` has it; who waits looks again every half of one."""


@pytest.fixture
async def chat(site: Site) -> AModel:
    """A model that is served, with two controllers."""
    chat = site.served("chat", [site.backend("local-1")], site.backend("remote"))
    site.write(chat)
    await site.start(controllers=2)
    await site.until_condition("chat", "Ready", "True")
    return chat


async def leaders(site: Site) -> list[Program]:
    alive = [one for one in site.controllers if one.alive]
    leading = await asyncio.gather(*(one.leads() for one in alive))
    return [one for one, leads in zip(alive, leading, strict=True) if leads]


@contextlib.asynccontextmanager
async def never_two(site: Site) -> AsyncIterator[None]:
    """Look all the time whether more than one leads."""

    async def look() -> None:
        while True:
            # They are asked one after the other: the first answer may be of before a hand-over, but not twice.
            assert min(len(await leaders(site)), len(await leaders(site))) <= 1
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def seconds_until(site: Site, split: str, within: float) -> float:
    clock = asyncio.get_running_loop().time
    begun = clock()
    await site.until_split("chat", split, within)
    return clock() - begun


async def test_a_leader_that_ends_hands_over_within_two_seconds(site: Site, chat: AModel) -> None:
    (leader,) = await leaders(site)
    (other,) = (one for one in site.controllers if one is not leader)
    assert await other.metric("beamlit_status_writes_total") == 0
    async with never_two(site):
        leader.signal(signal.SIGTERM)
        await site.change(chat.overridden("remote=30"))
        assert await seconds_until(site, "70/30 Override", within=20) < 2
        assert await leaders(site) == [other]
        await eventually(lambda: other.metric("beamlit_status_writes_total"), bool)
    assert leader.end() == 0
    assert "lease released" in leader.log


async def test_a_leader_that_is_killed_is_replaced_once_its_lease_is_over(site: Site, chat: AModel) -> None:
    (leader,) = await leaders(site)
    (other,) = (one for one in site.controllers if one is not leader)
    async with never_two(site):
        leader.kill()
        leader.start()
        await site.change(chat.overridden("remote=30"))
        # The lease was renewed two seconds ago at most.
        assert LEASE - 4 < await seconds_until(site, "70/30 Override", within=LEASE + 5) < LEASE + 2
        await eventually(lambda: leaders(site), lambda leading: leading in ([other], [leader]))
        await leader.ready()


async def test_a_leader_that_is_stopped_for_longer_than_its_lease_writes_nothing_any_more(
    site: Site, chat: AModel
) -> None:
    (leader,) = await leaders(site)
    (other,) = (one for one in site.controllers if one is not leader)
    leader.signal(signal.SIGSTOP)
    try:
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override", within=LEASE + 5)
        written = await other.metric("beamlit_status_writes_total")
        assert written > 0
    finally:
        leader.signal(signal.SIGCONT)
    # It has the change before it and decides for nobody.
    before = await leader.metric("beamlit_status_writes_total")
    assert await leaders(site) == [other]
    await site.change(chat.overridden("remote=40"))
    await site.until_split("chat", "60/40 Override")
    assert await leader.metric("beamlit_status_writes_total") == before
    assert await leaders(site) == [other]
