"""All resources of one model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from controller.api.endpoints import Replica
from controller.api.route import ModelRoute, RemoteRoute
from xds_server.resources import cluster, listener, names
from xds_server.resources.endpoint import load_assignment, local_side, remote_side
from xds_server.resources.names import ModelKey
from xds_server.resources.packing import resource
from xds_server.resources.route import model_route
from xds_server.snapshot.snapshot import Resource, ResourceKey
from xds_server.snapshot.types import CLUSTER, ENDPOINT


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all Envoys of one kind have in common: the address they listen on."""

    address: str = "127.0.0.1"


def resources_for(
    model: ModelKey, route: ModelRoute, replicas: tuple[Replica, ...], gateway: Gateway
) -> tuple[Resource, ...]:
    """Translate the route of one model and its replicas into everything an Envoy needs to serve it.

    Without a remote the model keeps to its replicas: there is no second cluster and no second priority.
    """
    local = local_side(replicas)
    if route.remote is None:
        clusters = _cluster(names.local_cluster(model), route, load_assignment(names.local_cluster(model), (local,)))
        needed: list[Resource] = [*clusters]
    else:
        inner = _remote(model, route.remote)
        remote = remote_side(names.remote_listener(model))
        needed = [
            *inner,
            *_cluster(names.local_cluster(model), route, load_assignment(names.local_cluster(model), (local, remote))),
            *_cluster(
                names.remote_cluster(model), route, load_assignment(names.remote_cluster(model), (remote, local))
            ),
        ]
    requires = [one.key for one in needed]
    return (
        *needed,
        resource(names.front_listener(model), listener.front_listener(model, route, gateway.address), requires),
        resource(names.route_configuration(model), model_route(model, route), requires),
    )


def _cluster(name: str, route: ModelRoute, assignment: bytes) -> tuple[Resource, Resource]:
    return (
        resource(name, cluster.model_cluster(name, route.local.health_check)),
        # It requires nothing, not even its cluster: Envoy ACKs a cluster only once that is warm, for which it needs its
        # assignment (envoyproxy/envoy#23321), and asks for the assignment when it has the cluster.
        Resource.of(ENDPOINT, name, assignment),
    )


def _remote(model: ModelKey, remote: RemoteRoute) -> tuple[Resource, Resource]:
    backend = names.backend_cluster(_digest(remote))
    return (
        resource(backend, cluster.backend_cluster(backend, remote)),
        resource(
            names.remote_listener(model),
            listener.remote_listener(model, remote, backend),
            [ResourceKey(CLUSTER, backend)],
        ),
    )


def _digest(remote: RemoteRoute) -> str:
    """Hash what makes a backend distinct: everything but the path and the headers, which are the model's own."""
    distinct = remote.model_dump_json(by_alias=True, exclude={"path_prefix", "headers_to_add"})
    return hashlib.blake2b(distinct.encode(), digest_size=6).hexdigest()
