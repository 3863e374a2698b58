"""List, watch, relist: what the store over the API server keeps to, whatever is in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from controller.api.timing import KubeTiming
from controller.store.kube.access import find_source
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from tests.support.kube.cluster import Cluster
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.proxy import EXPIRED, Proxy
from tests.support.kube.request import listing, watch
from tests.support.kube.user import UserHand
from tests.support.kube.watched import Traffic, Watched, becomes, make_secret, running_store, watched_secrets
from tests.support.manifests import make_object
from tests.support.reader import Reader

SECRETS = watch("secrets")
MANY = [f"s{number:03}" for number in range(501)]
"""One more than a page takes."""


@pytest.fixture
def traffic(proxy: Proxy) -> Traffic:
    return Traffic(proxy)


@pytest.fixture
async def watched(proxy: Proxy, api_server: Cluster, namespace: str, traffic: Traffic) -> AsyncIterator[Watched]:
    async with watched_secrets(api_server, proxy.kubeconfig, namespace, second_look=1.0) as watched:
        await traffic.is_watching()
        yield watched


def event(kind: str, raw: dict[str, Any], version: object) -> dict[str, Any]:
    return {"type": kind, "object": {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(version)}}}


# List


@pytest.fixture(scope="module")
def crowded(api_server: Cluster) -> Iterator[str]:
    """A namespace with more Secrets than a page takes."""
    with fresh_namespace(api_server) as name:
        UserHand(api_server).apply_now(*(make_secret(one, name) for one in MANY))
        yield name


async def test_a_list_in_pages_is_one_batch(proxy: Proxy, crowded: str) -> None:
    async with running_store(proxy.kubeconfig, ("Secret",), crowded) as store:
        batch = await Reader(store, "Secret").next()
    assert batch.complete
    assert len(batch.changed) == len(MANY)
    assert ["continue" in request.query for request in proxy.requests if request.lists] == [False, True]


async def test_a_page_that_came_too_late_lets_the_list_begin_again_as_a_whole(proxy: Proxy, crowded: str) -> None:
    proxy.fail(lambda request: "continue" in request.query, 410)
    async with running_store(proxy.kubeconfig, ("Secret",), crowded) as store:
        assert len((await Reader(store, "Secret").next()).changed) == len(MANY)
    assert [request.query.get("limit") for request in proxy.requests if request.lists] == ["500", "500", None]


async def test_secrets_that_are_no_credentials_are_left_with_the_server(
    watched: Watched, proxy: Proxy, namespace: str
) -> None:
    other = make_secret("other", namespace)
    del other["metadata"]["labels"]
    await watched.hand.apply(other)
    await watched.apply("marker")
    await watched.sees("marker")
    assert watched.told == ["a", "b", "c", "marker"]
    asked = [request.query for request in proxy.requests if request.lists or request.watches]
    assert {query.get("labelSelector") for query in asked} == {"beamlit.com/credential in (true,serving)"}
    # One that loses its label is gone, and comes with it.
    await watched.hand.apply({**other, "metadata": {**other["metadata"], "name": "a"}})
    await watched.misses("a")
    await watched.apply("a")
    await watched.sees("a")


async def test_a_kind_that_the_server_does_not_know_is_waited_for(proxy: Proxy, namespace: str) -> None:
    proxy.fail(listing("secrets"), 404, times=3)
    async with running_store(proxy.kubeconfig, ("Secret", "Service"), namespace) as store:
        await becomes(lambda: "does not know this kind" in (store.not_ready() or ""), "said so")
        await Reader(store, "Service").next()
        assert store.not_ready() is None


async def test_a_kind_that_is_forbidden_is_named_and_waited_for(api_server: Cluster, namespace: str) -> None:
    services = {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}
    user = await asyncio.to_thread(api_server.user, namespace, "reader", services)
    async with running_store(user.kubeconfig, ("Service", "Secret"), namespace) as store:
        await becomes(lambda: (store.not_ready() or "").startswith(f"secrets in {namespace}: GET"), "said so alone")
        assert 'cannot list resource "secrets"' in (store.not_ready() or "")
        assert store.troubles().keys() == {f"secrets in {namespace}"}
        await asyncio.to_thread(api_server.user, namespace, "reader", services, services | {"resources": ["secrets"]})
        await Reader(store, "Secret").next()
        assert store.not_ready() is None


async def test_an_empty_list_deletes_nothing_without_a_second_look(watched: Watched, proxy: Proxy) -> None:
    with proxy.emptied("secrets"):
        await proxy.inject(EXPIRED)
        await becomes(watched.store.suspects, "a suspicion")
        assert watched.store.suspects() == {f"secrets in {watched.namespace}": "it lacks 3 of 3 objects"}
    await watched.apply("d")
    await watched.sees("d")
    assert watched.store.suspects() == {}
    assert watched.told == ["a", "b", "c", "d"]


async def test_an_empty_list_is_believed_at_the_second_look(watched: Watched, proxy: Proxy, traffic: Traffic) -> None:
    with proxy.emptied("secrets"):
        await proxy.inject(EXPIRED)
        await watched.misses("a")
    assert watched.reader.names == set()
    assert traffic.lists == 3


# Watch


async def test_a_bookmark_moves_the_version_without_an_event(watched: Watched, proxy: Proxy, traffic: Traffic) -> None:
    await watched.hand.apply(make_object("Service", "s", watched.namespace, spec={"clusterIP": "None"}))
    version = int((await watched.raw())["metadata"]["resourceVersion"])
    await proxy.inject(event("BOOKMARK", {"kind": "Secret", "metadata": {}}, version))
    proxy.end_watches()
    await traffic.is_watching(2)
    first, second = traffic.watched_from
    assert first < version == second
    assert watched.told == ["a", "b", "c"]


@pytest.mark.parametrize("ending", ["end_watches", "cut_watches"])
async def test_a_watch_that_ends_is_resumed_where_it_was(
    watched: Watched, proxy: Proxy, traffic: Traffic, ending: str
) -> None:
    await watched.apply("d")
    await watched.sees("d")
    with proxy.requests_held(SECRETS):
        assert getattr(proxy, ending)() == 1
        await watched.apply("e")
        await watched.remove("a")
    await watched.misses("a")
    assert watched.told == ["a", "b", "c", "d", "e", "-a"]
    assert traffic.lists == 1


async def test_a_watch_cut_in_the_middle_of_a_line_is_resumed(watched: Watched, proxy: Proxy, traffic: Traffic) -> None:
    await proxy.inject_bytes(b'{"type":"DELETED","object":{"metadata":{"name":"a"')
    proxy.cut_watches()
    await traffic.is_watching(2)
    await proxy.inject_bytes(b'{"type":"DELETED","object":{"metadata":{"name":"a"')
    proxy.end_watches()
    await watched.apply("d")
    await watched.sees("d")
    assert watched.told == ["a", "b", "c", "d"]
    assert traffic.lists == 1


async def test_a_line_that_is_no_event_ends_the_watch_and_nothing_else(
    watched: Watched, proxy: Proxy, traffic: Traffic
) -> None:
    await proxy.inject_bytes(b"<html>\n")
    await traffic.is_watching(2)
    await watched.apply("d")
    await watched.sees("d")
    assert watched.told == ["a", "b", "c", "d"]
    assert traffic.lists == 1


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_all_the_time(
    watched: Watched, proxy: Proxy, traffic: Traffic
) -> None:
    begun = asyncio.get_running_loop().time()
    proxy.fail(SECRETS, 200, times=4)  # An answer without an event.
    proxy.end_watches()
    await becomes(lambda: len(traffic.watched_from) == 5, "watches")
    assert asyncio.get_running_loop().time() - begun > 0.8


async def test_a_connection_that_died_without_a_word_is_given_up(
    proxy: Proxy, api_server: Cluster, namespace: str, traffic: Traffic
) -> None:
    client = KubeClient(find_source(proxy.kubeconfig, None, {}), KubeTiming(silence=0.3))
    async with client, KubeStore(client, ("Secret",), (namespace,)) as store:
        reader = Reader(store, "Secret")
        await reader.next()
        with proxy.answers_held(SECRETS):
            await traffic.is_watching(3)
        await UserHand(api_server).apply(make_secret("a", namespace))
        await reader.until(lambda cache: cache.objects("Secret"))
    assert traffic.lists == 1


async def test_while_the_server_is_away_everything_stays_and_afterwards_all_is_told(
    watched: Watched, proxy: Proxy, traffic: Traffic
) -> None:
    async with proxy.away():
        await becomes(watched.store.troubles, "trouble")
        await watched.apply("d", stringData={"key": "one"})
        await watched.apply("d", stringData={"key": "two"})
        await watched.remove("b")
    await watched.misses("b")
    await becomes(lambda: not watched.store.troubles(), "no trouble")
    assert watched.told in (["a", "b", "c", "d", "-b"], ["a", "b", "c", "d", "d", "-b"])
    assert watched.store.not_ready() is None
    assert traffic.lists == 1


async def test_events_that_come_twice_or_out_of_order_change_nothing(watched: Watched, proxy: Proxy) -> None:
    before = await watched.raw("a")
    version = before["metadata"]["resourceVersion"]
    await watched.apply("a", stringData={"key": "new"})
    await watched.reader.until(lambda cache: cache.find(watched.ref("a")).raw.get("data"))
    await watched.remove("b")
    await watched.misses("b")
    gone = {**before, "metadata": {**before["metadata"], "name": "b"}}
    for stale in (
        event("ADDED", before, version),
        event("MODIFIED", before, version),
        event("DELETED", before, version),
        event("MODIFIED", gone, version),
    ):
        await proxy.inject(stale)
    await watched.apply("marker")
    await watched.sees("marker")
    assert watched.told == ["a", "b", "c", "a", "-b", "marker"]


async def test_a_reader_who_never_reads_delays_nobody(watched: Watched) -> None:
    slow = Reader(watched.store, "Secret")
    await slow.next()
    for number in range(20):
        await watched.apply("a", stringData={"key": str(number)})
    await watched.apply("marker")
    await watched.sees("marker")
    batch = await slow.next()
    assert [one.ref.name for one in batch.changed] == ["a", "marker"]


# Relist


async def test_410_as_the_status_of_a_watch_lists_again(watched: Watched, proxy: Proxy, traffic: Traffic) -> None:
    proxy.fail(SECRETS, 410)
    with proxy.requests_held(listing("secrets")):
        proxy.end_watches()
        await watched.apply("d")
        await watched.remove("a")
    await watched.misses("a")
    assert sorted(watched.told) == ["-a", "a", "b", "c", "d"]
    assert traffic.lists == 2


async def test_410_as_an_event_lists_again(watched: Watched, proxy: Proxy, traffic: Traffic) -> None:
    with proxy.requests_held(listing("secrets")):
        await proxy.inject(EXPIRED)
        await watched.apply("d")
        await watched.remove("a")
    await watched.misses("a")
    assert sorted(watched.told) == ["-a", "a", "b", "c", "d"]
    assert traffic.lists == 2


async def test_a_server_that_says_410_to_every_watch_is_not_listed_all_the_time(
    watched: Watched, proxy: Proxy, traffic: Traffic
) -> None:
    begun = asyncio.get_running_loop().time()
    proxy.fail(SECRETS, 410, times=4)
    await proxy.inject(EXPIRED)
    await becomes(lambda: traffic.lists == 5, "lists")
    assert asyncio.get_running_loop().time() - begun > 1.5
    await traffic.is_watching()
    assert watched.told == ["a", "b", "c"]


async def test_one_more_namespace_is_read_for_the_kinds_that_are_named(api_server: Cluster, namespace: str) -> None:
    user = UserHand(api_server)
    slices = [
        make_object("EndpointSlice", "gateway", where, addressType="IPv4", endpoints=[])
        for where in (namespace, "default")
    ]
    secrets = [make_secret("of-nobody", "default"), make_secret("a", namespace)]
    await user.apply(*slices, *secrets)
    client = KubeClient(find_source(api_server.kubeconfig, None, {}))
    kinds, also = ("EndpointSlice", "Secret"), [("EndpointSlice", "default"), ("EndpointSlice", namespace)]
    try:
        async with client, KubeStore(client, kinds, (namespace,), also=also) as store:
            reader = Reader(store, *kinds)
            await reader.next()
            found = {(ref.namespace, ref.name) for kind in kinds for ref in reader.cache.objects(kind)}
        assert {(namespace, "gateway"), ("default", "gateway"), (namespace, "a")} <= found
        assert ("default", "of-nobody") not in found
    finally:
        await user.remove(slices[1], secrets[0])
