"""The words for what a check found."""

import pytest

from xds_server.health import outcome
from xds_server.health.backend import Address

ADDRESS = Address("models.example", 8443)


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (
            outcome.not_resolved("models.example", "Name or service not known"),
            "NameNotResolved",
            "models.example cannot be resolved: Name or service not known",
        ),
        (
            outcome.host_refused("models.example"),
            "HostRefused",
            "models.example leads to an address that is refused",
        ),
        (
            outcome.not_connected(ADDRESS, "connection refused"),
            "NotConnected",
            "models.example:8443 cannot be connected to: connection refused",
        ),
        (
            outcome.certificate_not_accepted(ADDRESS, "other.example", 62, ""),
            "CertificateNotAccepted",
            "the certificate of models.example:8443 is not for other.example",
        ),
        (
            outcome.certificate_not_accepted(ADDRESS, "x", 20, ""),
            "CertificateNotAccepted",
            "the certificate of models.example:8443 leads to no authority that is trusted",
        ),
        (
            outcome.certificate_not_accepted(ADDRESS, "x", 10, ""),
            "CertificateNotAccepted",
            "the certificate of models.example:8443 has expired",
        ),
        (
            outcome.certificate_not_accepted(ADDRESS, "x", 9, ""),
            "CertificateNotAccepted",
            "the certificate of models.example:8443 is not valid yet",
        ),
        (
            outcome.certificate_not_accepted(ADDRESS, "x", 23, "certificate revoked"),
            "CertificateNotAccepted",
            "the certificate of models.example:8443 is not accepted: certificate revoked",
        ),
        (
            outcome.no_tls(ADDRESS, "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            "ClientCertificateNotAccepted",
            "models.example:8443 asks for a client certificate, or refuses ours",
        ),
        (
            outcome.no_tls(ADDRESS, "TLSV1_ALERT_UNKNOWN_CA"),
            "ClientCertificateNotAccepted",
            "models.example:8443 asks for a client certificate, or refuses ours",
        ),
        (
            outcome.no_tls(ADDRESS, "WRONG_VERSION_NUMBER"),
            "TlsNotAgreed",
            "models.example:8443 does not agree on TLS: it answers with something else",
        ),
        (
            outcome.no_tls(ADDRESS, ""),
            "TlsNotAgreed",
            "models.example:8443 does not agree on TLS: the connection breaks",
        ),
        (
            outcome.no_token("auth.example answers 401 (invalid_client)"),
            "TokenNotIssued",
            "no token is issued: auth.example answers 401 (invalid_client)",
        ),
        (
            outcome.not_answered("GET /healthz", "timed out"),
            "NoAnswer",
            "GET /healthz is not answered: timed out",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(error, reason, message):
    assert error.outcome == outcome.CheckOutcome(False, reason, message)


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (204, False), (302, False), (404, False), (503, False)])
def test_only_a_200_is_healthy_as_for_envoy(status, healthy):
    found = outcome.answer_to("/healthz", status)
    assert (found.healthy, found.message) == (healthy, f"GET /healthz answers {status}")


def test_an_address_is_written_as_in_a_url():
    assert (str(Address("fd00::1", 80)), str(ADDRESS)) == ("[fd00::1]:80", "models.example:8443")
