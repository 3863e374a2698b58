"""Credentials of a remote backend: from a Secret in the folder to the remote backend, and to nobody else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.data_plane.protected import Tokens, secret
from tests.support.data_plane.traffic import ENOUGH, meanwhile
from tests.support.http import plain_http
from tests.support.load import Report, Traffic, closed_loop
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What Envoy got anew. What it lets go of may be of a change before, which is kept for a while.
NEW = r"^(cluster_manager\.cluster|listener_manager\.listener)_(added|modified)$"

TIMING = replace(PATIENT, folder=PROMPT)
KEY = "hush-of-the-api-key"
CLIENT_SECRET = "hush-of-the-client-secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path) -> AsyncIterator[Product]:
    product = Product(backends, folder, timing=TIMING)
    try:
        await product.start(log_level="debug")
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tokens(network: Network) -> AsyncIterator[Tokens]:
    async with Tokens(network.host(30), accepts=CLIENT_SECRET, lifetime=4).running() as tokens:
        yield tokens


def plain(product: Product) -> dict[str, Any]:
    remote = product.backends.remote
    return {"host": f"{remote.host}:{remote.port}"}


def with_key(product: Product, header: str = "x-key", **ref: str) -> dict[str, Any]:
    api_key = {"secretRef": {"name": "key", **ref}, "header": header}
    return {**plain(product), "authConfig": {"type": "apiKey", "apiKey": api_key}}


def with_token(product: Product, tokens: Tokens, **client_secret: Any) -> dict[str, Any]:
    oauth = {"clientId": "me", "tokenUrl": tokens.url, **(client_secret or {"clientSecretRef": {"name": "client"}})}
    return {**plain(product), "authConfig": {"type": "oauth", "oauthConfig": oauth}}


async def load(product: Product, requests: int = 400, **traffic: Any) -> Report:
    """Send requests from eight clients; every one that failed is in the report."""
    return await closed_loop(product.url, clients=8, requests=requests, traffic=Traffic(**traffic))


async def ask(product: Product, *headers: tuple[str, str]) -> list[dict[str, Any]]:
    """Send one request; return what the backends saw of it, the replicas' part first."""
    probe = uuid.uuid4().hex
    async with plain_http() as client:
        answer = await client.post(product.url, headers=[("probe", probe), *headers], content=b"{}")
    assert answer.status_code == 200, answer.text
    return sorted(product.backends.seen(probe), key=lambda record: str(record["servedBy"]))


async def sent(product: Product, header: str, value: str) -> None:
    """Wait until the remote backend gets this header."""

    async def is_so() -> bool:
        records = await ask(product)
        return any(one["servedBy"] == "remote" and dict(one["headers"]).get(header) == value for one in records)

    await until(is_so, f"the remote backend gets {header}: {value}")


def values(record: dict[str, Any], header: str) -> list[str]:
    return [value for name, value in record["headers"] if name == header]


async def test_a_key_reaches_the_remote_and_nobody_else(product: Product) -> None:
    product.save("key", secret("key", {"apiKey": KEY}))
    product.offload_to(with_key(product), away=100)
    await product.says(Programmed="Programmed")
    await product.all_go("remote")
    of_client = [("x-key", "of the client"), ("authorization", "Bearer of-the-client")]

    (remote,) = await ask(product, *of_client)
    local, also_remote = await ask(product, *of_client, ("on-remote", "status=503"))

    assert (remote["servedBy"], values(remote, "x-key"), values(remote, "authorization")) == ("remote", [KEY], [])
    assert values(also_remote, "x-key") == [KEY]
    assert (values(local, "x-key"), values(local, "authorization")) == (["of the client"], ["Bearer of-the-client"])
    assert local["target"] == "/v1/chat"
    assert remote["target"] == "/default/models/chat/v1/chat"


async def test_a_401_of_the_remote_itself_is_the_clients_answer(product: Product) -> None:
    product.save("key", secret("key", {"apiKey": KEY}))
    product.offload_to(with_key(product), away=100)
    await product.says(Programmed="Programmed")
    await product.all_go("remote")

    async with plain_http() as client:
        answer = await client.get(product.url, headers={"on-remote": "status=401"})

    assert (answer.status_code, answer.headers["x-beamlit-route"]) == (401, "remote")


