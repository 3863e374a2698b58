"""The routes of one model: the split and the retries."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeFractionalPercent,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    ClusterSpecifierPlugin,
    HeaderMatcher,
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
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType
from envoy_data_plane.google.protobuf import Any as PackedAny

from controller.api.route import RemoteRoute, Split
from xds_server.protos import priority_group
from xds_server.resources import names
from xds_server.resources.names import ModelKey
from xds_server.resources.packing import NEVER, packed
from xds_server.resources.saved import STAYS_INSIDE, saved_headers, saving

# Sent again, once: a request that reached nobody (connect failure, refused stream), was cut off before the answer began
# (reset), or met a gateway error. Any other answer is the client's. Two upstream requests at the very worst.
_RETRIED = RetryPolicy(
    retry_on="connect-failure,refused-stream,reset,retriable-status-codes",
    retriable_status_codes=[502, 503, 504],
    num_retries=1,
    retry_back_off=RetryPolicyRetryBackOff(
        base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
    ),
)

# What comes through the internal listener in front of the remote backend may be an answer of that listener. To gRPC it
# has the status 200 (trap 13), so it is known by its header.
UNANSWERED = HeaderValueOption(header=HeaderValue(key=names.UNANSWERED_HEADER, value="1"))
_RETRIED_IF_UNANSWERED = replace(
    _RETRIED,
    retry_on=f"{_RETRIED.retry_on},retriable-headers",
    retriable_headers=[HeaderMatcher(name=names.UNANSWERED_HEADER, present_match=True)],
)

# The retry skips the priority that was tried, so it goes to the other side.
_ON_THE_OTHER_SIDE = replace(
    _RETRIED_IF_UNANSWERED,
    retry_priority=RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=packed(PreviousPrioritiesConfig(update_frequency=1)),
    ),
)

# The retry asks the cluster specifier again, which names the fallback cluster for it.
_ON_THE_NEXT_CLUSTER = replace(_RETRIED, refresh_cluster_on_retry=True)
_ON_THE_NEXT_CLUSTER_IF_UNANSWERED = replace(_RETRIED_IF_UNANSWERED, refresh_cluster_on_retry=True)

# There is no other side: the retry goes to another replica.
_ON_ANOTHER_REPLICA = replace(
    _RETRIED,
    retry_host_predicate=[
        RetryPolicyRetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
        )
    ],
    host_selection_retry_max_attempts=5,
)

_WEBSOCKET = RouteActionUpgradeConfig(upgrade_type="websocket")

SIDE_THAT_ANSWERED = HeaderValueOption(
    header=HeaderValue(
        key=names.ROUTE_HEADER, value=f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:{names.METADATA_KEY})%"
    ),
    # A replica or a remote backend that sets the header itself is not believed.
    append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
)

# The filter of the front listener that keeps what a request loses on its way out; only the remote route turns it on.
SAVING_FILTER = "beamlit.saving"


def model_route(model: ModelKey, split: Split, remote: RemoteRoute | None, backend: str | None) -> RouteConfiguration:
    """Build the route configuration of one model: the split, and what becomes of a request that met no answer.

    `backend` is the cluster of the remote backend, None when nothing may leave.
    """
    routes = [_local_route(model, split, remote)] if split.local else []
    if remote and backend and split.remote:
        routes.append(_guarded_route(model) if remote.auth else _remote_route(model, remote, backend))
    return RouteConfiguration(
        name=names.route_configuration(model),
        virtual_hosts=[VirtualHost(name="model", domains=["*"], routes=routes)],
    )


def to_backend(model: ModelKey, remote: RemoteRoute, backend: str) -> RouteConfiguration:
    """Build the route configuration of the internal listener in front of the remote backend.

    Path and host are rewritten here, since an upstream filter may not touch them (trap 3), and what belongs to the
    client or the cluster is taken off.
    """
    route = Route(
        match=RouteMatch(prefix="/"),
        route=forwarding(backend, **_rewritten_for(remote)),
        request_headers_to_remove=list(STAYS_INSIDE),
        request_headers_to_add=_added_for(remote),
        response_headers_to_remove=[names.UNANSWERED_HEADER],  # nobody else may say so; Envoy itself adds it later
    )
    return RouteConfiguration(
        name=names.remote_route_configuration(model),
        virtual_hosts=[VirtualHost(name="model", domains=["*"], routes=[route])],
    )


def forwarding(cluster: str | None, **more: Any) -> RouteAction:
    """Build what every route has in common."""
    return RouteAction(
        cluster=cluster,
        # Trap 8: the default ends every answer after 15 s, and generations take longer.
        timeout=NEVER,
        upgrade_configs=[_WEBSOCKET],
        **more,
    )


def _rewritten_for(remote: RemoteRoute) -> dict[str, Any]:
    """Return how the path and the host of a request change on the way to a remote backend."""
    return {"prefix_rewrite": f"{remote.path_prefix.rstrip('/')}/", "host_rewrite_literal": remote.authority}


def _added_for(remote: RemoteRoute) -> list[HeaderValueOption]:
    """Return the headers that a remote backend is sent."""
    return [
        HeaderValueOption(
            # "%" begins a substitution in Envoy; a user's text is never one.
            header=HeaderValue(key=header.name, value=header.value.replace("%", "%%")),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for header in remote.headers_to_add
    ]


def _local_route(model: ModelKey, split: Split, remote: RemoteRoute | None) -> Route:
    share = RuntimeFractionalPercent(
        default_value=FractionalPercent(numerator=split.local, denominator=FractionalPercentDenominatorType.HUNDRED)
    )
    return Route(
        name=names.LOCAL,
        match=RouteMatch(prefix="/", runtime_fraction=share if split.remote else None),
        route=forwarding(
            names.local_cluster(model), retry_policy=_ON_THE_OTHER_SIDE if remote else _ON_ANOTHER_REPLICA
        ),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
        response_headers_to_remove=[names.UNANSWERED_HEADER],
    )


def _remote_route(model: ModelKey, remote: RemoteRoute, backend: str) -> Route:
    """Send a request straight to the remote backend; what would restore it costs something only when it is needed."""
    return Route(
        name=names.REMOTE,
        match=RouteMatch(prefix="/"),
        route=_in_turn([backend, names.fallback_cluster(model)], **_rewritten_for(remote)),
        typed_per_filter_config={SAVING_FILTER: saving(saved_headers(remote))},
        request_headers_to_remove=list(STAYS_INSIDE),
        request_headers_to_add=_added_for(remote),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
    )


def _guarded_route(model: ModelKey) -> Route:
    """Send a request, as it is, to the internal listener in front of a remote backend that gets a credential of ours.

    An upstream filter's own answer, such as that there is no credential, is sent to the client by Envoy without asking
    for a retry (envoy, `UpstreamFilterManager::sendLocalReply`). So the backend may not be the cluster of this route.
    """
    return Route(
        name=names.REMOTE,
        match=RouteMatch(prefix="/"),
        route=_in_turn(
            [names.remote_cluster(model), names.local_cluster(model)],
            retry_policy=_ON_THE_NEXT_CLUSTER_IF_UNANSWERED,
        ),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
        response_headers_to_remove=[names.UNANSWERED_HEADER],
    )


def _in_turn(clusters: list[str], **more: Any) -> RouteAction:
    """Build the action that goes to the first of these clusters, and with its retry to the second."""
    return forwarding(
        None,
        inline_cluster_specifier_plugin=ClusterSpecifierPlugin(
            extension=TypedExtensionConfig(
                name="remote_then_fallback",
                typed_config=PackedAny(
                    type_url=priority_group.TYPE_URL, value=priority_group.priority_groups(clusters)
                ),
            )
        ),
        **{"retry_policy": _ON_THE_NEXT_CLUSTER, **more},
    )
