"""Translating a route into Envoy resources, for the Envoys of one scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from controller.api.contract.route import Route, RouteKey, Shares
from controller.api.destinations import ANYWHERE, Destinations
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import REAL, GatewayTiming
from xds_server.resources import names
from xds_server.resources.access_log import AccessLog
from xds_server.resources.backend_names import backend_name
from xds_server.resources.clusters import Clusters, aggregate_cluster, load_assignment
from xds_server.resources.encoding import Template, encoded, resource
from xds_server.resources.entrance import tls_only
from xds_server.resources.guard import Guard
from xds_server.resources.hosts import host_routes
from xds_server.resources.internal_listeners import InternalListeners
from xds_server.resources.listeners import Door, Listeners
from xds_server.resources.original_request import changed_headers
from xds_server.resources.overflow import NO_TRY_TIMEOUT, limit_of_one_envoy
from xds_server.resources.remote_backend import RemoteBackends
from xds_server.resources.routing import Entrance, Leg, LocalLimits, Routing, is_direct
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceKey

# Where Debian, Ubuntu and Envoy's own images keep the authorities that their system trusts.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class WaysIn:
    """How clients come in to a route, beside its own port.

    `left` is a port that it left and is served on still. Unless it `has_name`, clients of the shared port do not find
    it over TLS.
    """

    left: int | None = None
    has_name: bool = True


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What all Envoys of one scope have in common: the gateways, or the sidecars of a namespace.

    `address` is where they listen: that of the pod for a gateway, loopback for a sidecar. `authorities` is the file
    where their system keeps the authorities that it trusts. `envoys` of them share what the replicas take, unless the
    translation of a route is given another number; `checks_shared_by` of them together check a replica as often as the
    kubelet does. Clients of one model may have `connections_per_model` at each, or any number (None). `access_log` is
    which requests they log. `timing` has the times of their settings, and those by which
    the settings follow what happens. `installation` is the name by which they know a request that one of them sent out
    before (`loops`); without one they do not. `destinations` is where remote backends and token endpoints may be.
    `shared_port` is the port on which clients call all routes by their hosts; without one they do not.
    """

    address: str = "127.0.0.1"
    authorities: str = SYSTEM_AUTHORITIES
    envoys: int = 1
    checks_shared_by: int = 1
    connections_per_model: int | None = None
    access_log: AccessLog = AccessLog.OFF
    timing: GatewayTiming = REAL.gateway
    installation: str = ""
    destinations: Destinations = ANYWHERE
    shared_port: int | None = None


# How many entries each kind of part has.
_REMEMBERED = 4096


class _RemoteSide(NamedTuple):
    """What a route has because of its remote backends, and what its front requires."""

    resources: tuple[Resource, ...]
    required: frozenset[ResourceKey]


_FrontParts = tuple[tuple[Leg, ...], Shares, LocalLimits, frozenset[ResourceKey]]
"""What a front's route configuration is made of, beside its entrance; and what it requires."""


@dataclass(slots=True)
class _FrontRoute:
    """The front's route configuration of an entrance as it was built last.

    One is enough: what changes without it, the replicas, leaves it as it is, and the snapshot has it anyway.
    """

    entrance: Entrance
    parts: _FrontParts | None = None
    resource: Resource | None = None


