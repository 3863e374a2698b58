"""Where a command finds the model that it is about: in a cluster, or in a `beamlit run`; and why it does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from controller.api.contract.reports import RouteReport
from controller.api.registry import MODEL_DEPLOYMENT
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.api.timing import Timing
from controller.decision import SentRequests
from controller.plan.by_hand import ahead_of_us
from controller.programs.status import NoStatusError, fetch_status
from controller.store.kube import KubeClient
from controller.store.kube.access import find_source
from controller.store.kube.answers import UnauthorizedError
from controller.store.kube.objects import KubeObjects
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    Precondition,
    RefusedError,
    StoreError,
)

DEFAULT_SERVER = "http://127.0.0.1:19000"
"""The admin address of a `beamlit run` that was given none."""

_LONGEST_VERSION = 4096  # Bytes of an answer of which only the head matters.

# So ends the error for a kind that the API server does not have: it answers for it without words of its own.
_UNKNOWN_KIND = "HTTP 404"


class ModelError(Exception):
    """The root of what keeps a command from its model; the message is for people.

    ::

        ModelError
        |-- NoSuchModelError     there is none of that name where it was looked for
        |-- UnreachableError     nothing answers there, or it cannot be told where that is
        `-- DeniedError          the API server does not let this user, or does not take what was sent
    """


class NoSuchModelError(ModelError):
    """There is no such model."""


class UnreachableError(ModelError):
    """Nothing answers, or where to ask cannot be told."""


class DeniedError(ModelError):
    """The API server says no."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: a `beamlit run` (`server`), or a cluster as kubectl finds it; without a word, `choose` decides."""

    server: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def options(self) -> str:
        """The options by which a command finds the same place, as a shell takes them."""
        given = {
            "--server": self.server,
            "--kubeconfig": self.kubeconfig,
            "--context": self.context,
            "-n": self.namespace,
        }
        return " ".join(f"{name} {shlex.quote(str(value))}" for name, value in given.items() if value)

    def chosen(self, environ: Mapping[str, str]) -> Place:
        """Decide: the server if one is named, else a cluster if there is a way to one, else the usual `beamlit run`.

        Raises UnreachableError when a kubeconfig is named and is not there.
        """
        if self.server:
            return self
        try:
            find_source(self.kubeconfig, self.context, environ)
        except ConfigurationError as error:
            if self.kubeconfig or self.context or environ.get("KUBECONFIG"):
                raise UnreachableError(str(error)) from error
            return Place(server=DEFAULT_SERVER, namespace=self.namespace)
        return self


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One model as it is now.

    Only a `beamlit run` says the rest: `envoys` is what the xDS server says of its route, `traffic` what Envoys sent
    for it lately, and `file` where a file defines it.
    """

    stored: StoredObject
    envoys: RouteReport | None = None
    traffic: SentRequests | None = None
    file: str | None = None


class Models(Protocol):
    """Where models are."""

    @property
    def where(self) -> str:
        """In words, such as `the cluster https://10.0.0.1:6443`."""
        ...

    async def find(self, name: str) -> FoundModel:
        """Return a model as it is now. Raises ModelError."""
        ...


class RunModels:
    """The models of a `beamlit run`, which reads them from files: nobody but their author writes them."""

    def __init__(self, server: str, namespace: str, longest: float) -> None:
        self.where = f"the `beamlit run` at {server}"
        self._server = server
        self._namespace = namespace
        self._longest = longest

    async def find(self, name: str) -> FoundModel:
        """See `Models`."""
        try:
            found = await asyncio.to_thread(fetch_status, self._server, self._longest)
            for raw in found.models:
                metadata = raw["metadata"]
                if (metadata["namespace"], metadata["name"]) == (self._namespace, name):
                    ref = ObjectRef(MODEL_DEPLOYMENT.kind, self._namespace, name)
                    full_name = f"{ref.namespace}/{name}"
                    sent = found.traffic.get(full_name)
                    return FoundModel(
                        StoredObject(ref, raw),
                        envoys=_report_on(ref, found.envoys),
                        traffic=SentRequests(sent["local"], sent["remote"], sent["seconds"]) if sent else None,
                        file=found.files.get(full_name),
                    )
        except NoStatusError as error:
            raise UnreachableError(str(error)) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise UnreachableError(f"{self.where} answers as another program does") from error
        raise NoSuchModelError(f"there is no ModelDeployment {self._namespace}/{name} in {self.where}")


