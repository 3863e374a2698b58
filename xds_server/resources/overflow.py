"""The limit of what the replicas take: the requests above it, and only those, go to a remote backend at once.

Envoy asks the specifier for the cluster of each request as it comes (Envoy, "Lua cluster specifier"), so there is no
sample, no delay and no queue between a burst and its overflow.
"""

from __future__ import annotations

import string

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import DataSource, HeaderValue, HeaderValueOption, Metadata
from envoy_data_plane.envoy.config.route.v3 import ClusterSpecifierPlugin
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutationPerRoute, Mutations
from envoy_data_plane.envoy.extensions.router.cluster_specifiers.lua.v3 import LuaConfig
from envoy_data_plane.google.protobuf import Struct, Value

from controller.api.contract.route import REMOTE, RouteKey
from xds_server.resources import names
from xds_server.resources.encoding import extension, packed

# Those that wait for a connection count too: without them every one of a hundred first requests finds nobody in flight.
_SCRIPT = """\
function envoy_on_route(handle)
  local replicas = handle:getCluster({local_cluster})
  if replicas ~= nil and replicas:numRequests() + replicas:numPendingRequests() >= {limit} then
    return {remote_first}
  end
  return {local_first}
end
"""

# `firstByteTimeout` is how long the replicas may take. What found them full waits for the remote backend: back at the
# replicas it would be above the limit. Both have one route, and so one time for a try, but that may also stand in a
# header, 0 for no end (Envoy, "Router", x-envoy-upstream-rq-per-try-timeout-ms, which goes no further). This filter of
# the front listener takes it from the cluster that was chosen; only a route with both a limit and a time turns it on.
TRY_TIMEOUT_FILTER = "beamlit.patience"
_TRY_TIMEOUT_KEY = "per-try-timeout-ms"
NO_TRY_TIMEOUT = Metadata(
    filter_metadata={names.METADATA_NAMESPACE: Struct(fields={_TRY_TIMEOUT_KEY: Value(string_value="0")})}
)
TRY_TIMEOUT_OF_CLUSTER = packed(
    HeaderMutationPerRoute(
        mutations=Mutations(
            request_mutations=[
                HeaderMutation(
                    append=HeaderValueOption(
                        header=HeaderValue(
                            key="x-envoy-upstream-rq-per-try-timeout-ms",
                            value=f"%CLUSTER_METADATA({names.METADATA_NAMESPACE}:{_TRY_TIMEOUT_KEY})%",
                        )
                    )
                )
            ]
        )
    )
)

_UNESCAPED = (string.ascii_letters + string.digits + "-./_").encode()


def limit_of_one_envoy(each: int, ready: int, envoys: int) -> int:
    """Share what `ready` replicas take, `each` so many requests in flight, between Envoys that get even loads.

    Rounded up, so that nothing leaves below the limit of all; and one at least, or a first request could not stay.
    """
    return max(1, -(-each * ready // max(1, envoys)))


def local_until_full(key: RouteKey, limit: int, remote: str = REMOTE) -> ClusterSpecifierPlugin:
    """Build the specifier that sends a request to the backend `remote` if it finds `limit` others at the replicas.

    What an Envoy counts, it counts over all of its workers. Two that look in the same instant see the same number, so
    the limit is passed by the number of workers less one at the most. And by as many it may be missed: a request that
    another worker gives to a connection just now is counted as one that waits and as one in flight (Envoy,
    onUpstreamReady in source/common/conn_pool/conn_pool_base.cc).
    """
    script = _SCRIPT.format(
        local_cluster=_quoted(names.local_cluster(key)),
        local_first=_quoted(names.local_first_cluster(key)),
        remote_first=_quoted(names.remote_first_cluster(key, remote)),
        limit=int(limit),
    )
    return ClusterSpecifierPlugin(
        extension=extension(
            "local_until_full",
            LuaConfig(source_code=DataSource(inline_string=script), default_cluster=names.local_first_cluster(key)),
        )
    )


def _quoted(name: str) -> str:
    """Write a name as a Lua string that can be nothing else (Lua 5.1, section 2.1: decimal escapes)."""
    written = (chr(one) if one in _UNESCAPED else f"\\{one:03d}" for one in name.encode())
    return f'"{"".join(written)}"'
