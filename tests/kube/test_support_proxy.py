"""The proxy fails as it is told, and is not noticed otherwise."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.kube.proxy import EXPIRED, Proxy
from tests.support.kube.request import every, watch, writing
from tests.support.waiting import until


class Client:
    """What a client of the API does, in plain HTTP, on Secrets."""

    def __init__(self, proxy: Proxy, token: str, namespace: str) -> None:
        kubeconfig = json.loads(proxy.kubeconfig.read_text())
        ca = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
        trust = ssl.create_default_context(cadata=b64decode(ca).decode())
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(base_url=proxy.url, headers=headers, verify=trust, trust_env=False, timeout=120)
        self.path = f"/api/v1/namespaces/{namespace}/secrets"

    async def create(self, name: str) -> int:
        return (await self.http.post(self.path, json={"metadata": {"name": name}})).status_code

    async def names(self) -> list[str]:
        items = (await self.http.get(self.path)).raise_for_status().json()["items"]
        return [item["metadata"]["name"] for item in items]

    async def watch(self, events: list[Any]) -> str:
        """Collect events until the watch is over; return how it ended."""
        try:
            async with self.http.stream("GET", self.path, params={"watch": "1"}) as response:
                if response.status_code != 200:
                    return str(response.status_code)
                async for line in response.aiter_lines():
                    events.append(json.loads(line))  # noqa: PERF401, each is looked at when it comes
        except httpx.TransportError:
            return "cut"
        return "ended"


@pytest.fixture
async def client(proxy: Proxy, api_server, namespace) -> AsyncIterator[Client]:
    client = Client(proxy, api_server.token, namespace)
    async with client.http:
        yield client


@pytest.fixture
async def watching(proxy: Proxy, client: Client) -> AsyncIterator[tuple[asyncio.Task[str], list[Any]]]:
    """A watch that is open, and what it has seen."""
    events: list[Any] = []
    task = asyncio.create_task(client.watch(events))
    await until(lambda: seen(proxy.open_watches), "the watch is open")
    yield task, events
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def seen(what: object) -> object:
    return what


async def test_what_goes_through_is_as_it_was_and_is_recorded(proxy, client):
    assert await client.create("a") == 201
    assert await client.create("a") == 409
    assert await client.names() == ["a"]
    assert [(write.method, write.resource, write.name) for write in proxy.writes] == [("POST", "secrets", "")] * 2
    assert proxy.writes[0].content_type == "application/json"
    assert json.loads(proxy.writes[0].body) == {"metadata": {"name": "a"}}
    assert [request.lists for request in proxy.requests] == [False, False, True]


async def test_events_of_a_watch_arrive_when_they_happen(proxy, client, watching):
    _, events = watching
    await client.create("a")
    await until(lambda: seen(events), "the event arrived")
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [("ADDED", "a")]


async def test_requests_fail_as_often_as_they_should(proxy, client):
    proxy.fail(writing("secrets"), 429, times=2, retry_after=7)
    answer = await client.http.post(client.path, json={"metadata": {"name": "a"}})
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["kind"]) == (429, "7", "Status")
    assert [await client.create("a"), await client.create("a")] == [429, 201]
    proxy.fail(watch("secrets"), 410)
    assert await client.watch([]) == "410"


async def test_away_nothing_connects_and_what_was_connected_is_cut(proxy, client, watching):
    task, _ = watching
    async with proxy.away():
        assert await task == "cut"
        with pytest.raises(httpx.ConnectError):
            await client.names()
    assert await client.names() == []


async def test_a_watch_is_cut_or_ended_or_told_that_it_is_too_old(proxy, client, watching):
    task, events = watching
    assert await proxy.inject(EXPIRED) == 1
    await until(lambda: seen(events), "the event arrived")
    assert events[0]["object"]["code"] == 410
    assert proxy.cut_watches(watch("services")) == 0
    assert proxy.cut_watches(watch("secrets")) == 1
    assert await task == "cut"
    assert proxy.open_watches == ()

    again = asyncio.create_task(client.watch([]))
    await until(lambda: seen(proxy.open_watches), "the watch is open")
    assert proxy.end_watches() == 1
    assert await again == "ended"


async def test_a_list_may_lie_that_there_is_nothing(proxy, client):
    await client.create("a")
    with proxy.emptied("secrets"):
        assert await client.names() == []
    assert await client.names() == ["a"]


async def test_a_held_request_has_not_happened_and_a_held_answer_has(proxy, client, api_server, namespace):
    def names() -> str:
        return api_server.kubectl("get", "secrets", "-o=name", f"--namespace={namespace}").stdout

    with proxy.requests_held(writing("secrets")) as gate:
        task = asyncio.create_task(client.create("a"))
        await until(lambda: seen(gate.waiting), "the request is held")
        assert names() == ""
    assert await task == 201
    with proxy.answers_held(writing("secrets")) as gate:
        task = asyncio.create_task(client.create("b"))
        await until(lambda: seen(gate.waiting), "the answer is held")
        assert names().split() == ["secret/a", "secret/b"]
        assert not task.done()
    assert await task == 201


async def test_a_request_arrives_though_its_sender_has_gone(proxy, client):
    with proxy.requests_held(every) as gate:
        task = asyncio.create_task(client.create("a"))
        await until(lambda: seen(gate.waiting), "the request is held")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def names() -> list[str]:
        return await client.names()

    await until(names, "it arrived")


async def test_a_watch_that_is_held_says_nothing_until_it_is_let_go(proxy, client, watching):
    _, events = watching
    with proxy.answers_held(watch("secrets")) as gate:
        await client.create("a")
        await until(lambda: seen(gate.waiting), "the event is held")
        assert events == []
    await until(lambda: seen(events), "the event arrived")


async def test_when_the_api_server_goes_so_does_the_connection(own_api_server, tmp_path):
    async with Proxy(own_api_server, tmp_path).running() as proxy:
        client = Client(proxy, own_api_server.token, "default")
        async with client.http:
            task = asyncio.create_task(client.watch([]))
            await until(lambda: seen(proxy.open_watches), "the watch is open")
            own_api_server.stop()
            assert await task == "cut"
            with pytest.raises(httpx.TransportError):
                await client.names()
