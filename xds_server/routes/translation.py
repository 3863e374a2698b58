"""A route and everything it is read together with, translated for each scope that it is served in. Pure."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from controller.api.contract.health import HOST_REFUSED
from controller.api.contract.route import LocalBackend, Remote, Route, RouteKey
from controller.api.destinations import ANYWHERE, Destinations
from controller.api.kubernetes.endpoints import EndpointGuard, Replica, admit_all, replicas_of, taken
from controller.api.resources.backend import RemoteBackend
from xds_server.resources.pem import PemMemory
from xds_server.resources.remote_backend import hosts_of
from xds_server.resources.secret import Values
from xds_server.resources.translator import EnvoySettings, Translator, WaysIn
from xds_server.routes.credentials import (
    ResolvedRoute,
    ServerSecrets,
    ServingProblem,
    reads_spec,
    resolve_credentials,
)
from xds_server.routes.entrance import SERVER_NAME_TAKEN, EntranceProblem, Entrances
from xds_server.routes.index import RouteIndex
from xds_server.routes.record import RouteRecord
from xds_server.routes.shadow_mode import ReadShadowed, ShadowedProblem
from xds_server.routes.validation import (
    NOT_ASKED_FOR,
    REFUSED,
    Ask,
    Asked,
    as_asked_for,
    as_it_may_be,
    faults_of,
    server_name_claim,
    server_names,
    unasked,
    unasked_entrance,
)
from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.snapshot.snapshot import Resource

logger = logging.getLogger(__name__)

NOT_TRANSLATED = "NotTranslated"
"""The reason of a mistake of ours. The route keeps the resources that it has; all other problems keep it local."""


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How routes are served: by which Envoys, with which secrets, and to which endpoints.

    `envoys` are the settings of the Envoys of each role that is served. `gateway_service` is the Service of the
    gateway's Envoys (namespace, name): its ready endpoints share what replicas take at most. Without it they are as
    many as the settings say. Routes of another `controller_class` are not served (None: all are). `ask` reads from an
    object what its route may say; None: routes are believed, for whoever may write the one may write the other. No
    route has one of the `reserved_ports` then. `read_shadowed` reads from an object in Shadow what it would use; None:
    nobody looks whether it could.
    """

    envoys: Mapping[Role, EnvoySettings] = field(default_factory=lambda: {Role.GATEWAY: EnvoySettings()})
    secrets: ServerSecrets = field(default_factory=ServerSecrets)
    guard: EndpointGuard = admit_all
    gateway_service: tuple[str, str] | None = None
    controller_class: str | None = None
    destinations: Destinations = ANYWHERE
    ask: Ask | None = None
    read_shadowed: ReadShadowed | None = None
    reserved_ports: frozenset[int] = frozenset()

    @property
    def gateway(self) -> EnvoySettings:
        """The settings of the gateway's Envoys."""
        return self.envoys[Role.GATEWAY]


def scopes_of(key: RouteKey, roles: Iterable[Role]) -> tuple[Scope, ...]:
    """List the scopes that a route is served in: the gateway's, and that of the sidecars of its own namespace."""
    return tuple(GATEWAY if role is Role.GATEWAY else Scope(role, key.namespace) for role in roles)


@dataclass(frozen=True, slots=True)
class TranslatedRoute:
    """What a route becomes: its resources by scope; None if it cannot be translated, and keeps those that it has.

    `problems` say why less is served than the route asks for, `remotes` are the remote backends that are. `is_limited`
    says whether it has a limit that the Envoys share. `accepted` is the last route of the object that was found to be
    what it may be. `left` is a port that it left and is served on still. `ends` is when the first certificate of its
    entrance does.
    """

    resources: Mapping[Scope, tuple[Resource, ...]] | None
    problems: tuple[ServingProblem, ...] = ()
    remotes: tuple[tuple[Remote, Values], ...] = ()
    is_limited: bool = False
    accepted: Route | None = None
    left: int | None = None
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Validated:
    """What may be served (None: nothing), why not all that the status says, and the last route that was all right."""

    route: Route | None
    problems: tuple[ServingProblem, ...] = ()
    accepted: Route | None = None


