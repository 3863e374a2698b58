"""The routes of one model: the split and the retries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeFractionalPercent,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    ClusterSpecifierPlugin,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType
from envoy_data_plane.google.protobuf import Any as PackedAny

from controller.api.contract.route import REMOTE, Remote, RouteKey, Split
from xds_server.resources import names, priority_group
from xds_server.resources.confinement import refusals
from xds_server.resources.overflow import PATIENCE_FILTER, PATIENCE_OF_CLUSTER, local_until_full
from xds_server.resources.packing import NEVER
from xds_server.resources.retries import (
    ALONE,
    ON_THE_NEXT_CLUSTER,
    ON_THE_OTHER_SIDE,
    asked_again,
    helped_by_the_other_side,
)
from xds_server.resources.saved import STAYS_INSIDE, saved_headers, saving

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


class Bounds(NamedTuple):
    """What is asked of the replicas at most: how long they may take to begin an answer, and how many requests."""

    patience: timedelta | None = None
    limit: int | None = None
    """Of one Envoy, for all replicas together."""


def is_direct(remote: Remote, *, is_limited: bool) -> bool:
    """Tell whether requests go straight from the front to this remote backend.

    They go through the internal listener in front of it if there is something that the front could not take back:
    a credential of ours, or the time and the tries that the remote backend has, which are not those of a replica. So
    do all of a model whose replicas have a limit: who finds them full is not known before the request is made.
    """
    return not (remote.auth or remote.answer_timeout or remote.retries or is_limited)


def model_route(
    model: RouteKey, split: Split, remote: Remote | None, backend: str | None, bounds: Bounds
) -> RouteConfiguration:
    """Build the route configuration of one model: the split, and what becomes of a request that met no answer.

    `backend` is the cluster of the remote backend, None when nothing may leave: then `bounds` do not matter.
    """
    routes = [_local_route(model, split, remote, bounds)] if split.local else []
    if remote and backend and split.remote:
        routes += refusals(remote)
        is_limited = bounds.limit is not None
        routes.append(
            _remote_route(model, remote, backend) if is_direct(remote, is_limited=is_limited) else _guarded_route(model)
        )
    return RouteConfiguration(
        name=names.route_configuration(model),
        virtual_hosts=[VirtualHost(name="model", domains=["*"], routes=routes)],
    )


def to_backend(model: RouteKey, remote: Remote, backend: str) -> RouteConfiguration:
    """Build the route configuration of the internal listener in front of the remote backend.

    Path and host are rewritten here, since an upstream filter may not touch them (trap 3), and what belongs to the
    client or the cluster is taken off. An answer that takes too long becomes a 504, which the front sends again.
    """
    again = {"retry_policy": asked_again(remote.retries)} if remote.retries else {}
    route = Route(
        match=RouteMatch(prefix="/"),
        route=forwarding(backend, remote.answer_timeout or NEVER, **_rewritten_for(remote), **again),
        request_headers_to_remove=list(STAYS_INSIDE),
        request_headers_to_add=_added_for(remote),
    )
    return RouteConfiguration(
        name=names.remote_route_configuration(model),
        virtual_hosts=[VirtualHost(name="model", domains=["*"], routes=[*refusals(remote), route])],
    )


def forwarding(cluster: str | None, timeout: timedelta = NEVER, **more: Any) -> RouteAction:
    """Build what every route has in common.

    Trap 8: Envoy's default `timeout` ends every answer after 15 s, and generations take longer.
    """
    return RouteAction(
        cluster=cluster,
        timeout=timeout,
        upgrade_configs=[_WEBSOCKET],
        **more,
    )


def _rewritten_for(remote: Remote) -> dict[str, Any]:
    """Return how the path and the host of a request change on the way to a remote backend."""
    return {"prefix_rewrite": f"{remote.path_prefix.rstrip('/')}/", "host_rewrite_literal": remote.authority}


def _added_for(remote: Remote) -> list[HeaderValueOption]:
    """Return the headers that a remote backend is sent."""
    return [
        HeaderValueOption(
            # "%" begins a substitution in Envoy; a user's text is never one.
            header=HeaderValue(key=header.name, value=header.value.replace("%", "%%")),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
            # An empty value is left out by default, and what the client says in the header would stay.
            keep_empty_value=not header.value,
        )
        for header in remote.headers_to_add
    ]


def _local_route(model: RouteKey, split: Split, remote: Remote | None, bounds: Bounds) -> Route:
    share = RuntimeFractionalPercent(
        default_value=FractionalPercent(numerator=split.local, denominator=FractionalPercentDenominatorType.HUNDRED)
    )
    return Route(
        name=names.LOCAL,
        match=RouteMatch(prefix="/", runtime_fraction=share if split.remote else None),
        route=_to_replicas(model, bounds) if remote else forwarding(names.local_cluster(model), **ALONE),
        typed_per_filter_config={PATIENCE_FILTER: PATIENCE_OF_CLUSTER} if bounds.patience and bounds.limit else {},
        response_headers_to_add=[SIDE_THAT_ANSWERED],
    )


def _to_replicas(model: RouteKey, bounds: Bounds) -> RouteAction:
    """Build the action of a request that stays if the replicas answer it: within their bounds."""
    helped = helped_by_the_other_side(bounds.patience)
    if bounds.limit is None:
        return forwarding(names.local_first_cluster(model), **helped)
    return forwarding(None, inline_cluster_specifier_plugin=local_until_full(model, bounds.limit), **helped)


def _remote_route(model: RouteKey, remote: Remote, backend: str) -> Route:
    """Send a request straight to the remote backend; what would restore it costs something only when it is needed."""
    return Route(
        name=REMOTE,
        match=RouteMatch(prefix="/"),
        route=_in_turn([backend, names.fallback_cluster(model)], **_rewritten_for(remote)),
        typed_per_filter_config={SAVING_FILTER: saving(saved_headers(remote))},
        request_headers_to_remove=list(STAYS_INSIDE),
        request_headers_to_add=_added_for(remote),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
    )


def _guarded_route(model: RouteKey) -> Route:
    """Send a request, as it is, to the internal listener in front of a remote backend that is not reached directly.

    An upstream filter's own answer, such as that there is no credential, is sent to the client by Envoy without asking
    for a retry (envoy, `UpstreamFilterManager::sendLocalReply`). So the backend may not be the cluster of this route.
    """
    return Route(
        name=REMOTE,
        match=RouteMatch(prefix="/"),
        route=forwarding(names.remote_first_cluster(model), retry_policy=ON_THE_OTHER_SIDE),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
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
        retry_policy=ON_THE_NEXT_CLUSTER,
        **more,
    )
