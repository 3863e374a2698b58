"""How long a client stays: until its token or its connection ends, or somebody writes its name on a list."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import yaml

from controller.api.timing import REAL, StreamTiming
from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from controller.gateway.client_tls import ClientTls, sds_files
from tests.protocol.test_tls_identity import DELTA, METHODS
from tests.support.beamlit import no_request_fails
from tests.support.envoy import ANY_PORT, Envoy
from tests.support.network import unused_port
from tests.support.protocol.calls import ADS, OK, bearer, outcome
from tests.support.protocol.envoy_resources import answers, model, upstream
from tests.support.protocol.xds_client import Served
from tests.support.tls import Certificates
from tests.support.waiting import until
from xds_server.stream.callers import TokenHolder, UnknownCallerError
from xds_server.stream.identity import ClientTable, parse_binding

METHOD = f"/{ADS}/DeltaAggregatedResources"
ACCOUNT = "system:serviceaccount:beamlit:gateway"


class Accounts:
    """Who holds which token, without an API server; `shown` are those that were shown."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, float]] = {}
        self.shown: list[str] = []

    def hold(self, token: str, pod: str, seconds: float = 3600.0) -> str:
        """Have a pod hold a token, which ends so many seconds after it was shown: not while a busy machine connects."""
        self.known[token] = (pod, seconds)
        return token

    async def holder(self, token: str, address: str) -> TokenHolder:
        self.shown.append(token)
        if token not in self.known:
            raise UnknownCallerError("nobody's")
        pod, seconds = self.known[token]
        return TokenHolder(ACCOUNT, pod, time.time() + seconds)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def serving(
    certificates: Certificates, accounts: Accounts | None = None, timing: StreamTiming = REAL.streams
) -> AsyncIterator[Served]:
    table = ClientTable.of([parse_binding(f"{ACCOUNT}=gateway/@pod")])
    at = "127.0.0.1:0" if accounts else ""
    served = await Served.start(tls=certificates.server(table, accounts, at), timing=timing)
    try:
        yield served
    finally:
        await served.stop()


@contextlib.asynccontextmanager
async def joined(tls: ClientTls, port: int, folder: Path, name: str = "envoy-1") -> AsyncIterator[Envoy]:
    """A real Envoy with the bootstrap of `beamlit envoy`, which follows the files by which it is known."""
    xds, sds = HostPort("localhost", port), folder / "sds"
    sds.mkdir()
    for file, content in sds_files(tls, xds.host).items():
        (sds / file).write_text(content)
    bootstrap = yaml.safe_load(bootstrap_for(name, "", xds, ANY_PORT, Provision(tls=tls, sds=sds)))
    envoy = Envoy(name, bootstrap, folder, workers=1)
    try:
        await envoy.started()
        yield envoy
    finally:
        await envoy.stop()


