"""TLS to the remote backend: verified, or nothing leaves."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from controller.api.contract.credentials import RemoteTls
from tests.support.connections import accepting
from tests.support.data_plane.backends import Backend, Backends
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.product import PROMPT, Product
from tests.support.data_plane.protected import NAME, Pki, secret
from tests.support.data_plane.traffic import ENOUGH, meanwhile
from tests.support.load import Report, closed_loop
from tests.support.network import BACKEND_PORT, Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Envoy looks soon again at a backend that it may have found well: nothing must come of that.
TIMING = replace(
    PATIENT,
    folder=PROMPT,
    gateway=replace(PATIENT.gateway, check_far_every=0.2, check_again_within=0.2, vacated=0, departed=0.5),
)


@pytest.fixture(scope="module")
def pki(network: Network, folder: Path) -> Pki:
    return Pki(folder, network.host(20))


@pytest.fixture(scope="module")
def remote(network: Network, folder: Path, pki: Pki) -> Iterator[Backend]:
    """A remote backend over TLS whose certificate is for its address and for `NAME`."""
    remote = Backend("remote-tls", network.host(20), folder, (pki.server_file,))
    remote.start()
    yield remote
    remote.kill()


@pytest.fixture(scope="module")
def guarded(network: Network, folder: Path, pki: Pki) -> Iterator[Backend]:
    """A remote backend over TLS that only those with a certificate may ask."""
    remote = Backend("remote-guarded", network.host(21), folder, (pki.server_file, pki.authority_file))
    remote.start()
    yield remote
    remote.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path, pki: Pki) -> AsyncIterator[Product]:
    product = Product(backends, folder, timing=TIMING)
    product.save("authority", secret("authority", {"ca.crt": pki.authority}))
    product.save("another", secret("another", {"ca.crt": pki.other_authority}))
    product.save("mine", secret("mine", pki.certificate()))
    product.save("mismatch", secret("mismatch", pki.certificate(of_another_key=True)))
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


ATTEMPTS = r"^cluster\.backend/.*health_check\.attempt$"


def over_tls(remote: Backend, authority: str = "authority", **tls: Any) -> dict[str, Any]:
    return {"host": f"{remote.host}:{remote.port}", "scheme": "https", "tls": {"caRef": {"name": authority}, **tls}}


async def load(product: Product, requests: int = 400) -> Report:
    return await closed_loop(product.url, clients=8, requests=requests)


async def offloads(product: Product) -> None:
    """Wait until requests reach the remote backend; none may fail meanwhile."""

    async def is_so() -> bool:
        report = await load(product, 20)
        assert report.errors == {}
        return report.summary.remote > 0

    await until(is_so, "requests reach the remote backend", within=60)


async def nothing_arrives(product: Product) -> None:
    """See that no request leaves and none fails; between them Envoy checks the remote backend, if it has one."""
    for _ in range(3):
        report = await load(product, 100)
        assert (report.errors, report.summary.remote) == ({}, 0)
        await checked(product)


async def checked(product: Product) -> None:
    """Wait until Envoy has checked each backend that it still has once more."""
    (envoy,) = product.envoys
    before = await envoy.stats(ATTEMPTS)

    async def is_so() -> bool:
        now = await envoy.stats(ATTEMPTS)
        return all(now.get(name, count + 1) > count for name, count in before.items())

    await until(is_so, f"further checks than {before}", within=60)


@pytest.mark.parametrize("tls", [{}, {"sni": NAME}], ids=["by its address", "by its name"])
async def test_a_certificate_of_the_given_authority_is_accepted(
    product: Product, remote: Backend, tls: dict[str, str]
) -> None:
    product.offload_to(over_tls(remote, **tls), away=50)
    await product.says(Programmed="Programmed")

    await offloads(product)
    report = await load(product)

    assert report.errors == {}
    assert 100 < report.summary.remote < 300


@pytest.mark.parametrize("credential", [False, True], ids=["without a credential", "with a credential"])
@pytest.mark.parametrize(
    ("authority", "tls"),
    [("another", {}), ("authority", {"sni": "other.test"})],
    ids=["of another authority", "for another name"],
)
async def test_nothing_leaves_for_a_certificate(
    product: Product, remote: Backend, authority: str, tls: dict[str, str], credential: bool
) -> None:
    auth = {"authConfig": {"type": "apiKey", "apiKey": {"secretRef": {"name": "key"}}}} if credential else {}
    product.save("key", secret("key", {"apiKey": "Bearer x"}))
    product.offload_to({**over_tls(remote), **auth}, away=50)
    await offloads(product)

    product.offload_to({**over_tls(remote, authority, **tls), **auth}, away=50)
    await product.says(Programmed="Programmed")
    await stays_local(product)
    await nothing_arrives(product)


async def stays_local(product: Product) -> None:
    """Wait until what was on its way by the configuration of before has arrived; none may fail meanwhile."""

    async def is_so() -> bool:
        report = await load(product, 40)
        assert report.errors == {}
        return report.summary.remote == 0

    await until(is_so, "requests stay local", within=60)


async def test_without_its_authority_nothing_leaves_and_the_status_says_why(product: Product, remote: Backend) -> None:
    product.offload_to(over_tls(remote, "nowhere"), away=50)

    assert await product.says(ResolvedRefs="SecretNotFound") == "Secret default/nowhere does not exist"
    await stays_local(product)
    await nothing_arrives(product)


async def test_a_client_certificate_is_shown_to_those_who_ask(product: Product, guarded: Backend) -> None:
    product.offload_to(over_tls(guarded, sni=NAME), away=50)
    await product.says(Programmed="Programmed")
    await stays_local(product)

    product.offload_to(over_tls(guarded, sni=NAME, clientCertRef={"name": "mine"}), away=50)
    await product.says(Programmed="Programmed")
    await offloads(product)
    assert (await load(product)).errors == {}


async def test_a_key_of_another_certificate_is_refused_and_everything_else_goes_on(
    product: Product, remote: Backend, guarded: Backend
) -> None:
    # Envoy rejects the secret with which a context would be whole: for it to be the key, the authority comes before it.
    product.offload_to(over_tls(guarded, sni=NAME), away=50)
    await product.says(Programmed="Programmed")

    product.offload_to(over_tls(guarded, sni=NAME, clientCertRef={"name": "mismatch"}), away=50)

    said = await product.says(Programmed="Refused")
    assert "KEY_VALUES_MISMATCH" in said
    await nothing_arrives(product)

    product.offload_to(over_tls(remote), away=50)
    await product.says(Programmed="Programmed")
    await offloads(product)


async def test_a_new_authority_is_used_without_a_failed_request(product: Product, remote: Backend, pki: Pki) -> None:
    product.save("rotated", secret("rotated", {"ca.crt": pki.other_authority}))
    product.offload_to(over_tls(remote, "rotated"), away=50)
    await product.says(Programmed="Programmed")
    await stays_local(product)

    product.save("rotated", secret("rotated", {"ca.crt": f"{pki.other_authority}\n{pki.authority}"}))

    await offloads(product)
    assert (await load(product)).errors == {}


async def test_authority_and_certificate_change_without_a_failed_request(
    product: Product, remote: Backend, pki: Pki
) -> None:
    """As it is done: trust both, change the certificate, trust the new one alone."""

    def trust(*authorities: str) -> None:
        product.save("rotated", secret("rotated", {"ca.crt": "\n".join(authorities)}))

    async def updates() -> int:
        (envoy,) = product.envoys
        return sum((await envoy.stats("ssl_context_update_by_sds$")).values())

    async def more_updates(before: int) -> bool:
        return await updates() > before

    async def renewed() -> None:
        before = await updates()
        trust(pki.authority, pki.other_authority)
        await until(partial(more_updates, before), "Envoy trusts both", within=60)
        remote.show(pki.other_server_file)
        await offloads(product)
        trust(pki.other_authority)
        # Connections that are open stay so; these are new.
        remote.show(pki.other_server_file)
        await offloads(product)

    trust(pki.authority)
    product.offload_to(over_tls(remote, "rotated"), away=50)
    await product.says(Programmed="Programmed")
    await offloads(product)
    try:
        report = await meanwhile(product.url, renewed)

        assert report.errors == {}
        assert report.summary.requests >= ENOUGH
        assert report.summary.remote > ENOUGH // 10
        # It is the new authority that is trusted, not any.
        remote.show(pki.server_file)
        await stays_local(product)
        await nothing_arrives(product)
    finally:
        remote.show(pki.server_file)


async def test_an_expired_certificate_is_not_accepted(product: Product, remote: Backend, pki: Pki) -> None:
    product.offload_to(over_tls(remote), away=50)
    await product.says(Programmed="Programmed")
    await offloads(product)
    try:
        remote.show(pki.expired_file)
        await stays_local(product)
        await nothing_arrives(product)
    finally:
        remote.show(pki.server_file)
    await offloads(product)


@pytest_asyncio.fixture(loop_scope="module")
async def plane(network: Network, backends: Backends, tmp_path: Path) -> AsyncIterator[Plane]:
    async with Plane(network, backends, tmp_path).running() as plane:
        await plane.join()
        yield plane


async def test_of_the_systems_authorities_no_other_is_trusted(
    plane: Plane, remote: Backend, pki: Pki, tmp_path: Path
) -> None:
    system = tmp_path / "system.pem"
    system.write_text(pki.other_authority)
    model = await plane.serve(Wanted(away=100, host=remote.host, tls=RemoteTls(server_name=NAME), authorities=system))

    replies = [await plane.ask(model) for _ in range(50)]

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}


async def test_without_the_systems_authorities_envoy_refuses_the_backend(plane: Plane, remote: Backend) -> None:
    wanted = Wanted(away=100, host=remote.host, tls=RemoteTls(server_name=NAME))
    await plane.serve(wanted, ready=False)

    async def is_refused() -> bool:
        return any(str(wanted.authorities) in message for message in plane.refused().values())

    await until(is_refused, "the refusal of the cluster")


@pytest.mark.parametrize("by", ["name", "address"])
async def test_a_name_is_asked_for_and_an_address_is_not(plane: Plane, pki: Pki, by: str) -> None:
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_file)
    context.sni_callback = lambda connection, name, _: asked.append(name)
    address = plane.network.host(22)
    tls = RemoteTls(server_name=NAME if by == "name" else address)

    async def serve(*_: object) -> None:
        """End the connection at once."""

    async with accepting(serve, address, BACKEND_PORT, context):
        model = await plane.serve(Wanted(host=address, tls=tls, authorities=pki.authority_file))

        async def was_asked() -> bool:
            return bool(asked)

        await until(was_asked, "the server is asked")
        await plane.withdraw(model)

    assert set(asked) == {NAME if by == "name" else None}


async def test_without_an_authority_of_its_own_those_of_the_system_are_trusted(
    plane: Plane, remote: Backend, pki: Pki
) -> None:
    wanted = Wanted(away=100, host=remote.host, tls=RemoteTls(server_name=NAME), authorities=pki.authority_file)
    model = await plane.serve(wanted)

    async def by_the_remote() -> bool:
        return (await plane.ask(model)).route == "remote"

    await until(by_the_remote, "the remote backend answers")


async def test_the_health_check_goes_over_tls(product: Product, remote: Backend) -> None:
    product.offload_to({**over_tls(remote), "healthCheck": {"path": "/healthz", "interval": "300ms"}}, away=50)
    await product.says(Programmed="Programmed")
    await offloads(product)

    async with httpx.AsyncClient(verify=False, timeout=60) as client:
        await client.put(f"https://{remote.host}:{remote.port}/-/health", content=b"503")
        try:
            await stays_local(product)
        finally:
            await client.put(f"https://{remote.host}:{remote.port}/-/health", content=b"200")
    await offloads(product)
