"""The route configurations of one route: the shares, the retries, and what may not leave.

A request of a client is matched with the routes of the front in turn. The first is for the replicas, then there is one
for each remote backend that gets a share. Envoy draws one number for a request and compares it with the fraction of
each route (envoy, `RouteEntryImplBase::evaluateRuntimeMatch`), so fractions are cumulative: with shares of 50, 30 and
20 they are 50, 80, and none, which takes what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Metadata,
    RuntimeFractionalPercent,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    ClusterSpecifierPlugin,
    DirectResponseAction,
    HeaderMatcher,
    HedgePolicy,
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
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct, Value

from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.contract.route import Remote, RouteKey, Shares
from controller.api.schema.client_headers import PRIVATE
from xds_server.resources import names, priority_group
from xds_server.resources.access_log import told_to_log
from xds_server.resources.clusters import BUFFER_LIMIT_BYTES
from xds_server.resources.encoding import NO_TIMEOUT, packed
from xds_server.resources.loops import leaving_signature
from xds_server.resources.original_request import changed_headers, saving_filter
from xds_server.resources.overflow import TRY_TIMEOUT_FILTER, TRY_TIMEOUT_OF_CLUSTER, local_until_full
from xds_server.resources.rate_limit import limits_of_route

_WEBSOCKET = RouteActionUpgradeConfig(upgrade_type="websocket")

SIDE_HEADER = HeaderValueOption(
    header=HeaderValue(
        key=names.ROUTE_HEADER, value=f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:{names.METADATA_KEY})%"
    ),
    # A replica or a remote backend that sets the header itself is not believed.
    append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
)

# Only a request that is to become a WebSocket still has this header here. The next proxy takes off whatever else a
# client lists in it (RFC 9110, section 7.6.1): the credential of a remote backend, or the signature that ends loops.
_UPGRADE_ALONE = HeaderValueOption(
    header=HeaderValue(key="connection", value="Upgrade"),
    append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS,
)

# The filter of the front listener that saves what a request loses on its way out; only a remote route turns it on.
SAVING_FILTER = "beamlit.saving"

# Sent again, once: a request that reached nobody (connect failure, refused stream), was cut off before the answer began
# (reset), or met a gateway error. Any other answer is the client's. Two upstream requests at the very worst, or one for
# each side if there are several remote backends.
# gRPC has one status for what 502, 503 and 504 say, UNAVAILABLE (gRPC, "HTTP to gRPC Status Code Mapping"), and Envoy's
# own answers have it too, those of the internal listeners above all. After a message it is in the trailers of an answer
# that has begun.
# Trap 19: a 408 says that the server waited for a request. It answers nothing that the client sent if it met the
# request on the way, and that may be sent again (RFC 9110, section 15.5.9). Model servers say it also of an answer that
# took too long, which is a 504 by another name.
_RETRIED = RetryPolicy(
    retry_on="connect-failure,refused-stream,reset,retriable-status-codes,unavailable",
    retriable_status_codes=[408, 502, 503, 504],
    num_retries=1,
    retry_back_off=RetryPolicyRetryBackOff(
        base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
    ),
)

# The retry skips the priority that was tried, so it goes to another side.
_RETRIED_ON_OTHER_SIDE = replace(
    _RETRIED,
    retry_priority=RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=packed(PreviousPrioritiesConfig(update_frequency=1)),
    ),
)

# The retry asks the cluster specifier again, which names the fallback cluster for it.
_RETRIED_ON_FALLBACK = replace(_RETRIED, refresh_cluster_on_retry=True)

# There is no other side: the retry goes to another replica. A replica that just died has the fewest requests in flight,
# so it is picked again and again: with five attempts, 3 % of the retries went to it once more.
_RETRIED_ON_OTHER_REPLICA = replace(
    _RETRIED,
    retry_host_predicate=[
        RetryPolicyRetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
        )
    ],
    host_selection_retry_max_attempts=100,
)

# A request whose first try takes too long is sent to the other side as well, and the first good answer is the client's.
# Without this a first try that took too long would be given up, and every slow answer with it.
_HEDGED = HedgePolicy(hedge_on_per_try_timeout=True)

# A client's path stays behind the path prefix of a remote backend, whatever it is made of. The front resolves dot
# segments as RFC 3986 (section 5.2.4) has it. It leaves an escaped slash alone, since it may be a part of a name
# (`meta-llama%2FLlama`). So `..%2f` is a name to Envoy, and may be a way out to a server behind it.
# Two dots, each escaped or not, that begin a segment and end it, or go on with an escape; ";" ends a segment for
# servers that take parameters off. An escape may be escaped itself, any number of times.
_SLASH, _DOT = r"(?:[/\\]|%(?:25)*(?:2f|5c))", r"(?:\.|%(?:25)*2e)"
PATH_TRAVERSAL = rf"(?i).*{_SLASH}{_DOT}{{2}}(?:[/\\;%].*)?"

_NO_PATH_TRAVERSAL = Route(
    name="leads_out",
    match=RouteMatch(safe_regex=RegexMatcher(regex=PATH_TRAVERSAL)),
    direct_response=DirectResponseAction(status=400),
)

# What answers TRACE shows the client what it got, headers and all (RFC 9110, section 9.3.8): our credential, too.
_NO_TRACE = Route(
    name="trace",
    match=RouteMatch(
        prefix="/",
        headers=[HeaderMatcher(name=":method", string_match=StringMatcher(exact="TRACE", ignore_case=True))],
    ),
    direct_response=DirectResponseAction(status=405),
)

_NOTHING_SAID: Mapping[str, str] = MappingProxyType({})

# How many sets of headers are remembered with the filter that saves them; most routes change the same.
_REMEMBERED_HEADERS = 256


class LocalLimits(NamedTuple):
    """What is asked of the replicas at most: how long they may take to begin an answer, and how many requests."""

    first_byte_timeout: timedelta | None = None
    requests: int | None = None
    """Of one Envoy, for all replicas together."""


class Entrance(NamedTuple):
    """Where clients come in to a route, and how often they may."""

    key: RouteKey
    port: int
    rate_limits: tuple[RouteRateLimit, ...] = ()


class Leg(NamedTuple):
    """A remote backend as a route uses it, and the cluster of the backend."""

    remote: Remote
    backend: str


def is_direct(remote: Remote, *, is_limited: bool) -> bool:
    """Tell whether requests go straight from the front to this remote backend.

    They go through the internal listener in front of it if there is something that the front could not take back:
    a credential of ours, or the time and the tries that the remote backend has, which are not those of a replica. So
    do all of a route whose replicas have a limit: who finds them full is not known before the request is made.
    """
    return not (remote.auth or remote.answer_timeout or remote.retries or is_limited)


def forwarding(cluster: str | None, timeout: timedelta = NO_TIMEOUT, **more: Any) -> RouteAction:
    """Build what every route has in common.

    Trap 8: Envoy's default `timeout` ends every answer after 15 s, and generations take longer.
    """
    return RouteAction(
        cluster=cluster,
        timeout=timeout,
        upgrade_configs=[_WEBSOCKET],
        **more,
    )


class Routing:
    """Builds the route configurations of the gateway of one `installation` (see `loops`; empty: it signs nothing).

    `says_whose` has each route configuration say whose it is, for the log of a listener that several routes share.
    """

    def __init__(self, installation: str = "", *, says_whose: bool = False) -> None:
        self._says_whose = says_whose
        self._signature = leaving_signature(installation)

    def front(self, entrance: Entrance, legs: Sequence[Leg], shares: Shares, limits: LocalLimits) -> RouteConfiguration:
        """Build the route configuration of the front: the shares, and what becomes of a request that met no answer.

        `legs` are in the order in which they are tried. Without any nothing may leave: then `limits` do not matter.
        """
        key, percents = entrance.key, {one.name: one.percent for one in shares.remotes}
        total = shares.local
        routes = [_local_route(key, legs, limits, _below(total))] if shares.local else []
        for leg in legs:
            if percent := percents.get(leg.remote.name, 0):
                total += percent
                routes += _refusals(leg.remote, _below(total))
                routes.append(
                    self._direct_route(key, leg, _below(total))
                    if is_direct(leg.remote, is_limited=limits.requests is not None)
                    else _guarded_route(key, leg.remote.name, len(legs), _below(total))
                )
        said = {**(told_to_log(key) if self._says_whose else {}), **_failover_order(legs)}
        host = _virtual_host(routes, said, _UPGRADE_ALONE)
        # Of the host, not of a route: whichever side a request is for, it is counted once.
        host = replace(host, typed_per_filter_config=dict(limits_of_route(key, entrance.rate_limits)))
        return RouteConfiguration(name=names.entrance_routes(key, entrance.port), virtual_hosts=[host])

    def to_backend(self, key: RouteKey, leg: Leg) -> RouteConfiguration:
        """Build the route configuration of the internal listener in front of a remote backend.

        Path and host are rewritten here, since an upstream filter may not touch them (trap 3), and what belongs to the
        client or the cluster is removed. An answer that takes too long becomes a 504, which the front sends again.
        """
        remote = leg.remote
        retries = {"retry_policy": replace(_RETRIED, num_retries=remote.retries)} if remote.retries else {}
        route = Route(
            match=RouteMatch(prefix="/"),
            route=forwarding(leg.backend, remote.answer_timeout or NO_TIMEOUT, **_rewrites(remote), **retries),
            request_headers_to_remove=list(PRIVATE),
            request_headers_to_add=self._added_headers(remote),
        )
        host = _virtual_host([*_refusals(remote), route])
        return RouteConfiguration(name=names.remote_route_configuration(key, remote.name), virtual_hosts=[host])

    def _direct_route(self, key: RouteKey, leg: Leg, fraction: RuntimeFractionalPercent | None) -> Route:
        """Send a request straight to a remote backend; what would restore it costs something only when it is needed."""
        remote = leg.remote
        clusters = [leg.backend, names.fallback_cluster(key, remote.name)]
        return Route(
            name=remote.name,
            match=RouteMatch(prefix="/", runtime_fraction=fraction),
            route=forwarding(
                None,
                inline_cluster_specifier_plugin=_one_for_each_attempt(clusters),
                retry_policy=_RETRIED_ON_FALLBACK,
                **_rewrites(remote),
            ),
            typed_per_filter_config={SAVING_FILTER: _saving_config(changed_headers(remote))},
            request_headers_to_remove=list(PRIVATE),
            request_headers_to_add=self._added_headers(remote),
            response_headers_to_add=[SIDE_HEADER],
        )

    def _added_headers(self, remote: Remote) -> list[HeaderValueOption]:
        """List what a request has on its way out that the client did not write."""
        own = (
            HeaderValueOption(
                # "%" begins a substitution in Envoy; a user's text is never one.
                header=HeaderValue(key=header.name, value=header.value.replace("%", "%%")),
                append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
                # An empty value is left out by default, and what the client says in the header would stay.
                keep_empty_value=not header.value,
            )
            for header in remote.headers_to_add
        )
        # What is for another model of this gateway comes here again, and is no loop yet.
        return [*own, *(() if remote.through_gateway else self._signature)]


def _virtual_host(
    routes: list[Route], said: Mapping[str, str] = _NOTHING_SAID, *changed: HeaderValueOption
) -> VirtualHost:
    return VirtualHost(
        name="model",
        domains=["*"],
        routes=routes,
        request_headers_to_add=list(changed),
        request_body_buffer_limit=BUFFER_LIMIT_BYTES,
        metadata=_metadata(said),
    )


def _below(percent: int) -> RuntimeFractionalPercent | None:
    """Match the requests that drew a number below `percent`: all of them if it is a hundred."""
    if percent == 100:
        return None
    return RuntimeFractionalPercent(
        default_value=FractionalPercent(numerator=percent, denominator=FractionalPercentDenominatorType.HUNDRED)
    )


def _metadata(said: Mapping[str, str]) -> Metadata | None:
    if not said:
        return None
    words = Struct(fields={name: Value(string_value=word) for name, word in said.items()})
    return Metadata(filter_metadata={names.METADATA_NAMESPACE: words})


def _failover_order(legs: Sequence[Leg]) -> dict[str, str]:
    """Name the remote backends that stand behind each other, in their order; a single one goes without saying.

    Nothing reads it. But the cluster of a backend without a share is named by no route, and what a route configuration
    requires has to follow from its content (see `Translator`).
    """
    return {} if len(legs) < 2 else {"failover": " ".join(leg.remote.name for leg in legs)}


def _local_route(
    key: RouteKey, legs: Sequence[Leg], limits: LocalLimits, fraction: RuntimeFractionalPercent | None
) -> Route:
    """Send a request to the replicas; if they do not answer it within their limits, to the remote backends."""
    has_both = bool(legs) and limits.first_byte_timeout is not None and limits.requests is not None
    return Route(
        name=names.LOCAL,
        match=RouteMatch(prefix="/", runtime_fraction=fraction),
        route=_to_replicas(key, legs, limits),
        typed_per_filter_config={TRY_TIMEOUT_FILTER: TRY_TIMEOUT_OF_CLUSTER} if has_both else {},
        response_headers_to_add=[SIDE_HEADER],
    )


def _to_replicas(key: RouteKey, legs: Sequence[Leg], limits: LocalLimits) -> RouteAction:
    if not legs:
        return forwarding(names.local_cluster(key), retry_policy=_RETRIED_ON_OTHER_REPLICA)
    policies = failover_policies(len(legs), limits.first_byte_timeout)
    if limits.requests is None:
        return forwarding(names.local_first_cluster(key), **policies)
    overflow = local_until_full(key, limits.requests, legs[0].remote.name)
    return forwarding(None, inline_cluster_specifier_plugin=overflow, **policies)


def failover_policies(remotes: int, first_byte_timeout: timedelta | None = None) -> dict[str, Any]:
    """Return what becomes of a request that one side does not answer, or not within `first_byte_timeout`.

    With so many `remotes` there are as many sides besides, and each may be asked once.
    """
    retry = _RETRIED_ON_OTHER_SIDE if remotes == 1 else replace(_RETRIED_ON_OTHER_SIDE, num_retries=remotes)
    if first_byte_timeout is None:
        return {"retry_policy": retry}
    return {"retry_policy": replace(retry, per_try_timeout=first_byte_timeout), "hedge_policy": _HEDGED}


def _guarded_route(key: RouteKey, remote: str, remotes: int, fraction: RuntimeFractionalPercent | None) -> Route:
    """Send a request, as it is, to the internal listener in front of a remote backend that is not reached directly.

    An upstream filter's own answer, such as that there is no credential, is sent to the client by Envoy without asking
    for a retry (envoy, `UpstreamFilterManager::sendLocalReply`). So the backend may not be the cluster of this route.
    """
    return Route(
        name=remote,
        match=RouteMatch(prefix="/", runtime_fraction=fraction),
        route=forwarding(names.remote_first_cluster(key, remote), **failover_policies(remotes)),
        response_headers_to_add=[SIDE_HEADER],
    )


def _refusals(remote: Remote, fraction: RuntimeFractionalPercent | None = None) -> list[Route]:
    """List what stands in front of the route to a remote backend: answers for what may not get there.

    That is a TRACE, and what could leave the path prefix; without a prefix there is nothing to leave. The answers are
    405 and 400, which are not sent again: it is the client's mistake.
    """
    refusals = [_NO_TRACE, *([_NO_PATH_TRAVERSAL] if remote.path_prefix.strip("/") else [])]
    if fraction is None:
        return refusals
    # A request that goes to the next remote backend is not measured by the prefix of this one.
    return [replace(route, match=replace(route.match or RouteMatch(), runtime_fraction=fraction)) for route in refusals]


def _rewrites(remote: Remote) -> dict[str, Any]:
    """Return how the path and the host of a request change on the way to a remote backend."""
    return {"prefix_rewrite": f"{remote.path_prefix.rstrip('/')}/", "host_rewrite_literal": remote.authority}


def _one_for_each_attempt(clusters: Iterable[str]) -> ClusterSpecifierPlugin:
    """Build the specifier that names the first of these clusters for a request, and the second for its retry."""
    return ClusterSpecifierPlugin(
        extension=TypedExtensionConfig(
            name="remote_then_fallback",
            typed_config=PackedAny(type_url=priority_group.TYPE_URL, value=priority_group.priority_groups(clusters)),
        )
    )


@lru_cache(_REMEMBERED_HEADERS)
def _saving_config(headers: tuple[str, ...]) -> PackedAny:
    return packed(saving_filter(headers))
