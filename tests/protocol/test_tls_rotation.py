"""Certificates are renewed and authorities replaced while a real Envoy serves: no stream ends, no request fails."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import yaml

from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from controller.gateway.client_tls import sds_files
from tests.protocol.test_tls_identity import DELTA
from tests.support.beamlit import no_request_fails
from tests.support.envoy import ANY_PORT, Envoy
from tests.support.network import unused_port
from tests.support.protocol.calls import ADS, OK, outcome
from tests.support.protocol.envoy_resources import answers, model, upstream
from tests.support.protocol.xds_client import Served
from tests.support.tls import Certificates
from tests.support.waiting import until

METHOD = f"/{ADS}/DeltaAggregatedResources"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates.make(tmp_path / "tls")


@contextlib.asynccontextmanager
async def joined(
    certificates: Certificates, served: Served, folder: Path, name: str = "envoy-1"
) -> AsyncIterator[Envoy]:
    """A real Envoy with the bootstrap of `beamlit envoy`, which follows its certificate."""
    xds, tls = HostPort("localhost", served.port), certificates.client("gateway")
    sds = folder / f"sds-{name}"
    sds.mkdir()
    for file, content in sds_files(tls, xds.host).items():
        (sds / file).write_text(content)
    bootstrap = yaml.safe_load(bootstrap_for(name, "", xds, ANY_PORT, Provision(tls=tls, sds=sds)))
    del bootstrap["stats_config"], bootstrap["deferred_stat_options"]
    envoy = Envoy(name, bootstrap, folder, workers=1)
    try:
        await envoy.started()
        yield envoy
    finally:
        await envoy.stop()


@contextlib.asynccontextmanager
async def serving(certificates: Certificates, address: str = "") -> AsyncIterator[Served]:
    served = await Served.start(address or f"127.0.0.1:{unused_port()}", tls=certificates.server())
    try:
        yield served
    finally:
        await served.stop()


async def test_an_envoy_joins_by_its_certificate_and_has_the_secrets_of_its_node(certificates, tmp_path):
    port = unused_port()
    async with upstream() as backend, serving(certificates) as served, joined(certificates, served, tmp_path):
        served.publish(*model("ns/m", port, backend))
        await until(lambda: answers(port), "the model answers")
        (client,) = served.server.clients()
        assert (client.node_id, client.authorised, client.trusted) == ("envoy-1", True, True)


async def test_an_envoy_does_not_join_a_server_of_another_name_or_authority(certificates, tmp_path):
    impostors = {"another-name": ("xds.example",), "another-authority": ("localhost", "127.0.0.1")}
    for name, names in impostors.items():
        impostor = Certificates(tmp_path / name, server_names=names)
        if name == "another-name":
            (certificates.folder / "ca").rename(tmp_path / "ca")
            impostor.folder.mkdir()
            (tmp_path / "ca").rename(impostor.folder / "ca")
        impostor.renew()
        # The client's authorities are those of the impostor, so that it is Envoy who refuses.
        async with serving(impostor) as served, joined(certificates, served, tmp_path, name) as envoy:

            async def refused(envoy=envoy):
                failed = await envoy.stats(r"cluster\.xds_server\.ssl\.fail_verify_(san|error)")
                return sum(failed.values()) > 0

            await until(refused, f"{name} is refused")
            assert served.server.clients() == ()


async def test_certificates_and_then_the_authority_are_renewed_under_load_without_a_failure(certificates, tmp_path):
    port = unused_port()
    shutil.copytree(certificates.folder, tmp_path / "before")
    before = Certificates(tmp_path / "before")
    async with upstream() as backend, serving(certificates) as served, joined(certificates, served, tmp_path) as envoy:
        served.publish(*model("ns/m", port, backend))
        await until(lambda: answers(port), "the model answers")

        async def updates() -> int:
            return sum((await envoy.stats(r"cluster\.xds_server\..*ssl_context_update_by_sds")).values())

        connections = await envoy.stats(r"cluster\.xds_server\.upstream_cx_(total|destroy)")
        async with no_request_fails(port):
            # The last three: another authority, which signs from the run after on, and once more by the new one.
            for how in ({}, {"new_authority": True}, {}, {}):
                known = await updates()
                certificates.renew(**how)
                assert await outcome(served.port, certificates.channel_credentials("gateway"), METHOD, DELTA) == OK

                async def taken(known=known) -> bool:
                    return await updates() > known

                await until(taken, "Envoy has the new files")
        # What the authority of before signed is believed as long as it holds.
        assert (
            await outcome(served.port, before.channel_credentials("gateway", trusting=certificates), METHOD, DELTA)
            == OK
        )
        of_envoy = [event for event in served.events if event.stream == served.events[0].stream]
        assert [event.kind for event in of_envoy if event.kind.endswith("connected")] == ["connected"]
        assert await envoy.stats(r"cluster\.xds_server\.upstream_cx_(total|destroy)") == connections


async def test_an_envoy_that_comes_back_uses_what_was_renewed_and_an_authority_that_is_gone_lets_nobody_in(
    certificates, tmp_path
):
    port, address = unused_port(), f"127.0.0.1:{unused_port()}"
    async with upstream() as backend, contextlib.AsyncExitStack() as stack:
        async with serving(certificates, address) as served:
            envoy = await stack.enter_async_context(joined(certificates, served, tmp_path))
            served.publish(*model("ns/m", port, backend))
            await until(lambda: answers(port), "the model answers")
            shutil.copytree(certificates.folder, tmp_path / "before")
            shutil.rmtree(certificates.folder / "ca")
            certificates.renew()
        async with serving(certificates, address) as served:
            served.publish(*model("ns/m", port, backend))
            await until(served.server.clients, "Envoy is back")
            before = Certificates(tmp_path / "before")
            trusting = before.channel_credentials("gateway", trusting=certificates)
            code, _ = await outcome(served.port, trusting, METHOD, DELTA)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert await answers(port)
            assert await envoy.stat("cluster.xds_server.upstream_cx_total") >= 2


async def test_files_that_do_not_belong_together_change_nothing(certificates, caplog):
    async with serving(certificates) as served:
        served.publish(*model("ns/m", 8080, 9090))
        joins = certificates.channel_credentials("gateway")
        certificate, key, _ = certificates.files("xds-server")
        kept = certificate.read_bytes(), key.read_bytes()
        for broken in (
            {certificate: b"no certificate"},
            {key: certificates.files("reader")[1].read_bytes()},
            {key: b""},
        ):
            for path, content in broken.items():
                path.write_bytes(content)
            for _ in range(2):
                assert await outcome(served.port, joins, METHOD, DELTA) == OK
            certificate.write_bytes(kept[0])
            key.write_bytes(kept[1])
            assert await outcome(served.port, joins, METHOD, DELTA) == OK
        key.unlink()
        assert await outcome(served.port, joins, METHOD, DELTA) == OK
    said = [record for record in caplog.records if record.message.startswith("certificate not renewed")]
    assert len(said) == 4, "each state of the files is told once"
    assert not any("BEGIN" in str(vars(record)) for record in caplog.records)