class Translator:
    """Translates routes for the Envoys of one scope, and remembers the parts that seldom change.

    A change of the shares or of the replicas, the most frequent ones, leaves most parts of a route as they are. So each
    kind of part is remembered by the values that it is made of: the front listener, the replicas' cluster, the front's
    route configuration, what belongs to a remote backend, the failover, and the backends themselves and their names,
    which routes share. All of them are about 25 kB for a route with a remote backend, beside its last route
    configuration, which the snapshot has, too. Each kind has 4,096 entries at most; the one that was used least
    recently goes for a new one, and all of them go with the translator. With more routes than that, a change may cost
    what a new route costs, and nothing else.
    """

    def __init__(self, settings: EnvoySettings) -> None:
        self._envoys = settings.envoys
        self._checks_shared_by = settings.checks_shared_by
        self._clusters = Clusters(settings.timing)
        self._listeners = Listeners(
            settings.address,
            settings.access_log,
            settings.installation,
            settings.timing,
            settings.connections_per_model,
        )
        self._internal_listeners = InternalListeners(settings.access_log)
        guard = Guard(settings.destinations, settings.installation, settings.timing)
        self._backends = RemoteBackends(settings.authorities, settings.timing, guard, _REMEMBERED)
        self._shared = None if settings.shared_port is None else self._listeners.shared(settings.shared_port)
        self._tls_only = tls_only()
        is_logged = settings.access_log is not AccessLog.OFF
        self._routing = Routing(settings.installation, says_whose=is_logged and self._shared is not None)
        remembered = lru_cache(_REMEMBERED)
        self._backend_name = remembered(backend_name)
        self._local_cluster = remembered(self._clusters.local)
        self._front_listener = remembered(self._listeners.front)
        self._remote_side = remembered(self._build_remote_side)
        self._over_tls = remembered(self._listeners.over_tls)
        self._host_routes = remembered(host_routes)
        self._leg = remembered(self._build_leg)
        self._failover = remembered(self._build_failover)
        self._template = remembered(self._write_template)
        self._front_route = remembered(_FrontRoute)

    def resources(
        self,
        key: RouteKey,
        route: Route,
        replicas: tuple[Replica, ...],
        envoys: int | None = None,
        ways_in: WaysIn = WaysIn(),
    ) -> tuple[Resource, ...]:
        """Translate a route and its replicas into everything an Envoy needs to serve it.

        `envoys` share what the replicas take, as many as the settings say by default. Without a remote backend the
        route keeps to its replicas: nothing stands behind them. What is secret about a remote is named and not brought:
        see `secret_resources` and `entrance_secrets`.
        """
        legs = tuple([Leg(remote, self._backend_name(key, remote)) for remote in route.remotes])
        limits = _limits(route, replicas, self._envoys if envoys is None else envoys)
        shares, cluster, check = route.shares, names.local_cluster(key), route.local.health_check
        leaving = tuple([one.name for one in shares.remotes if one.percent])
        side = self._remote_side(key, legs, leaving, limits.requests is not None, bool(shares.local))
        doors = tuple(
            [Door(key, port, route.tls, route.jwt) for port in (route.port, ways_in.left) if port is not None]
        )
        return (
            self._local_cluster(key, check, self._checks_shared_by, is_alone=not legs),
            # It requires nothing: Envoy acknowledges a cluster only once it is warm, and it warms with its endpoints.
            Resource.of(ENDPOINT, cluster, load_assignment(cluster, replicas, check)),
            *side.resources,
            *map(self._front_listener, doors),
            *[
                self._front(Entrance(key, one.port, route.rate_limits), (legs, shares, limits, side.required))
                for one in doors
            ],
            *self._shared_entrance(doors[0], route.hosts, has_name=ways_in.has_name),
        )

    def _shared_entrance(self, door: Door, hosts: tuple[str, ...], *, has_name: bool) -> Iterator[Resource]:
        """Build what a route has on the port that all share; with TLS, nothing of it answers in the clear."""
        if self._shared is None or not hosts:
            return
        yield self._shared
        if door.tls is None:
            yield from self._host_routes(door.key, hosts, names.entrance_routes(door.key, door.port))
            return
        if has_name:
            yield self._over_tls(door, hosts)
        yield self._tls_only
        yield from self._host_routes(door.key, hosts, names.TLS_ONLY)

    def _build_remote_side(
        self, key: RouteKey, legs: tuple[Leg, ...], leaving: tuple[str, ...], is_limited: bool, stays: bool
    ) -> _RemoteSide:
        """Build what stands behind the replicas. How many requests they take does not matter to it.

        `leaving` names the remote backends that get a share, `stays` tells whether the replicas get one.
        """
        required = frozenset(_required_by_front(key, legs, leaving, is_limited=is_limited, stays=stays))
        if not legs:
            return _RemoteSide((), required)
        direct = tuple(is_direct(leg.remote, is_limited=is_limited) for leg in legs)
        # Two of them may get their tokens at one endpoint.
        own = {one.key: one for leg, at_once in zip(legs, direct, strict=True) for one in self._leg(key, leg, at_once)}
        return _RemoteSide(
            (*own.values(), *self._failover(key, tuple(leg.remote.name for leg in legs), direct)), required
        )

    def _build_leg(self, key: RouteKey, leg: Leg, is_direct: bool) -> tuple[Resource, ...]:
        """Build what belongs to one remote backend of a route alone, or to the backend itself."""
        remote = leg.remote
        return (
            *self._backends.clusters(key, remote),
            resource(
                names.remote_route_configuration(key, remote.name),
                self._routing.to_backend(key, leg),
                [ResourceKey(CLUSTER, leg.backend)],
            ),
            self._internal_listeners.to_remote(key, remote.name),
            self._clusters.remote(key, remote.name),
            *([self._clusters.fallback(key, remote.name, changed_headers(remote))] if is_direct else []),
        )

    def _build_failover(
        self, key: RouteKey, remotes: tuple[str, ...], direct: tuple[bool, ...]
    ) -> tuple[Resource, ...]:
        """Build the clusters that put one side behind the other, and the way back of what was sent out directly.

        The replicas have the remote backends behind them, in their order; each remote backend the replicas, and then
        the other ones.
        """
        local, all_remote = names.local_cluster(key), [names.remote_cluster(key, one) for one in remotes]
        return (
            aggregate_cluster(names.local_first_cluster(key), [local, *all_remote]),
            *(
                aggregate_cluster(
                    names.remote_first_cluster(key, name),
                    [own, local, *(other for other in all_remote if other != own)],
                    NO_TRY_TIMEOUT,
                )
                for name, own, at_once in zip(remotes, all_remote, direct, strict=True)
                if not at_once
            ),
            *([self._internal_listeners.to_local(key, len(remotes))] if any(direct) else []),
        )

    def _write_template(self, entrance: Entrance, legs: tuple[Leg, ...], remote: str, limits: LocalLimits) -> Template:
        return Template.of(
            lambda local: self._write_front_route(entrance, legs, Shares.of({remote: 100 - local}), limits)
        )

    def _front(self, entrance: Entrance, parts: _FrontParts) -> Resource:
        """Return the front's route configuration, as it was the last time if it is made of the same."""
        last = self._front_route(entrance)
        if last.resource is None or last.parts != parts:
            last.parts, last.resource = parts, self._build_front(entrance, *parts)
        return last.resource

    def _build_front(
        self,
        entrance: Entrance,
        legs: tuple[Leg, ...],
        shares: Shares,
        limits: LocalLimits,
        required: frozenset[ResourceKey],
    ) -> Resource:
        leaving = [one.name for one in shares.remotes if one.percent]
        # All that a new split changes of a route configuration is a number, if one remote backend gets what leaves.
        if shares.local and len(leaving) == 1:
            body = self._template(entrance, legs, leaving[0], limits).filled(shares.local)
        else:
            body = self._write_front_route(entrance, legs, shares, limits)
        return Resource.of(ROUTE, names.entrance_routes(entrance.key, entrance.port), body, required)

    def _write_front_route(
        self, entrance: Entrance, legs: tuple[Leg, ...], shares: Shares, limits: LocalLimits
    ) -> bytes:
        return encoded(self._routing.front(entrance, legs, shares, limits))


