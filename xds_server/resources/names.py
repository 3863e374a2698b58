"""Every name that Envoy, its statistics and its logs show: each begins with the kind, namespace and name of an object.

A model `default/chat` is `model/default/chat`. What it has of its own, whatever remote backends it has:

* listeners inside of Envoy: `local/model/default/chat` and one for each remote backend, `remote/model/default/chat`;
* clusters: `model/default/chat/local` for its replicas, `/remote` for a remote backend, `/local-first`, `/remote-first`
  and `/fallback` for one side behind the other.

The listener for clients is named by the port, `port/8080`: a port may pass from one model to another, and what has a
new content under its old name is changed in place, without a moment in which nobody listens (docs/adr/0024). The name
of its route configuration has the namespace, too, `port/8080/default`: a connection that a client keeps meets the next
model of the port only if that is of the same namespace (docs/adr/0060). The statistics of that listener have the name
of the model.

The listener on the port that all models share is `gateway/hosts`, as are its statistics. It is put together of parts:
`gateway/hosts/` is there for all, `gateway/hosts/chat.default` for those who ask for that name over TLS. What leads
from a host to the route configuration of a model is named by the host, `host/chat.default`.

A remote backend that is called `remote-b` has `remote-b/model/default/chat`, `/remote-b`, `/remote-b-first` and
`/fallback-b`.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.route import REMOTE, RouteKey, RouteKind

LOCAL = "local"

# The endpoint metadata that says which side answered: `%UPSTREAM_METADATA(beamlit:route)%`.
METADATA_NAMESPACE = "beamlit"
METADATA_KEY = "route"
ROUTE_HEADER = "x-beamlit-route"

SHARED_ENTRANCE = "gateway/hosts"
"""The listener that clients of all models connect to, which tells them apart by their hosts."""

TLS_ONLY = "gateway/tls-only"
"""The route configuration of hosts that are called over TLS alone: what comes without it is answered with 421."""

_FALLBACK, _FIRST, _PORT, _HOST, _SHARED_PART = "fallback", "-first", "port/", "host/", f"{SHARED_ENTRANCE}/"


def digest(distinct: str) -> str:
    """Return what stands in a name for all that makes a thing distinct."""
    return hashlib.blake2b(distinct.encode(), digest_size=16).hexdigest()


def entrance(port: int) -> str:
    """Name the listener that clients connect to."""
    return f"{_PORT}{port}"


def entrance_routes(key: RouteKey, port: int) -> str:
    """Name the route configuration of that listener: what a change of weights touches."""
    return f"{entrance(port)}/{key.namespace}"


def is_entrance(name: str) -> bool:
    """Tell whether clients come in by the listener, the part of one, the route configuration, or the host so named."""
    return name.startswith((_PORT, _HOST)) or is_shared_part(name)


def shared_part(server_name: str = "") -> str:
    """Name a part of the listener on the shared port: what all have in common, or what clients of one name meet."""
    return f"{_SHARED_PART}{server_name}"


def is_shared_part(name: str) -> bool:
    """Tell whether that is a part of the listener on the shared port."""
    return name.startswith(_SHARED_PART)


def host_entrance(host: str) -> str:
    """Name what leads from a host to a route configuration."""
    return f"{_HOST}{host}"


def entrance_statistics(key: RouteKey) -> str:
    """Name the statistics of what clients ask of a route."""
    return str(key)


def remote_route_configuration(key: RouteKey, remote: str = REMOTE) -> str:
    """Name the route configuration of the internal listener in front of a remote backend."""
    return f"{remote}/{key}"


def local_cluster(key: RouteKey) -> str:
    """Name the cluster of the replicas, and of nothing else: what it has in flight, they have."""
    return f"{key}/{LOCAL}"


def fallback_cluster(key: RouteKey, remote: str = REMOTE) -> str:
    """Name the cluster that a request goes to when the remote backend it was sent to directly did not answer."""
    return f"{key}/{_FALLBACK}{remote.removeprefix(REMOTE)}"


def remote_cluster(key: RouteKey, remote: str = REMOTE) -> str:
    """Name the cluster of the internal listener in front of a remote backend."""
    return f"{key}/{remote}"


def local_first_cluster(key: RouteKey) -> str:
    """Name the cluster that goes to the replicas, and to the remote backends if they do not answer."""
    return f"{key}/{LOCAL}{_FIRST}"


def remote_first_cluster(key: RouteKey, remote: str = REMOTE) -> str:
    """Name the cluster that goes to a remote backend, and to the replicas if it does not answer."""
    return f"{key}/{remote}{_FIRST}"


def remote_listener(key: RouteKey, remote: str = REMOTE) -> str:
    """Name the internal listener that turns a request into one for a remote backend."""
    return f"{remote}/{key}"


def local_listener(key: RouteKey) -> str:
    """Name the internal listener that turns a request for a remote backend back into the client's own."""
    return f"{LOCAL}/{key}"


def backend_cluster(digest: str) -> str:
    """Name the cluster of one distinct remote backend, shared by the routes that use it."""
    return f"backend/{digest}"


def token_cluster(digest: str) -> str:
    """Name the cluster of a token endpoint. It comes before `backend/` in every order, so it is there when needed."""
    return f"auth/{digest}"


def secret(use: str, key: RouteKey, source: CredentialSource) -> str:
    """Name a secret by what it is for and where it comes from, so that it is another one in another namespace."""
    match source.source:
        case "Secret":
            return f"{use}/secret/{key.namespace}/{source.name}/{source.key}"
        case "Spec":
            return f"{use}/spec/{key}"
        case "DefaultBackend":
            return f"{use}/default-backend"


def served_certificate(key: RouteKey, name: str) -> str:
    """Name the certificate in a Secret of the namespace of a route, with which clients are answered."""
    return f"serving/{key.namespace}/{name}"


def client_authorities(key: RouteKey) -> str:
    """Name the authorities whose certificates clients of a route show."""
    return f"clients/{key}"


def is_backend(cluster: str) -> bool:
    """Tell whether a cluster is that of a remote backend."""
    return cluster.startswith("backend/") and cluster.count("/") == 1


class Side(NamedTuple):
    """One side of a route that requests end at: its replicas (`local`), or a remote backend by its name.

    Written as `model/NAMESPACE/NAME/SIDE`, which is also the name of its cluster.
    """

    key: RouteKey
    name: str

    def __str__(self) -> str:
        return f"{self.key}/{self.name}"


_KINDS = {kind.word: kind for kind in RouteKind}


def side_of_cluster(cluster: str) -> Side | None:
    """Read back which side of a route a cluster is; None for those that are shared, or on the way to a side."""
    word, *rest = cluster.split("/")
    if word not in _KINDS or len(rest) != 3 or rest[2].startswith(_FALLBACK) or rest[2].endswith(_FIRST):
        return None
    namespace, name, side = rest
    return Side(RouteKey(_KINDS[word], namespace, name), side)
