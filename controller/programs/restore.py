"""What `beamlit restore` does: Services that were taken over are as their owners wrote them, without a controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from controller.api.registry import DEPLOYMENT, ENDPOINT_SLICE, KINDS, LEASE, MODEL_DEPLOYMENT, SERVICE, Program
from controller.api.timing import Timing
from controller.check.cluster import ClusterReader, Unread
from controller.check.control_plane import is_held
from controller.check.installation import USUAL_LEASE, USUAL_NAMESPACE, RunningProgram, Sought, find_installation
from controller.observe.fronting import services_in
from controller.programs.configuration import ConfigurationFileError, load_configuration
from controller.reconcile.restoration import (
    OWN_SLICES,
    ServiceRestoration,
    TakenOver,
    found_in,
    in_view,
)
from controller.store.kube import KubeClient
from controller.store.kube.client import MERGE
from controller.store.kube.objects import KubeObjects, stored_object
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConfigurationError, ForbiddenError, NotFoundError, StoreError

__all__ = [
    "ConfigurationError",
    "ConfigurationFileError",
    "ForbiddenError",
    "RestoreOptions",
    "RestoreOutcome",
    "StoreError",
    "restored",
]

_MOST_REQUESTS = 10_000
_PAGE = 500


class RestoreOutcome(Enum):
    """What became of it."""

    RESTORED = "everything is as it was, or would be"
    NOT_ALL = "something is left: for want of time or of a right"
    CONTROLLER_RUNS = "nothing was done: a controller runs that would take over again"


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the command line says.

    `services` are named ones, each with its namespace or without; `everything` stands for all, in `namespaces` or
    (none) everywhere, of one class or (None) of any. `overrides` go before the configuration file.
    """

    timing: Timing
    kubeconfig: Path | None
    context: str | None
    services: tuple[tuple[str | None, str], ...] = ()
    everything: bool = False
    namespace: str | None = None
    config: Path | None = None
    namespaces: tuple[str, ...] = ()
    controller_class: str | None = None
    lease: tuple[str, str] | None = None
    stop_controller: bool = False
    dry_run: bool = False
    timeout: timedelta = timedelta(minutes=2)


def restored(options: RestoreOptions, say: Callable[[str], None]) -> RestoreOutcome:
    """Restore, saying each step. Raises ConfigurationError, ConfigurationFileError, or StoreError."""
    return asyncio.run(_restored(options, say))


async def _restored(options: RestoreOptions, say: Callable[[str], None]) -> RestoreOutcome:
    if options.config is not None:
        configuration = load_configuration(options.config, {})
        given = options.controller_class
        options = replace(
            options,
            namespaces=options.namespaces or configuration.namespaces,
            controller_class=configuration.controller_class if given is None else given,
        )
    async with KubeClient.from_environment(options.kubeconfig, options.context, options.timing.kube) as client:
        cluster = _Cluster(client)
        found = await cluster.find(options, say)
        if not found.services and not found.models:
            say("nothing is taken over")
            return RestoreOutcome.RESTORED
        controllers = _Controllers(client, options, found)
        if options.dry_run:
            for line in (*in_view(found), *[words async for words in controllers.running()]):
                say(line)
            return RestoreOutcome.RESTORED
        if options.stop_controller:
            await controllers.stop(say)
        elif running := [words async for words in controllers.running()]:
            for words in running:
                say(words)
            return RestoreOutcome.CONTROLLER_RUNS
        return await _restore(cluster, options, found, say)


