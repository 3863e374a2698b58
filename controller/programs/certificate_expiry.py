"""The metric that says until when the certificate of a program holds, so that nobody is surprised by its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class CertificateExpiry(Collector):
    """Reads the certificate that an option names (None: none is) whenever it is asked, for it is renewed meanwhile.

    What cannot be read has no sample.
    """

    def __init__(self, registry: CollectorRegistry, option: str, certificate: Path | None) -> None:
        self._option = option
        self._certificate = certificate
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector`."""
        words = "When the certificate that an option names ends, in seconds since the epoch."
        family = GaugeMetricFamily("beamlit_certificate_expiry_timestamp_seconds", words, labels=("option",))
        try:
            if self._certificate is not None:
                first = x509.load_pem_x509_certificate(self._certificate.read_bytes())
                family.add_metric((self._option,), first.not_valid_after_utc.timestamp())
        except (OSError, ValueError):
            pass
        yield family
