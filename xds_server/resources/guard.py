"""Envoy sends nothing to an address that is refused, whatever a name leads to, at any moment, and whoever else is dead.

A host of a cluster gets requests once its check has succeeded. So it is enough that no check reaches an address that is
refused: such a host never becomes healthy, and requests go elsewhere as they do when it is down. That costs a request
nothing, and holds for direct ways as well, where what an upstream filter answers is final (docs/adr/0039).

Checks are made by the main thread of Envoy, and no filter sees them. So they go through a listener of the same Envoy,
as requests that name the address in a header. From there each goes on to that very address, unless `upstream_rbac`
refuses it. A check that merely connects is a POST: the route makes a tunnel of it (`allow_post`), and the answer that
the tunnel is there ends it. TLS is spoken behind the listener: each server that is verified has a cluster there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterLbPolicy,
    ClusterOriginalDstLbConfig,
    ClusterTransportSocketMatch,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    CidrRange,
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    HealthCheck,
    HealthCheckHttpHealthCheck,
    Http1ProtocolOptions,
    RequestMethod,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpProtocolOptions
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.rbac.v3 import Permission, PermissionSet, Policy, Principal, RbacAction
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as Rules
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.custom_response.v3 import CustomResponse
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerServerHeaderTransformation,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.custom_response.local_response_policy.v3 import LocalResponsePolicy
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.extensions.rbac.matchers.upstream_ip_port.v3 import UpstreamIpPortMatcher
from envoy_data_plane.envoy.extensions.transport_sockets.http_11_proxy.v3 import Http11ProxyUpstreamTransport
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import HttpResponseStatusCodeMatchInput, StringMatcher
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct, Value
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as MatcherExtension
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherTree,
    MatcherMatcherTreeMatchMap,
    MatcherOnMatch,
)

from controller.api.destinations import CHECKS_PORT, Destinations, Range
from controller.api.timing import GatewayTiming
from xds_server.resources.clusters import CLUSTER_DEFAULTS, socket_address
from xds_server.resources.encoding import NO_TIMEOUT, encoded, extension, packed, resource
from xds_server.snapshot.snapshot import CLUSTER, Resource, ResourceKey

NAME = "address-checks"
"""The listener that checks go through, and the cluster behind it. Clusters of this name come first in every order."""

# The address that a check is for, as `%UPSTREAM_HOST%` writes it, and the cluster that it goes on through.
_ADDRESS_HEADER, _CLUSTER_HEADER = "x-beamlit-address", "x-beamlit-cluster"
_CHECKED = Struct(fields={"check": Value(string_value="guarded")})
_CUSTOM_RESPONSE = "envoy.filters.http.custom_response"


def loopback_address(installation: str, destinations: Destinations) -> str:
    """Return the loopback address of the checks: one for all Envoys that refuse the same.

    Several Envoys of one host share it (SO_REUSEPORT), and it does not matter which of them a check goes through. Those
    of another installation, or of one that was configured anew, have another one.
    """
    digest = hashlib.sha256(f"{installation}\n{destinations!r}".encode()).digest()
    return f"127.{1 + digest[0] % 15}.{digest[1]}.{1 + digest[2] % 254}"


class Guard:
    """Keeps the Envoys of one `installation` from what the `destinations` refuse."""

    def __init__(self, destinations: Destinations, installation: str, timing: GatewayTiming) -> None:
        self._destinations = destinations
        self._timing = timing
        self._host = loopback_address(installation, destinations)
        self.resources = (self.cluster(), self._listener()) if destinations.refuses_any else ()
        """What each Envoy has that checks a guarded host."""

    def guards(self, host: str) -> bool:
        """Tell whether it matters where a host leads: one written as an address was looked at before."""
        return not self._destinations.may_lead_anywhere(host)

    def check(self, check: HealthCheck, through: Resource | None = None) -> HealthCheck:
        """Send a check by way of the listener, and there `through` a cluster if its server is verified."""
        http = check.http_health_check
        connect = HealthCheckHttpHealthCheck(path="/", host="localhost", method=RequestMethod.POST)
        headers = {_ADDRESS_HEADER: "%UPSTREAM_HOST%", _CLUSTER_HEADER: through.key.name if through else NAME}
        return replace(
            check,
            # While the cluster never had a request, the former holds in place of the others. An Envoy that starts
            # listens only after its first checks have failed: they are made again soon.
            no_traffic_interval=check.unhealthy_interval,
            no_traffic_healthy_interval=check.interval,
            http_health_check=replace(
                http or connect, request_headers_to_add=[_header(name, value) for name, value in headers.items()]
            ),
            tcp_health_check=None,
            tls_options=None,
            transport_socket_match_criteria=_CHECKED,
        )

    def sockets(self) -> list[ClusterTransportSocketMatch]:
        """List the transport sockets that a guarded cluster has for its checks alone: they lead to the listener."""
        plain = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=packed(RawBuffer()))
        through = packed(Http11ProxyUpstreamTransport(transport_socket=plain))
        # Its field 2, `default_proxy_address`, which envoy-data-plane does not have yet.
        proxy = encoded(socket_address(self._host, CHECKS_PORT))
        through = PackedAny(type_url=through.type_url, value=through.value + bytes((0x12, len(proxy))) + proxy)
        socket = TransportSocket(name="envoy.transport_sockets.http_11_proxy", typed_config=through)
        return [ClusterTransportSocketMatch(name="check", match=_CHECKED, transport_socket=socket)]

    def cluster(self, name: str = "", tls: TransportSocket | None = None, keys: Iterable[ResourceKey] = ()) -> Resource:
        """Build the cluster whose host is the address that a check is for.

        With `tls`, which refers to the secrets `keys`, it is that of one server, by its `name`.
        """
        # A server gets what it got before: Envoy's own header, and none of the others.
        taken_off = (_ADDRESS_HEADER, _CLUSTER_HEADER, "x-forwarded-proto", "x-request-id")
        removing = HeaderMutationFilter(
            mutations=Mutations(request_mutations=[HeaderMutation(remove=one) for one in taken_off])
        )
        options = HttpProtocolOptions(
            common_http_protocol_options=CommonHttpProtocolOptions(
                idle_timeout=timedelta(seconds=self._timing.unused_far)
            ),
            explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions()),
            http_filters=[
                HttpFilter(name="envoy.filters.http.upstream_rbac", typed_config=packed(_refusing(self._destinations))),
                HttpFilter(name="envoy.filters.http.header_mutation", typed_config=packed(removing)),
                HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=packed(UpstreamCodec())),
            ],
        )
        cluster = Cluster(
            name=f"{NAME}/{name}" if name else NAME,
            type=ClusterDiscoveryType.ORIGINAL_DST,
            lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
            original_dst_lb_config=ClusterOriginalDstLbConfig(use_http_header=True, http_header_name=_ADDRESS_HEADER),
            connect_timeout=timedelta(seconds=self._timing.longest_check),
            transport_socket=tls,
            typed_extension_protocol_options={
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(options)
            },
        )
        return resource(cluster.name, cluster, keys, common=CLUSTER_DEFAULTS)

    def _listener(self) -> Resource:
        manager = HttpConnectionManager(
            stat_prefix=NAME,
            # Checks speak no other one, and in HTTP/2 a body may follow what says that there is none.
            codec_type=HttpConnectionManagerCodecType.HTTP1,
            generate_request_id=False,
            use_remote_address=False,
            skip_xff_append=True,
            early_header_mutation_extensions=[_FIRST_CLUSTER_ALONE],
            server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
            route_config=RouteConfiguration(
                name=NAME, virtual_hosts=[VirtualHost(name=NAME, domains=["*"], routes=_ROUTES)]
            ),
            http_filters=[
                HttpFilter(name=_CUSTOM_RESPONSE, typed_config=packed(CustomResponse())),
                HttpFilter(name="envoy.filters.http.router", typed_config=packed(Router(suppress_envoy_headers=True))),
            ],
        )
        http = Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))
        listener = Listener(
            name=NAME,
            address=socket_address(self._host, CHECKS_PORT),
            filter_chains=[FilterChain(filters=[http])],
            # Clients that are turned away for want of memory or connections are no reason to believe nobody.
            bypass_overload_manager=True,
            ignore_global_conn_limit=True,
        )
        return resource(NAME, listener, [ResourceKey(CLUSTER, NAME)])


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


# A tunnel has no end of its own, and a check waits for one: a 200 is answered in place of what would follow it.
_ANSWERED = MatcherOnMatch(
    action=MatcherExtension(
        name="envoy.extensions.http.custom_response.local_response_policy",
        typed_config=packed(LocalResponsePolicy(status_code=200, body=DataSource(inline_string="connected"))),
    )
)
_ENDS_A_TUNNEL = CustomResponse(
    custom_response_matcher=Matcher(
        matcher_tree=MatcherMatcherTree(
            input=MatcherExtension(name="status", typed_config=packed(HttpResponseStatusCodeMatchInput())),
            exact_match_map=MatcherMatcherTreeMatchMap(map={"200": _ANSWERED}),
        )
    )
)

# Envoy 1.40 dies of a body: the answer that ends the tunnel comes while it still reads. Checks have none.
_POST = (
    HeaderMatcher(name=":method", string_match=StringMatcher(exact="POST")),
    HeaderMatcher(name="content-length", string_match=StringMatcher(exact="0")),
)
_GET = HeaderMatcher(name=":method", string_match=StringMatcher(exact="GET"))
# Whoever reaches the listener may name a cluster of checks and no other one: those of remote backends put credentials
# into what is sent to them. Of several values the first names the cluster, and any of them would match.
_FIRST_CLUSTER_ALONE = extension(
    "first_cluster_alone",
    EarlyHeaderMutation(mutations=[HeaderMutation(append=_header(_CLUSTER_HEADER, f"%REQ({_CLUSTER_HEADER})%"))]),
)
_OURS = HeaderMatcher(name=_CLUSTER_HEADER, string_match=StringMatcher(prefix=NAME))
_TUNNEL = RouteActionUpgradeConfig(
    upgrade_type="CONNECT", connect_config=RouteActionUpgradeConfigConnectConfig(allow_post=True)
)
_ROUTES = [
    Route(
        name="connect",
        match=RouteMatch(prefix="/", headers=[_OURS, *_POST]),
        route=RouteAction(cluster_header=_CLUSTER_HEADER, timeout=NO_TIMEOUT, upgrade_configs=[_TUNNEL]),
        typed_per_filter_config={_CUSTOM_RESPONSE: packed(_ENDS_A_TUNNEL)},
    ),
    Route(
        name="path",
        match=RouteMatch(prefix="/", headers=[_OURS, _GET]),
        route=RouteAction(cluster_header=_CLUSTER_HEADER, timeout=NO_TIMEOUT),
    ),
]


def _refusing(destinations: Destinations) -> Rbac:
    """Build the filter that refuses what is denied, and what is refused by default unless it is allowed."""
    refused = [_is_in(one) for one in destinations.denied]
    if by_default := [_is_in(one) for one in destinations.refused_by_default]:
        rules = [Permission(or_rules=PermissionSet(rules=by_default))]
        if allowed := [_is_in(one) for one in destinations.allowed]:
            rules.append(Permission(not_rule=Permission(or_rules=PermissionSet(rules=allowed))))
        refused.append(Permission(and_rules=PermissionSet(rules=rules)))
    policy = Policy(permissions=refused, principals=[Principal(any=True)])
    return Rbac(rules=Rules(action=RbacAction.DENY, policies={"refused": policy}))


def _is_in(one: Range) -> Permission:
    ip = CidrRange(address_prefix=str(one.network_address), prefix_len=one.prefixlen)
    matcher = TypedExtensionConfig(
        name="envoy.rbac.matchers.upstream_ip_port", typed_config=packed(UpstreamIpPortMatcher(upstream_ip=ip))
    )
    return Permission(matcher=matcher)
