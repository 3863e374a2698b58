"""From when until when the certificate of a program holds, as Prometheus is told."""

from datetime import UTC, datetime

import trustme
from prometheus_client import CollectorRegistry

from controller.programs.certificate_expiry import CertificateExpiry


def test_it_is_that_of_the_file_also_after_it_was_renewed(tmp_path):
    file, registry = tmp_path / "tls.crt", CollectorRegistry()
    CertificateExpiry(registry, "--tls-cert", file)

    def shown():
        names = (f"beamlit_certificate_{what}_timestamp_seconds" for what in ("start", "expiry"))
        return [registry.get_sample_value(name, {"option": "--tls-cert"}) for name in names]

    assert shown() == [None, None]
    for year in (2031, 2032):
        begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year, 4, 1, tzinfo=UTC)
        trustme.CA().issue_cert("xds", not_before=begin, not_after=end).cert_chain_pems[0].write_to_path(str(file))
        assert shown() == [begin.timestamp(), end.timestamp()]
    file.write_text("no certificate")
    assert shown() == [None, None]


def test_without_tls_there_is_none():
    registry = CollectorRegistry()
    CertificateExpiry(registry, "--tls-cert", None)
    assert registry.get_sample_value("beamlit_certificate_expiry_timestamp_seconds", {"option": "--tls-cert"}) is None
