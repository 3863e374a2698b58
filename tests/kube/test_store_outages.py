"""The store while its API server, a real one of its own, goes away, loses its data, or comes back in the past."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.support.kube.api_server import ApiServer
from tests.support.kube.proxy import Proxy
from tests.support.kube.watched import Watched, becomes, make_secret, watched_secrets, whole_list

NAMESPACE = "default"


@pytest.fixture
def breakable(api_server_of_module: ApiServer) -> ApiServer:
    """That of the module, which tests here break, and mend again: it runs, and there are no Secrets."""
    server = api_server_of_module
    if not server.launched:  # The test before has failed.
        server.start()
    server.until_ready()
    with server.client() as client:
        client.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets").raise_for_status()
    return server


def gone(watched: Watched) -> set[str]:
    return {name for name in watched.told if name.startswith("-")}


async def test_a_server_that_was_away_is_followed_again_and_nothing_was_deleted(breakable: ApiServer) -> None:
    """Its watch cache begins anew, so the version to resume from may be too old for it (410)."""
    async with watched_secrets(breakable, breakable.kubeconfig, NAMESPACE, 10.0) as watched:
        breakable.stop()
        await becomes(watched.store.troubles, "trouble")
        assert watched.store.not_ready() is None
        breakable.launch()
        await asyncio.to_thread(breakable.until_ready)
        await watched.apply("d")
        await watched.remove("a")
        await watched.misses("a")
        await becomes(lambda: not watched.store.troubles(), "no trouble")
        assert sorted(watched.told) == ["-a", "a", "b", "c", "d"]


async def test_of_an_etcd_that_came_back_empty_handed_nothing_is_believed_without_a_second_look(
    breakable: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched_secrets(breakable, breakable.kubeconfig, NAMESPACE, 3.0) as watched:
        for number in range(100):  # So that its versions lie behind for long: a watch from here would stay silent.
            await watched.hand.apply(make_secret("a", NAMESPACE, stringData={"key": str(number)}))
        breakable.stop()
        breakable.launch(empty=True)
        await becomes(watched.store.suspects, "a suspicion")
        assert "lies behind" in watched.store.suspects()[f"secrets in {NAMESPACE}"]
        assert not gone(watched)
        await watched.misses("a")
        assert gone(watched) == {"-a", "-b", "-c"}
        at = {record.message: record.created for record in caplog.records}
        assert at["list believed"] - at["list not believed yet"] > 2.9
        await watched.apply("a")  # Of the new history every change is heard.
        await watched.sees("a")
        assert watched.reader.find(watched.ref("a")).metadata["uid"] == (await watched.raw("a"))["metadata"]["uid"]


async def test_what_is_applied_again_before_the_second_look_was_never_gone(
    breakable: ApiServer, tmp_path: Path
) -> None:
    looks = itertools.count()
    async with (
        Proxy(breakable, tmp_path).running() as proxy,
        watched_secrets(breakable, proxy.kubeconfig, NAMESPACE, 0.1) as watched,
    ):
        breakable.stop()
        with proxy.requests_held(lambda request: whole_list(request) and next(looks) > 0) as second_look:
            breakable.launch(empty=True)
            await asyncio.to_thread(breakable.until_ready)
            await becomes(lambda: second_look.waiting and watched.store.suspects(), "a suspicion")
            await watched.apply("a", "b", "c")
        await watched.reader.until(lambda cache: {"a", "b", "c"} <= {*watched.told[3:]})
        assert not gone(watched)
