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
from tests.support.failures.site import Site
from tests.support.waiting import until


@dataclass(frozen=True)
class Scene:
    """Where it happens. `latest` gives the numbers of so many requests of each model that were sent last."""

    site: Site
    models: tuple[Model, ...]
    latest: Callable[[int], Sequence[range]]


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
        await scene.site.kill(*which(scene.site))
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
            await scene.site.behave(which(scene.site), scene.site.usual)

    return trouble


def flapping(which: Which) -> Trouble:
    """One after another is killed, and revived while the next is dead; now and then all are dead at once."""

    async def flap(site: Site, over: asyncio.Event) -> None:
        servers = which(site)
        for turn in itertools.count():
            dying = servers if turn % 4 == 3 else (servers[turn % len(servers)],)
            await site.kill(*dying)
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
    site = scene.site
    left = list(site.backends.replicas)

    async def list_them() -> None:
        changes = (site.plane.change(one, replace(one.wanted, replicas=tuple(left))) for one in scene.models)
        await asyncio.gather(*changes)

    for server in site.replicas:
        await site.behave((server,), "delay=0.1")
        left.pop(0)
        await list_them()
        await asyncio.sleep(0.3)
        await site.kill(server)
    try:
        yield
    finally:
        for server, replica in zip(site.replicas, site.backends.replicas, strict=True):
            await site.revive(server)
            left.append(replica)
            await list_them()


@contextlib.asynccontextmanager
async def certificate_replaced(scene: Scene) -> AsyncIterator[None]:
    """The remote backend restarts with a certificate of an authority that nobody trusts."""
    site = scene.site
    await site.kill(site.proven)
    await site.revive(site.impostor)
    try:
        yield
    finally:
        await site.kill(site.impostor)
        await site.revive(site.proven)


@contextlib.asynccontextmanager
async def no_tokens(scene: Scene) -> AsyncIterator[None]:
    """The token endpoint is gone, and so is the last token."""
    await scene.site.stop_tokens()
    try:
        await nothing_leaves(scene)
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
        await until(is_noticed, "Envoy asked for a name in vain", within=30)
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
        # What is still on its way is not among them. Of half a model's requests 60 do not stay by chance.
        latest = scene.latest(60)
        asked = (any(one.ledger.times(numbers)) for numbers in latest for one in scene.site.remotes)
        return all(len(numbers) == 60 for numbers in latest) and not any(asked)

    await until(is_so, "nothing leaves", within=30)


async def found_ill(scene: Scene, servers: Sequence[Backend]) -> None:
    """Wait until the health checks of each model find these replicas ill, and no others."""
    hosts, agree = {one.host for one in servers}, 0

    async def agrees(model: Model) -> bool:
        found = await scene.site.plane.envoy.hosts(model.local_cluster)
        return hosts == {host for host, troubles in found.items() if "failed_active_health_check" in troubles}

    async def all_agree() -> bool:
        # What the main thread of Envoy tells is a moment ahead of what its workers know.
        nonlocal agree
        await asyncio.sleep(0.1)
        agree = agree + 1 if all([await agrees(model) for model in scene.models]) else 0
        return agree == 2

    await until(all_agree, f"health checks find {', '.join(one.name for one in servers) or 'nobody'} ill", within=30)
