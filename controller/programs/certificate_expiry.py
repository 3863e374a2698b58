"""From when until when the certificate of a program holds, as metrics: nobody shall be surprised by its end."""

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
        starts, ends = (
            GaugeMetricFamily(
                f"beamlit_certificate_{what}_timestamp_seconds",
                f"When the certificate that an option names {words}, in seconds since the epoch.",
                labels=("option",),
            )
            for what, words in (("start", "starts to hold"), ("expiry", "ends"))
        )
        try:
            if self._certificate is not None:
                first = x509.load_pem_x509_certificate(self._certificate.read_bytes())
                starts.add_metric((self._option,), first.not_valid_before_utc.timestamp())
                ends.add_metric((self._option,), first.not_valid_after_utc.timestamp())
        except (OSError, ValueError):
            pass
        yield from (starts, ends)
