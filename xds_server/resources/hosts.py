"""The port that all models share: one listener, and for each host the route configuration of a model.

A request is matched by its Host as a whole, port included, in Envoy's table of scoped routes. What it finds there is
the very route configuration of the model's own port: the splits, retries and refusals are the same, since there is one
of them. A change of a model touches none of this, and one of its hosts nothing of other models (docs/adr/0046).

What is called by its Service's name in a cluster may be called by each of that name's forms (Kubernetes, "DNS for
Services and Pods"). No other host leads anywhere: an address, another domain, or a name with more in front of it is
answered with 404.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ResponseFlagFilter
from envoy_data_plane.envoy.config.core.v3 import DataSource, SubstitutionFormatString
from envoy_data_plane.envoy.config.route.v3 import (
    ScopedRouteConfiguration,
    ScopedRouteConfigurationKey,
    ScopedRouteConfigurationKeyFragment,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
    ScopedRds,
    ScopedRoutes,
    ScopedRoutesScopeKeyBuilder,
    ScopedRoutesScopeKeyBuilderFragmentBuilder,
    ScopedRoutesScopeKeyBuilderFragmentBuilderHeaderValueExtractor,
)

from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.resources.encoding import ADS, packed, resource
from xds_server.snapshot.snapshot import ENDPOINT, ROUTE, Resource, ResourceKey

# Behind the name and the namespace of a Service, what makes longer names of them.
_DOMAINS = ("", ".svc", ".svc.cluster.local")

_WHOLE_HOST = ScopedRoutesScopeKeyBuilderFragmentBuilder(
    header_value_extractor=ScopedRoutesScopeKeyBuilderFragmentBuilderHeaderValueExtractor(name=":authority", index=0)
)

BY_HOST = ScopedRoutes(
    name=names.SHARED_ENTRANCE,
    scope_key_builder=ScopedRoutesScopeKeyBuilder(fragments=[_WHOLE_HOST]),
    rds_config_source=ADS,
    scoped_rds=ScopedRds(scoped_rds_config_source=ADS),
)
"""How the shared listener finds the route configuration of a request."""

# Hosts are the same in upper and in lower case (RFC 3986, section 3.2.2), keys are not. A host that changes has its
# route looked for again.
_TO_LOWER_CASE = """
function envoy_on_request(handle)
  local host = handle:headers():get(":authority")
  if host and host:find("%u") then
    handle:headers():replace(":authority", host:lower())
  end
end
"""

LOWER_CASE = HttpFilter(
    name="lower_case", typed_config=packed(Lua(default_source_code=DataSource(inline_string=_TO_LOWER_CASE)))
)
"""The filter that has a host in upper case found."""

_NO_MODEL = (
    'no model is called by the host "%REQ(:AUTHORITY):256%". A model has the name of its Service, '
    "<service>.<namespace>, with the Service's port behind a colon if that is not 80.\n"
)

UNKNOWN_HOST = LocalReplyConfig(
    mappers=[
        ResponseMapper(
            filter=AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=["NR"])),
            body_format_override=SubstitutionFormatString(text_format_source=DataSource(inline_string=_NO_MODEL)),
        )
    ]
)
"""What a client is told whose host is that of no model; the words are for whoever made a mistake."""


def forms_of(host: str) -> Iterator[str]:
    """List the forms of a host, `SERVICE.NAMESPACE` or `SERVICE.NAMESPACE:PORT`, in the order of their length."""
    name, colon, port = host.partition(":")
    for domain in _DOMAINS:
        yield f"{name}{domain}{colon}{port}"


def host_routes(key: RouteKey, hosts: tuple[str, ...], configuration: str) -> tuple[Resource, ...]:
    """Build what leads from the hosts of a route, in all of their forms, to a route configuration.

    Each requires the replicas, too: by them it is known whose it is, should the host pass to another route. One of no
    listener is asked for by an Envoy only once the host has named it, so that is not waited for.
    """
    routes = ResourceKey(ROUTE, configuration)
    own = ResourceKey(ENDPOINT, names.local_cluster(key))
    required = (own,) if configuration == names.TLS_ONLY else (routes, own)
    return tuple(_host_route(form, routes.name, required) for host in hosts for form in forms_of(host))


def _host_route(host: str, routes: str, required: tuple[ResourceKey, ...]) -> Resource:
    name = names.host_entrance(host)
    message = ScopedRouteConfiguration(
        name=name,
        route_configuration_name=routes,
        key=ScopedRouteConfigurationKey(fragments=[ScopedRouteConfigurationKeyFragment(string_key=host)]),
    )
    return resource(name, message, required)