def _report_on(ref: ObjectRef, reports: Any) -> RouteReport | None:
    for raw in reports:
        with contextlib.suppress(InvalidObjectError):
            report = parse(RouteReport, raw)
            if report.key == (ref.kind, ref.namespace, ref.name):
                return report
    return None


class ClusterModels:
    """The models of one namespace of a cluster. Each request and its retries take `longest` seconds at most."""

    def __init__(self, client: KubeClient, namespace: str, longest: float) -> None:
        self.where = f"the cluster {client.server}"
        self._client = client
        self._objects = KubeObjects(client)
        self._namespace = namespace
        self._longest = longest

    async def find(self, name: str) -> FoundModel:
        """See `Models`."""
        ref = ObjectRef(MODEL_DEPLOYMENT.kind, self._namespace, name)
        with self._told("get", ref):
            async with asyncio.timeout(self._longest):
                return FoundModel(await self._objects.read(ref))

    async def annotate(self, stored: StoredObject, changes: Mapping[str, str | None]) -> StoredObject:
        """Change these annotations, and nothing else, of an object that is as it was read; None removes one.

        Raises ConflictError when it is not, or ModelError.
        """
        with self._told("patch", stored.ref):
            async with asyncio.timeout(self._longest):
                patch = {"metadata": {"annotations": dict(changes)}}
                return await self._objects.patch(stored.ref, patch, Precondition.unchanged(stored))

    async def ahead(self, clock: Callable[[], datetime]) -> timedelta:
        """Say how far the clock of the API server is ahead of this one (UTC), as any of its answers tells.

        One without a time, such as of a proxy in between, says nothing against ours. Raises ModelError.
        """
        asked = clock()
        try:
            async with asyncio.timeout(self._longest):
                told = (await self._client.look("/version", {}, "application/json", _LONGEST_VERSION)).at
        except (StoreError, TimeoutError) as error:
            raise UnreachableError(f"{self.where} gives no answer: {error}") from error
        return ahead_of_us(asked, told, clock()) if told else timedelta(0)

    @contextlib.contextmanager
    def _told(self, verb: str, ref: ObjectRef) -> Iterator[None]:
        """Say in words what the API server did not do."""
        kind = MODEL_DEPLOYMENT.resource
        try:
            yield
        except NotFoundError as error:
            if str(error).endswith(_UNKNOWN_KIND):
                raise UnreachableError(
                    f"{self.where} does not know {kind}: its CustomResourceDefinition is not applied"
                ) from error
            raise NoSuchModelError(
                f"there is no ModelDeployment {ref.namespace}/{ref.name} in {self.where} ({error})"
            ) from error
        except UnauthorizedError as error:
            raise DeniedError(f"{self.where} does not know who you are: {error}") from error
        except ForbiddenError as error:
            needed = f"it needs the right to {verb} {kind} in the namespace {ref.namespace}"
            raise DeniedError(f"{self.where} does not allow it: {needed} ({error})") from error
        except RefusedError as error:
            raise DeniedError(f"{self.where} does not take it: {error}") from error
        except TimeoutError as error:
            raise UnreachableError(f"{self.where} gives no answer within {self._longest:.0f} s") from error
        except ConflictError:
            raise
        except StoreError as error:
            raise UnreachableError(f"{self.where} gives no answer: {error}") from error


@contextlib.asynccontextmanager
async def models_at(place: Place, timing: Timing) -> AsyncIterator[RunModels | ClusterModels]:
    """Open the way to the models of a place. Raises UnreachableError."""
    place = place.chosen(os.environ)
    if place.server:
        yield RunModels(place.server, place.namespace or "default", timing.status_answer)
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = KubeClient.from_environment(place.kubeconfig, place.context, timing.kube)
            await stack.enter_async_context(client)
        except ConfigurationError as error:
            raise UnreachableError(str(error)) from error
        yield ClusterModels(client, place.namespace or client.namespace, timing.kube.patience)
