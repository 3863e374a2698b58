"""What the store writes to a real API server, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.store.kube import KubeStore
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError, RefusedError, UnavailableError
from tests.support.kube.cluster import Cluster
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import watch, writing
from tests.support.kube.user import UserHand, path_of
from tests.support.kube.watched import becomes, running_store
from tests.support.manifests import make_model, model
from tests.support.reader import Reader
from tests.support.store import at

MODELS = "modeldeployments"
STATUS = writing(MODELS, "status")


class Written:
    """A store with one ModelDeployment, behind a proxy."""

    def __init__(self, store: KubeStore, cluster: Cluster, namespace: str) -> None:
        self.store = store
        self.hand = UserHand(cluster)
        self.ref: ObjectRef = model("a", namespace)
        self.raw = make_model("a", namespace)
        self.reader = Reader(store, "ModelDeployment")
        self._cluster = cluster

    @property
    def held(self) -> StoredObject:
        return self.reader.find(self.ref)

    async def write(self, **memory: Any) -> None:
        await self.store.patch_status(self.ref, {"memory": memory}, at(self.held.resource_version))

    async def reads(self, **memory: Any) -> None:
        await self.reader.until_field(self.ref, "status", {"memory": memory})

    async def stored(self) -> dict[str, Any]:
        """The object as the API server has it."""
        return await asyncio.to_thread(self._stored)

    def _stored(self) -> dict[str, Any]:
        with self._cluster.client() as client:
            answer: dict[str, Any] = client.get(path_of(self.raw)).raise_for_status().json()
        return answer


@pytest.fixture
async def written(crds: None, proxy: Proxy, api_server: Cluster, namespace: str) -> AsyncIterator[Written]:
    await UserHand(api_server).apply(make_model("a", namespace))
    async with running_store(proxy.kubeconfig, ("ModelDeployment",), namespace) as store:
        written = Written(store, api_server, namespace)
        await written.reader.until_seen(written.ref)
        yield written


async def test_a_status_is_one_apply_of_our_field_manager_at_the_version_that_was_read(
    written: Written, proxy: Proxy
) -> None:
    version = written.held.resource_version
    await written.write(n=1)
    (request,) = proxy.writes
    assert (request.method, request.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert request.query == {"fieldManager": "beamlit-controller", "force": "true"}
    body = json.loads(request.body)
    assert body["metadata"] == {"name": "a", "namespace": written.ref.namespace, "resourceVersion": version}
    assert body.keys() == {"apiVersion", "kind", "metadata", "status"}
    assert written.store.status_writes == 1
    managers = {(one["manager"], one["operation"]) for one in (await written.stored())["metadata"]["managedFields"]}
    assert managers == {("user", "Apply"), ("beamlit-controller", "Apply")}


async def test_an_equal_status_is_no_request(written: Written, proxy: Proxy) -> None:
    for _ in range(3):
        await written.write(n=1)
        await written.reads(n=1)
    assert len(proxy.writes) == 1


async def test_what_was_written_is_told_before_its_event_comes_and_once(written: Written, proxy: Proxy) -> None:
    with proxy.answers_held(watch(MODELS)):
        for number in range(3):
            await written.write(n=number)
            await written.reads(n=number)
    await written.hand.apply(make_model("a", written.ref.namespace, "two"))
    await written.reader.until_environment(written.ref, "two")
    versions = [one.resource_version for batch in written.reader.batches for one in batch.changed]
    assert len(versions) == len(set(versions)) == 5
    assert len(proxy.writes) == 3


async def test_a_field_that_another_hand_wrote_into_the_status_goes(written: Written, proxy: Proxy) -> None:
    await written.write(ours=1)
    other = {**written.raw, "status": {"servingPort": 1, "memory": {"ours": 2, "theirs": 3}}}
    await UserHand(written._cluster, "somebody").apply(
        {key: value for key, value in other.items() if key != "spec"}, status=True
    )
    await written.reader.until(lambda cache: cache.find(written.ref).status.get("servingPort"))
    await written.write(ours=1)
    await written.reads(ours=1)
    assert (await written.stored())["status"] == {"memory": {"ours": 1}}
    await written.write(ours=2)
    await written.reads(ours=2)
    assert [request.method for request in proxy.writes] == ["PATCH", "PATCH", "PUT", "PATCH"]


async def test_a_field_that_the_servers_schema_does_not_have_is_left_out_and_not_written_again(
    written: Written, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the CustomResourceDefinition is older than the controller."""
    status = {"memory": {"n": 1}, "ofTomorrow": True}
    await written.store.patch_status(written.ref, status, at(written.held.resource_version))
    await written.reads(n=1)
    assert "status kept in another form" in caplog.text
    requests = len(proxy.writes)
    await written.store.patch_status(written.ref, status, at(written.held.resource_version))
    assert len(proxy.writes) == requests
    await written.store.patch_status(written.ref, status | {"memory": {"n": 2}}, at(written.held.resource_version))
    await written.reads(n=2)


async def test_a_status_of_another_type_is_refused_and_nothing_changes(written: Written, proxy: Proxy) -> None:
    version = written.held.resource_version
    with pytest.raises((RefusedError, UnavailableError)):
        await written.store.patch_status(written.ref, {"servingPort": "eighty"}, at(version))
    assert (await written.stored())["metadata"]["resourceVersion"] == version


async def test_a_version_that_is_no_longer_the_servers_is_a_conflict(written: Written, proxy: Proxy) -> None:
    """The store does not know yet that somebody changed the object."""
    with proxy.answers_held(watch(MODELS)):
        await written.hand.apply(make_model("a", written.ref.namespace, "two"))
        with pytest.raises(ConflictError, match="the object has been modified"):
            await written.write(n=1)
        assert len(proxy.writes) == 1
    await written.reader.until_environment(written.ref, "two")
    assert "status" not in await written.stored()


async def test_a_server_that_is_busy_is_asked_again_when_it_says(written: Written, proxy: Proxy) -> None:
    proxy.fail(STATUS, 429, retry_after=1)
    proxy.fail(STATUS, 503)
    begun = asyncio.get_running_loop().time()
    await written.write(n=1)
    assert asyncio.get_running_loop().time() - begun >= 1.0
    assert len(proxy.writes) == 3
    await written.reads(n=1)


async def test_a_write_whose_answer_was_lost_does_not_happen_twice(written: Written, proxy: Proxy) -> None:
    """The second one meets the version that the first one made."""
    with proxy.answers_held(STATUS) as gate:
        write = asyncio.create_task(written.write(n=1))
        await becomes(lambda: gate.waiting, "the API server has it")
        async with proxy.away():
            pass
    with pytest.raises(ConflictError):
        await write
    await written.reads(n=1)
    assert len(proxy.writes) == 2