class Mounted:
    """A projected token as the kubelet mounts it: a link to a folder, which is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        folder.mkdir()
        self.file = folder / "token"
        self.file.symlink_to("..data/token")

    def write(self, token: str) -> None:
        self._number += 1
        content = self._folder / f"..{self._number}"
        content.mkdir()
        (content / "token").write_text(token)
        link = self._folder / "..next"
        link.symlink_to(content.name)
        link.rename(self._folder / "..data")


async def test_an_envoy_joins_by_a_token_and_comes_back_with_the_next_one_when_that_ends(certificates, tmp_path):
    accounts, mounted, port = Accounts(), Mounted(tmp_path / "mounted"), unused_port()
    first = accounts.hold("first", "envoy-1")
    mounted.write(first)
    tls = ClientTls(certificates.files("gateway")[2], server_name="localhost", token=mounted.file)
    async with upstream() as backend, serving(certificates, accounts) as served:
        served.publish(*model("ns/m", port, backend))
        async with joined(tls, served.server.token_port, tmp_path):
            await until(lambda: answers(port), "the model answers")
            (client,) = served.server.clients()
            assert (client.node_id, client.authorised, client.trusted) == ("envoy-1", True, True)
            async with no_request_fails(port):
                mounted.write(accounts.hold("second", "envoy-1"))
                # What the kubelet renews is read before it is needed; the connection may stay, so it is no new one
                # that has it read.
                del accounts.known[first]
                served.callers.refuse(frozenset((ACCOUNT,)))
                await until(lambda: not served.server.clients(), "its streams end")
                served.callers.refuse(frozenset())
                await until(served.server.clients, "it is back")
            assert accounts.shown[-1] == "second"


async def test_a_token_is_for_its_own_port_and_its_own_pod_and_ends(certificates):
    accounts = Accounts()
    accounts.hold("ours", "envoy-1")
    accounts.hold("of-another-pod", "envoy-2")
    accounts.hold("of-no-pod", "")
    async with serving(certificates, accounts) as served:
        served.publish(*model("ns/m", 8080, 9090))
        port = served.server.token_port
        for method, said in METHODS.items():
            if method != "/grpc.health.v1.Health/List":
                assert await outcome(port, bearer(certificates, "ours"), method, said) == OK, method
            code, why = await outcome(port, bearer(certificates, "theirs"), method, said)
            assert (code, why) == (grpc.StatusCode.UNAUTHENTICATED, "nobody's"), method
            code, _ = await outcome(port, certificates.channel_credentials(None), method, said)
            assert code is grpc.StatusCode.UNAUTHENTICATED, method
        for token, words in (("of-another-pod", "the client is gateway/envoy-2, and not"), ("of-no-pod", "no pod")):
            code, why = await outcome(port, bearer(certificates, token), METHOD, DELTA)
            assert (code, words in why) == (grpc.StatusCode.PERMISSION_DENIED, True), why
        # No certificate is asked for there, and none counts; where one is asked for, no token does.
        code, _ = await outcome(port, certificates.channel_credentials("gateway"), METHOD, DELTA)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        code, _ = await outcome(served.port, bearer(certificates, "ours"), METHOD, DELTA)
        assert code is grpc.StatusCode.UNAVAILABLE

        assert await ends_with_its_token(certificates, accounts, port)


async def ends_with_its_token(certificates, accounts, port):
    """Whether a stream that was begun with a token ends with it; one with more time, if this machine takes long."""
    for seconds in (1.0, 4.0, 16.0):
        name = f"of {seconds} s"
        accounts.hold(name, "envoy-1", seconds=seconds)
        async with grpc.aio.secure_channel(f"localhost:{port}", bearer(certificates, name)) as channel:
            call = channel.stream_stream(METHOD)()
            try:
                await call.write(DELTA.SerializeToString())
                await call.read()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                continue  # it had ended before there was an answer
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call.details() == "the token has ended: call again with a new one"
            return True
    return False


async def test_a_certificate_on_the_list_loses_its_stream_and_no_request(certificates, tmp_path):
    port = unused_port()
    pem = certificates.files("gateway")[0].read_text()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    async with upstream() as backend, serving(certificates) as served:
        served.publish(*model("ns/m", port, backend))
        async with joined(certificates.client("gateway"), served.port, tmp_path) as envoy, no_request_fails_once(port):
            (client,) = served.server.clients()
            assert served.callers.refuse(frozenset((fingerprint,))) >= 1
            await until(lambda: not served.server.clients(), "its streams end")
            refused = await envoy.stat("cluster.xds_server.upstream_rq_total")

            async def asked_again() -> bool:
                return await envoy.stat("cluster.xds_server.upstream_rq_total") > refused

            await until(asked_again, "it comes again")
            assert served.server.clients() == ()
            code, why = await outcome(served.port, certificates.channel_credentials("gateway"), METHOD, DELTA)
            assert (code, "was told to refuse" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
            assert await outcome(served.port, certificates.channel_credentials("reader"), METHOD, DELTA) == OK
            served.callers.refuse(frozenset())
            await until(served.server.clients, "it is let in again")
            assert served.server.clients()[0].stream != client.stream


@contextlib.asynccontextmanager
async def no_request_fails_once(port: int) -> AsyncIterator[None]:
    """See `no_request_fails`, from when the model answers."""
    await until(lambda: answers(port), "the model answers")
    async with no_request_fails(port):
        yield


async def test_a_connection_ends_in_time_so_that_what_was_renewed_is_shown_and_nothing_is_sent_again(
    certificates, tmp_path
):
    port = unused_port()
    timing = StreamTiming(connection=2.0, connection_end=0.1)
    async with upstream() as backend, serving(certificates, timing=timing) as served:
        served.publish(*model("ns/m", port, backend))
        async with joined(certificates.client("gateway"), served.port, tmp_path), no_request_fails_once(port):
            await until(lambda: served.server.clients() and served.server.clients()[0].initialised, "it has all")
            known = len(served.events)
            first = served.server.clients()[0].stream

            def is_back() -> bool:
                return any(one.stream != first for one in served.server.clients())

            await until(is_back, "it is back on another connection")
            resent = {key for one in served.events[known:] if one.kind == "acknowledged" for key in one.keys}
            assert resent == set()
