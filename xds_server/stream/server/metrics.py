"""The figures of the xDS server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from xds_server.snapshot.snapshot import SHORT

PUSH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Metrics on one registry. The label `type` is CDS, EDS, LDS, RDS, SDS or `other`; for streams also ADS."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("beamlit_xds_streams", "Open client streams.", ["type"], registry=registry)
        self.responses = Counter("beamlit_xds_responses", "Responses sent.", ["type"], registry=registry)
        self.acks = Counter("beamlit_xds_acks", "Responses acknowledged.", ["type"], registry=registry)
        self.nacks = Counter("beamlit_xds_nacks", "Responses refused.", ["type"], registry=registry)
        self.push_seconds = Histogram(
            "beamlit_xds_push_seconds",
            "From a response to its ACK or NACK.",
            ["type"],
            registry=registry,
            buckets=PUSH_BUCKETS,
        )


def label(type_url: str | None) -> str:
    """Return the short name of a type; None is the aggregated stream."""
    return "ADS" if type_url is None else SHORT.get(type_url, "other")
