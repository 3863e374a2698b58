"""The limit of what the replicas take: the requests above it, and only those, go to the remote backend at once.

Envoy asks the specifier for the cluster of each request as it comes (Envoy, "Lua cluster specifier"), so there is no
sample, no delay and no queue between a burst and its overflow.
"""

from __future__ import annotations

import string

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import ClusterSpecifierPlugin
from envoy_data_plane.envoy.extensions.router.cluster_specifiers.lua.v3 import LuaConfig

from xds_server.resources.packing import extension

# Those that wait for a connection count too: without them every one of a hundred first requests finds nobody in flight.
_CHOICE = """\
function envoy_on_route(handle)
  local replicas = handle:getCluster({local_cluster})
  if replicas ~= nil and replicas:numRequests() + replicas:numPendingRequests() >= {limit} then
    return {remote_cluster}
  end
  return {local_cluster}
end
"""

_PLAIN = (string.ascii_letters + string.digits + "-./_").encode()


def limit_of_one_envoy(each: int, ready: int, envoys: int) -> int:
    """Share what `ready` replicas take, `each` so many requests in flight, between Envoys that get even loads.

    Rounded up, so that nothing leaves below the limit of all; and one at least, or a first request could not stay.
    """
    return max(1, -(-each * ready // max(1, envoys)))


def local_until_full(local_cluster: str, remote_cluster: str, limit: int) -> ClusterSpecifierPlugin:
    """Build the specifier that names the remote cluster for a request that finds `limit` others in flight.

    What an Envoy counts, it counts over all of its workers. Two that look in the same instant see the same number, so
    the limit is passed by the number of workers less one at the most.
    """
    script = _CHOICE.format(
        local_cluster=_quoted(local_cluster), remote_cluster=_quoted(remote_cluster), limit=int(limit)
    )
    return ClusterSpecifierPlugin(
        extension=extension(
            "local_until_full",
            LuaConfig(source_code=DataSource(inline_string=script), default_cluster=local_cluster),
        )
    )


def _quoted(name: str) -> str:
    """Write a name as a Lua string that can be nothing else (Lua 5.1, section 2.1: decimal escapes)."""
    written = (chr(one) if one in _PLAIN else f"\\{one:03d}" for one in name.encode())
    return f'"{"".join(written)}"'
