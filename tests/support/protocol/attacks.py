"""What clients say that mean harm: messages that are soon sent, and would take long to read.

Each family is of one method of the xDS server: what is refused, and `most`, which is all that is taken in one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2
from google.rpc import status_pb2

from xds_server.snapshot.snapshot import CLUSTER
from xds_server.stream.limits import OF_MEMBERS

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
DELTA, SOTW = ADS + "DeltaAggregatedResources", ADS + "StreamAggregatedResources"
LOADS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
REFUSALS = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)

Say = Callable[[str], bytes]
"""Writes a message of a client that carries this node token."""

_ALMOST_ALL = 4_190_000
"""Bytes of a message that are left beside who the client is, of the 4 MiB that gRPC takes."""
_NO_END = b"\xff" * 1_000_000


@dataclass(frozen=True, slots=True)
class Family:
    """The attacks on one method."""

    name: str
    method: str
    attacks: Mapping[str, Say]
    most: Say


def delta(token: str, **said: Any) -> discovery_pb2.DeltaDiscoveryRequest:
    """A request of a client that says who it is."""
    return _introduced(discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, **said), token)


def sotw(token: str, **said: Any) -> discovery_pb2.DiscoveryRequest:
    """The same in state of the world."""
    return _introduced(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, **said), token)


def report(token: str, clusters: int = 0) -> lrs_pb2.LoadStatsRequest:
    """A report of an Envoy that says who it is, on so many clusters with requests."""
    request = _introduced(lrs_pb2.LoadStatsRequest(), token)
    for number in range(clusters):
        stats = request.cluster_stats.add(cluster_name=f"default/model-{number}/local")
        stats.load_report_interval.seconds = 1
        stats.upstream_locality_stats.add(total_issued_requests=1, total_successful_requests=1)
    return request


def repeated(number: int, content: bytes, size: int = _ALMOST_ALL) -> bytes:
    """So many bytes of one field, again and again with this content."""
    one = bytes([number << 3 | 2, len(content)]) + content
    return one * (size // len(one))


def whole(number: int, content: bytes) -> bytes:
    """One field with any content."""
    size, left = b"", len(content)
    while left > 0x7F:
        size, left = size + bytes([left & 0x7F | 0x80]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + content


def _introduced(request: Any, token: str) -> Any:
    request.node.id, request.node.metadata["beamlit_token"] = "hostile", token
    return request


def _bytes(request: Any) -> bytes:
    raw: bytes = request.SerializeToString()
    return raw


def _extensions(node: int) -> bytes:
    """A node of a million empty extensions: two seconds to parse."""
    return whole(node, repeated(9, b"", 2_000_000))


def _with_details(request: Any) -> bytes:
    for _ in range(200_000):
        request.error_detail.details.add()
    return _bytes(request)


def _names(count: int) -> list[str]:
    return [f"{number:x}" for number in range(count)]


_TEXT = status_pb2.Status(code=13, message="no " * 333_333)


def _on_discovery(said: Callable[..., Any], node: int) -> Mapping[str, Say]:
    """The attacks on both dialects: by what writes a request, and the number of its field `node`."""
    return {
        "names": lambda token: _bytes(said(token)) + repeated(3, b"a"),
        "no names": lambda token: _bytes(said(token)) + repeated(3, b""),
        "extensions": lambda token: _extensions(node) + _bytes(said(token)),
        "details": lambda token: _with_details(said(token)),
        "text": lambda token: _bytes(said(token, response_nonce="x", error_detail=_TEXT)),
        "too large": lambda token: _bytes(said(token)) + repeated(3, b"a", 4_800_000),
        "a number that does not end": lambda token: _bytes(said(token)) + _NO_END,
    }


FAMILIES = (
    Family(
        "delta",
        DELTA,
        {
            **_on_discovery(delta, node=1),
            "given up": lambda token: _bytes(delta(token)) + repeated(4, b"a"),
            "versions": lambda token: _bytes(
                delta(
                    token,
                    resource_names_subscribe=["*"],
                    initial_resource_versions=dict.fromkeys(_names(200_000), "1"),
                )
            ),
        },
        most=lambda token: _bytes(delta(token, resource_names_subscribe=_names(OF_MEMBERS.names))),
    ),
    Family(
        "sotw",
        SOTW,
        {
            **_on_discovery(sotw, node=2),
            "types": lambda token: _bytes(sotw(token)) + repeated(4, b"a"),
            "locators": lambda token: _bytes(sotw(token)) + repeated(7, b""),
        },
        most=lambda token: _bytes(sotw(token, resource_names=_names(OF_MEMBERS.names))),
    ),
    Family(
        "loads",
        LOADS,
        {
            "clusters": lambda token: _bytes(report(token)) + repeated(2, b""),
            "localities": lambda token: _bytes(report(token)) + whole(2, repeated(2, b"")),
            "localities of many": lambda token: _bytes(report(token)) + whole(2, repeated(2, b"", 2_000)) * 2_000,
            "metrics": lambda token: _bytes(report(token)) + whole(2, whole(2, repeated(5, b"", 2_000))) * 2_000,
            "extensions": lambda token: _extensions(1) + _bytes(report(token)),
            "a number that does not end": lambda token: _bytes(report(token)) + _NO_END,
        },
        most=lambda token: _bytes(report(token, OF_MEMBERS.names)),
    ),
)
