"""Two Envoys on one control plane: what Prometheus is told of their load, whatever dies or stands still."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from controller.api.timing import ReportTiming, StreamTiming
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.data_plane.protected import secret
from tests.support.envoy import Envoy
from tests.support.load import Traffic, closed_loop
from tests.support.timing import PATIENT
from tests.support.waiting import until

NEW_CONNECTIONS = Traffic(keepalive=False)
REPORTS_UNTIL_OLD = 10
TIMING = replace(PATIENT, streams=StreamTiming(loads_every=0.2), reports=ReportTiming(old_after=1.5), folder=PROMPT)


@pytest_asyncio.fixture
async def product(backends: Backends, tmp_path: Path) -> AsyncIterator[Product]:
    product = Product(backends, tmp_path, timing=TIMING)
    try:
        await product.start()
        for node_id in ("first", "second"):
            await product.join(node_id)
        await both_report(product)
        yield product
    finally:
        await product.stop()


async def samples(product: Product) -> dict[tuple[str, str], float]:
    """What is told of the requests: by the end of the name and the outcome, or the side for those in flight."""
    text = (await product.asked("/metrics")).text
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("beamlit_model_requests"):
                name = sample.name.removeprefix("beamlit_model_requests").strip("_")
                key = (name, sample.labels.get("outcome", sample.labels["side"]))
                found[key] = found.get(key, 0.0) + sample.value
    return found


async def both_report(product: Product) -> None:
    """Wait until both report on the model: what they sent before does not count."""
    for envoy in product.envoys:
        await reports_again(envoy, 3)
    await in_flight_is_known(product)


async def in_flight_is_known(product: Product) -> None:
    async def is_so() -> bool:
        return ("in_flight", "local") in await samples(product)

    await until(is_so, "what is in flight is known", within=60)


async def reports_again(envoy: Envoy, times: int) -> None:
    """Wait until an Envoy has sent so many more reports."""
    goal = await envoy.stat("load_reporter.responses") + times

    async def are_sent() -> bool:
        return await envoy.stat("load_reporter.responses") >= goal

    await until(are_sent, f"{times} more reports of {envoy.node_id}", within=60)


async def settled(product: Product) -> float:
    """Wait until what is counted stays the same for some reports of both: what they send is heard a moment later."""
    before, now = -1.0, -2.0
    while before != now:
        before = now
        await both_report(product)
        now = (await samples(product))["total", "succeeded"]
    return now


async def counted(product: Product, requests: int) -> None:
    async def are_so_many() -> bool:
        now = await samples(product)
        return (now.get(("total", "succeeded")), now.get(("total", "failed"))) == (requests, 0)

    await until(are_so_many, f"{requests} are counted, not {await samples(product)}", within=60)


async def test_the_sum_of_both_is_what_was_sent_and_one_that_is_killed_takes_nothing_back(product: Product) -> None:
    first = await closed_loop(product.url, clients=8, requests=400, traffic=NEW_CONNECTIONS)
    assert not first.errors
    await counted(product, 400)
    sent = [await envoy.stats("^cluster.model/default/chat/local.upstream_rq_total$") for envoy in product.envoys]
    assert all(sum(one.values()) for one in sent), "both had some"

    product.envoys[1].process.kill()
    second = await closed_loop(product.url, clients=8, requests=200, traffic=NEW_CONNECTIONS)
    assert not second.errors
    await counted(product, 600)
    await reports_again(product.envoys[0], REPORTS_UNTIL_OLD)  # what the dead one said last is old by now

    async def none_is_in_flight() -> bool:
        # It is unknown while the other one's last report is old, too.
        return (await samples(product)).get(("in_flight", "local")) == 0

    await until(none_is_in_flight, "nothing is in flight", within=60)
    await counted(product, 600)


async def test_a_control_plane_that_was_killed_counts_nothing_twice_and_goes_on(product: Product) -> None:
    await closed_loop(product.url, clients=8, requests=100, traffic=NEW_CONNECTIONS)
    await counted(product, 100)
    product.kill()
    meanwhile = await closed_loop(product.url, clients=8, requests=100, traffic=NEW_CONNECTIONS)
    assert not meanwhile.errors
    await product.start()
    # What Envoy sent to nobody is lost, what it counted since is not, and nothing of before comes again.
    known = await settled(product)
    assert known <= 100
    after = await closed_loop(product.url, clients=8, requests=300, traffic=NEW_CONNECTIONS)
    assert not after.errors
    await counted(product, int(known) + 300)


async def test_what_gets_a_credential_is_counted_by_model(product: Product) -> None:
    remote = product.backends.remote
    key = {"type": "apiKey", "apiKey": {"secretRef": {"name": "key"}, "header": "x-key"}}
    product.save("secret", secret("key", {"apiKey": "abc"}))
    product.offload_to({"host": f"{remote.host}:{remote.port}", "authConfig": key}, away=50)
    await product.says(Programmed="Programmed")
    await both_report(product)  # a cluster that is new to Envoy is not counted before its next report
    report = await closed_loop(product.url, clients=8, requests=400, traffic=NEW_CONNECTIONS)
    assert not report.errors and report.summary.remote
    await counted(product, 400)
    assert (await samples(product))["issued_total", "remote"] == report.summary.remote


async def test_an_envoy_that_says_nothing_makes_it_unknown_and_not_zero(product: Product) -> None:
    async def unknown() -> bool:
        return ("in_flight", "local") not in await samples(product)

    second = product.envoys[1].process
    second.send(signal.SIGSTOP)
    try:
        await until(unknown, "what is in flight is unknown", within=60)
        assert ("total", "succeeded") in await samples(product), "what was counted is not taken back"
    finally:
        second.send(signal.SIGCONT)
    await in_flight_is_known(product)
