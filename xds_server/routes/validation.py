"""What a route may say: it is compared with what it must come from before it is served (docs/adr/0055). Pure.

Whoever may write the status of an object shall not get further by it than whoever may write the object itself. So where
requests leave for, and with which credential, must be what the object asks for or the default backend of our own
configuration; the Service must be one of its own namespace, or one that permits it; and what is the gateway's, or
another model's, is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.route import LocalBackend, Remote, Route, RouteKey
from controller.api.kubernetes.fronting import GATEWAY_PORTS, SHADOW_OF, ports_in, shadow_name
from controller.api.kubernetes.objects import Service
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.model import ModelDeployment
from controller.api.schema.client_headers import LONG_KNOWN_CREDENTIALS
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.hosts import address_of
from controller.intent.consent import Permission, may_refer, service_ref
from controller.intent.intent import Intent, intent_of_model
from controller.intent.remotes import RemoteNotUsableError, remotes_of
from controller.store.objects import StoredObject
from xds_server.routes.contests import LEFT, Contender

REFUSED = "RouteRefused"
"""The reason of a route that says what it may not: it is not served, or its object is served as it was before."""

NOT_ASKED_FOR = "RemoteNotAskedFor"
"""The reason of a remote backend that the object does not ask for: requests stay local."""

_HTTP_PORT = "80"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an object asks for, as far as its route has to agree: the remote backends that it may be served with, and
    who is let in (`tls`, `jwt`).

    `fixed_port` is the port of the gateway that it fixes, if it does, `gateway_service` the name of the Service that it
    has at the gateway, empty for none. `spec` is what all of that was read from.
    """

    remotes: tuple[Remote, ...] = ()
    tls: EntranceTls | None = None
    jwt: tuple[JwtProvider, ...] = ()
    fixed_port: int | None = None
    created: str = ""
    gateway_service: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)


Ask = Callable[[StoredObject], Asked]
"""Reads what an object asks for."""


def asked_with(default: RemoteBackend | None) -> Ask:
    """Read what objects ask for, where this is the default backend. One that cannot be read asks for nothing."""

    def ask(stored: StoredObject) -> Asked:
        spec, created = stored.raw.get("spec") or {}, str(stored.metadata["creationTimestamp"])
        try:
            intent = intent_of_model(stored.parsed_as(ModelDeployment), stored.generation)
        except InvalidObjectError:
            return Asked(created=created, spec=spec)
        remotes = remotes_asked_for(intent, default) if intent.terms.may_leave else ()
        at_gateway = intent.gateway_service.name if intent.gateway_service else ""
        return Asked(remotes, intent.tls, intent.jwt, intent.serving_port, created, at_gateway, spec)

    return ask


def remotes_asked_for(intent: Intent, default: RemoteBackend | None) -> tuple[Remote, ...]:
    """Build the remote backends that an object asks for, if it may use them: see `remotes_of`.

    A policy that is not enforced keeps everything local, as the controller has it.
    """
    if intent.local_policy is not None:
        return ()
    try:
        return remotes_of(intent, default)
    except RemoteNotUsableError:
        return ()


class Objects(Protocol):
    """What a Service of another namespace permits is looked up here."""

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """Return what the ReferenceGrants of a namespace permit."""

    def winner(self, thing: int | str) -> RouteKey | None:
        """Say whose a port or a host is."""


def faults_of(key: RouteKey, route: Route, objects: Objects, reserved: frozenset[int]) -> Iterator[str]:
    """Say what a route says that it may not, but for its remote backends; `reserved` are ports of the gateway's own."""
    local = route.local
    if route.port in reserved:
        yield f"port: {route.port} is one that a program of the gateway listens on"
    elif (holder := objects.winner(route.port)) not in (None, key):
        yield f"port: {route.port} is that of {holder}"
    if local.fronted is not None and local.service != shadow_name(local.fronted):
        yield f"local.service: must be {shadow_name(local.fronted)} where local.fronted is {local.fronted}"
    if not _may_front(key, route, objects):
        words = "does not permit references from there"
        yield f"local.namespace: Service {local.namespace}/{local.clients_service} {words}"
    yield from _faults_of_check(key, local)
    host = f"{local.clients_service}.{local.namespace}"
    for one in route.hosts:
        if one.partition(":")[0] != host:
            yield f"hosts: {one} is no host of {host}"


def _may_front(key: RouteKey, route: Route, objects: Objects) -> bool:
    local = route.local
    if local.namespace == key.namespace:
        return True
    ref = service_ref(local.namespace, local.clients_service)
    found = objects.service(ref.namespace, ref.name)
    if may_refer(key.namespace, ref, found, objects.permissions(ref.namespace)):
        return True
    # A Service that takes its consent back is led to its pods first: until then its clients are led here.
    return _is_taken_over(route, objects)


def _is_taken_over(route: Route, objects: Objects) -> bool:
    """Tell whether clients of the Service are led to the port of a route, as the record on its shadow says.

    The shadow is written in the namespace of the Service.
    """
    local = route.local
    name = local.clients_service
    shadow = objects.service(local.namespace, shadow_name(name)) if local.fronted else None
    if shadow is None or shadow.metadata.labels.get(SHADOW_OF) != name:
        return False
    return route.port in ports_in(shadow.metadata.annotations.get(GATEWAY_PORTS, ""))


def _faults_of_check(key: RouteKey, local: LocalBackend) -> Iterator[str]:
    """Say what is asked of replicas that no readiness probe has asked for (`controller/observe/readiness.py`)."""
    check = local.health_check
    if check is None:
        return
    if check.port is not None:
        yield "local.healthCheck.port: replicas are asked where requests go, and nowhere else"
    if local.namespace != key.namespace and (
        check.path or check.headers or check.host or check.grpc_service is not None
    ):
        yield "local.healthCheck: replicas of another namespace are connected to, and asked for nothing"
    for header in check.headers:
        # Further names were not known to controllers of before: their routes are served until one decides anew.
        if header.name.lower() in LONG_KNOWN_CREDENTIALS:
            yield f"local.healthCheck.headers: {header.name} holds a credential"


