"""What is to stay in the cluster stays there, however the replicas fail: by the whole product, from the object on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import Product
from tests.support.load import Report, Traffic, closed_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = 400
POLICY = {"policies": [{"refType": "localPolicy", "name": "stay"}]}
RULES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "not enabled": ({"enabled": False}, {"Offloading": "Disabled", "RemoteHealthy": "NoRemote"}),
    "a policy": (POLICY, {"ResolvedRefs": "PolicyNotEnforced", "RemoteHealthy": "NoRemote"}),
}


@dataclass(frozen=True)
class Trouble:
    """How the replicas fail: by what each request asks of them, by dying, or by what the EndpointSlice says."""

    behaviour: str = ""
    dead: int = 0
    ready: bool = True
    listed: int = 3


TROUBLES = {
    "503": Trouble("status=503"),
    "502": Trouble("status=502"),
    "504": Trouble("status=504"),
    "reset before the answer": Trouble("reset=before"),
    "reset in the answer": Trouble("reset=after"),
    "never answering": Trouble("delay=60"),
    "one dead": Trouble(dead=1),
    "all dead": Trouble(dead=3),
    "not ready": Trouble(ready=False),
    "none": Trouble(listed=0),
    "fine": Trouble(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path) -> AsyncIterator[Product]:
    product = Product(backends, folder)
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


@contextlib.contextmanager
def troubled(product: Product, trouble: Trouble) -> Iterator[None]:
    replicas = product.backends.local
    product.list_replicas(replicas[: trouble.listed], ready=trouble.ready)
    with product.backends.killed(*replicas[: trouble.dead]):
        yield
    product.list_replicas(replicas)


async def load(product: Product, behaviour: str) -> Report:
    """Send requests that need not be answered well; one that waits is given up after a fifth of a second."""
    traffic = Traffic(
        headers=lambda _: {"on-local": behaviour} if behaviour else {},
        timeout=0.2 if "delay" in behaviour else 10,
        good=frozenset({200, 503, 502, 504}),
    )
    return await closed_loop(product.url, clients=64, requests=REQUESTS, traffic=traffic)


def plain(product: Product) -> dict[str, Any]:
    remote = product.backends.remote
    return {"host": f"{remote.host}:{remote.port}"}


async def reached(product: Product) -> dict[str, int]:
    """Count what reaches the remote backend under each trouble."""
    counts = {}
    for name, trouble in TROUBLES.items():
        before = product.backends.remote.count()
        with troubled(product, trouble):
            # What the control plane makes of it comes while requests are on their way.
            for _ in range(2):
                report = await load(product, trouble.behaviour)
                assert report.summary.requests == REQUESTS
                await asyncio.sleep(0.1)
        counts[name] = product.backends.remote.count() - before
    return counts


@pytest.mark.parametrize("rule", RULES)
async def test_nothing_leaves_whatever_happens_to_the_replicas(product: Product, rule: str) -> None:
    spec, reasons = RULES[rule]
    product.offload_to(plain(product), **spec)
    await product.says(**reasons)

    assert await reached(product) == dict.fromkeys(TROUBLES, 0)


async def test_without_such_a_rule_requests_leave(product: Product) -> None:
    """What the test above is worth: the same load reaches the remote backend."""
    product.offload_to(plain(product))
    await product.says(Programmed="Programmed", ResolvedRefs="Resolved")

    counts = await reached(product)

    assert {name for name, count in counts.items() if count > 60} >= set(TROUBLES) - {
        "reset in the answer",
        "never answering",
        "one dead",
        "fine",
    }, counts


@pytest.mark.parametrize("rule", RULES)
async def test_from_the_moment_it_is_acknowledged_nothing_leaves_any_more(product: Product, rule: str) -> None:
    spec, reasons = RULES[rule]
    product.offload_to(plain(product), away=50)
    await product.says(Programmed="Programmed")
    before = await load(product, "")
    product.offload_to(plain(product), away=50, **spec)
    await product.says(**reasons, Programmed="Programmed")
    seen = product.backends.remote.count()

    after = [await load(product, "") for _ in range(3)]

    assert before.summary.remote > 60
    assert [report.errors for report in after] == [{}] * 3
    assert (sum(report.summary.remote for report in after), product.backends.remote.count()) == (0, seen)
