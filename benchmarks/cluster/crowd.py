"""A namespace with many models, the programs that serve them, and an Envoy that is watched through a tap."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.cluster.figures import Start
from benchmarks.cluster.objects import Servers, model_name, objects_of
from benchmarks.cluster.seen import Seen
from benchmarks.cluster.tap import Tap
from benchmarks.proxies.envoys import CannotRunError
from controller.api.registry import KINDS
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from tests.support.beamlit import executed
from tests.support.kube.api_server import ApiServer
from tests.support.kube.site import Site
from tests.support.objects import KubeObject
from tests.support.processes import Usage, processes_of
from tests.tools import binaries

CONTROLLER, XDS_SERVER, ENVOY, API_SERVER = "controller", "xds-server", "Envoy", "API server and etcd"
PROGRAMS = (CONTROLLER, XDS_SERVER, ENVOY)

_AT_ONCE = 16
_PROGRAMMED_WITHIN = 240.0
"""Seconds."""

Tell = Callable[[str], None]
ObjectsOf = Callable[[int, Servers], Sequence[KubeObject]]


class Crowd:
    """So many models, in a namespace of their own, and one replica of each program."""

    def __init__(self, site: Site, client: KubeClient, models: int) -> None:
        self.site = site
        self.client = client
        self.models = models
        self._api = _api_server_in(site.cluster.folder)
        self._tap: Tap | None = None
        self._seen: Seen | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def in_namespace(
        cls, api: ApiServer, client: KubeClient, models: int, name: str = "models"
    ) -> AsyncIterator[Crowd]:
        """Make the namespace, which is called so and by its number; leaving ends the programs."""
        name = f"{name}-{models}"
        await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        folder = api.folder / name
        folder.mkdir()
        # What passes between the xDS server and the Envoy is read on the way.
        async with Site(api, name, folder, tls=False).running() as site:
            yield cls(site, client, models)

    @property
    def tap(self) -> Tap:
        """What passes between Envoy and the xDS server, once they run."""
        assert self._tap is not None, "not started"
        return self._tap

    @property
    def seen(self) -> Seen:
        """The models as anybody sees them, once the programs run."""
        assert self._seen is not None, "not started"
        return self._seen

    async def write(self, servers: Servers, tell: Tell, objects: ObjectsOf = objects_of) -> None:
        """Write all objects of all models."""
        numbers = iter(range(self.models))
        written = 0

        async def writing() -> None:
            nonlocal written
            for number in numbers:
                for one in objects(number, servers):
                    await self._create(one)
                written += 1
                if written % 100 == 0:
                    tell(f"{written} of {self.models} models written")

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(writing())

    async def _create(self, one: KubeObject) -> None:
        path = KINDS[one.ref.kind].path(self.site.namespace)
        await self.client.request("POST", path, body=one.in_namespace(self.site.namespace).raw)

    @contextlib.asynccontextmanager
    async def served(self, tell: Tell, *options: object) -> AsyncIterator[Start]:
        """Start the programs, all at once, and tell how that went once every model is programmed.

        The options are the controller's.
        """
        site = self.site
        # Their rights are made before the clock runs.
        users = {program: site.user(program) for program in (CONTROLLER, XDS_SERVER)}
        async with contextlib.AsyncExitStack() as stack:
            store = await stack.enter_async_context(KubeStore(self.client, ["ModelDeployment"], (site.namespace,)))
            self._seen = Seen(store, self.models)
            stack.callback(asyncio.create_task(self._seen.run()).cancel)
            begun, before = time.perf_counter(), self._api_cpu()
            xds_server = site.xds_server(user=users[XDS_SERVER], start=executed)
            quota = ("--models-per-namespace", self.models)
            controller = site.controller(*quota, *options, user=users[CONTROLLER], start=executed)
            self._tap = await stack.enter_async_context(Tap(site.replicas[0]).running())
            await site.envoy("envoy", self._tap.address)
            await asyncio.gather(xds_server.ready(), controller.ready())
            ready = time.perf_counter() - begun
            await self._programmed(tell)
            seen, tap = self._seen, self._tap
            yield Start(
                controller_ready=ready,
                last_route=seen.last_route - begun,
                last_sent=tap.sent - begun,
                last_acknowledged=tap.answered - begun,
                last_programmed=seen.last_programmed - begun,
                cpu={**self.cpu(), API_SERVER: self._api_cpu() - before},
            )

    async def _programmed(self, tell: Tell) -> None:
        for _ in range(int(_PROGRAMMED_WITHIN / 2)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.seen.programmed.wait(), 2)
                return
            tell(f"{len(self.seen.ports)} of {self.models} have a route, {self.seen.count_programmed} are programmed")
        name, words = next(iter(self.seen.unprogrammed.items()), ("", "there is no route"))
        raise CannotRunError(f"not every model is programmed after {_PROGRAMMED_WITHIN} s: {name} {words[:500]}")

    async def without_controller(self) -> None:
        """Let the controller end by itself."""
        (controller,) = self.site.controllers
        await asyncio.to_thread(controller.end)

    def processes(self) -> Mapping[str, Usage]:
        """The programs that run."""
        (xds_server,), (envoy,) = self.site.xds_servers, self.site.envoys
        found = {XDS_SERVER: Usage(xds_server.pid), ENVOY: envoy.process.usage}
        (controller,) = self.site.controllers
        if controller.alive:
            found[CONTROLLER] = Usage(controller.pid)
        return {name: found[name] for name in PROGRAMS if name in found}

    def cpu(self) -> Mapping[str, float]:
        """What each program has used so far, in seconds."""
        return {name: process.cpu_seconds() for name, process in self.processes().items()}

    async def writes(self) -> Mapping[str, float]:
        """How many objects each program has written so far; the renewals of a lease, all of them PUT, are left out."""
        running = {CONTROLLER: self.site.controllers, XDS_SERVER: self.site.xds_servers}
        return {
            name: sum([await one.metric("beamlit_kube_requests_total", method="(PATCH|POST)") for one in programs])
            for name, programs in running.items()
            if all(one.alive for one in programs)
        }

    def _api_cpu(self) -> float:
        return sum(process.cpu_seconds() for process in self._api)

    def memory(self) -> Mapping[str, int]:
        """What each program holds, in bytes."""
        return {name: process.resident_bytes() for name, process in self.processes().items()}

    def path(self, number: int) -> str:
        """The path of a model on the API server."""
        return KINDS["ModelDeployment"].path(self.site.namespace, model_name(number))

    @property
    def folder(self) -> Path:
        """Where the programs write their logs."""
        return self.site.folder


def _api_server_in(folder: Path) -> Sequence[Usage]:
    """Find the kube-apiserver and the etcd that keep their files in this folder."""
    programs = tuple(f"{program()} " for program in (binaries.etcd, binaries.kube_apiserver))
    return [Usage(pid) for pid, command in processes_of(folder).items() if command.startswith(programs)]
