"""What fails, while requests come: each is a context that begins and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model
from tests.support.failures.site import USUAL, Site
from tests.support.waiting import until


@dataclass(frozen=True)
class Scene:
    """Where it happens. `latest` gives the numbers of the requests that were sent last."""

    site: Site
    model: Model
    latest: Callable[[int], range]


Trouble = Callable[[Scene], AbstractAsyncContextManager[None]]
Which = Callable[[Site], Sequence[Backend]]


def replicas(site: Site) -> Sequence[Backend]:
    return site.replicas


def one_replica(site: Site) -> Sequence[Backend]:
    return site.replicas[:1]


def remote(site: Site) -> Sequence[Backend]:
    return (site.backends.remote,)


def both_sides(site: Site) -> Sequence[Backend]:
    return site.backends.all


def killed(which: Which) -> Trouble:
    """SIGKILL."""

    @contextlib.asynccontextmanager
    async def trouble(scene: Scene) -> AsyncIterator[None]:
        for one in which(scene.site):
            one.kill()
        try:
            yield
        finally:
            await scene.site.revive(*which(scene.site))

    return trouble


def behaving(which: Which, behaviour: str, health: int = 200) -> Trouble:
    """See the program of the servers for what behaviours there are, and what health means."""

    @contextlib.asynccontextmanager
    async def trouble(scene: Scene) -> AsyncIterator[None]:
        await scene.site.behave(which(scene.site), behaviour, health)
        try:
            yield
        finally:
            await scene.site.behave(which(scene.site), USUAL)

    return trouble


def flapping(which: Which) -> Trouble:
    """One after another is killed, and revived while the next is dead; now and then all are dead at once."""

    async def flap(site: Site, over: asyncio.Event) -> None:
        servers = which(site)
        for turn in itertools.count():
            dying = servers if turn % 4 == 3 else (servers[turn % len(servers)],)
            for one in dying:
                one.kill()
            await asyncio.sleep(0.1)
            await site.revive(*dying)
            if over.is_set():
                return
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def trouble(scene: Scene) -> AsyncIterator[None]:
        over = asyncio.Event()
        flaps = asyncio.create_task(flap(scene.site, over))
        try:
            yield
        finally:
            over.set()
            await flaps

    return trouble


@contextlib.asynccontextmanager
async def drained(scene: Scene) -> AsyncIterator[None]:
    """One after another is listed as terminating, answers what it has, and ends; until none is left."""
    site, wanted = scene.site, scene.model.wanted
    left = list(site.backends.replicas)
    for server in site.replicas:
        await site.behave((server,), "delay=0.1")
        left.pop(0)
        await site.plane.change(scene.model, replace(wanted, replicas=tuple(left)))
        await asyncio.sleep(0.3)
        server.kill()
    try:
        yield
    finally:
        for server, replica in zip(site.replicas, site.backends.replicas, strict=True):
            await site.revive(server)
            left.append(replica)
            await site.plane.change(scene.model, replace(wanted, replicas=tuple(left)))


@contextlib.asynccontextmanager
async def certificate_replaced(scene: Scene) -> AsyncIterator[None]:
    """The remote backend restarts with a certificate of an authority that nobody trusts."""
    site = scene.site
    site.proven.kill()
    await site.revive(site.impostor)
    try:
        yield
    finally:
        site.impostor.kill()
        await site.revive(site.proven)


@contextlib.asynccontextmanager
async def no_tokens(scene: Scene) -> AsyncIterator[None]:
    """The token endpoint is gone, and so is the last token."""
    await scene.site.stop_tokens()
    await nothing_leaves(scene)
    try:
        yield
    finally:
        await scene.site.start_tokens()


@contextlib.asynccontextmanager
async def no_name_server(scene: Scene) -> AsyncIterator[None]:
    """The name server does not answer any more, and Envoy has noticed."""
    envoy = scene.site.plane.envoy
    before = await envoy.stat("dns.cares.timeouts")

    async def is_noticed() -> bool:
        return await envoy.stat("dns.cares.timeouts") > before

    scene.site.names.up = False
    try:
        await until(is_noticed, "Envoy asked for a name in vain", within=20)
        yield
    finally:
        scene.site.names.up = True


@contextlib.asynccontextmanager
async def no_such_name(scene: Scene) -> AsyncIterator[None]:
    """The name server says that there is no such name, and Envoy has heard it."""
    scene.site.names.knows = False
    try:
        await nothing_leaves(scene)
        yield
    finally:
        scene.site.names.knows = True


async def nothing_leaves(scene: Scene) -> None:
    """Wait until none of the latest requests came to a remote backend."""

    async def is_so() -> bool:
        # What is still on its way is not among them.
        numbers = scene.latest(200)
        return len(numbers) == 200 and not any(any(one.ledger.times(numbers)) for one in scene.site.remotes)

    await until(is_so, "nothing leaves", within=20)