class RouteTranslator:
    """Translates the routes of an index, with one translator for each scope."""

    def __init__(self, index: RouteIndex, options: ServingOptions) -> None:
        self._index = index
        self._options = options
        self._secrets = options.secrets
        self._translators: dict[Scope, Translator] = {}
        self._memory = PemMemory()
        self._entrances = Entrances(self._memory)

    def replace_default_remote(self, default_remote: RemoteBackend) -> None:
        """Translate with another credential of the default backend from now on."""
        self._secrets = replace(self._secrets, default_remote=default_remote)

    def scopes(self, key: RouteKey) -> tuple[Scope, ...]:
        """List the scopes that a route is served in."""
        return scopes_of(key, self._options.envoys)

    def translate(self, key: RouteKey, envoys: int, now: datetime | None = None) -> TranslatedRoute:
        """Translate a route; without one, into no resources. So many `envoys` share its limit, if it has one.

        What has expired `now` is said; without a time, nothing is.

        A mistake of ours shows with one route, which keeps what it has; the others go on. The words of the exception
        are not logged: they may quote a secret.
        """
        try:
            return self._translated(key, envoys, now)
        except Exception as error:
            frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            name = type(error).__name__
            logger.error("model not translated", extra={"model": str(key), "error": name, "at": " ".join(frames[-3:])})
            record = self._index.record(key)
            problem = ServingProblem(NOT_TRANSLATED, f"what is asked for cannot be translated ({name})")
            kept = (record.accepted, record.left) if record else (None, None)
            return TranslatedRoute(None, (problem,), (), False, *kept)

    def _translated(self, key: RouteKey, envoys: int, now: datetime | None) -> TranslatedRoute:
        record = self._index.record(key)
        if record is None or record.route is None:
            return TranslatedRoute({})
        found = _Validated(record.route) if record.asked is None else self._validated(key, record.route, record)
        if found.route is None:
            return TranslatedRoute({}, found.problems, accepted=found.accepted)
        entrance = self._entrances.resolve(key, found.route, self._index.find, self._secrets, now)
        if entrance.is_closed:
            return TranslatedRoute({}, (*found.problems, *entrance.problems), accepted=found.accepted)
        resolved = resolve_credentials(key, found.route, self._index.find, self._secrets, self._memory)
        lost = tuple(self._lost_names(key, found.route, record))
        problems = (*found.problems, *entrance.problems, *lost, *resolved.problems)
        if refusals := tuple(self._refusals(found.route)):
            # All that leaves stays, as when a credential is missing.
            resolved = ResolvedRoute(found.route.without_remotes())
            problems = (*found.problems, *entrance.problems, *lost, *refusals)
        route = resolved.route
        replicas = self._replicas(route.local)
        is_limited = bool(route.remotes and route.local.max_requests_per_replica)
        ways_in = WaysIn(self._left(key, route, record), has_name=not lost)
        resources = {
            scope: (
                *entrance.secrets,
                *resolved.secrets,
                *self._translator(scope).resources(key, route, replicas, envoys, ways_in),
            )
            for scope in self.scopes(key)
            # A sidecar is asked by its own pod, in the clear: it has nobody to show a certificate to, nor to keep out.
            if not (route.tls and scope.role is Role.SIDECAR)
        }
        problems = (*problems, *self._shadowed(key, record))
        remotes = tuple((one, resolved.values) for one in route.remotes)
        return TranslatedRoute(resources, problems, remotes, is_limited, found.accepted, ways_in.left, entrance.ends)

    def _shadowed(self, key: RouteKey, record: RouteRecord) -> Iterator[ShadowedProblem]:
        """Say why nothing could leave for what an object would use but for its mode, which is as if it were used.

        What stands in its spec beside another credential is read with a route that uses it, and is not looked at here.
        """
        route = record.would_be
        if route is None or reads_spec(route):
            return
        problems = resolve_credentials(key, route, self._index.find, self._secrets, self._memory).problems
        if found := (*problems, *self._refusals(route)):
            words = "; ".join(one.message for one in found)
            yield from (ShadowedProblem(found[0].reason, words, remote) for remote in route.remotes)

    def _left(self, key: RouteKey, route: Route, record: RouteRecord) -> int | None:
        """Return the port that a route left and is served on still, unless somebody else has it by now."""
        port = self._index.left(key, record, route.port)
        return None if port is None or self._index.winner(port) not in (None, key) else port

    def _lost_names(self, key: RouteKey, route: Route, record: RouteRecord) -> Iterator[EntranceProblem]:
        """Say which names another route has over TLS on the port that all share."""
        for name in sorted(server_names(route)) if record.asked else ():
            if (holder := self._index.winner(server_name_claim(name))) not in (None, key):
                words = f"over TLS the host {name} is that of {holder} on the port that all models share"
                yield EntranceProblem(SERVER_NAME_TAKEN, words, closes=False)

    def _validated(self, key: RouteKey, route: Route, record: RouteRecord) -> _Validated:
        """Say what may be served of a route that somebody wrote into a status.

        What it may not be leaves its object with what it was served with before, so that nobody breaks by it what is
        there. Without that it is not served or, where only its remote backends are at fault, stays local. Nobody may
        be at fault: the object was edited, nobody has decided since, and we have no memory of before. Then requests
        leave for what it asks for now, as whoever decides will have it.
        """
        asked, before, reserved = record.asked or Asked(), record.accepted, self._options.reserved_ports
        faults = tuple(faults_of(key, route, self._index, reserved))
        unknown = tuple(unasked(route, asked, before))
        # Who is let in is no matter of what leaves: without a route of before there is nothing to serve.
        strange = tuple(unasked_entrance(route, asked, before, self._index))
        if not (faults or unknown or strange):
            return _Validated(as_it_may_be(key, route, self._index, before), accepted=route)
        is_usable = before is not None and not any(faults_of(key, before, self._index, reserved))
        if not (faults or is_usable) and record.is_edited and (edited := as_asked_for(route, asked)):
            return _Validated(as_it_may_be(key, edited, self._index, None), accepted=edited)
        if before and is_usable:
            served: Route | None = as_it_may_be(key, before, self._index, before)
        else:
            local = None if faults or strange else route.without_remotes()
            before, served = None, local and as_it_may_be(key, local, self._index, None)
        reason = REFUSED if before or faults or strange else NOT_ASKED_FOR
        faults = (*faults, *strange)
        logger.warning("route not served as a status has it", extra={"model": str(key), "because": (*faults, *unknown)})
        words = (f"status.route.{one}" for one in faults), (f"status.route.remotes: {one}" for one in unknown)
        problems = tuple(ServingProblem(reason, one) for some in words for one in some)
        return _Validated(served, problems, before)

    def _refusals(self, route: Route) -> Iterator[ServingProblem]:
        """Say which hosts of a route are refused as they are written: where it comes from is not asked."""
        for host in (host for remote in route.remotes for host in hosts_of(remote)):
            if self._options.destinations.refused_host(host):
                yield ServingProblem(HOST_REFUSED, f"{host} is refused; nothing may be sent there")

    def _translator(self, scope: Scope) -> Translator:
        if scope not in self._translators:
            self._translators[scope] = Translator(self._options.envoys[scope.role])
        return self._translators[scope]

    def _replicas(self, local: LocalBackend) -> tuple[Replica, ...]:
        # The slices of a shadow may come after the route that has it: until then the pods are those of the Service.
        names = (local.service, local.clients_service)
        slices = next(filter(None, (self._index.slices(local.namespace, one) for one in names)), ())
        admitted = self._options.guard(slices, custom=bool(local.custom_endpoints)).slices
        return taken(replicas_of(admitted, local.port_name))
