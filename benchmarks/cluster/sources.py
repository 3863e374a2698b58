"""Where the models of a crowd have their samples from: one class for each kind of metric, and how a sample changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from benchmarks.cluster.crowd import Crowd
from benchmarks.cluster.objects import model_name
from benchmarks.cluster.servers import HELD
from controller.api.schema.scalars import number_of
from controller.api.timing import REAL
from controller.store.kube.client import MERGE
from tests.support.answers import Answers, saying
from tests.support.http import plain_http
from tests.support.kube.addresses import own_address
from tests.support.kube.kubelet import NODE
from tests.support.kube.metrics_apis import RESOLUTION, MetricsApis
from tests.support.load.connection import Connections
from tests.support.prometheus import Prometheus, Target

QUIET, TARGET, BUSY = 200, 900, 950
"""What is measured at rest, what metrics have as their target, and what is measured of an overloaded model."""
_REQUESTED = 1000
"""Millicores of each pod."""
_AT_ONCE = 16
_BETWEEN_LOOKS = 0.02
_HELD_AT_ONCE = 4


class Source(Protocol):
    """Samples of one kind."""

    kind: str
    interval: float
    """Seconds: how old a sample may be, at the worst, when it is decided on."""
    settles: float
    """Seconds until the first samples are there."""
    asks: str
    """Who is asked, in words."""

    def options(self, folder: Path) -> tuple[object, ...]:
        """List the options of the controller; what they name goes into the folder."""
        ...

    def metric(self, name: str) -> Mapping[str, Any]:
        """Build the metric of a model."""
        ...

    async def prepare(self, crowd: Crowd) -> None:
        """Have a sample of every model, all at rest, before the programs run."""
        ...

    def rise(self, crowd: Crowd, name: str) -> None:
        """Overload one model more."""
        ...

    async def readable(self, crowd: Crowd, name: str) -> float:
        """Wait until anybody may read that a model is overloaded; return since when."""
        ...

    async def rest(self, crowd: Crowd) -> None:
        """Have nothing of this crowd any more."""
        ...

    async def asked(self, crowd: Crowd) -> float:
        """Count what the controller has asked so far."""
        ...


class Resource:
    """CPU of pods: the real metrics-server, which scrapes a kubelet of ours."""

    kind, asks = "Resource", "API server"
    interval = REAL.signals.kubernetes.every
    settles = 2 * RESOLUTION + 10.0

    def __init__(self, apis: MetricsApis) -> None:
        self._apis = apis

    def options(self, folder: Path) -> tuple[object, ...]:
        """See `Source`."""
        return ()

    def metric(self, name: str) -> Mapping[str, Any]:
        """See `Source`."""
        target = {"type": "Utilization", "averageUtilization": 100 * TARGET // _REQUESTED}
        return {"type": "Resource", "resource": {"name": "cpu", "target": target}}

    async def prepare(self, crowd: Crowd) -> None:
        """Write a pod for each model, as old as the product believes it."""
        names = map(model_name, range(crowd.models))
        pods = f"/api/v1/namespaces/{crowd.site.namespace}/pods"

        async def writing() -> None:
            for name in names:
                await crowd.client.request("POST", pods, body=_pod(name))
                await crowd.client.request("PATCH", f"{pods}/{name}/status", body=_running(), content_type=MERGE)
                self._apis.kubelet.uses(crowd.site.namespace, name, millicores=QUIET)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(writing())

    def rise(self, crowd: Crowd, name: str) -> None:
        """See `Source`."""
        self._apis.kubelet.uses(crowd.site.namespace, name, millicores=BUSY)

    async def readable(self, crowd: Crowd, name: str) -> float:
        """See `Source`."""
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{crowd.site.namespace}/pods/{name}"
        while True:
            found = await crowd.client.request("GET", path)
            if number_of(found["containers"][0]["usage"]["cpu"]) * 1000 >= TARGET:
                return time.perf_counter()
            await asyncio.sleep(_BETWEEN_LOOKS)

    async def rest(self, crowd: Crowd) -> None:
        """See `Source`."""
        self._apis.kubelet.forget(crowd.site.namespace)

    async def asked(self, crowd: Crowd) -> float:
        """See `Source`."""
        return await _kube_requests(crowd)


class _Gauges:
    """A gauge of each model, and since when it is busy."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._risen: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def rise(self, name: str) -> None:
        self._since[name] = time.perf_counter()
        self._risen[name].set()

    def of(self, name: str) -> int:
        return BUSY if name in self._since else QUIET

    async def risen(self, name: str) -> float:
        """Wait until a model is busy; return since when."""
        await self._risen[name].wait()
        return self._since[name]


