"""How a route is read from the object that has it, and the record of what is known of it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.api.contract.credentials import inline_client_secret
from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.contract.status import is_withdrawn
from controller.api.kubernetes.fronting import shadow_name
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.intent.consent import any_grant_in, service_ref
from controller.store.objects import ObjectRef, StoredObject
from xds_server.resources.secret import Values
from xds_server.routes.credentials import ServingProblem, is_spec_of, reads_spec, referred_secrets
from xds_server.routes.entrance import served_secrets
from xds_server.routes.shadow_mode import ReadShadowed, Shadowed
from xds_server.routes.validation import Ask, Asked

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """Everything that is known of one route.

    * `route` is what the controller wrote last, None once it is to be served no longer; `uid` is that of its object.
    * `decided_from` is the object as it was when the route was decided, for a route whose credential stands in it.
    * `asked` is what its object asks for now, None where routes are believed. `accepted` is the route of this object
      that was found to be what it may be, and served. `is_edited` says that the object was edited since.
    * `shadowed` is what its object would use but for its mode: whether it could is looked at, and nothing leaves.
    * `left` is a port that it was served on before, and is still, since its Service at the gateway leads there.
    * `published` is the route that was last published, as the controller wrote it. `problems` say why requests stay
      local though it lets them leave. `remotes` are the remote backends that are served, each with its credentials.
    """

    route: Route | None = None
    uid: str = ""
    decided_from: StoredObject | None = None
    asked: Asked | None = None
    accepted: Route | None = None
    is_edited: bool = False
    shadowed: Shadowed = field(default_factory=Shadowed)
    left: int | None = None
    published: Route | None = None
    problems: tuple[ServingProblem, ...] = ()
    remotes: tuple[tuple[Remote, Values], ...] = ()

    @property
    def would_be(self) -> Route | None:
        """The route with the remote backends that it would have but for the mode of its object; None without any."""
        if self.route is None or self.route.remotes or not self.shadowed.remotes:
            return None
        return self.route.model_copy(update={"remotes": self.shadowed.remotes})


def ends_route(stored: StoredObject, before: RouteRecord) -> bool:
    """Tell whether a route is over: withdrawn, or of an object in whose place is one that was decided to have none."""
    return is_withdrawn(stored.status) or _is_successor_without_route(stored, before)


def ended(before: RouteRecord) -> RouteRecord:
    """Return the record of a route that is to be served no longer, until that is published."""
    return replace(
        before, route=None, uid="", decided_from=None, asked=None, accepted=None, left=None, shadowed=Shadowed()
    )


def read_record(
    stored: StoredObject, before: RouteRecord, ask: Ask | None, read_shadowed: ReadShadowed | None = None
) -> tuple[RouteRecord, bool]:
    """Read the route of an object that changed; tell also whether it must be translated again.

    A route that vanished from the status is that of `before`. `ask` reads what an object asks for; None: routes are
    believed.
    """
    if before.uid not in ("", stored.uid):
        # What another object of this name asked for is nothing to this one.
        before = replace(before, asked=None, accepted=None, left=None)
    asked, route = _asked(stored, before.asked, ask), _route_of(stored)
    if route is None:
        return replace(before, asked=asked), False
    decided_from, is_edited = _decided_from(route, stored, before.decided_from), _is_edited(stored)
    shadowed = _shadowed(stored, before.shadowed, read_shadowed)
    new = replace(
        before,
        route=route,
        uid=stored.uid,
        decided_from=decided_from,
        asked=asked,
        is_edited=is_edited,
        shadowed=shadowed,
    )
    is_news = route != before.route or asked != before.asked or shadowed.remotes != before.shadowed.remotes
    if before.accepted != route:  # else it makes no difference
        is_news = is_news or is_edited != before.is_edited
    return new, is_news or _own_secret(decided_from) != _own_secret(before.decided_from)


def _asked(stored: StoredObject, before: Asked | None, ask: Ask | None) -> Asked | None:
    """Read what an object asks for, unless it is what it asked for before: a status is written more often."""
    if ask is None or (before and before.spec == stored.raw.get("spec")):
        return before
    return ask(stored)


def _shadowed(stored: StoredObject, before: Shadowed, read: ReadShadowed | None) -> Shadowed:
    return before if read is None or before.spec == stored.raw.get("spec") else read(stored)


def referred(key: RouteKey, record: RouteRecord | None) -> frozenset[ObjectRef]:
    """Name what a route is read together with, and what is served in its place: a change of any of it is one of it."""
    if record is None or record.route is None:
        return frozenset()
    routes = {record.route, record.accepted or record.route, record.would_be or record.route}
    at_gateway = record.asked.gateway_service if record.asked else ""
    own = frozenset({service_ref(key.namespace, at_gateway)} if at_gateway else ())
    return own.union(*(_referred_by(key, route) for route in routes))


def _referred_by(key: RouteKey, route: Route) -> frozenset[ObjectRef]:
    local = route.local
    services = {service_ref(local.namespace, name) for name in (local.service, local.clients_service)}
    secrets = referred_secrets(key, route) | served_secrets(key, route)
    shadow = service_ref(local.namespace, shadow_name(local.clients_service))
    if local.namespace == key.namespace:
        # By its shadow it is known that a Service is taken over, whose clients speak no TLS.
        return secrets | services | ({shadow} if local.fronted else set())
    return secrets | services | {shadow, any_grant_in(local.namespace)}


def is_decided(stored: StoredObject) -> bool:
    """Tell whether a controller has decided on an object."""
    return "observedGeneration" in stored.status


def _is_edited(stored: StoredObject) -> bool:
    """Tell whether an object was edited since its status was written, as far as that says so: anybody may write it."""
    observed = stored.status.get("observedGeneration")
    return isinstance(observed, int) and stored.generation > observed


def _is_successor_without_route(stored: StoredObject, before: RouteRecord) -> bool:
    """Tell whether an object was decided to have no route, and what is served is that of one before of its name.

    Deleted and created at once may look like a change. What is not decided on yet keeps what there was.
    """
    is_another = before.uid not in ("", stored.metadata["uid"])
    return is_another and is_decided(stored) and not stored.status.get("route")


def _decided_from(route: Route, stored: StoredObject, before: StoredObject | None) -> StoredObject | None:
    """Return the object that holds a credential of its route itself, as it was when the route was decided.

    A credential is for the token endpoint that it stands beside. The spec may be newer than the route, also when the
    status says otherwise: what is refused keeps the route of before. And the spec in between may never come.
    """
    if not reads_spec(route):
        return None
    return next((one for one in (stored, before) if one and is_spec_of(one.raw, route)), None)


def _own_secret(stored: StoredObject | None) -> object:
    return inline_client_secret(stored.raw) if stored else None


def _route_of(stored: StoredObject) -> Route | None:
    raw: Mapping[str, Any] | None = stored.status.get("route")
    if raw is None:
        return None
    try:
        return parse(Route, raw)
    except InvalidObjectError as error:
        logger.warning("route not understood", extra={"object": str(stored.ref), "error": str(error)})
        return None
