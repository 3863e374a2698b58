"""What is to stay in the cluster stays there, however the replicas fail: by the whole product, from the object on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backend, Backends
from tests.support.data_plane.product import LOCAL_CLUSTER, PROMPT, Product
from tests.support.load import Report, Traffic, closed_loop
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS, REQUESTS = 32, 160
TIMING = replace(PATIENT, folder=PROMPT)
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
    product = Product(backends, folder, timing=TIMING)
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


async def under(product: Product, trouble: Trouble) -> None:
    """Send requests as the trouble begins, and again when Envoy knows what the control plane makes of it."""
    replicas = product.backends.local
    with product.backends.killed(*replicas[: trouble.dead]):
        async with listed(product, replicas[: trouble.listed], trouble.ready):
            await load(product, trouble.behaviour)
        await load(product, trouble.behaviour)
    async with listed(product, replicas, True):
        pass


@contextlib.asynccontextmanager
async def listed(product: Product, replicas: Sequence[Backend], ready: bool) -> AsyncIterator[None]:
    """List these, and wait until Envoy knows if that is anything new."""
    (envoy,) = product.envoys
    updates = f"cluster.{LOCAL_CLUSTER}.update_success"
    before, is_new = await envoy.stat(updates), product.list_replicas(replicas, ready=ready)
    yield

    async def is_known() -> bool:
        return await envoy.stat(updates) > before

    if is_new:
        await until(is_known, "Envoy knows the replicas", within=60)


async def load(product: Product, behaviour: str) -> Report:
    """Send requests that need not be answered well; one that waits is given up after a fifth of a second."""
    traffic = Traffic(
        headers=lambda _: {"on-local": behaviour} if behaviour else {},
        timeout=0.2 if "delay" in behaviour else 10,
        good=frozenset({200, 503, 502, 504}),
    )
    report = await closed_loop(product.url, clients=CLIENTS, requests=REQUESTS, traffic=traffic)
    assert report.summary.requests == REQUESTS
    return report


def plain(product: Product) -> dict[str, Any]:
    remote = product.backends.remote
    return {"host": f"{remote.host}:{remote.port}"}


async def reached(product: Product) -> dict[str, int]:
    """Count what reaches the remote backend under each trouble."""
    counts = {}
    for name, trouble in TROUBLES.items():
        before = product.backends.remote.count()
        await under(product, trouble)
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

    assert {name for name, count in counts.items() if count > REQUESTS // 7} >= set(TROUBLES) - {
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

    assert before.summary.remote > REQUESTS // 7
    assert [report.errors for report in after] == [{}] * 3
    assert (sum(report.summary.remote for report in after), product.backends.remote.count()) == (0, seen)