class Scrape:
    """A gauge that the replicas show: a server of ours shows one to a path, and all of them are at rest at first."""

    kind, asks = "Scrape", "replicas"
    interval = REAL.signals.scrape.every
    settles = 5.0

    def __init__(self) -> None:
        self._gauges = _Gauges()
        self._pages = Answers(self._show)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Scrape]:
        """One whose server answers."""
        source = cls()
        async with source._pages.listening(own_address()):
            yield source

    async def _show(self, writer: asyncio.StreamWriter) -> None:
        name = self._pages.asked[-1].split(b" ", 2)[1].decode().strip("/")
        await saying(f"# TYPE waiting gauge\nwaiting {self._gauges.of(name)}\n", 200, "content-type: text/plain")(
            writer
        )

    def options(self, folder: Path) -> tuple[object, ...]:
        """See `Source`."""
        return ()

    def metric(self, name: str) -> Mapping[str, Any]:
        """See `Source`."""
        target = {"type": "AverageValue", "averageValue": str(TARGET)}
        return {
            "type": "Scrape",
            "scrape": {"port": self._pages.port, "path": f"/{name}", "metric": {"name": "waiting"}, "target": target},
        }

    async def prepare(self, crowd: Crowd) -> None:
        """All are at rest."""

    def rise(self, crowd: Crowd, name: str) -> None:
        """See `Source`."""
        self._gauges.rise(name)

    async def readable(self, crowd: Crowd, name: str) -> float:
        """See `Source`."""
        return await self._gauges.risen(name)

    async def rest(self, crowd: Crowd) -> None:
        """See `Source`."""
        self._gauges = _Gauges()

    async def asked(self, crowd: Crowd) -> float:
        """See `Source`."""
        return len(self._pages.asked)


class Queries:
    """A query for each model to the real Prometheus, which scrapes a server of ours every second."""

    kind, asks = "PromQL", "Prometheus"
    interval = REAL.signals.prometheus.every
    settles = 10.0

    def __init__(self, prometheus: Prometheus, target: Target) -> None:
        self._prometheus = prometheus
        self._target = target
        self._gauges = _Gauges()

    def options(self, folder: Path) -> tuple[object, ...]:
        """See `Source`."""
        file = folder / "configuration.yaml"
        informer = {"type": "prometheus", "prometheus": {"address": self._prometheus.address}}
        file.write_text(yaml.safe_dump({"metricInformer": informer}))
        return ("--config", file)

    def metric(self, name: str) -> Mapping[str, Any]:
        """See `Source`."""
        target = {"type": "Value", "value": str(TARGET)}
        metric = {"name": "waiting", "selector": {"matchLabels": {"model": name}}}
        return {"type": "External", "external": {"metric": metric, "target": target}}

    async def prepare(self, crowd: Crowd) -> None:
        """See `Source`."""
        self._show(crowd)

    def rise(self, crowd: Crowd, name: str) -> None:
        """See `Source`."""
        self._gauges.rise(name)
        self._show(crowd)

    def _show(self, crowd: Crowd) -> None:
        names = map(model_name, range(crowd.models))
        lines = (f'waiting{{model="{name}"}} {self._gauges.of(name)}' for name in names)
        self._target.text = "\n".join(("# TYPE waiting gauge", *lines, ""))

    async def readable(self, crowd: Crowd, name: str) -> float:
        """See `Source`."""
        async with plain_http() as client:
            asked = {"query": f'waiting{{model="{name}"}} >= {TARGET}'}
            while True:
                answer = await client.get(f"{self._prometheus.url}/api/v1/query", params=asked)
                if answer.raise_for_status().json()["data"]["result"]:
                    return time.perf_counter()
                await asyncio.sleep(_BETWEEN_LOOKS)

    async def rest(self, crowd: Crowd) -> None:
        """See `Source`."""
        self._gauges, self._target.text = _Gauges(), ""

    async def asked(self, crowd: Crowd) -> float:
        """See `Source`."""
        async with plain_http() as client:
            text = (await client.get(f"{self._prometheus.url}/metrics")).raise_for_status().text
        counted = re.findall(
            r'^prometheus_http_requests_total\{.*handler="/api/v1/query".*\} (\S+)$', text, re.MULTILINE
        )
        return sum(map(float, counted))


