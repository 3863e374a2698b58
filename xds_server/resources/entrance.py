"""Who comes in to a route with TLS: the transport socket of its filter chain, and the filters that look at clients.

A filter chain with TLS is one route's alone, on the port that all share, too: there it is found by the name that a
client asks for (SNI, RFC 6066). So what is asked of its clients stands in it, and a request on it is for that route or
for nobody: a client who was let in to one model asks no other by its Host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from envoy_data_plane.envoy.config.core.v3 import DataSource, SubstitutionFormatString, TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import FilterChainMatch, ListenerFilter
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    PermissionSet,
    Policy,
    Principal,
)
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as Rules
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwtAuthentication,
    JwtHeader,
    JwtRequirement,
    JwtRequirementOrList,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import JwtProvider as Provider
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from controller.api.contract.entrance import ClientValidation, EntranceTls, JwtProvider
from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.resources.access_log import expression
from xds_server.resources.checks import TLS_VERSIONS
from xds_server.resources.encoding import packed, resource
from xds_server.resources.hosts import forms_of
from xds_server.resources.jwks import public_keys
from xds_server.resources.secret import over_sds
from xds_server.snapshot.snapshot import SECRET, Resource, ResourceKey

_VERSIONS = {"1.2": TlsParametersTlsProtocol.TLSv1_2, "1.3": TlsParametersTlsProtocol.TLSv1_3}
_HTTP_PORT, _HTTPS_PORT = "80", "443"

INSPECTOR = ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=packed(TlsInspector()))
"""The filter of the shared listener that tells TLS from what is in the clear, and reads the name that is asked for.

It is always there: a listener whose own filters change leaves all connections to the old one.
"""

IN_THE_CLEAR = FilterChainMatch(transport_protocol="raw_buffer")

_MISDIRECTED = 421
"""RFC 9110, section 15.5.20: no answer is to be had here for this scheme and this host."""

_BEARER = JwtHeader(name="Authorization", value_prefix="Bearer ")


def transport_socket(key: RouteKey, tls: EntranceTls) -> TransportSocket:
    """Build what speaks TLS with clients; its certificates and authorities come by themselves (SDS)."""
    clients = tls.client_validation
    context = DownstreamTlsContext(
        # With authorities, what a client shows is verified whether or not it has to show anything.
        require_client_certificate=clients is not None and not clients.optional,
        common_tls_context=CommonTlsContext(
            tls_params=replace(TLS_VERSIONS, tls_minimum_protocol_version=_VERSIONS[tls.min_version]),
            tls_certificate_sds_secret_configs=[
                over_sds(names.served_certificate(key, name)) for name in tls.certificates
            ],
            validation_context_sds_secret_config=over_sds(names.client_authorities(key)) if clients else None,
            alpn_protocols=list(tls.alpn),
        ),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def secrets_of(key: RouteKey, tls: EntranceTls) -> Iterator[ResourceKey]:
    """Name the secrets that a filter chain needs."""
    for name in tls.certificates:
        yield ResourceKey(SECRET, names.served_certificate(key, name))
    if tls.client_validation:
        yield ResourceKey(SECRET, names.client_authorities(key))


def telling_of_clients(manager: HttpConnectionManager, clients: ClientValidation | None) -> HttpConnectionManager:
    """Have replicas told of the certificate of a client, if that is asked for; what a client says of one never is."""
    if clients is None or not clients.told:
        return manager
    return replace(
        manager,
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET,
        set_current_client_cert_details=HttpConnectionManagerSetCurrentClientCertDetails(
            subject="Subject" in clients.told, dns="DNS" in clients.told, uri="URI" in clients.told
        ),
    )


def token_filters(providers: Sequence[JwtProvider]) -> list[HttpFilter]:
    """Build the filter that lets nobody in without a token of one of these providers; none without providers.

    A token is taken from its header alone, since a log may have the path, and goes no further. One that never ends is
    refused (RFC 8725, section 3.8, has tokens be checked as strictly as they can be). Raises JwksError.
    """
    if not providers:
        return []
    config = JwtAuthentication(
        providers={
            one.name: Provider(
                issuer=one.issuer,
                audiences=list(one.audiences),
                local_jwks=DataSource(inline_string=public_keys(one.jwks)),
                from_headers=[_BEARER],
                require_expiration=True,
            )
            for one in providers
        },
        rules=[RequirementRule(match=RouteMatch(prefix=""), requires=_any_of(providers))],
    )
    return [HttpFilter(name="envoy.filters.http.jwt_authn", typed_config=packed(config))]


def _any_of(providers: Sequence[JwtProvider]) -> JwtRequirement:
    each = [JwtRequirement(provider_name=one.name) for one in providers]
    return each[0] if len(each) == 1 else JwtRequirement(requires_any=JwtRequirementOrList(requirements=each))


def asked_for(hosts: Iterable[str]) -> FilterChainMatch:
    """Match the clients that ask for these hosts over TLS, in any of their forms: ports are not asked for."""
    bare = sorted({host.partition(":")[0] for host in hosts})
    return FilterChainMatch(
        server_names=[form for host in bare for form in forms_of(host)],
        transport_protocol="tls",
    )


def only_for(hosts: Iterable[str]) -> HttpFilter:
    """Build the filter that refuses a request for any other host than these, with 403 (see `MISDIRECTED_REPLIES`).

    Where a host has no port, that of HTTPS may stand behind it.
    """
    allowed: dict[str, None] = {}
    for host in hosts:
        for form in forms_of(host):
            allowed[form] = None
            name, _, port = form.partition(":")
            if port in ("", _HTTP_PORT):
                allowed[f"{name}:{_HTTPS_PORT}"] = None
    rules = PermissionSet(rules=[_is_for(host) for host in allowed])
    policy = Policy(permissions=[Permission(or_rules=rules)], principals=[Principal(any=True)])
    config = Rbac(rules=Rules(policies={"host": policy}))
    return HttpFilter(name="envoy.filters.http.rbac", typed_config=packed(config))


def _is_for(host: str) -> Permission:
    return Permission(header=HeaderMatcher(name=":authority", string_match=StringMatcher(exact=host, ignore_case=True)))


_OTHER_HOST = (
    'the model that this connection is for has not the host "%REQ(:AUTHORITY):256%": ask for it over a connection of '
    "its own\n"
)
# A token for somebody else is answered with 403, too.
_OF_THE_HOST = expression(
    "of_the_host", "has(response.code_details) && response.code_details.startsWith('rbac_access_denied')"
)

MISDIRECTED_REPLIES = LocalReplyConfig(
    mappers=[
        ResponseMapper(
            filter=_OF_THE_HOST,
            status_code=_MISDIRECTED,
            body_format_override=SubstitutionFormatString(text_format_source=DataSource(inline_string=_OTHER_HOST)),
        )
    ]
)
"""What a client is told who asks for another host than that of its connection."""

_TLS_ALONE = "this model is called over TLS alone\n"


@cache
def tls_only() -> Resource:
    """Build the route configuration of the hosts that are called over TLS alone, for who calls them in the clear."""
    refused = Route(
        match=RouteMatch(prefix="/"),
        direct_response=DirectResponseAction(status=_MISDIRECTED, body=DataSource(inline_string=_TLS_ALONE)),
    )
    host = VirtualHost(name="tls_only", domains=["*"], routes=[refused])
    return resource(names.TLS_ONLY, RouteConfiguration(name=names.TLS_ONLY, virtual_hosts=[host]))
