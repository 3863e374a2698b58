"""Between the bytes of load reporting (LRS) and values: `envoy.service.load_stats.v3`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from envoy.config.endpoint.v3.load_report_pb2 import ClusterStats
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from xds_server.stream.limits import MalformedRequestError, TooLargeError, look_through, parts, without
from xds_server.stream.protocol.parts import Parts
from xds_server.stream.wire import NOBODY, Node, node_of

SUPPORTS_ALL = "envoy.lrs.supports_send_all_clusters"
_LIST = 2, "cluster_stats"
_MOST_ENTRIES = 50_000
"""In a report: clusters, their localities, and metrics of those. To read one takes one to three microseconds."""
_MOST_OF_A_PART = 4_000
"""Of these in a part of 40 KiB: what an Envoy names has a name, or numbers."""


@dataclass(frozen=True, slots=True)
class LocalityLoad:
    """What became of the requests to one locality of a cluster since the report before, and how many are in flight.

    Envoy counts what it sends: a request that is tried twice is two. What ended need not have begun in the same report.
    `metrics` says how many answers brought which metric, for those that the cluster names.
    """

    issued: int
    succeeded: int
    failed: int
    in_flight: int
    metrics: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterLoad:
    """One cluster in a report that covers so many seconds. A locality without requests is left out."""

    cluster: str
    seconds: float
    localities: tuple[LocalityLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportedLoads:
    """One report: the names of all its clusters, what is told of those with requests, and the seconds that it covers.

    Envoy names every cluster that it has in every report. Of most of them there is nothing else to say.
    """

    names: frozenset[str] = frozenset()
    busy: tuple[ClusterLoad, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, clusters: Iterable[ClusterLoad]) -> Self:
        """Build the report of these clusters."""
        every = tuple(clusters)
        return cls(
            names=frozenset(one.cluster for one in every),
            busy=tuple(one for one in every if one.localities),
            seconds=max((one.seconds for one in every), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class LoadStream:
    """Which client reports, and since when: its node id, and when the stream began in seconds since the epoch."""

    node: str
    began: float


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One message of a client: who it is (in the first one), what it can do, and its report."""

    node: Node
    supports_all: bool
    loads: ReportedLoads


@dataclass(frozen=True, slots=True)
class LoadTerms:
    """What a client shall report: how often, in seconds, and on which clusters; None stands for all of them."""

    interval: float
    clusters: frozenset[str] | None


def parse_introduction(raw: bytes) -> Parts[LoadRequest]:
    """Parse who somebody is, and not what is reported. Raises as `parse_load_request`."""
    yield from look_through(raw, dict([_LIST]))
    yield
    return _request(_message(without(raw, _LIST[:1])), ReportedLoads())


def parse_load_request(raw: bytes) -> LoadRequest:
    """Parse a LoadStatsRequest. Raises MalformedRequestError, TooLargeError and UnknownRoleError."""
    return joined(parse_in_parts(raw))


def parse_in_parts(raw: bytes) -> Iterator[LoadRequest]:
    """Parse a LoadStatsRequest part by part: each takes some milliseconds at most, and others may go on between them.

    `joined` makes one of them. Raises MalformedRequestError, TooLargeError and UnknownRoleError.
    """
    left = _MOST_ENTRIES
    for part in parts(raw, *_LIST):
        message = _message(part)
        busy = [one for one in message.cluster_stats if one.upstream_locality_stats]
        entries = len(message.cluster_stats) + sum(map(_size, busy))
        left -= entries
        if left < 0 or entries > _MOST_OF_A_PART:
            raise TooLargeError(
                f"the report has more than {_MOST_ENTRIES} clusters, localities and metrics, or {_MOST_OF_A_PART} "
                "in 40 KiB, the most that are taken"
            )
        yield _request(message, _loads(message.cluster_stats, busy))


def joined(requests: Iterable[LoadRequest]) -> LoadRequest:
    """Return the request that these are the parts of."""
    every = list(requests)
    busy = tuple(load for one in every for load in one.loads.busy)
    # A cluster that is new in the report covers less of it; where nobody had requests, that makes no rate another one.
    covered = [one.seconds for one in busy] or [one.loads.seconds for one in every]
    names = frozenset[str]().union(*(one.loads.names for one in every))
    return LoadRequest(
        node=next((one.node for one in every if one.node != NOBODY), NOBODY),
        supports_all=any(one.supports_all for one in every),
        loads=ReportedLoads(names, busy, max(covered, default=0.0)),
    )


def _message(raw: bytes) -> lrs_pb2.LoadStatsRequest:
    try:
        return lrs_pb2.LoadStatsRequest.FromString(raw)
    except DecodeError:
        raise MalformedRequestError("the message is not a load report") from None


def _request(message: lrs_pb2.LoadStatsRequest, loads: ReportedLoads) -> LoadRequest:
    return LoadRequest(
        node=node_of(message.node) if message.HasField("node") else NOBODY,
        supports_all=SUPPORTS_ALL in message.node.client_features,
        loads=loads,
    )


def _size(stats: ClusterStats) -> int:
    """Count the localities of a cluster, and their metrics."""
    localities = stats.upstream_locality_stats
    return len(localities) + sum([len(one.load_metric_stats) for one in localities])


def pack_load_terms(terms: LoadTerms) -> bytes:
    """Serialise a LoadStatsResponse."""
    message = lrs_pb2.LoadStatsResponse(send_all_clusters=terms.clusters is None, clusters=sorted(terms.clusters or ()))
    message.load_reporting_interval.FromMicroseconds(round(terms.interval * 1_000_000))
    packed: bytes = message.SerializeToString()
    return packed


def _loads(clusters: Sequence[ClusterStats], with_requests: Sequence[ClusterStats]) -> ReportedLoads:
    """Read a report. A cluster without requests costs no more than its name: there are thousands, every second."""
    busy = [_cluster(one) for one in with_requests]
    # A cluster that is new in the report covers less of it; where nobody had requests, that makes no rate another one.
    covered = [one.seconds for one in busy] or [_seconds(one) for one in clusters[:1]]
    return ReportedLoads(
        names=frozenset([one.cluster_name for one in clusters]), busy=tuple(busy), seconds=max(covered, default=0.0)
    )


def _seconds(stats: ClusterStats) -> float:
    interval = stats.load_report_interval
    return float(interval.seconds + interval.nanos / 1e9)


def _cluster(stats: ClusterStats) -> ClusterLoad:
    localities = tuple(
        LocalityLoad(
            one.total_issued_requests,
            one.total_successful_requests,
            one.total_error_requests,
            one.total_requests_in_progress,
            tuple((metric.metric_name, metric.num_requests_finished_with_metric) for metric in one.load_metric_stats)
            if one.load_metric_stats
            else (),
        )
        for one in stats.upstream_locality_stats
    )
    return ClusterLoad(stats.cluster_name, _seconds(stats), localities)
