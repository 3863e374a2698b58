"""The way out of a takeover without a controller: one Service after the other is as its owner wrote it again.

The steps are those of the controller (`frontend/takeover.py`) with nothing wanted. Each follows from what is read right
before it and is written under a precondition. So it may be interrupted anywhere, and begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from controller.api.kubernetes.fronting import CONTROLLER_CLASS, SHADOW_OF, SLICES_OF, is_narrowed, shadow_name
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME
from controller.api.registry import ENDPOINT_SLICE, MODEL_DEPLOYMENT, SERVICE
from controller.api.timing import TakeoverTiming
from controller.frontend.service_facts import FrontedRoute, ServiceFacts, Steadiness
from controller.frontend.takeover import TakeoverStep, finalizer_removal, next_step
from controller.reconcile.applier import Applier
from controller.runtime.writes import Verb, Write
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError, NotFoundError, ObjectClient, Precondition

_LOOKS_AGAIN_AFTER = 0.5
"""Seconds, while it is waited for what Kubernetes does."""

Say = Callable[[str], None]


class ObjectLister(Protocol):
    """Lists objects of one kind."""

    async def list(self, kind: str, namespace: str, labels: str = "") -> tuple[StoredObject, ...]:
        """List those in a namespace, or (empty) in all; `labels` is a label selector. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What there is of takeovers: the Services (also those of which only a trace is left), and the models that have our
    finalizer or a route behind one of them.
    """

    services: Mapping[ObjectRef, str]
    """Each with the class of the controller that has it, empty for none."""
    models: Mapping[ObjectRef, StoredObject]

    def of_class(self, controller_class: str) -> TakenOver:
        """Leave out what a controller of another class has."""
        return TakenOver(
            {key: one for key, one in self.services.items() if one == controller_class},
            {
                ref: one
                for ref, one in self.models.items()
                if str((one.raw.get("spec") or {}).get("controllerClass") or "") == controller_class
            },
        )


def found_in(
    services: Sequence[StoredObject], slices: Sequence[StoredObject], models: Iterable[StoredObject]
) -> TakenOver:
    """Find the traces of takeovers among all Services, our EndpointSlices and all models."""
    found: dict[ObjectRef, str] = {}
    # What says the class comes first: the shadow before slices, which somebody else may have left beside it.
    for one in (*services, *slices):
        is_slice = one.ref.kind == ENDPOINT_SLICE.kind
        name = _label(one, SERVICE_NAME if is_slice else SHADOW_OF)
        if name and (is_slice or one.ref.name == shadow_name(name)):
            found.setdefault(ObjectRef(SERVICE.kind, one.ref.namespace, name), _label(one, CONTROLLER_CLASS))
    for one in services:
        if is_narrowed(one.raw):
            found.setdefault(one.ref, "")
    ours = {one.ref: one for one in models if finalizer_removal(one) or _local(one).get("fronted")}
    for model in ours.values():
        local = _local(model)
        if local.get("fronted"):
            key = ObjectRef(SERVICE.kind, str(local.get("namespace")), str(local["fronted"]))
            found.setdefault(key, str((model.raw.get("spec") or {}).get("controllerClass") or ""))
    return TakenOver(found, ours)


def _local(model: StoredObject) -> Mapping[str, Any]:
    route = model.status.get("route")
    local = route.get("local") if isinstance(route, Mapping) else None
    return local if isinstance(local, Mapping) else {}


class ServiceRestoration:
    """Restores Services. `models` are those of `TakenOver`; each write is said in a line."""

    def __init__(
        self,
        objects: ObjectClient,
        lister: ObjectLister,
        models: Mapping[ObjectRef, StoredObject],
        timing: TakeoverTiming,
        clock: Callable[[], datetime],
    ) -> None:
        self._objects = objects
        self._lister = lister
        self._models = dict(models)
        self._timing = timing
        self._clock = clock
        self._applier = Applier(leader=objects, any_replica=objects)
        self._steadiness = Steadiness()
        self._turns = asyncio.Semaphore(timing.at_once)
        self._waits: dict[ObjectRef, str] = {}

    def waits_for(self, key: ObjectRef) -> str:
        """Say what a Service waits for that is not restored yet."""
        return self._waits.get(key, "it was not looked at yet")

    async def restore(self, key: ObjectRef, say: Say) -> None:
        """Do all steps for one Service. Raises StoreError that is no conflict."""
        while True:
            async with self._turns:
                facts = await self._facts(key)
                step = next_step(facts, self._steadiness.see(facts, self._clock()), self._timing)
                if not (facts.is_in_use or facts.routes) and await self._released(facts):
                    self._waits.pop(key, None)
                    return
                wrote = await self._do(key, step, say)
                if not wrote and _is_for_its_shadow_alone(facts, step):
                    wrote = await self._free_routes(facts, say)
            self._waits[key] = step.message
            if not wrote:
                await asyncio.sleep(min(step.wait or _LOOKS_AGAIN_AFTER, _LOOKS_AGAIN_AFTER))

    async def release(self, model: ObjectRef, say: Say) -> None:
        """Take our finalizer off a model. Raises StoreError that is no conflict."""
        while True:
            try:
                stored = await self._objects.read(model)
                write = finalizer_removal(stored)
                if write is not None:
                    await self._applier.apply([write])
                    say(f"{_named(model)}: its finalizer is taken off")
            except NotFoundError:
                return
            except ConflictError:
                continue
            return

    async def _facts(self, key: ObjectRef) -> ServiceFacts:
        shadow_ref = ObjectRef(SERVICE.kind, key.namespace, shadow_name(key.name))
        labels = f"{SERVICE_NAME} in ({key.name},{shadow_ref.name})"
        service, shadow, slices = await asyncio.gather(
            _or_none(self._objects.read(key)),
            _or_none(self._objects.read(shadow_ref)),
            self._lister.list(ENDPOINT_SLICE.kind, key.namespace, labels),
        )
        of = {
            name: tuple(one for one in slices if _label(one, SERVICE_NAME) == name)
            for name in (key.name, shadow_ref.name)
        }
        # Whose it is was asked when it was found: what is there of several classes is restored by nobody else.
        return ServiceFacts(
            key,
            service,
            shadow,
            of[key.name],
            of[shadow_ref.name],
            routes=tuple(self._routes(key)),
            controller_class=None,
        )

    def _routes(self, key: ObjectRef) -> Iterable[FrontedRoute]:
        for model in self._models.values():
            local = _local(model)
            if (local.get("namespace"), local.get("fronted")) == (key.namespace, key.name):
                yield FrontedRoute(model, 0, "", wanted=False, follows_shadow=True, programmed=False)

    async def _do(self, key: ObjectRef, step: TakeoverStep, say: Say) -> bool:
        """Write what a step says, if what it rests on is still so; return whether something was done."""
        try:
            for seen in step.confirmed:
                if not (await self._objects.read(seen.ref)).same_as(seen):
                    return True
            for write in step.writes:
                await self._applier.apply([write])
                say(f"{_named(key)}: {in_words(write, key)}")
        except (ConflictError, NotFoundError):
            return True  # It changed meanwhile: it is read again.
        return bool(step.writes)

    async def _free_routes(self, facts: ServiceFacts, say: Say) -> bool:
        """Let the routes that read the shadow's pods read those of the Service: no controller will."""
        following = [one.model for one in facts.routes]
        for model in following:
            status = copy.deepcopy(dict(model.status))
            local = status["route"]["local"]
            local["service"] = local.pop("fronted")
            status.pop("takeover", None)
            try:
                written = await self._objects.patch_status(model.ref, status, Precondition.unchanged(model))
            except NotFoundError:
                del self._models[model.ref]
            except ConflictError:
                self._models[model.ref] = await self._objects.read(model.ref)
            else:
                self._models[model.ref] = written
                say(f"{_named(model.ref)}: its route follows the Service itself")
        if following:
            # The xDS servers and the Envoys have it within moments: the shadow goes after that.
            await asyncio.sleep(self._timing.kube_proxy_within)
        return bool(following)

    async def _released(self, facts: ServiceFacts) -> bool:
        """Give up what we own of the fields of a Service, also where no shadow remembers that we wrote it."""
        if facts.service is not None:
            with contextlib.suppress(NotFoundError):
                try:
                    await self._objects.release_fields(facts.key)
                except ConflictError:
                    return False
        return True


