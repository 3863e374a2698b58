"""At which addresses `beamlit xds-server` says what the Envoys acknowledged: never to who might be anybody."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from controller.api.contract.reports import PATH
from controller.gateway.bootstrap import HostPort
from controller.programs import xds_server as program
from tests.support.network import unused_port
from tests.support.tls import Certificates
from tests.support.xds_program import xds_options


@dataclass(frozen=True)
class Serving:
    """Where a server answers."""

    admin: HostPort
    reports: HostPort

    async def asked(self, url: str, certificates: Certificates | None = None, name: str = "") -> int:
        """The status with which a question is answered; 0 if nobody answers."""
        verify = certificates.client(name).context() if certificates else False
        # On a busy machine who answers late is not nobody.
        async with httpx.AsyncClient(trust_env=False, verify=verify, timeout=60) as client:
            try:
                async with client.stream("GET", url, extensions={"sni_hostname": "localhost"}) as answer:
                    return answer.status_code
            except httpx.TransportError:
                return 0


@contextlib.asynccontextmanager
async def serving(folder: Path, admin_host: str, tls: program.XdsServerTls) -> AsyncIterator[Serving]:
    admin, reports = HostPort(admin_host, unused_port()), HostPort("127.0.0.1", unused_port())
    options = xds_options(folder, admin_address=admin, reports_address=reports, tls=tls)
    async with program._programs(options):
        yield Serving(HostPort("127.0.0.1", admin.port), reports)


@pytest.mark.parametrize(
    ("host", "insecure", "status"), [("127.0.0.1", False, 200), ("0.0.0.0", False, 403), ("0.0.0.0", True, 200)]
)
async def test_without_tls_they_are_for_this_host_or_for_who_asked_for_it(tmp_path, host, insecure, status):
    async with serving(tmp_path, host, program.XdsServerTls(insecure=insecure)) as server:
        assert await server.asked(f"http://{server.admin}{PATH}") == status
        assert await server.asked(f"http://{server.admin}/livez") == 200
        assert await server.asked(f"http://{server.reports}{PATH}") == 0, "nobody listens"


async def test_with_tls_they_are_for_controllers_at_an_address_of_their_own(tmp_path):
    certificates = Certificates.make(tmp_path / "tls")
    certificate, key, ca = certificates.files("xds-server")
    async with serving(tmp_path, "127.0.0.1", program.XdsServerTls(certificate, key, ca)) as server:
        assert await server.asked(f"http://{server.admin}{PATH}") == 403
        url = f"https://{server.reports}{PATH}"
        statuses = {name: await server.asked(url, certificates, name) for name in ("controller", "gateway", "reader")}
        assert statuses == {"controller": 200, "gateway": 403, "reader": 403}
        assert await server.asked(f"http://{server.reports}{PATH}") == 0
        assert await server.asked(url) == 0, "without a certificate"
