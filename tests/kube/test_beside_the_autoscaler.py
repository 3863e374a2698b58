"""Offloading hides load from the autoscaler of the pods, unless it scales on all of it: what stays and what left.

The autoscaler is the real one, on the real external metrics API. What else a cluster does is played: a value of the xDS
server's metrics comes to that API as an adapter of Prometheus brings it, and a replica is ready as soon as it is asked
for, or some seconds later, and terminates as soon as it is not.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from controller.api.timing import ReportTiming, StreamTiming
from tests.support.beamlit import eventually
from tests.support.data_plane.backends import Backend
from tests.support.documents import yaml_of
from tests.support.forked import Forked
from tests.support.kube.crds import install_crds
from tests.support.kube.metrics_apis import MetricsApis, Series
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site, endpoints
from tests.support.load import Sample, Traffic, closed_loop
from tests.support.measured import in_flight_each
from tests.support.processes import ROOT
from tests.support.timing import PATIENT
from tests.support.waiting import time_limit, until

SHORT = replace(
    PATIENT,
    streams=StreamTiming(loads_every=0.25),
    reports=ReportTiming(reported_every=0.1, alive_within=60.0, old_after=60.0),
    gateway=replace(PATIENT.gateway, check_near_every=20.0, check_again_within=20.0),
)
"""A replica that is slow to answer a check takes its requests all the same: what leaves does so for the limit. A report
that is late changes no decision either.
"""
METRIC = "beamlit_model_requests_in_flight"
DOCUMENT = ROOT / "docs" / "autoscaling.md"
# The autoscaler of the document wants three requests for each replica.
CLIENTS, FEW, LIMIT, ENOUGH = 12, 2, 4, 4
STEADIES_SECONDS = 4
"""How long the autoscaler of this test must want fewer replicas before there are fewer. Its default of five minutes
would hide any swing; a few seconds in which the clients of a busy machine stand still is none.
"""
QUIET_JUDGEMENTS = 10
"""So often the autoscaler, which looks every second, must want nothing else. Time alone would show nothing of one that
had no turns.
"""
STARTS_IN = 3.0
"""Seconds until a replica that is asked for is ready, where it is not at once."""
AWAY = 50
"""How many percent leave with `Threshold`."""
LOW = 3 * (ENOUGH - 1)
"""With so many requests in flight, or fewer, it wants fewer replicas: the clients of a machine that stands still."""
ROUNDS = 3
SCALES_READ = re.compile(
    r'^apiserver_request_total{(?=.*resource="deployments")(?=.*subresource="scale")(?=.*verb="GET").*} (\S+)$',
    re.MULTILINE,
)


class Seen(NamedTuple):
    """How many replicas there were, how many percent left, and why."""

    replicas: int
    away: int
    reason: str


class Scaled:
    """A Deployment that is scaled, whose replicas are ready in so many seconds. `seen` is its history, a line for each
    change. `overflowed` is with how many replicas the status said that they have no room for all.
    """

    def __init__(self, site: Site, apis: MetricsApis, name: str, starts_in: float) -> None:
        self._site = site
        self._starts_in = starts_in
        self._apis = apis
        self._name = name
        self._client = apis.server.client()
        self._path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{name}"
        self.seen: list[Seen] = []
        self.overflowed: set[int] = set()
        self.low_for = 0.0
        """The longest that what was measured was low, in seconds; since `look_anew`."""
        self._not_low = 0.0
        self._replicas: list[Backend] = []
        self._ready_at: dict[int, float] = {}

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
        while True:
            wanted = (await asyncio.to_thread(self._read))["spec"]["replicas"]
            await self._have(wanted)
            await asyncio.to_thread(self._write_status, wanted)
            status = await self._site.status(self._name)
            said = [one["message"] for one in status.get("conditions", ()) if one["type"] == "Offloading"]
            if any("what the replicas have no room for leaves" in message for message in said):
                self.overflowed.add(wanted)
            split = status.get("split", {})
            now = Seen(wanted, split.get("remote", 0), split.get("reason", ""))
            if now != self.now:
                self.seen.append(now)
            await asyncio.sleep(0.2)

    async def _have(self, wanted: int) -> None:
        """Let so many replicas be there; those that are too many answer what they have, and get no more."""
        before = self.now.replicas
        for number in range(len(self._replicas), wanted):
            self._replicas.append(self._site.backend(f"local-{number}"))
        for number in range(before, wanted):
            self._ready_at[number] = time.monotonic() + self._starts_in
        for number in range(wanted, before):
            self._ready_at.pop(number, None)
            await self._site.change(endpoints(self._name, self._replicas[number], leaving=True))
        for number in [one for one, at in self._ready_at.items() if at <= time.monotonic()]:
            del self._ready_at[number]
            await self._site.change(endpoints(self._name, self._replicas[number]))

    @property
    def now(self) -> Seen:
        """What was seen last."""
        return self.seen[-1] if self.seen else Seen(0, 0, "")

    def _read(self) -> dict[str, Any]:
        return dict(self._client.get(self._path).raise_for_status().json())

    def _write_status(self, replicas: int) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        said = {"status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}}
        self._client.patch(f"{self._path}/status", json=said, headers=headers).raise_for_status()

    async def _bring_metrics(self) -> None:
        (xds_server,) = self._site.xds_servers
        while True:
            # What is not measured has no value, as with an adapter: 0 would be one, and scale down.
            measured = await xds_server.values(METRIC)
            series = [Series(METRIC, int(sum(measured)), labels=(("name", self._name),))] if measured else []
            await asyncio.to_thread(self._apis.adapter.serve, self._site.namespace, external=series)
            if not measured or sum(measured) > LOW:
                self._not_low = time.monotonic()
            self.low_for = max(self.low_for, time.monotonic() - self._not_low)
            await asyncio.sleep(0.2)

    def look_anew(self) -> None:
        self._not_low, self.low_for = time.monotonic(), 0.0

    async def judged(self, times: int) -> None:
        """Wait until the autoscaler has judged so often from now on."""
        now = await self._judgements()
        enough = now + times
        async with time_limit(90):
            while now < enough:
                await asyncio.sleep(1.0)  # What an API server says of itself is a megabyte, to be made and read.
                now = await self._judgements()

    async def _judgements(self) -> int:
        """How often it has judged: each time it reads the scale, once."""
        text = (await asyncio.to_thread(self._client.get, "/metrics")).raise_for_status().text
        return sum(int(float(count)) for count in SCALES_READ.findall(text))


async def test_a_surge_overflows_then_the_deployment_grows_and_shrinks_with_the_load_without_a_swing(
    metrics_apis: MetricsApis, tmp_path: Path
) -> None:
    behavior = {"mode": "Proportional", "maxRequestsPerReplica": LIMIT}
    async with beside_the_autoscaler(metrics_apis, tmp_path, behavior) as (site, scaled):
        await surge(site, metrics_apis, scaled, is_limited=True)
    replicas, away, reasons = zip(*scaled.seen, strict=True)
    grown = replicas.index(ENOUGH)
    assert "Overloaded" in reasons[:grown]
    assert turns(away[grown:]) <= 1, "from a last step with what was measured before, it only falls"


async def test_a_share_leaves_in_a_surge_and_is_back_once_for_all_when_the_replicas_that_were_started_are_ready(
    metrics_apis: MetricsApis, tmp_path: Path
) -> None:
    behavior = {"mode": "Threshold", "percentage": AWAY}
    async with beside_the_autoscaler(metrics_apis, tmp_path, behavior, STARTS_IN) as (site, scaled):
        await surge(site, metrics_apis, scaled, is_limited=False)
    # While those that were asked for start, as many leave; then they come back, and that is the last change.
    grown = [one.replicas for one in scaled.seen].index(ENOUGH)
    assert [away for away, _ in itertools.groupby(one.away for one in scaled.seen[grown:])] == [AWAY, 0]


@asynccontextmanager
async def beside_the_autoscaler(
    apis: MetricsApis, folder: Path, behavior: dict[str, Any], starts_in: float = 0.0
) -> AsyncIterator[tuple[Site, Scaled]]:
    """Serve a model, whose Deployment will be scaled, with one replica; what was seen stays known afterwards."""
    install_crds(apis.server)
    with fresh_namespace(apis.server) as namespace:
        async with Site(apis.server, namespace, folder).running() as site:
            asked = site.served("chat", [], site.backend("remote")).measuring(in_flight_each(str(LIMIT)))
            site.write(asked.offloading(**behavior, restoreAfter="3s", recoverAfter="1s"))
            await site.start(start=partial(Forked, context=SHORT))
            scaled = Scaled(site, apis, "chat", starts_in)
            async with scaled.running():
                await site.until_split("chat", "100/0 Steady")
                yield site, scaled


async def surge(site: Site, apis: MetricsApis, scaled: Scaled, *, is_limited: bool) -> None:
    """More than one replica takes, until nothing has to leave any more; then little, which one takes again."""
    sides: list[str] = []
    port = await site.port("chat")
    stop_most, stop = asyncio.Event(), asyncio.Event()

    def on_sample(sample: Sample) -> None:
        sides.append(sample.route)

    # Far longer than what a busy machine takes for it besides: meanwhile a client has no request in flight.
    takes = {"on-local": "delay=2", "on-remote": "delay=2"}
    traffic = Traffic(headers=lambda _: takes, on_sample=on_sample)
    url = f"http://{site.gateway}:{port}/"
    loads = [
        asyncio.create_task(closed_loop(url, clients, 100_000, traffic, until))
        for clients, until in ((CLIENTS - FEW, stop_most), (FEW, stop))
    ]
    try:
        # No autoscaler yet: what is too much leaves, and goes on leaving.
        await eventually(count_of(sides, "remote"), lambda number: number > CLIENTS, within=60)
        await eventually(latest(scaled), lambda now: now.reason == "Overloaded", within=60)
        if is_limited:
            await until(lambda: scaled.overflowed == {1}, "the status says that the one replica has no room for all")
        scaled.autoscale()
        with apis.autoscaler(f"--horizontal-pod-autoscaler-downscale-stabilization={STEADIES_SECONDS}s"):
            await settled(scaled, sides)
            # It stays so: what came back makes nobody scale or offload again.
            for _ in range(ROUNDS):
                decided = len((await site.status("chat"))["history"])
                before, answered = list(scaled.seen), len(sides)
                scaled.look_anew()
                await scaled.judged(QUIET_JUDGEMENTS)
                if scaled.low_for < STEADIES_SECONDS / 2:
                    break
                # The clients themselves stood still, which says nothing of the product: once more, and without that.
                await settled(scaled, sides)
                del scaled.seen[len(before) :]
            assert scaled.low_for < STEADIES_SECONDS / 2, "the clients stood still in each round"
            assert scaled.seen == before
            assert len((await site.status("chat"))["history"]) == decided
            # And it ends with the load.
            stop_most.set()
            await eventually(latest(scaled), lambda now: now == (1, 0, "Steady"), within=60)
            shrunk = len(sides)
            await eventually(length_of(sides), lambda number: number > shrunk + 2 * FEW, within=60)
            assert set(sides[answered:]) == {"local"}
    finally:
        stop_most.set()
        stop.set()
        reports = [await load for load in loads]
    assert [report.errors for report in reports] == [{}, {}]
    replicas, away, _ = zip(*scaled.seen, strict=True)
    local_again = away.index(0, replicas.index(ENOUGH))
    assert turns(replicas) == 1, "it grows in the surge, and shrinks with the load alone"
    assert set(away[local_again:]) == {0}


async def settled(scaled: Scaled, sides: list[str]) -> None:
    """Wait until there are enough replicas, which have all requests."""
    await eventually(latest(scaled), lambda now: now == (ENOUGH, 0, "Steady"), within=120)
    await eventually(lasting(sides), lambda local: local > 2 * CLIENTS, within=60)


def turns(values: Sequence[int]) -> int:
    """Count how often values that rose fell, or the other way round."""
    rises = [later > now for now, later in itertools.pairwise(values) if later != now]
    return sum(now != later for now, later in itertools.pairwise(rises))


def count_of(sides: list[str], side: str) -> Any:
    async def count() -> int:
        return sides.count(side)

    return count


def length_of(sides: list[str]) -> Any:
    async def length() -> int:
        return len(sides)

    return length


def latest(scaled: Scaled) -> Any:
    async def now() -> Seen:
        return scaled.now

    return now


def lasting(sides: list[str]) -> Any:
    """How many requests in a row, up to now, were local."""

    async def count() -> int:
        return next((at for at, side in enumerate(reversed(sides)) if side != "local"), len(sides))

    return count