def _limits(route: Route, replicas: tuple[Replica, ...], envoys: int) -> LocalLimits:
    """Return what is asked of the replicas at most; nothing is limited where nothing may leave."""
    if not route.remotes:
        return LocalLimits()
    each = route.local.max_requests_per_replica
    if each is None:
        return LocalLimits(route.local.first_byte_timeout)
    ready = sum(replica.ready for replica in replicas)
    return LocalLimits(route.local.first_byte_timeout, limit_of_one_envoy(each, ready, envoys))


def _required_by_front(
    key: RouteKey, legs: Sequence[Leg], leaving: Sequence[str], *, is_limited: bool, stays: bool
) -> Iterator[ResourceKey]:
    """List what stands behind the names in the front's route configuration.

    What a resource requires follows from its content. A listener or a route that stays the same while the remote side
    changes may not require that side: an Envoy that keeps it could never let go of the old one.

    A backend behind an internal listener is not named by the front: see `_guarded_route`.
    """
    yield ResourceKey(CLUSTER, names.local_cluster(key))
    yield ResourceKey(ENDPOINT, names.local_cluster(key))
    if not legs:
        return
    yield ResourceKey(CLUSTER, names.local_first_cluster(key))
    for index, (remote, backend) in enumerate(legs):
        yield ResourceKey(CLUSTER, names.remote_cluster(key, remote.name))
        yield ResourceKey(LISTENER, names.remote_listener(key, remote.name))
        if remote.name in leaving and is_direct(remote, is_limited=is_limited):
            yield ResourceKey(CLUSTER, backend)
            yield ResourceKey(CLUSTER, names.fallback_cluster(key, remote.name))
            yield ResourceKey(LISTENER, names.local_listener(key))
        elif remote.name in leaving or (index == 0 and is_limited and stays):
            # What finds the replicas full goes to the first of them.
            yield ResourceKey(CLUSTER, names.remote_first_cluster(key, remote.name))