async def _restore(
    cluster: _Cluster, options: RestoreOptions, found: TakenOver, say: Callable[[str], None]
) -> RestoreOutcome:
    """Restore every Service at once, each step by step; then let the models go."""
    restoration = ServiceRestoration(
        cluster.objects, cluster, found.models, options.timing.takeover, lambda: datetime.now(UTC)
    )
    left: dict[ObjectRef, str] = {}

    async def one(key: ObjectRef) -> None:
        try:
            await restoration.restore(key, say)
            say(f"{key.namespace}/{key.name} is as its owner wrote it")
        except StoreError as error:
            left[key] = str(error)

    work = {key: asyncio.create_task(one(key)) for key in sorted(found.services)}
    if work:
        await asyncio.wait(work.values(), timeout=options.timeout.total_seconds())
    for key, task in work.items():
        if not task.done():
            task.cancel()
            left.setdefault(key, restoration.waits_for(key))
    await asyncio.gather(*work.values(), return_exceptions=True)
    for ref, model in sorted(found.models.items()):
        fronts_what_is_left = not services_in(model.status).isdisjoint(left)
        if fronts_what_is_left or not (options.everything or "deletionTimestamp" in model.metadata):
            continue
        try:
            await restoration.release(ref, say)
        except StoreError as error:
            left[ref] = str(error)
    for ref, words in left.items():
        say(f"{ref} is not restored yet: {words}")
    if left:
        say("run it again to go on from here")
    return RestoreOutcome.NOT_ALL if left else RestoreOutcome.RESTORED


