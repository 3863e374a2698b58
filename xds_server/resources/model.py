"""All resources of one model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from controller.api.contract.route import Remote, Route, RouteKey, Split
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import REAL, GatewayTiming
from xds_server.resources import cluster, listener, names
from xds_server.resources.access_log import AccessLog
from xds_server.resources.backend import backend_cluster
from xds_server.resources.credential import token_cluster
from xds_server.resources.encoding import encoded
from xds_server.resources.endpoint import load_assignment
from xds_server.resources.overflow import WITHOUT_END, limit_of_one_envoy
from xds_server.resources.packing import resource
from xds_server.resources.route import Bounds, is_direct, model_route
from xds_server.resources.route import to_backend as to_backend_routes
from xds_server.resources.saved import saved_headers
from xds_server.resources.secret import secret_names
from xds_server.resources.template import Template
from xds_server.resources.tls import SYSTEM_AUTHORITIES
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceKey

# How many models' parts are kept, each a few kilobytes.
_REMEMBERED = 4096

# What of a remote is the model's own: without it, models that share a backend share the resource.
_NOT_OF_THE_BACKEND = {"path_prefix": "", "headers_to_add": (), "answer_timeout": None, "retries": None}


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all Envoys of one kind have in common.

    `address` is where they listen, `authorities` the file where their system keeps the authorities that it trusts.
    `envoys` of them share what the replicas take, `access_log` is which requests they tell of. `timing` has the times
    of their settings, and those by which the settings follow what happens.
    """

    address: str = "127.0.0.1"
    authorities: str = SYSTEM_AUTHORITIES
    envoys: int = 1
    access_log: AccessLog = AccessLog.OFF
    timing: GatewayTiming = REAL.gateway


def resources_for(
    model: RouteKey, route: Route, replicas: tuple[Replica, ...], gateway: Gateway
) -> tuple[Resource, ...]:
    """Translate the route of one model and its replicas into everything an Envoy needs to serve it.

    Without a remote the model keeps to its replicas: nothing stands behind them. What is secret about a remote is named
    and not brought: see `secret_resources`.
    """
    backend = backend_name(model, route.remote) if route.remote else None
    bounds = _bounds(route, replicas, gateway.envoys)
    # It is counted for the limit alone: a change of it leaves everything else as it is.
    gateway = replace(gateway, envoys=1)
    is_limited = bounds.limit is not None
    local = _local(model, route, replicas, gateway.timing)
    remote = _remote(model, route.remote, backend, is_limited, gateway) if route.remote and backend else ()
    # What a resource requires follows from its content. A listener or a route that stays the same while the remote side
    # changes may not require that side: an Envoy that keeps it could never let go of the old one.
    named = [one.key for one in local]
    if route.remote:
        leaves, direct = bool(route.split.remote) or is_limited, is_direct(route.remote, is_limited=is_limited)
        named += _named_by_route(model, remote, leaves=leaves, is_direct=direct)
    return (
        *local,
        *remote,
        _front(model, route.port, gateway),
        Resource.of(
            ROUTE,
            names.route_configuration(model),
            _route(model, route, backend, bounds),
            named,
        ),
    )


def _bounds(route: Route, replicas: tuple[Replica, ...], envoys: int) -> Bounds:
    """What is asked of the replicas at most; nothing is bounded where nothing may leave."""
    if route.remote is None:
        return Bounds()
    each = route.local.max_requests_per_replica
    ready = sum(replica.ready for replica in replicas)
    return Bounds(route.local.first_byte_timeout, limit_of_one_envoy(each, ready, envoys) if each else None)


def backend_name(model: RouteKey, remote: Remote) -> str:
    """Name the cluster of a remote backend as this model uses it: the same for all that share it."""
    return names.backend_cluster(_digest(model, remote))


def _local(model: RouteKey, route: Route, replicas: tuple[Replica, ...], timing: GatewayTiming) -> tuple[Resource, ...]:
    name = names.local_cluster(model)
    return (
        _local_cluster(name, route.local.health_check, timing, is_alone=route.remote is None),
        # It requires nothing: Envoy acknowledges a cluster only once it is warm, and it warms with its endpoints.
        Resource.of(ENDPOINT, name, load_assignment(name, replicas)),
    )


# A change of the split or of the replicas, the most frequent ones, leaves most of these as they are.
_local_cluster = lru_cache(_REMEMBERED)(cluster.local_cluster)


