"""The real cert-manager issues the certificates of a release, and the programs know each other by them."""

from __future__ import annotations

import base64
import json

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.chart import Chart
from tests.support.kube.release import ProcessRelease
from tests.support.kube.site import Site
from tests.support.waiting import until_now

MADE_BY_CERT_MANAGER = "certificates.source=cert-manager"
CERTIFICATES = "certificates.cert-manager.io"


async def test_cert_manager_issues_every_certificate_and_the_programs_serve_a_model_with_them(
    chart: Chart, site: Site
) -> None:
    release = ProcessRelease(site, chart, MADE_BY_CERT_MANAGER, "certificates.clients={gateway/edge-1}")
    made = sorted(one["metadata"]["name"] for one in release.objects if one["kind"] == "Certificate")
    names = ("ca", "xds-server", "controller", "gateway", "reader", "gateway-edge-1")
    assert made == sorted(f"{release.prefix}-{name}" for name in names)
    until_now(lambda: unready(site) == [], f"cert-manager has issued {unready(site)}", within=60)
    await release.all_ready()
    replica = site.backend("local-1")
    site.write(site.served("chat", [replica]))
    await site.until_condition("chat", "Programmed", "True")
    await site.until_answered(await site.port("chat"), "local-1")
    for program in (*site.xds_servers, *site.controllers):
        assert "error" not in program.log.lower(), program.log


async def test_what_cert_manager_issues_says_who_it_is_for_and_is_signed_by_the_authority_of_the_release(
    chart: Chart, site: Site
) -> None:
    release = ProcessRelease(site, chart, MADE_BY_CERT_MANAGER)
    until_now(lambda: unready(site) == [], f"cert-manager has issued {unready(site)}", within=60)
    server, gateway = (read(site, f"{release.prefix}-{name}-tls") for name in ("xds-server", "gateway"))
    authority = read(site, f"{release.prefix}-ca")
    for issued, grant, usage in (
        (server, "xds-server", ExtendedKeyUsageOID.SERVER_AUTH),
        (gateway, "gateway", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        issued.verify_directly_issued_by(authority)
        named = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert named.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://beamlit/{grant}"]
        assert list(issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def unready(site: Site) -> list[str]:
    """The Certificates that are not issued yet, each with what cert-manager says of it."""
    listed = json.loads(site.kubectl("get", CERTIFICATES, "--output=json"))["items"]
    said = {one["metadata"]["name"]: one.get("status", {}).get("conditions", []) for one in listed}
    return [
        f"{name}: {conditions}"
        for name, conditions in said.items()
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    ]


def read(site: Site, secret: str) -> x509.Certificate:
    """The certificate in a Secret."""
    data = json.loads(site.kubectl("get", "secret", secret, "--output=json"))["data"]
    return x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
