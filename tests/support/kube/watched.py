"""A store over the API server as tests of its guarantees use it: Secrets, which any server has, behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.api.timing import KubeTiming
from controller.store.kube import KubeClient, KubeStore
from controller.store.objects import ObjectRef
from tests.support.kube.cluster import Cluster
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import Request
from tests.support.kube.user import UserHand
from tests.support.manifests import make_object
from tests.support.reader import Reader
from tests.support.waiting import until


@asynccontextmanager
async def running_store(
    kubeconfig: Path, kinds: Collection[str], namespace: str, second_look: float = 10.0
) -> AsyncIterator[KubeStore]:
    async with (
        KubeClient.from_environment(kubeconfig, timing=KubeTiming(second_look=second_look)) as client,
        KubeStore(client, kinds, (namespace,)) as store,
    ):
        yield store


async def becomes(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""

    async def holds() -> object:
        return condition()

    await until(holds, what)


def make_secret(name: str, namespace: str, **fields: Any) -> dict[str, Any]:
    return make_object("Secret", name, namespace, **fields)


def whole_list(request: Request) -> bool:
    """A list of all objects, not of one to learn the version."""
    return request.lists and request.query.get("limit") != "1"


class Watched:
    """A store of the Secrets of one namespace, a user who changes them, and a reader that is told of them."""

    def __init__(self, store: KubeStore, cluster: Cluster, namespace: str) -> None:
        self.store = store
        self.cluster = cluster
        self.namespace = namespace
        self.reader = Reader(store, "Secret")
        self.hand = UserHand(cluster)

    async def apply(self, *names: str, **fields: Any) -> None:
        await self.hand.apply(*(make_secret(name, self.namespace, **fields) for name in names))

    async def remove(self, *names: str) -> None:
        await self.hand.remove(*(make_secret(name, self.namespace) for name in names))

    async def sees(self, name: str) -> None:
        await self.reader.until_seen(self.ref(name))

    async def misses(self, name: str) -> None:
        await self.reader.until_gone(self.ref(name))

    def ref(self, name: str) -> ObjectRef:
        return ObjectRef("Secret", self.namespace, name)

    async def raw(self, name: str = "") -> dict[str, Any]:
        """One Secret, or the list of all, as the API server has it now."""
        return await asyncio.to_thread(self._raw, name)

    def _raw(self, name: str) -> dict[str, Any]:
        with self.cluster.client() as client:
            path = f"/api/v1/namespaces/{self.namespace}/secrets/{name}".rstrip("/")
            answer: dict[str, Any] = client.get(path).raise_for_status().json()
        return answer

    @property
    def told(self) -> list[str]:
        """What the reader was told, in order: names of what changed, and with a minus of what was deleted."""
        return [
            name
            for batch in self.reader.batches
            for name in (*(one.ref.name for one in batch.changed), *(f"-{ref.name}" for ref in batch.deleted))
        ]


@asynccontextmanager
async def watched_secrets(
    cluster: Cluster, kubeconfig: Path, namespace: str, second_look: float
) -> AsyncIterator[Watched]:
    """Secrets a, b and c that the reader was told of."""
    await UserHand(cluster).apply(*(make_secret(name, namespace) for name in "abc"))
    async with running_store(kubeconfig, ("Secret",), namespace, second_look) as store:
        watched = Watched(store, cluster, namespace)
        await watched.reader.next()
        yield watched


class Traffic:
    """What a store asked for, through a proxy, since it runs."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def is_watching(self, times: int = 1) -> None:
        """Wait until it has begun its so manyth watch."""
        await becomes(lambda: len(self.watched_from) >= times and self._proxy.open_watches, f"watch {times}")

    @property
    def lists(self) -> int:
        """How often everything was listed, in pages or not."""
        return sum(whole_list(request) and "continue" not in request.query for request in self._proxy.requests)

    @property
    def watched_from(self) -> list[int]:
        """The versions from which it watched."""
        return [int(request.query["resourceVersion"]) for request in self._proxy.requests if request.watches]