@lru_cache(_REMEMBERED)
def _front(model: RouteKey, port: int, gateway: Gateway) -> Resource:
    name = names.local_cluster(model)
    return resource(
        names.front_listener(model),
        listener.front_listener(model, port, gateway.address, gateway.access_log),
        [ResourceKey(CLUSTER, name), ResourceKey(ENDPOINT, name)],
    )


def _route(model: RouteKey, route: Route, backend: str | None, bounds: Bounds) -> bytes:
    split = route.split
    if split.local and split.remote:
        return _divided_route(model, route.remote, backend, bounds).filled(split.local)
    return _whole_route(model, split, route.remote, backend, bounds)


@lru_cache(_REMEMBERED)
def _divided_route(model: RouteKey, remote: Remote | None, backend: str | None, bounds: Bounds) -> Template:
    return Template.of(lambda local: encoded(model_route(model, Split.away(100 - local), remote, backend, bounds)))


@lru_cache(_REMEMBERED)
def _whole_route(model: RouteKey, split: Split, remote: Remote | None, backend: str | None, bounds: Bounds) -> bytes:
    return encoded(model_route(model, split, remote, backend, bounds))


@lru_cache(_REMEMBERED)
def _remote(model: RouteKey, remote: Remote, backend: str, is_limited: bool, gateway: Gateway) -> tuple[Resource, ...]:
    """Build the remote side, and the way there and back. How many Envoys there are does not matter to it."""
    authorities, log, timing = gateway.authorities, gateway.access_log, gateway.timing
    to_backend = resource(
        names.remote_route_configuration(model),
        to_backend_routes(model, remote, backend),
        [ResourceKey(CLUSTER, backend)],
    )
    listening = resource(names.remote_listener(model), listener.remote_listener(model, log))
    common = remote.model_copy(update=_NOT_OF_THE_BACKEND)
    shared = _backend(backend, common, secret_names(model, remote), authorities, timing)
    oauth = remote.auth.oauth if remote.auth else None
    tokens = (token_cluster(oauth, authorities, timing),) if oauth else ()
    local, away = names.local_cluster(model), names.remote_cluster(model)
    local_first = names.local_first_cluster(model)
    return (
        shared,
        to_backend,
        listening,
        *tokens,
        cluster.remote_cluster(away, names.remote_listener(model), timing),
        cluster.one_after_the_other(local_first, local, away),
        *(
            _way_back(model, remote, log)
            if is_direct(remote, is_limited=is_limited)
            else (cluster.one_after_the_other(names.remote_first_cluster(model), away, local, WITHOUT_END),)
        ),
    )


def _way_back(model: RouteKey, remote: Remote, log: AccessLog) -> tuple[Resource, ...]:
    """Build the way of a request that was sent to a backend directly, and is to be the client's own again."""
    back = names.local_listener(model)
    return (
        cluster.fallback_cluster(names.fallback_cluster(model), back, saved_headers(remote)),
        resource(back, listener.local_listener(model, log), [ResourceKey(CLUSTER, names.local_first_cluster(model))]),
    )


_backend = lru_cache(_REMEMBERED)(backend_cluster)


def _named_by_route(model: RouteKey, side: tuple[Resource, ...], *, leaves: bool, is_direct: bool) -> list[ResourceKey]:
    """List what of the remote side stands behind the names in the front's route; `leaves` if it has a way of its own.

    A guarded backend is not named by it: see `_guarded_route`.
    """
    if leaves and is_direct:
        return [one.key for one in side if one.key.type_url != ROUTE]
    return [
        ResourceKey(CLUSTER, names.remote_cluster(model)),
        ResourceKey(CLUSTER, names.local_first_cluster(model)),
        ResourceKey(LISTENER, names.remote_listener(model)),
        *([ResourceKey(CLUSTER, names.remote_first_cluster(model))] if leaves else []),
    ]


def _digest(model: RouteKey, remote: Remote) -> str:
    """Hash what makes a backend distinct: everything but the path and the headers, which are the model's own.

    Where its secrets come from is a part of that: what is another namespace's is never shared.
    """
    # What a backend does without is left out, so that a newer server has no new name for what it always was.
    without = {name for name in ("tls", "auth", "connect_timeout") if getattr(remote, name) is None}
    distinct = remote.model_dump_json(by_alias=True, exclude={*_NOT_OF_THE_BACKEND, *without})
    secrets = (key.name for key in secret_names(model, remote).keys)
    return hashlib.blake2b("\n".join((distinct, *secrets)).encode(), digest_size=16).hexdigest()
