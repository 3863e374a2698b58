"""The client of a real API server: who it is, and what it sends again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from controller.store.kube import KubeClient
from controller.store.protocol import ConflictError, ForbiddenError, NotFoundError, RefusedError, UnavailableError
from tests.support.kube.cluster import Cluster
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import every, listing, writing
from tests.support.kube.watched import becomes

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
READ = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
EXEC = "client.authentication.k8s.io/v1"


async def may_read(client: KubeClient, namespace: str = "default") -> bool:
    """Ask whether whoever asks may list ConfigMaps; that he is told his name is so since Kubernetes 1.28 alone."""
    attributes = {"namespace": namespace, "resource": "configmaps", "verb": "list"}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = await client.request("POST", REVIEWS, body={**review, "spec": {"resourceAttributes": attributes}})
    allowed: bool = answer["status"]["allowed"]
    return allowed


def with_user(kubeconfig: Path, user: object) -> Path:
    """A kubeconfig as the given one, for a user who is known by other means."""
    document = json.loads(kubeconfig.read_text())
    document["users"] = [{"name": "test", "user": user}]
    other = kubeconfig.with_name("other.kubeconfig")
    other.write_text(json.dumps(document))
    return other


async def test_a_token_file_that_rotates_is_read_again_when_the_old_token_is_refused(
    api_server: Cluster, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    user = await asyncio.to_thread(api_server.user, namespace, "reader", READ)
    await asyncio.to_thread(api_server.until_granted, namespace, "reader", READ)
    file = tmp_path / "token"
    file.write_text("of yesterday")
    async with KubeClient.from_environment(with_user(proxy.kubeconfig, {"tokenFile": "token"})) as client:
        with pytest.raises(ForbiddenError):
            await may_read(client, namespace)
        file.write_text(f"{user.token}\n")
        answers = await asyncio.gather(*(may_read(client, namespace) for _ in range(5)))
    assert answers == [True] * 5


async def test_an_exec_plugin_is_asked_again_when_its_token_is_refused(
    api_server: Cluster, proxy: Proxy, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text('#!/bin/sh\necho once >> "$CALLS"\ncat "$ANSWER"\n')
    plugin.chmod(0o755)
    answer, calls = tmp_path / "answer", tmp_path / "calls"
    credential = {"apiVersion": EXEC, "kind": "ExecCredential", "status": {"token": api_server.token}}
    answer.write_text(json.dumps(credential))
    environment = [{"name": "CALLS", "value": str(calls)}, {"name": "ANSWER", "value": str(answer)}]
    given = {"exec": {"apiVersion": EXEC, "command": str(plugin), "env": environment}}
    async with KubeClient.from_environment(with_user(proxy.kubeconfig, given)) as client:
        for _ in range(3):
            await may_read(client)
        assert calls.read_text().splitlines() == ["once"]
        proxy.fail(every, 401)
        await may_read(client)
        assert calls.read_text().splitlines() == ["once"] * 2


async def test_errors_say_what_the_server_says(api_server: Cluster, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    user = await asyncio.to_thread(api_server.user, namespace, "nobody")
    async with KubeClient.from_environment(api_server.kubeconfig) as client:
        with pytest.raises(NotFoundError, match='configmaps "a" not found'):
            await client.request("GET", f"{maps}/a")
        await client.request("POST", maps, body={"metadata": {"name": "a"}})
        with pytest.raises(ConflictError, match="already exists"):
            await client.request("POST", maps, body={"metadata": {"name": "a"}})
        with pytest.raises(RefusedError, match=r"is invalid: metadata\.name"):
            await client.request("POST", maps, body={"metadata": {"name": "A_name"}})
        assert client.answers == {("GET", 404): 1, ("POST", 201): 1, ("POST", 409): 1, ("POST", 422): 1}
    async with KubeClient.from_environment(user.kubeconfig) as client:
        with pytest.raises(ForbiddenError, match='cannot create resource "configmaps"'):
            await client.request("POST", maps, body={"metadata": {"name": "b"}})


async def test_a_read_is_sent_again(proxy: Proxy, namespace: str) -> None:
    for status in (500, 503, 429):
        proxy.fail(listing("configmaps"), status)
    async with KubeClient.from_environment(proxy.kubeconfig) as client:
        await client.request("GET", f"/api/v1/namespaces/{namespace}/configmaps", query={"limit": "1"})
    assert len(proxy.requests) == 4


async def test_a_write_without_a_precondition_is_sent_again_only_when_it_did_not_happen(
    proxy: Proxy, namespace: str
) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    async with KubeClient.from_environment(proxy.kubeconfig) as client:
        proxy.fail(writing("configmaps"), 429)
        await client.request("POST", maps, body={"metadata": {"generateName": "a-"}})
        assert len(proxy.writes) == 2
        proxy.requests.clear()
        proxy.fail(writing("configmaps"), 503)
        with pytest.raises(UnavailableError):
            await client.request("POST", maps, body={"metadata": {"generateName": "a-"}})
        assert len(proxy.writes) == 1
        proxy.requests.clear()
        with proxy.answers_held(writing("configmaps")) as gate:
            write = asyncio.create_task(client.request("POST", maps, body={"metadata": {"generateName": "a-"}}))
            await becomes(lambda: gate.waiting, "the API server has it")
            async with proxy.away():
                with pytest.raises(UnavailableError):
                    await write
        assert len(proxy.writes) == 1


async def test_a_server_that_is_not_there_is_waited_for_a_while(proxy: Proxy) -> None:
    async with KubeClient.from_environment(proxy.kubeconfig) as client:
        async with proxy.away():
            read = asyncio.create_task(may_read(client))
            await becomes(lambda: client.answers["POST", 0], "a first try")
        assert await read