def unasked(route: Route, asked: Asked, before: Route | None) -> Iterator[str]:
    """Say which remote backends of a route its object does not ask for.

    `before` is the route that it was served with last: what was asked for then may be served until somebody decides
    anew. Numbers, such as timeouts, are not compared: programs of two versions may not agree on them, and what they may
    be is a matter of their form (`Remote`). Nor is `throughGateway`, which depends on other models: what it may cost is
    that a request comes to the gateway four times.
    """
    known = {_compared(one) for one in (*asked.remotes, *(before.remotes if before else ()))}
    for remote in route.remotes:
        if _compared(remote) not in known:
            yield (
                f"{remote.host}, port {remote.port}, is not the remote backend that the object asks for, nor the "
                "defaultRemoteBackend of the xDS server's configuration, with all that belongs to it"
            )


def unasked_entrance(route: Route, asked: Asked, before: Route | None, objects: Objects) -> Iterator[str]:
    """Say whom a route lets in that its object does not: `before` is as in `unasked`.

    While a Service is taken over its clients speak no TLS, whatever the object asks for: it begins behind that.
    """
    known = {(asked.tls, asked.jwt), *([(before.tls, before.jwt)] if before else ())}
    if (route.tls, route.jwt) in known:
        return
    if route.tls is None and _is_taken_over(route, objects):
        return
    tls = {tls for tls, _ in known}
    yield f"{'jwt' if route.tls in tls else 'tls'}: is not what the object asks for"


def as_asked_for(route: Route, asked: Asked) -> Route | None:
    """Return a route with the remote backends and the entrance that its object asks for; None if it lacks a backend."""
    by_name = {one.name: one for one in asked.remotes}
    if any(one.name not in by_name for one in route.remotes):
        return None
    remotes = tuple(by_name[one.name] for one in route.remotes)
    return route.model_copy(update={"remotes": remotes, "tls": asked.tls, "jwt": asked.jwt})


def _compared(remote: Remote) -> Remote:
    check = remote.health_check
    return remote.model_copy(
        update={
            # A controller of before has an address as it was written.
            "host": address_of(remote.host) or remote.host,
            "connect_timeout": None,
            "answer_timeout": None,
            "retries": None,
            "through_gateway": None,
            "health_check": check.model_copy(update={"interval": timedelta(seconds=1)}) if check else None,
        }
    )


def as_it_may_be(key: RouteKey, route: Route, objects: Objects, before: Route | None) -> Route:
    """Return a route without what it may not have, and that nothing of it depends on.

    Hosts that are another's are left out. That endpoints are written by hand is for the Service to say; of one that is
    gone, what it said before holds.
    """
    local = route.local
    service = objects.service(local.namespace, local.clients_service)
    by_hand = local.custom_endpoints
    if by_hand and service is not None:
        by_hand = None if service.spec.selector else True
    elif by_hand:
        was = before.local if before else None
        is_known = was is not None and (was.namespace, was.clients_service) == (local.namespace, local.clients_service)
        by_hand = was.custom_endpoints if was and is_known else None
    hosts = tuple(one for one in route.hosts if objects.winner(one) == key and _is_of_port(one, local, service))
    return route.model_copy(update={"hosts": hosts, "local": local.model_copy(update={"custom_endpoints": by_hand})})


def _is_of_port(host: str, local: LocalBackend, service: Service | None) -> bool:
    """Whether a host with a port is the one of the Service that the route leads to, as far as the Service is known."""
    number = host.partition(":")[2]
    if not number or service is None:
        return True
    return any(str(one.port) == number and one.name == local.port_name for one in service.spec.ports)


def server_names(route: Route) -> frozenset[str]:
    """List the names by which clients ask for a route over TLS on the port that all share: its hosts without ports."""
    return frozenset(host.partition(":")[0] for host in route.hosts) if route.tls else frozenset()


def server_name_claim(name: str) -> str:
    """Say what is contested of a name that clients ask for over TLS; no host is written so."""
    return f"tls/{name}"


def claims_of(
    key: RouteKey, route: Route, asked: Asked, accepted: Route | None = None, left: int | None = None
) -> Mapping[int | str, Contender]:
    """List the port, the hosts and the names over TLS that a route says are its own.

    Who fixes its port goes before who does not. `accepted` is the route that its object is served with, `left` is a
    port that it left and is served on all the same, as long as nobody else has it (`Contests`). Hosts and names go by
    the objects alone, as the controller has it.
    """
    created, is_foreign = asked.created, route.local.namespace != key.namespace
    numbers = [one.partition(":")[2] for one in route.hosts]
    rank = int(any(number not in ("", _HTTP_PORT) for number in numbers))
    claims: dict[int | str, Contender] = {
        host: Contender(0 if number else rank, False, is_foreign, created, key)
        for host, number in zip(route.hosts, numbers, strict=True)
    }
    if route.tls:
        # Who is asked for by a name over TLS: of a Service whose ports are of several models, one of them has it.
        claims |= {
            server_name_claim(name): Contender(0, False, is_foreign, created, key) for name in server_names(route)
        }
    is_newcomer = accepted is None or accepted.port != route.port
    if left is not None:
        claims[left] = Contender(LEFT, False, False, created, key)
    claims[route.port] = Contender(int(asked.fixed_port != route.port), is_newcomer, False, created, key)
    return claims
