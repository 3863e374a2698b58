"""Offloading hides load from the autoscaler of the pods, unless it scales on all of it: what stays and what left.

The autoscaler is the real one, on the real external metrics API. What else a cluster does is played: a value of the xDS
server's metrics comes to that API as an adapter of Prometheus brings it, and a replica is ready as soon as it is asked
for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from controller.api.timing import GatewayTiming, ReportTiming, StreamTiming, Timing
from tests.support.beamlit import eventually
from tests.support.documents import yaml_of
from tests.support.fork_server import Forked
from tests.support.kube.crds import install_crds
from tests.support.kube.metrics_apis import MetricsApis, Series
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site, endpoints
from tests.support.load import Sample, Traffic, closed_loop
from tests.support.measured import in_flight_each
from tests.support.processes import ROOT

SHORT = Timing(
    streams=StreamTiming(loads_every=0.25),
    reports=ReportTiming(reported_every=0.1),
    gateway=GatewayTiming(connect_near=10.0, check_near_every=20.0, check_again_within=20.0),
)
"""A replica that is slow to be connected to, or to answer a check, takes its requests all the same: what leaves does so
for the limit.
"""
METRIC = "beamlit_model_requests_in_flight"
DOCUMENT = ROOT / "docs" / "autoscaling.md"
# The autoscaler of the document wants three requests for each replica.
CLIENTS, LIMIT, ENOUGH = 12, 4, 4
QUIET_SECONDS = 8.0


class Scaled:
    """A Deployment that is scaled, whose replicas are there at once."""

    def __init__(self, site: Site, apis: MetricsApis, name: str) -> None:
        self._site = site
        self._apis = apis
        self._name = name
        self._client = apis.server.client()
        self._path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{name}"
        self.wanted: list[int] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with self._client:
            labels = {"app": self._name}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "m"}]}}
            spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
            self._post(self._path, {"metadata": {"name": self._name}, "spec": spec})
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one()) for one in (self._follow_scale, self._bring_metrics)]
                yield
                for task in tasks:
                    task.cancel()

    def autoscale(self) -> None:
        """Scale on the requests in flight at both sides, by the manifest of the documentation."""
        raw = yaml.safe_load(yaml_of(DOCUMENT, "HorizontalPodAutoscaler").replace("php-apache", self._name))
        path = f"/apis/autoscaling/v2/namespaces/{self._site.namespace}/horizontalpodautoscalers/{self._name}"
        self._post(path, raw)

    def _post(self, path: str, raw: dict[str, Any]) -> None:
        self._client.post(path.rpartition("/")[0], json=raw).raise_for_status()

    async def _follow_scale(self) -> None:
        replicas = 0
        while True:
            wanted = (await asyncio.to_thread(self._read))["spec"]["replicas"]
            if not self.wanted or self.wanted[-1] != wanted:
                self.wanted.append(wanted)
            for number in range(replicas, wanted):
                replica = self._site.backend(f"local-{number}")
                await self._site.change(endpoints(self._name, replica))
            replicas = max(replicas, wanted)
            await asyncio.to_thread(self._write_status, wanted)
            await asyncio.sleep(0.2)

    def _read(self) -> dict[str, Any]:
        return dict(self._client.get(self._path).raise_for_status().json())

    def _write_status(self, replicas: int) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        said = {"status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}}
        self._client.patch(f"{self._path}/status", json=said, headers=headers).raise_for_status()

    async def _bring_metrics(self) -> None:
        (xds_server,) = self._site.xds_servers
        while True:
            total = await xds_server.metric(METRIC)
            series = Series(METRIC, int(total), labels=(("name", self._name),))
            await asyncio.to_thread(self._apis.adapter.serve, self._site.namespace, external=[series])
            await asyncio.sleep(0.2)


async def test_a_surge_overflows_then_the_deployment_grows_and_everything_is_local_again(
    metrics_apis: MetricsApis, tmp_path: Path
) -> None:
    install_crds(metrics_apis.server)
    with fresh_namespace(metrics_apis.server) as namespace:
        async with Site(metrics_apis.server, namespace, tmp_path).running() as site:
            asked = site.served("chat", [], site.backend("remote")).measuring(in_flight_each(str(LIMIT)))
            behavior = {"mode": "Proportional", "maxRequestsPerReplica": LIMIT, "restoreAfter": "3s"}
            site.write(asked.offloading(**behavior))
            await site.start(start=partial(Forked, context=SHORT))
            scaled = Scaled(site, metrics_apis, "chat")
            async with scaled.running():
                await site.until_split("chat", "100/0 Steady")
                port = await site.port("chat")
                await surge(site, metrics_apis, scaled, port)


async def surge(site: Site, apis: MetricsApis, scaled: Scaled, port: int) -> None:
    """More than one replica takes, for as long as it takes until nothing has to leave any more."""
    sides: list[str] = []
    stop = asyncio.Event()

    def on_sample(sample: Sample) -> None:
        sides.append(sample.route)

    traffic = Traffic(headers=lambda _: {"on-local": "delay=0.2", "on-remote": "delay=0.2"}, on_sample=on_sample)
    url = f"http://{site.gateway}:{port}/"
    load = asyncio.create_task(closed_loop(url, CLIENTS, 100_000, traffic, stop))
    try:
        # No autoscaler yet: what is too much leaves, and goes on leaving.
        await eventually(count_of(sides, "remote"), lambda number: number > 3 * CLIENTS, within=60)
        scaled.autoscale()
        with apis.autoscaler():
            await eventually(latest(scaled), lambda wanted: wanted == ENOUGH, within=120)
            await site.until_split("chat", "100/0 Steady", within=60)
            await eventually(lasting(sides), lambda local: local > 10 * CLIENTS, within=60)
            # It stays so: what came back makes nobody scale or offload again.
            decided = len((await site.status("chat"))["history"])
            settled, seen = list(scaled.wanted), len(sides)
            await asyncio.sleep(QUIET_SECONDS)
            assert scaled.wanted == settled
            assert len((await site.status("chat"))["history"]) == decided
            assert set(sides[seen:]) == {"local"}
    finally:
        stop.set()
        report = await load
    assert report.errors == {}
    assert scaled.wanted == sorted(scaled.wanted), "it only ever grew"


def count_of(sides: list[str], side: str) -> Any:
    async def count() -> int:
        return sides.count(side)

    return count


def latest(scaled: Scaled) -> Any:
    async def wanted() -> int:
        return scaled.wanted[-1] if scaled.wanted else 0

    return wanted


def lasting(sides: list[str]) -> Any:
    """How many requests in a row, up to now, were local."""

    async def count() -> int:
        return next((at for at, side in enumerate(reversed(sides)) if side != "local"), len(sides))

    return count
