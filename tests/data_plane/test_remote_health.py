"""RemoteHealthy says whether the remote backend answers and, in words, why not; traffic goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.api.timing import CheckTiming
from tests.support.data_plane.backends import Backend, Backends
from tests.support.data_plane.product import PROMPT, Product, message_of
from tests.support.data_plane.protected import NAME, Pki, Tokens, secret
from tests.support.load import Report, Traffic, closed_loop
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "hush-of-the-client-secret"
TIMING = replace(PATIENT, checks=CheckTiming(least_interval=0.5, in_doubt=0.1, first_token_pause=1), folder=PROMPT)
SEEN = "seen from the xDS server"


@pytest.fixture(scope="module")
def pki(network: Network, folder: Path) -> Pki:
    return Pki(folder)


@pytest.fixture(scope="module")
def remote(network: Network, folder: Path, pki: Pki) -> Iterator[Backend]:
    """A remote backend over TLS whose certificate is for `NAME`."""
    remote = Backend("remote-tls", network.host(20), folder, (pki.server_file,))
    remote.start()
    yield remote
    remote.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path, pki: Pki) -> AsyncIterator[Product]:
    product = Product(backends, folder, timing=TIMING)
    product.save("authority", secret("authority", {"ca.crt": pki.authority}))
    product.save("another", secret("another", {"ca.crt": pki.other_authority}))
    product.save("client", secret("client", {"clientSecret": SECRET}))
    try:
        await product.start("debug")
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tokens(network: Network) -> AsyncIterator[Tokens]:
    async with Tokens(network.host(30), accepts=SECRET).running() as tokens:
        yield tokens


def over_tls(remote: Backend, authority: str = "authority", sni: str = NAME) -> dict[str, Any]:
    tls = {"caRef": {"name": authority}, "sni": sni}
    return {"host": f"{remote.host}:{remote.port}", "scheme": "https", "tls": tls}


def plain(product: Product, **more: Any) -> dict[str, Any]:
    remote = product.backends.remote
    return {"host": f"{remote.host}:{remote.port}", **more}


def with_token(product: Product, url: str, secret: str = "client") -> dict[str, Any]:
    oauth = {"clientId": "me", "tokenUrl": url, "clientSecretRef": {"name": secret}}
    return plain(product, authConfig={"type": "oauth", "oauthConfig": oauth})


async def until_reason(product: Product, reason: str) -> dict[str, Any]:
    """Wait until RemoteHealthy has this reason; return the status."""
    status: dict[str, Any] = {}

    async def is_so() -> bool:
        status.update((await product.model())["status"])
        return any(one["type"] == "RemoteHealthy" and one["reason"] == reason for one in status["conditions"])

    await until(is_so, f"RemoteHealthy: {reason}", within=60)
    return status


async def is_well(product: Product, remote: dict[str, Any]) -> None:
    product.offload_to(remote)
    await product.shows(
        lambda status: (status["remote"].get("healthy"), status["split"]["reason"]) == (True, "Steady"),
        RemoteHealthy="Answering",
        Ready="Ready",
    )


async def is_not(product: Product, reason: str) -> str:
    """Wait until the remote backend does not answer for this reason; return the words, without whose they are."""

    def is_told(status: dict[str, Any]) -> bool:
        said = message_of(status, "RemoteHealthy")
        split = {name: status["split"].get(name) for name in ("summary", "reason", "message")}
        return status["remote"].get("healthy") is False and split == {
            "summary": "100/0",
            "reason": "RemoteDown",
            "message": f"the remote backend does not answer ({said}), so every request stays local",
        }

    whose, _, words = message_of(await product.shows(is_told, RemoteHealthy=reason), "RemoteHealthy").partition(": ")
    assert whose == SEEN
    return words


@pytest.mark.parametrize(
    ("authority", "sni", "words"),
    [
        ("another", NAME, "leads to no authority that is trusted"),
        ("authority", "other.test", "is not for other.test"),
    ],
    ids=["of another authority", "for another name"],
)
async def test_a_certificate_that_is_not_accepted(
    product: Product, remote: Backend, authority: str, sni: str, words: str
) -> None:
    await is_well(product, over_tls(remote))

    product.offload_to(over_tls(remote, authority, sni))

    said = await is_not(product, "CertificateNotAccepted")
    assert said == f"the certificate of {remote.host}:{remote.port} {words}"
    await is_well(product, over_tls(remote))


async def test_a_new_authority_is_looked_at_at_once(
    backends: Backends, remote: Backend, pki: Pki, tmp_path: Path
) -> None:
    """Here the next check in turn would be after ten minutes."""
    product = Product(backends, tmp_path, timing=replace(PATIENT, checks=CheckTiming(least_interval=600)))
    product.save("rotated", secret("rotated", {"ca.crt": pki.other_authority}))
    product.offload_to(over_tls(remote, "rotated"))
    try:
        await product.start()
        await is_not(product, "CertificateNotAccepted")

        product.save("rotated", secret("rotated", {"ca.crt": f"{pki.other_authority}\n{pki.authority}"}))

        await until_reason(product, "Answering")
    finally:
        await product.stop()


async def test_a_name_that_leads_nowhere(product: Product) -> None:
    product.offload_to({"host": "models.invalid:8000"})

    said = await is_not(product, "NameNotResolved")
    assert said.startswith("models.invalid cannot be resolved: ")
    await is_well(product, plain(product))


async def test_nobody_there(product: Product) -> None:
    remote = product.backends.remote
    await is_well(product, plain(product, headersToAdd={"x-a": "1"}))

    with product.backends.killed(remote):
        await until_reason(product, "NotConnected")
        said = await is_not(product, "NotConnected")
        assert said == f"{remote.host}:{remote.port} cannot be connected to: connection refused"
    await until_reason(product, "Answering")


async def test_a_token_endpoint_that_refuses_us(product: Product, tokens: Tokens) -> None:
    product.save("wrong", secret("wrong", {"clientSecret": f"{SECRET}-wrong"}))
    product.offload_to(with_token(product, tokens.url, "wrong"))

    said = await is_not(product, "TokenNotIssued")
    assert said == f"no token is issued: {tokens.host} answers 401 (invalid_client)"

    product.save("wrong", secret("wrong", {"clientSecret": SECRET}))
    await product.says(RemoteHealthy="Answering")


async def test_a_token_endpoint_that_fails_and_comes_back(product: Product, tokens: Tokens) -> None:
    tokens.up = False
    product.save("unused", secret("unused", {"clientSecret": SECRET}))
    product.offload_to(with_token(product, tokens.url, "unused"))

    said = await is_not(product, "TokenNotIssued")
    assert said == f"no token is issued: {tokens.host} answers 503"

    tokens.up = True
    # It is left alone for a while, and looked at with the next check.
    await until_reason(product, "Answering")


async def test_a_token_endpoint_that_is_not_there(product: Product, network: Network) -> None:
    endpoint = f"{network.host(31)}:8000"
    product.offload_to(with_token(product, f"http://{endpoint}/token"))

    said = await is_not(product, "TokenNotIssued")
    assert said == f"no token is issued: {endpoint} cannot be connected to: connection refused"
    await is_well(product, plain(product))


async def test_errors_on_the_health_path_under_load(product: Product) -> None:
    check = {"path": "/healthz", "interval": "1s"}
    product.offload_to(plain(product, healthCheck=check), away=50)
    await product.says(RemoteHealthy="Answering", Programmed="Programmed")
    remote, done, sides = product.backends.remote, asyncio.Event(), list[str]()

    async def some_left() -> bool:
        return sides.count("remote") > 50

    traffic = Traffic(on_sample=lambda sample: sides.append(sample.route))
    load = closed_loop(product.url, clients=4, requests=200_000, traffic=traffic, stop=done, every=0.02)
    loading = asyncio.create_task(load)
    try:
        await until(some_left, "some requests reach the remote backend")
        remote.report_health(503)
        status = await until_reason(product, "ErrorAnswer")
    finally:
        remote.report_health(200)
    (said,) = (one["message"] for one in status["conditions"] if one["type"] == "RemoteHealthy")
    # What is set by hand comes before what is measured.
    assert (said, status["split"]["summary"]) == (f"{SEEN}: GET /healthz answers 503", "50/50")
    await until_reason(product, "Answering")
    done.set()
    report: Report = await loading

    assert report.errors == {}
    assert report.summary.remote > 50


async def test_no_secret_and_no_token_is_told_to_anybody(product: Product, tokens: Tokens) -> None:
    """Whatever the tests of this module went through."""
    product.save("last", secret("last", {"clientSecret": SECRET}))
    await is_well(product, with_token(product, tokens.url, "last"))

    told = {
        "status": (await product.asked("/status")).text,
        "metrics": (await product.asked("/metrics")).text,
        "log": product.log,
    }

    assert "remote backend checked" in told["log"]
    assert 'beamlit_remote_checks_total{reason="TokenNotIssued"}' in told["metrics"]
    assert tokens.issued
    assert [name for name, text in told.items() if "hush-of-the" in text or "token-0" in text] == []


async def test_nobody_is_connected_to_when_checks_are_off(
    product: Product, tokens: Tokens, network: Network, backends: Backends, tmp_path: Path
) -> None:
    """Not while another product, whose checks are on, finds its own endpoint well, ill and well again."""
    spared = Tokens(network.host(32), accepts=SECRET)
    without = Product(backends, tmp_path, timing=TIMING)
    without.save("client", secret("client", {"clientSecret": SECRET}))
    without.offload_to(with_token(without, spared.url))
    try:
        async with spared.running():
            await without.start("warning", "--no-remote-checks")
            assert "checks are turned off" in await without.says(RemoteHealthy="NotMeasured")
            product.save("client", secret("client", {"clientSecret": SECRET}))
            await is_well(product, with_token(product, tokens.url))
            with backends.killed(backends.remote):
                await until_reason(product, "NotConnected")
            await until_reason(product, "Answering")
            assert tokens.asked
            assert spared.asked == []
    finally:
        await without.stop()
