"""The route of one model: the split and the retries."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption, HeaderValueOptionHeaderAppendAction
from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig

from controller.api.route import ModelRoute
from xds_server.resources import names
from xds_server.resources.names import ModelKey
from xds_server.resources.packing import NEVER, packed

# One retry, on the other side: the retry skips the priority that was tried. A request that reached nobody (connect
# failure, refused stream), was cut off before the answer began (reset), or met a gateway error may be sent again; any
# other answer is the client's. Two upstream requests at the very worst.
RETRY = RetryPolicy(
    retry_on="connect-failure,refused-stream,reset,retriable-status-codes",
    retriable_status_codes=[502, 503, 504],
    num_retries=1,
    retry_priority=RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=packed(PreviousPrioritiesConfig(update_frequency=1)),
    ),
    retry_host_predicate=[
        RetryPolicyRetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
        )
    ],
    host_selection_retry_max_attempts=5,
    retry_back_off=RetryPolicyRetryBackOff(
        base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
    ),
)

_SIDE_THAT_ANSWERED = HeaderValueOption(
    header=HeaderValue(
        key=names.ROUTE_HEADER, value=f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:{names.METADATA_KEY})%"
    ),
    # A replica or a remote backend that sets the header itself is not believed.
    append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
)


def model_route(model: ModelKey, route: ModelRoute) -> RouteConfiguration:
    """Build the route configuration of one model."""
    return RouteConfiguration(
        name=names.route_configuration(model),
        virtual_hosts=[
            VirtualHost(
                name="model",
                domains=["*"],
                routes=[
                    Route(
                        match=RouteMatch(prefix="/"),
                        route=RouteAction(
                            weighted_clusters=WeightedCluster(clusters=_weights(model, route)),
                            retry_policy=RETRY,
                            # Trap 8: the default ends every answer after 15 s, and generations take longer.
                            timeout=NEVER,
                            upgrade_configs=[RouteActionUpgradeConfig(upgrade_type="websocket")],
                        ),
                        response_headers_to_add=[_SIDE_THAT_ANSWERED],
                    )
                ],
            )
        ],
    )


def _weights(model: ModelKey, route: ModelRoute) -> list[WeightedClusterClusterWeight]:
    local = WeightedClusterClusterWeight(name=names.local_cluster(model), weight=route.split.local)
    if route.remote is None:
        return [local]
    return [local, WeightedClusterClusterWeight(name=names.remote_cluster(model), weight=route.split.remote)]