class _Cluster:
    """The objects of a cluster, listed page by page. An `ObjectLister`."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.objects = KubeObjects(client)

    async def list(self, kind: str, namespace: str, labels: str = "") -> tuple[StoredObject, ...]:
        """See `ObjectLister`."""
        found: list[StoredObject] = []
        query = {"limit": str(_PAGE), **({"labelSelector": labels} if labels else {})}
        while True:
            page = await self._client.request("GET", KINDS[kind].path(namespace), query=query)
            found += (stored_object(KINDS[kind], raw) for raw in page.get("items") or ())
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return tuple(found)
            query["continue"] = more

    async def find(self, options: RestoreOptions, say: Callable[[str], None]) -> TakenOver:
        """Find what is taken over, of what is asked for. Raises StoreError."""
        home = options.namespace or self._client.namespace
        named = {ObjectRef(SERVICE.kind, namespace or home, name) for namespace, name in options.services}
        places = options.namespaces or ("",)
        if not options.everything:
            places = tuple(sorted({one.namespace for one in named}))
        services = [one for place in places for one in await self.list(SERVICE.kind, place)]
        slices = [one for place in places for one in await self.list(ENDPOINT_SLICE.kind, place, OWN_SLICES)]
        list_models = self._models_in if options.everything else self._models_anywhere
        found = found_in(services, slices, await list_models(places, say))
        if options.controller_class is not None:
            found = found.of_class(options.controller_class)
        if options.everything:
            return found
        for absent in sorted(named - found.services.keys()):
            say(f"{absent.namespace}/{absent.name} is not taken over")
        return TakenOver(
            {key: one for key, one in found.services.items() if key in named},
            {ref: one for ref, one in found.models.items() if services_in(one.status) & named},
        )

    async def _models_anywhere(self, beside: Iterable[str], say: Callable[[str], None]) -> tuple[StoredObject, ...]:
        """List all models, for one may front a Service of another namespace; or, where we may not, those `beside`."""
        try:
            return await self.list(MODEL_DEPLOYMENT.kind, "")
        except NotFoundError:
            return ()
        except ForbiddenError as error:
            say(f"models of other namespaces than their Service's are not seen ({error})")
            return await self._models_in(beside, say)

    async def _models_in(self, namespaces: Iterable[str], say: Callable[[str], None]) -> tuple[StoredObject, ...]:
        return tuple([one for place in namespaces for one in await self._models(place, say)])

    async def _models(self, namespace: str, say: Callable[[str], None]) -> tuple[StoredObject, ...]:
        """List the models; there are none without their definition."""
        try:
            return await self.list(MODEL_DEPLOYMENT.kind, namespace)
        except NotFoundError:
            return ()
        except ForbiddenError as error:
            say(f"models are not seen, so finalizers stay where they are ({error})")
            return ()


class _Controllers:
    """The controllers that would take over again what is restored."""

    def __init__(self, client: KubeClient, options: RestoreOptions, found: TakenOver) -> None:
        self._client = client
        self._options = options
        self._found = found
        self._reader = ClusterReader(client, _MOST_REQUESTS, options.timing.inspection.answer)

    async def running(self) -> AsyncIterator[str]:
        """Say of each controller that runs, and what to do about it."""
        instead = "stop it first (--stop-controller), or have its models no longer front the Service: spec.enabled: "
        instead += "false, or spec.frontend: Gateway"
        deployed = [one for one in await self._deployments() if one.ready]
        for one in deployed:
            yield f"the controller runs (Deployment {one.namespace}/{one.name}), and would take over again: {instead}"
        if not deployed:
            for namespace, name in self._leases():
                if holder := await self._alive(namespace, name):
                    yield f"a controller runs: {holder} renews the Lease {namespace}/{name}. {instead}"

    async def stop(self, say: Callable[[str], None]) -> None:
        """Scale the Deployments of the controllers to none, and wait until nobody leads."""
        for one in await self._deployments():
            if one.wanted:
                path = DEPLOYMENT.path(one.namespace, one.name, "scale")
                await self._client.request("PATCH", path, body={"spec": {"replicas": 0}}, content_type=MERGE)
                back = f"kubectl -n {one.namespace} scale --replicas={one.wanted} deployment {one.name}"
                say(f"Deployment {one.namespace}/{one.name} is stopped; it is started by: {back}")
        lease = self._options.timing.lease
        ends = asyncio.get_running_loop().time() + lease.lease + lease.renewed_within
        while still := [one async for one in self._leading()]:
            if asyncio.get_running_loop().time() > ends:
                say(f"a controller that is not stopped leads by the Lease {', '.join(still)}")
                return
            await asyncio.sleep(lease.look_every)

    async def _deployments(self) -> tuple[RunningProgram, ...]:
        found = await find_installation(self._reader, Sought(namespace=None))
        return tuple(one for one in found.of(Program.CONTROLLER) if self._concerns(one))

    def _concerns(self, program: RunningProgram) -> bool:
        """Whether a controller is one of those whose Services are restored."""
        wanted = self._options.controller_class
        if wanted is not None and program.controller_class != wanted:
            return False
        watched = frozenset(program.namespaces)
        return not watched or any(key.namespace in watched for key in (*self._found.services, *self._found.models))

    def _leases(self) -> Iterable[tuple[str, str]]:
        """Name the Leases by which controllers may lead: the one that is said, and those that statuses name."""
        if self._options.lease:
            return (self._options.lease,)
        told = (str(model.status.get("controller") or "").partition("/") for model in self._found.models.values())
        usual = ((place, USUAL_LEASE) for place in (self._client.namespace, USUAL_NAMESPACE))
        return dict.fromkeys([(namespace, name) for namespace, _, name in told if name] + list(usual))

    async def _leading(self) -> AsyncIterator[str]:
        for namespace, name in self._leases():
            lease, now = await self._lease(namespace, name)
            if lease and is_held(lease, now):
                yield f"{namespace}/{name}"

    async def _alive(self, namespace: str, name: str) -> str:
        """Say who leads by a Lease and goes on renewing it; empty for one that was left behind."""
        lease, now = await self._lease(namespace, name)
        if lease is None or not is_held(lease, now):
            return ""
        await asyncio.sleep(self._options.timing.lease.renewed_within)
        again, now = await self._lease(namespace, name)
        if again is None or again.resource_version == lease.resource_version:
            return ""
        return str((again.raw.get("spec") or {}).get("holderIdentity") or "")

    async def _lease(self, namespace: str, name: str) -> tuple[StoredObject | None, datetime]:
        """Read a Lease, and the time of the API server."""
        raw = await self._reader.read(LEASE.path(namespace, name))
        answer = await self._reader.look("/version")
        now = None if isinstance(answer, Unread) else answer.at
        stored = None if isinstance(raw, Unread) else StoredObject(ObjectRef(LEASE.kind, namespace, name), raw)
        return stored, now or datetime.now(UTC)
