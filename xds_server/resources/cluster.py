"""The clusters of one model: its replicas, the ways to its remote backend and back, and one side behind the other."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import Address, EnvoyInternalAddress, Metadata
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.clusters.aggregate.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from controller.api.contract.route import REMOTE, HttpCheck
from controller.api.timing import GatewayTiming
from xds_server.resources.encoding import encoded
from xds_server.resources.packing import ADS, packed, resource
from xds_server.resources.saved import restoring
from xds_server.resources.upstream import (
    CHECKED,
    CHECKED_EVENLY,
    EVERY,
    TOLD_AT_ONCE,
    answered_by,
    health_check,
    same_protocol_as_client,
)
from xds_server.snapshot.snapshot import Resource

# Nothing is connected to: the next hop is in the same Envoy.
_AT_ONCE = timedelta(milliseconds=250)

# Trap 4: by default a tenth of the hosts may be ejected, so pools under ten never eject. Only what cannot be a matter
# of one request counts: connections that fail, and gateway errors one after another. How long is in `GatewayTiming`.
_OUTLIERS = OutlierDetection(
    max_ejection_percent=100,
    split_external_local_origin_errors=True,
    # With `firstByteTimeout`, an answer that does not begin in time counts like a connection that fails (Envoy,
    # "Outlier detection", "Locally originated failures"). Two slow answers in a row are no outlier; a replica that
    # hangs has more than that. It is so without it too, or a change of it would be one of the cluster.
    consecutive_local_origin_failure=5,
    consecutive_gateway_failure=3,
    enforcing_consecutive_gateway_failure=100,
    enforcing_consecutive_5xx=0,
    enforcing_success_rate=0,
    enforcing_local_origin_success_rate=0,
    # Or the next health check takes an ejection back, which knows nothing of requests: within a second, each time.
    successful_active_health_check_uneject_host=False,
)

# The remote side is believed well as long as nothing says otherwise, and Envoy tries everything only when nothing is
# believed to work (docs/adr/0006). Five failures in a row say otherwise, for a moment: a remote backend that fails now
# and then is asked all the same for what leaves, and so is one that takes longer than `firstByteTimeout`.
_REMOTE_OUTLIERS = replace(_OUTLIERS, consecutive_gateway_failure=5, enforcing_consecutive_local_origin_failure=0)

# How many sets of headers are remembered with what gives them back; most models take off the same.
_REMEMBERED = 256

_IN_TURN = EVERY + bytes(
    Cluster(
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        connect_timeout=_AT_ONCE,
        typed_extension_protocol_options=same_protocol_as_client(),
    )
)


def local_cluster(name: str, check: HttpCheck | None, timing: GatewayTiming, *, is_alone: bool) -> Resource:
    """Build the cluster of a model's replicas, told over EDS, and checked with `check` or by connecting to them.

    It is the same whatever else is asked of the model: a cluster that changes has nothing in flight again, as Envoy
    counts it. But one that has no remote behind it is alone, and then a retry has to find another replica: the one with
    the fewest requests may be the one that fails them, and it would be that one each time.
    """
    usual = HttpCheck(path="", interval=timedelta(seconds=timing.check_near_every))
    checked = health_check(check or usual, timedelta(seconds=timing.check_again_within))
    common = _local(timing) + (CHECKED if is_alone else CHECKED_EVENLY)
    return resource(name, Cluster(name=name, health_checks=[checked]), common=common)


@lru_cache(1)
def _local(timing: GatewayTiming) -> bytes:
    outliers = replace(
        _OUTLIERS,
        interval=timedelta(seconds=timing.outliers_every),
        base_ejection_time=timedelta(seconds=timing.first_ejection),
        max_ejection_time=timedelta(seconds=timing.longest_ejection),
    )
    return bytes(
        Cluster(
            type=ClusterDiscoveryType.EDS,
            eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
            connect_timeout=timedelta(seconds=timing.connect_near),
            outlier_detection=outliers,
        )
    )


def one_after_the_other(name: str, first: str, second: str, metadata: Metadata | None = None) -> Resource:
    """Build the cluster that goes to the first of two, and to the second if that has nobody, or for a retry.

    What is in flight is counted by the one that has it (Envoy, "Aggregate cluster"). What upstream filters and limits
    there are is by this one.
    """
    in_turn = ClusterCustomClusterType(
        name="envoy.clusters.aggregate", typed_config=packed(ClusterConfig(clusters=[first, second]))
    )
    return resource(name, Cluster(name=name, cluster_type=in_turn, metadata=metadata), common=_IN_TURN)


def remote_cluster(name: str, listener: str, timing: GatewayTiming) -> Resource:
    """Build the cluster that hands a request as it is to the internal listener in front of a remote backend."""
    endpoint = LbEndpoint(endpoint=_internal(listener), metadata=answered_by(REMOTE))
    return resource(name, _static(name, endpoint), common=_HANDING_ON + _watched(timing))


def fallback_cluster(name: str, listener: str, headers: tuple[str, ...]) -> Resource:
    """Build the cluster that gives `headers` back to a request and hands it to the internal listener `listener`."""
    return resource(name, _static(name, LbEndpoint(endpoint=_internal(listener))), common=_giving_back(headers))


@lru_cache(_REMEMBERED)
def _giving_back(headers: tuple[str, ...]) -> bytes:
    restored = HttpFilter(name="restored", typed_config=packed(restoring(headers)))
    return _handing_on(restored)


def _handing_on(*upstream_filters: HttpFilter) -> bytes:
    return EVERY + encoded(
        Cluster(
            type=ClusterDiscoveryType.STATIC,
            connect_timeout=_AT_ONCE,
            typed_extension_protocol_options=same_protocol_as_client(*upstream_filters),
        )
    )


_HANDING_ON = _handing_on()


@lru_cache(1)
def _watched(timing: GatewayTiming) -> bytes:
    not_believed = timedelta(seconds=timing.remote_not_believed)
    outliers = replace(
        _REMOTE_OUTLIERS,
        interval=timedelta(seconds=timing.outliers_every),
        base_ejection_time=not_believed,
        max_ejection_time=not_believed,
    )
    return bytes(Cluster(common_lb_config=TOLD_AT_ONCE, outlier_detection=outliers))


def _static(name: str, endpoint: LbEndpoint) -> Cluster:
    sides = [LocalityLbEndpoints(lb_endpoints=[endpoint])]
    return Cluster(name=name, load_assignment=ClusterLoadAssignment(cluster_name=name, endpoints=sides))


def _internal(listener: str) -> Endpoint:
    return Endpoint(
        address=Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener)),
    )