class Requests:
    """Requests in flight, as the Envoy counts and reports them: a few of each overloaded model are not answered."""

    kind, asks = "Requests", "API server"
    interval = REAL.streams.loads_every
    settles = 5.0

    def __init__(self) -> None:
        self._gauges = _Gauges()
        self._held: list[asyncio.Task[object]] = []

    def options(self, folder: Path) -> tuple[object, ...]:
        """See `Source`."""
        return ()

    def metric(self, name: str) -> Mapping[str, Any]:
        """See `Source`."""
        target = {"type": "AverageValue", "averageValue": str(_HELD_AT_ONCE - 1)}
        return {"type": "Requests", "requests": {"target": target}}

    async def prepare(self, crowd: Crowd) -> None:
        """No request is under way."""

    def rise(self, crowd: Crowd, name: str) -> None:
        """See `Source`."""
        request = f"GET {HELD} HTTP/1.1\r\nhost: benchmark\r\n\r\n".encode()
        for _ in range(_HELD_AT_ONCE):
            one = Connections(crowd.site.gateway, crowd.seen.ports[name], keepalive=False)
            self._held.append(asyncio.create_task(one.exchange(request)))
        self._gauges.rise(name)

    async def readable(self, crowd: Crowd, name: str) -> float:
        """See `Source`."""
        return await self._gauges.risen(name)

    async def rest(self, crowd: Crowd) -> None:
        """See `Source`."""
        await asyncio.gather(*self._held)
        self._gauges, self._held = _Gauges(), []

    async def asked(self, crowd: Crowd) -> float:
        """See `Source`."""
        return await _kube_requests(crowd)


KINDS = ("Resource", "Scrape", "PromQL", "Requests")
Sources = Mapping[str, Callable[[], contextlib.AbstractAsyncContextManager[Source]]]


def sources(apis: MetricsApis, folder: Path) -> Sources:
    """Say how each kind is started."""

    @contextlib.asynccontextmanager
    async def queries() -> AsyncIterator[Source]:
        with Target.running() as target, Prometheus.running(folder, {"models": target}) as prometheus:
            yield Queries(prometheus, target)

    return {
        "Resource": lambda: contextlib.nullcontext(Resource(apis)),
        "Scrape": Scrape.running,
        "PromQL": queries,
        "Requests": lambda: contextlib.nullcontext(Requests()),
    }


async def _kube_requests(crowd: Crowd) -> float:
    """Count the requests that the controller has made to the API server so far."""
    (controller,) = crowd.site.controllers
    return await controller.metric("beamlit_kube_requests_total")


def _pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "model", "resources": {"requests": {"cpu": f"{_REQUESTED}m"}}}
    metadata = {"name": name, "labels": {"run": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": NODE, "containers": [container]},
    }


def _running() -> dict[str, Any]:
    long_ago = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": long_ago}
    return {"status": {"phase": "Running", "startTime": long_ago, "conditions": [ready]}}
