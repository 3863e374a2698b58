"""Requests that Envoy serves from the other side by itself: the status says so, with how many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from controller.api.timing import FolderTiming, ReportTiming
from tests.support.beamlit import Product, ask, eventually
from tests.support.data_plane.backends import Backends, reporting_unhealthy
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.load import Traffic, closed_loop
from tests.support.network import unused_port
from tests.support.objects import a_deployment
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = {"on-local": "delay=0.05"}
PROBE = {"httpGet": {"path": "/healthz", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
TIMING = replace(PATIENT, folder=FolderTiming(relist=3600.0), reports=ReportTiming(window=3.0))


def said_of(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    """Status, reason and message of one condition of a status; empty while it is not there."""
    for one in status.get("conditions", ()):
        if one["type"] == kind:
            return one["status"], one["reason"], one["message"]
    return "", "", ""


def counts_in(message: str) -> tuple[int, int]:
    """How many requests left, and of how many, as a message tells."""
    found = re.search(r"(\d+) of the last (\d+) requests \(", message)
    assert found, message
    return int(found[1]), int(found[2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    product = Product(tmp_path_factory.mktemp("run"), partial(Forked, context=TIMING))
    async with product.running("--envoy"):
        yield product


async def test_replicas_that_envoy_does_not_believe_are_told(product: Product, backends: Backends) -> None:
    port, replica = unused_port(), backends.local[0]
    probed, front = a_deployment("m").container(readinessProbe=PROBE), service("m", port)
    front["spec"]["ports"][0]["targetPort"] = replica.port
    shown = model("m", backends.remote)
    shown["spec"]["offloadingConfig"]["behavior"] = {"restoreAfter": "1s"}  # for so long a warning stays
    product.save("m.yaml", text_of(shown, front, endpoints("m", replica), probed.raw))
    await product.programmed("m")
    await eventually(lambda: ask(port), lambda reply: reply.side == "local")

    async def told(status: str, reason: str) -> dict[str, Any]:
        """Wait until it is so, and return the status that says it: a later one may say something else again."""

        async def asked() -> dict[str, Any]:
            assert (await ask(port)).side
            return await product.status("m")

        return await eventually(asked, lambda said: said_of(said, "FailingOver")[:2] == (status, reason), within=60)

    async def log() -> str:
        return product.log()

    await told("False", "AsDecided")
    with reporting_unhealthy([replica]):
        await eventually(lambda: ask(port), lambda reply: reply.side == "remote", within=60)
        said = await told("True", "ReplicasNotUsed")
        assert (said_of(said, "Offloading")[:2], said["reason"]) == (("True", "Failover"), "Failover")
        message, split = said_of(said, "FailingOver")[2], said["split"]
        assert "went to the remote backend at a split of 100/0, though 1 of 1 replicas are ready" in message
        assert (split["summary"], split["reason"]) == ("100/0", "Steady")
        assert "; but " in split["message"]
        left, counted = counts_in(split["message"])
        assert left == counted > 0, "as clients see it, all are answered by the remote backend"
        assert message in split["message"] and counts_in(said_of(said, "Offloading")[2]) == (left, counted)
    await eventually(lambda: ask(port), lambda reply: reply.side == "local", within=60)
    await told("False", "AsDecided")
    # What was written is logged after it, with how many.
    counted = r"ReplicasNotUsed because=.[1-9]\d* of the last [1-9]\d* requests .*went to the remote backend"
    for told_of in (counted, "AsDecided"):
        await eventually(log, partial(re.search, f"requests fail over model=default/m reason={told_of}"))


async def test_what_the_replicas_have_no_room_for_is_told(product: Product, backends: Backends) -> None:
    port, replica = unused_port(), backends.local[0]
    limited, front = model("full", backends.remote), service("full", port)
    limited["spec"]["offloadingConfig"]["behavior"] = {"maxRequestsPerReplica": 1, "restoreAfter": "1s"}
    front["spec"]["ports"][0]["targetPort"] = replica.port
    product.save("full.yaml", text_of(limited, front, endpoints("full", replica)))
    await product.programmed("full")
    await eventually(lambda: ask(port), lambda reply: reply.side == "local")

    seen: Counter[str] = Counter()

    async def told(status: str, reason: str, *, clients: int) -> dict[str, Any]:
        """Wait until it is so, and return the status that says it: a later one may say something else again."""

        async def asked() -> dict[str, Any]:
            report = await closed_loop(f"http://127.0.0.1:{port}/", clients, 20, Traffic(headers=lambda _: SLOW))
            assert report.errors == {}
            seen.update(sample.route for sample in report.samples)
            return await product.status("full")

        return await eventually(asked, lambda said: said_of(said, "Offloading")[:2] == (status, reason), within=60)

    await told("False", "Steady", clients=1)
    said = await told("True", "Overflow", clients=8)
    assert (said["split"]["summary"], said["reason"], said["offloadingStatus"]) == ("100/0", "Overflow", True)
    assert "what the replicas have no room for leaves" in said["split"]["message"]
    left, counted = counts_in(said["split"]["message"])
    assert 0 < left <= seen["remote"] and 0 < counted - left < seen["local"] + 20  # more may have asked before
    assert (left, counted - left) == (said["traffic"]["remote"], said["traffic"]["local"])
    assert counts_in(said_of(said, "Offloading")[2]) == (left, counted)
    assert (await told("False", "Steady", clients=1))["reason"] == "Steady"

    async def log() -> str:
        return product.log()

    for reason in ("Overflow", "AsDecided"):
        words = f"requests overflow model=default/full reason={reason}"
        await eventually(log, lambda text, words=words: words in text)


async def test_a_remote_backend_with_a_small_share_that_fails_all_of_it_is_told(
    product: Product, backends: Backends
) -> None:
    port, by_hand = unused_port(), {"beamlit.com/override": "remote=10"}
    shown = model("some", backends.remote, by_hand)
    shown["spec"]["offloadingConfig"]["behavior"] = {"restoreAfter": "1s"}
    product.save("some.yaml", text_of(shown, service("some", port), endpoints("some", backends.local[0])))
    await product.programmed("some")

    async def told(status: str, reason: str) -> dict[str, Any]:
        async def asked() -> dict[str, Any]:
            assert (await closed_loop(f"http://127.0.0.1:{port}/", 4, 50)).errors == {}
            return await product.status("some")

        return await eventually(asked, lambda said: said_of(said, "FailingOver")[:2] == (status, reason), within=60)

    await told("False", "AsDecided")
    backends.remote.behave("status=503")
    try:
        message = said_of(await told("True", "RemoteNotUsed"), "FailingOver")[2]
    finally:
        backends.remote.behave("")
    local, counted = counts_in(message)
    assert local == counted >= 132
    assert message.endswith("went to the replicas at a split of 90/10: the remote backend fails")
    await told("False", "AsDecided")
