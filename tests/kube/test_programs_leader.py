"""Two controllers: one decides. What becomes of the models when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from controller.api.timing import EventTiming, StatusTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.cluster import User
from tests.support.kube.elected import timing
from tests.support.kube.lease import handing_over, lease_of
from tests.support.kube.program import Program
from tests.support.kube.proxy import Proxy
from tests.support.kube.site import Site
from tests.support.objects import AModel
from tests.support.timing import PATIENT
from tests.support.waiting import PATIENCE

SHORT = 9
"""Seconds of a lease whose end can be waited for, and which who leads keeps where he has no turn for five of them; the
real one is that of test_succession.
"""
ENDLESS = 3600
"""Seconds of a lease that nobody gets while the test lasts, unless it is given back."""


async def served(site: Site, lease: int, user: User | None = None) -> AModel:
    """Start everything, with two controllers, this user, and such a lease; return a model that is served."""
    chat = site.served("chat", [site.backend("local-1")], site.backend("remote"))
    site.write(chat)
    temporary(site).mkdir()
    context = replace(
        PATIENT,
        lease=timing(lease),
        statuses=StatusTiming(answered_within=PATIENCE),
        events=EventTiming(flush=PATIENCE),
    )
    start = partial(Forked, context=context, environment={"TMPDIR": str(temporary(site))})
    await site.start(controllers=0, start=start)
    for program in [site.controller(user=user, start=start) for _ in range(2)]:
        await program.ready()
    await site.until_condition("chat", "Ready", "True")
    return chat


def temporary(site: Site) -> Path:
    """Where the programs write their temporary files."""
    return site.folder / "temporary"


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
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def the_leader(site: Site) -> Program:
    """Wait until one leads, and return it."""
    (leader,) = await eventually(lambda: leaders(site), lambda leading: len(leading) == 1)
    return leader


async def holder(site: Site) -> str:
    """Who holds the lease."""
    spec: dict[str, str] = (await lease_of(site.cluster, site.namespace))["spec"]
    return spec["holderIdentity"]


async def test_a_leader_that_ends_hands_over_without_its_lease_running_out(site: Site, proxy: Proxy) -> None:
    user = site.user("controller")
    chat = await served(site, ENDLESS, User(user.token, proxy.kubeconfig_of(user)))
    leader = await the_leader(site)
    (other,) = (one for one in site.controllers if one is not leader)
    assert await other.metric("beamlit_status_writes_total") == 0
    held_by = await holder(site)
    async with never_two(site):
        async with handing_over(proxy) as hand_over:
            leader.signal(signal.SIGTERM)
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override")
        # Whoever decided on that, what follows is the other's.
        await eventually(lambda: leaders(site), lambda leading: leading == [other])
        await site.change(chat.overridden("remote=40"))
        await site.until_split("chat", "60/40 Override")
        assert await leaders(site) == [other]
        assert await other.metric("beamlit_status_writes_total")
    # Who has ended its loop and not itself would be killed by another signal.
    await eventually(lambda: asyncio.sleep(0, leader.alive), lambda alive: not alive)
    assert leader.end() == 0
    assert "lease released" in leader.log
    # At once: one renewal may have been on its way, as a look of the other one, which looks every half second.
    renewals, looks = hand_over.until_release(held_by)
    assert renewals <= 1
    assert looks < 20
    assert hand_over.looks_until_taken(await holder(site)) <= 2

    # What the API server has written of one that ends, and has not answered yet, is an event: nobody else will tell it.
    with proxy.answers_held(lambda request: request.subresource == "status"):
        await site.change(chat.overridden("remote=50"))
        await site.until_split("chat", "50/50 Override")
        other.signal(signal.SIGTERM)
        await eventually(lambda: asyncio.to_thread(lambda: other.log), lambda log: "stopping" in log)
    await eventually(lambda: asyncio.to_thread(lambda: other.alive), lambda alive: not alive)
    assert other.end() == 0
    assert "split 60/40 -> 50/50" in site.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")


async def test_a_leader_that_is_killed_is_replaced_once_its_lease_is_over(site: Site) -> None:
    chat = await served(site, SHORT)
    leader = await the_leader(site)
    (other,) = (one for one in site.controllers if one is not leader)
    async with never_two(site):
        leader.kill()
        # Its kubeconfig has the certificate of the authority in it, as most have, some with a key.
        assert not any(temporary(site).iterdir())
        last = (await lease_of(site.cluster, site.namespace))["spec"]
        leader.start()
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override")
        new = (await lease_of(site.cluster, site.namespace))["spec"]
        assert new["holderIdentity"] != last["holderIdentity"]
        renewed, acquired = (datetime.fromisoformat(at) for at in (last["renewTime"], new["acquireTime"]))
        assert acquired - renewed > timedelta(seconds=SHORT)
        await eventually(lambda: leaders(site), lambda leading: leading in ([other], [leader]))
        await leader.ready()


async def test_a_leader_that_is_stopped_for_longer_than_its_lease_writes_nothing_any_more(site: Site) -> None:
    chat = await served(site, SHORT)
    leader = await the_leader(site)
    (other,) = (one for one in site.controllers if one is not leader)
    assert await leader.metric("beamlit_model_split_ratio") == 1
    leader.signal(signal.SIGSTOP)
    try:
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override")
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
    # What it knew of models is of then: who decides says what is so.
    for metric in ("beamlit_model_split_ratio", "beamlit_model_ready", "beamlit_model_replicas"):
        await eventually(partial(leader.metric, metric), lambda value: value == 0)
    assert await other.metric("beamlit_model_split_ratio", side="remote") == 0.4