@pytest.mark.parametrize("header", ["Authorization", "x-key"])
async def test_a_new_key_is_used_without_a_failed_request(product: Product, header: str) -> None:
    product.save("key", secret("key", {"apiKey": KEY}))
    product.offload_to(with_key(product, header), away=50)
    await product.says(Programmed="Programmed")
    await sent(product, header.lower(), KEY)
    (envoy,) = product.envoys
    before = await envoy.stats(NEW)

    async def renewed() -> None:
        product.save("key", secret("key", {"apiKey": f"{KEY}-2"}))
        await sent(product, header.lower(), f"{KEY}-2")

    report = await meanwhile(product.url, renewed)

    assert report.errors == {}
    assert report.summary.requests >= ENOUGH
    assert report.summary.remote > ENOUGH // 4
    assert await envoy.stats(NEW) == before


async def test_without_its_key_every_request_stays_local_and_the_status_says_why(product: Product) -> None:
    product.save("key", secret("key", {"other": "x"}))
    product.offload_to(with_key(product), away=50)

    said = await product.says(ResolvedRefs="SecretKeyNotFound", Ready="UnresolvedRefs")
    await product.all_go("local")
    seen = product.backends.remote.count()
    without = await load(product)

    assert said == 'Secret default/key: key "apiKey" is missing'
    assert (without.errors, without.summary.remote, product.backends.remote.count()) == ({}, 0, seen)

    product.save("key", secret("key", {"apiKey": KEY}))
    await product.says(Programmed="Programmed", Ready="Ready")
    assert (await load(product)).summary.remote > 100

    loading = asyncio.create_task(load(product, 3_000))
    product.save("key", secret("another", {"apiKey": KEY}))
    said = await product.says(ResolvedRefs="SecretNotFound")
    report = await loading

    assert said == "Secret default/key does not exist"
    assert report.errors == {}
    await product.all_go("local")
    assert (await load(product)).summary.remote == 0


async def test_prior_fault_25_one_token_serves_many_requests(product: Product, tokens: Tokens) -> None:
    product.save("client", secret("client", {"clientSecret": CLIENT_SECRET}))
    product.offload_to(with_token(product, tokens), away=100)
    of_client = ("authorization", "Bearer of-the-client")
    # For longer than the load lasts: a token that is renewed late is none for a moment.
    tokens.lifetime = 20
    await product.says(Programmed="Programmed")

    await has_token(product)
    await product.all_go("remote")  # each worker of Envoy has it
    (remote,) = await ask(product, of_client)
    local, also_remote = await ask(product, of_client, ("on-remote", "status=503"))
    report = await load(product)

    assert (report.errors, report.summary.remote) == ({}, 400)
    assert len(tokens.issued) < 10
    assert set(tokens.asked) == {CLIENT_SECRET}
    assert values(remote, "authorization")[0].removeprefix("Bearer ") in tokens.issued
    assert values(also_remote, "authorization")[0].removeprefix("Bearer ") in tokens.issued
    assert values(local, "authorization") == ["Bearer of-the-client"]


async def test_no_request_fails_or_leaves_while_there_is_no_token(product: Product, tokens: Tokens) -> None:
    tokens.up = False
    # A Secret of its own makes it a backend of its own, which has no token from before.
    product.save("unused", secret("unused", {"clientSecret": CLIENT_SECRET}))
    product.offload_to(with_token(product, tokens, clientSecretRef={"name": "unused"}), away=50)
    await product.says(Programmed="Programmed")
    await product.all_go("local")
    seen = product.backends.remote.count()

    before = await load(product)
    assert (before.errors, before.summary.remote, product.backends.remote.count()) == ({}, 0, seen)

    tokens.up = True
    await has_token(product)
    assert (await load(product)).summary.remote > 100

    # It is used for as long as it lives, four seconds, and not a moment longer.
    tokens.up = False
    await until_local(product)
    seen = product.backends.remote.count()
    after = await load(product)
    assert (after.errors, after.summary.remote, product.backends.remote.count()) == ({}, 0, seen)


