"""All resources of one model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from controller.api.endpoints import Replica
from controller.api.route import ModelRoute, RemoteRoute
from xds_server.resources import cluster, listener, names
from xds_server.resources.backend import backend_cluster
from xds_server.resources.endpoint import load_assignment, local_side, remote_side
from xds_server.resources.names import ModelKey
from xds_server.resources.packing import resource
from xds_server.resources.route import model_route
from xds_server.resources.saved import saved_headers
from xds_server.snapshot.snapshot import Resource, ResourceKey
from xds_server.snapshot.types import CLUSTER, ENDPOINT

# How many models' parts are kept, each a few kilobytes.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all Envoys of one kind have in common: the address they listen on."""

    address: str = "127.0.0.1"


def resources_for(
    model: ModelKey, route: ModelRoute, replicas: tuple[Replica, ...], gateway: Gateway
) -> tuple[Resource, ...]:
    """Translate the route of one model and its replicas into everything an Envoy needs to serve it.

    Without a remote the model keeps to its replicas: nothing stands behind them.
    """
    backend = names.backend_cluster(_digest(route.remote)) if route.remote else None
    local = _local(model, route, replicas)
    remote = _remote(model, route.remote, backend) if route.remote and backend else ()
    # What a resource requires follows from its content. A listener or a route that stays the same while the remote side
    # changes may not require that side: an Envoy that keeps it could never let go of the old one.
    named = (*local, *remote) if route.split.remote else local
    return (
        *local,
        *remote,
        _front(model, route.port, gateway.address),
        resource(names.route_configuration(model), model_route(model, route, backend), [one.key for one in named]),
    )


def _local(model: ModelKey, route: ModelRoute, replicas: tuple[Replica, ...]) -> tuple[Resource, ...]:
    name = names.local_cluster(model)
    behind = (remote_side(names.remote_listener(model)),) if route.remote else ()
    return (
        _local_cluster(name, route.local.health_check),
        # It requires nothing: Envoy acknowledges a cluster only once it is warm, and it warms with its endpoints.
        Resource.of(ENDPOINT, name, load_assignment(name, (local_side(replicas), *behind))),
    )


# A change of the split or of the replicas, the most frequent ones, leaves these as they are.
_local_cluster = lru_cache(_REMEMBERED)(cluster.local_cluster)


@lru_cache(_REMEMBERED)
def _front(model: ModelKey, port: int, address: str) -> Resource:
    name = names.local_cluster(model)
    return resource(
        names.front_listener(model),
        listener.front_listener(model, port, address),
        [ResourceKey(CLUSTER, name), ResourceKey(ENDPOINT, name)],
    )


@lru_cache(_REMEMBERED)
def _remote(model: ModelKey, remote: RemoteRoute, backend: str) -> tuple[Resource, ...]:
    """Build the remote side, and the way back from it."""
    to_backend, to_local = names.remote_listener(model), names.local_listener(model)
    fallback = cluster.fallback_cluster(names.fallback_cluster(model), to_local, saved_headers(remote))
    return (
        backend_cluster(backend, remote),
        fallback,
        resource(to_backend, listener.remote_listener(model, remote, backend), [ResourceKey(CLUSTER, backend)]),
        resource(
            to_local,
            listener.local_listener(model),
            [ResourceKey(CLUSTER, names.local_cluster(model))],
        ),
    )


def _digest(remote: RemoteRoute) -> str:
    """Hash what makes a backend distinct: everything but the path and the headers, which are the model's own."""
    distinct = remote.model_dump_json(by_alias=True, exclude={"path_prefix", "headers_to_add"})
    return hashlib.blake2b(distinct.encode(), digest_size=6).hexdigest()