def _is_for_its_shadow_alone(facts: ServiceFacts, step: TakeoverStep) -> bool:
    """Whether clients of a Service are led to its pods for good, and all that is left follows its shadow."""
    is_led_elsewhere = facts.is_narrowed or facts.own_slices or facts.gateway_ports
    return step.wait is None and not is_led_elsewhere and (facts.has_its_pods or not facts.is_selecting)


def in_words(write: Write, key: ObjectRef) -> str:
    """Say what a write on the way out of a Service does."""
    name = f"{write.ref.kind} {write.ref.namespace}/{write.ref.name}"
    match write.verb:
        case Verb.DELETE:
            return f"{name} is removed"
        case Verb.RELEASE_FIELDS:
            return "no field of it is ours any more"
        case Verb.PATCH if write.ref == key:
            return "its selector is as its owner wrote it"
    return f"{name} is brought up to date"


def in_view(facts: TakenOver) -> Iterable[str]:
    """Say what would be done, without doing it."""
    for key in sorted(facts.services):
        shadow = shadow_name(key.name)
        yield f"{_named(key)}: its selector would be as its owner wrote it, our EndpointSlices and {shadow} removed"
    for ref, model in sorted(facts.models.items()):
        if finalizer_removal(model):
            yield f"{_named(ref)}: its finalizer would be taken off"


def _named(ref: ObjectRef) -> str:
    kind = "model " if ref.kind == MODEL_DEPLOYMENT.kind else ""
    return f"{kind}{ref.namespace}/{ref.name}"


def _label(stored: StoredObject, name: str) -> str:
    return str((stored.metadata.get("labels") or {}).get(name) or "")


async def _or_none(reading: Awaitable[StoredObject]) -> StoredObject | None:
    with contextlib.suppress(NotFoundError):
        return await reading
    return None


OWN_SLICES = f"{MANAGED_BY}={SLICES_OF}"
"""The label selector of our EndpointSlices."""
