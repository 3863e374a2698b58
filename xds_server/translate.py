"""Objects in, Envoy configuration out: what a running server publishes, without tasks, timers or clients. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.api.contract.route import RouteKey
from controller.api.registry import SERVICE
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.index import RouteIndex
from xds_server.routes.translation import RouteTranslator, ServingOptions
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class TranslatedObjects:
    """The snapshot of each scope, and by route why less is served than it asks for."""

    snapshots: Mapping[Scope, Snapshot]
    problems: Mapping[RouteKey, tuple[ServingProblem, ...]]

    @property
    def gateway(self) -> Snapshot:
        """The snapshot of the gateway's Envoys."""
        return self.snapshots[GATEWAY]


def translate(objects: Iterable[StoredObject], options: ServingOptions) -> TranslatedObjects:
    """Translate all that is in a store: objects with a route in their status, EndpointSlices and Secrets."""
    index, service, envoys = (
        RouteIndex(options.controller_class, options.ask, options.read_shadowed),
        options.gateway_service,
        options.gateway.envoys,
    )
    affected = index.apply(Batch(tuple(objects), complete=True))
    if service and ObjectRef(SERVICE.kind, *service) in affected.objects:
        envoys = index.ready_envoys(*service)
    translator = RouteTranslator(index, options)
    assemblies: dict[Scope, Assembly[RouteKey]] = {GATEWAY: Assembly()}
    problems: dict[RouteKey, tuple[ServingProblem, ...]] = {}
    for key in sorted(affected.routes):
        translated = translator.translate(key, envoys)
        if translated.problems:
            problems[key] = translated.problems
        for scope, resources in (translated.resources or {}).items():
            assemblies.setdefault(scope, Assembly()).replace([(key, resources)])
    return TranslatedObjects({scope: one.snapshot for scope, one in assemblies.items()}, problems)