async def test_a_token_in_an_answer_that_is_too_long_is_none(product: Product, tokens: Tokens) -> None:
    tokens.padding = 32_768
    product.save("long", secret("long", {"clientSecret": CLIENT_SECRET}))
    product.offload_to(with_token(product, tokens, clientSecretRef={"name": "long"}), away=50)
    await product.says(Programmed="Programmed")
    await has_token(product)
    # Renewed, with what is just short enough.
    issued = len(tokens.issued)
    await until(lambda: asyncio.sleep(0, len(tokens.issued) > issued + 1), "the token is renewed")
    await has_token(product)

    tokens.padding = 65_536
    await until_local(product)

    tokens.padding = 0
    await has_token(product)


async def test_a_new_client_secret_is_used_without_a_failed_request(product: Product, tokens: Tokens) -> None:
    product.save("client", secret("client", {"clientSecret": CLIENT_SECRET}))
    product.offload_to(with_token(product, tokens), away=50)
    await product.says(Programmed="Programmed")
    await has_token(product)
    (envoy,) = product.envoys
    before = await envoy.stats(NEW)

    async def is_used() -> bool:
        records = await ask(product)
        return any(f"-of-{CLIENT_SECRET}-2" in value for one in records for value in values(one, "authorization"))

    async def renewed() -> None:
        product.save("client", secret("client", {"clientSecret": f"{CLIENT_SECRET}-2"}))
        tokens.accepts = f"{CLIENT_SECRET}-2"
        await until(is_used, "a token of the new client secret reaches the remote backend", within=60)

    report = await meanwhile(product.url, renewed)

    assert report.errors == {}
    assert report.summary.requests >= ENOUGH
    assert report.summary.remote > ENOUGH // 4
    assert await envoy.stats(NEW) == before


async def test_an_envoy_without_the_token_keeps_everything_local(
    network: Network, backends: Backends, tmp_path: Path
) -> None:
    product = Product(backends, tmp_path, timing=TIMING)
    product.save("key", secret("key", {"apiKey": KEY}))
    product.offload_to(with_key(product), away=50)
    try:
        await product.start()
        await product.join("stranger", token="some other token")
        report = await load(product)
        product.offload_to(plain(product), away=50)

        async def offloads() -> bool:
            return (await load(product, 20)).summary.remote > 0

        assert (report.errors, report.summary.remote) == ({}, 0)
        await until(offloads, "what needs no secret is served all the same")
    finally:
        await product.stop()


async def test_prior_fault_26_no_secret_is_told_to_anybody(product: Product, tokens: Tokens) -> None:
    """Whatever the tests of this module went through, nothing of their keys is in what anybody may read."""
    inline = f"{CLIENT_SECRET}-inline"
    tokens.accepts = inline
    product.offload_to(with_token(product, tokens, clientSecret=inline), away=50)
    warning = await product.says(Accepted="AcceptedWithWarnings", Programmed="Programmed")
    await has_token(product)
    product.save("key", secret("key", {"apiKey": f"{KEY}\n{KEY}", "other": KEY}))
    product.offload_to(with_key(product), away=50)
    await product.says(ResolvedRefs="CredentialNotUsable")
    (envoy,) = product.envoys

    told = {
        "status": (await product.asked("/status")).text,
        "metrics": (await product.asked("/metrics")).text,
        "log": product.log,
        "log of Envoy": envoy.process.log.read_text(),
        "config_dump": await envoy.dump(),
        "statistics": await envoy.all_stats(),
    }

    assert all(told.values())
    assert "clientSecret" in warning
    assert [name for name, text in told.items() if "hush-of-the" in text] == []


async def has_token(product: Product) -> None:
    """Wait until a request reaches the remote backend."""

    async def is_so() -> bool:
        return any(one["servedBy"] == "remote" for one in await ask(product))

    await until(is_so, "Envoy has a token")


async def until_local(product: Product) -> None:
    """Wait until twenty requests in a row stay local; none may fail meanwhile."""

    async def is_so() -> bool:
        report = await load(product, 20)
        assert report.errors == {}
        return report.summary.remote == 0

    await until(is_so, "every request stays local")
