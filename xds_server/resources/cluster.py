"""The clusters of one model: its replicas, and the way back from its remote backend."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import Address, EnvoyInternalAddress
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from controller.api.route import HttpCheck
from xds_server.resources.encoding import encoded
from xds_server.resources.names import REMOTE
from xds_server.resources.packing import ADS, packed, resource
from xds_server.resources.saved import restoring
from xds_server.resources.upstream import (
    CHECKED,
    CHECKED_EVENLY,
    EVERY,
    answered_by,
    health_check,
    same_protocol_as_client,
)
from xds_server.snapshot.snapshot import Resource

# Trap 4: by default a tenth of the hosts may be ejected, so pools under ten never eject. Only what cannot be a matter
# of one request counts: connections that fail, and gateway errors one after another.
_OUTLIERS = OutlierDetection(
    max_ejection_percent=100,
    split_external_local_origin_errors=True,
    consecutive_local_origin_failure=2,
    consecutive_gateway_failure=3,
    enforcing_consecutive_gateway_failure=100,
    enforcing_consecutive_5xx=0,
    enforcing_success_rate=0,
    enforcing_local_origin_success_rate=0,
    interval=timedelta(milliseconds=500),
    base_ejection_time=timedelta(seconds=1),
    # A second, then one more each time: soon enough for a mishap, and seldom enough for what goes on failing.
    max_ejection_time=timedelta(seconds=10),
    # Or the next health check takes an ejection back, which knows nothing of requests: within a second, each time.
    successful_active_health_check_uneject_host=False,
)

# How many sets of headers are remembered with what gives them back; most models take off the same.
_REMEMBERED = 256

_LOCAL = bytes(
    Cluster(
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
        connect_timeout=timedelta(milliseconds=250),
        outlier_detection=_OUTLIERS,
    )
)


# An answer that does not begin in time counts like a connection that fails (Envoy, "Outlier detection", "Locally
# originated failures"). One slow answer behind another is no outlier; a replica that hangs has more than that.
_SLOW_ANSWERS_COUNT = OutlierDetection(consecutive_local_origin_failure=5)


def local_cluster(name: str, check: HttpCheck | None, *, is_hedged: bool, is_limited: bool) -> Resource:
    """Build the cluster of a model's replicas; they, and what comes after them, are told over EDS.

    Replicas are checked with `check`, or by connecting to them. The internal address of the remote side is not: its
    endpoint says so. `is_hedged` tells whether a late answer counts against a replica, `is_limited` whether each has a
    limit.
    """
    checked = health_check(check or HttpCheck(path="", interval=timedelta(seconds=1)))
    outliers = _SLOW_ANSWERS_COUNT if is_hedged else None
    common = (CHECKED_EVENLY if is_limited else CHECKED) + _LOCAL
    return resource(name, Cluster(name=name, health_checks=[checked], outlier_detection=outliers), common=common)


def fallback_cluster(name: str, listener: str, headers: tuple[str, ...]) -> Resource:
    """Build the cluster that gives `headers` back to a request and hands it to the internal listener `listener`."""
    cluster = Cluster(
        name=name,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=_internal(listener))])],
        ),
    )
    return resource(name, cluster, common=_giving_back(headers))


@lru_cache(_REMEMBERED)
def _giving_back(headers: tuple[str, ...]) -> bytes:
    restored = HttpFilter(name="restored", typed_config=packed(restoring(headers)))
    return EVERY + encoded(
        Cluster(
            type=ClusterDiscoveryType.STATIC,
            connect_timeout=timedelta(milliseconds=250),
            typed_extension_protocol_options=same_protocol_as_client(restored),
        )
    )


def remote_cluster(name: str, remote_listener: str, local_listener: str) -> Resource:
    """Build the cluster that hands a request as it is to the internal listener in front of a remote backend.

    A request that is not answered there is handed to the one in front of the replicas, whose answer says who gave it.
    """
    there = LbEndpoint(endpoint=_internal(remote_listener), metadata=answered_by(REMOTE))
    back = LbEndpoint(endpoint=_internal(local_listener))
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(priority=priority, lb_endpoints=[endpoint])
                for priority, endpoint in enumerate((there, back))
            ],
        ),
        connect_timeout=timedelta(milliseconds=250),
        typed_extension_protocol_options=same_protocol_as_client(),
    )
    return resource(name, cluster, common=EVERY)


def _internal(listener: str) -> Endpoint:
    return Endpoint(
        address=Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener)),
    )
