"""Everything one policy runs on: replicas and a remote backend, an Envoy, and the product's control plane for it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from benchmarks.overflow.plan import Plan
from benchmarks.overflow.policies import Policy
from benchmarks.proxies.configs import FRONT_PORT, MODEL, UPSTREAM_PORT
from benchmarks.proxies.envoys import CannotRunError, Envoys
from benchmarks.proxies.product import ServedModel
from controller.api.contract.route import REMOTE, LocalBackend, Remote, ReplicaCheck, Route, Shares, Split
from tests.support.envoy import Envoy
from tests.support.network import Network
from xds_server.resources import names
from xds_server.resources.translator import EnvoySettings

_PROGRAM = Path(__file__).with_name("replicas.py")
_NEVER_REACHED = 1_000_000
_STARTS_WITHIN = 30.0


class Stage:
    """One policy's own Envoy, ready for requests at `url`."""

    def __init__(self, url: str, plane: ServedModel, route: Route, envoy: Envoy) -> None:
        self.url = url
        self._plane = plane
        self._route = route
        self._envoy = envoy

    def split(self, away: int) -> None:
        """Send this percent away from now on."""
        self._plane.publish(self._route.with_shares(Shares.of({REMOTE: away})))

    async def counts(self) -> tuple[int, int]:
        """Return how many requests Envoy has had, and how many the replicas have now, as it tells a metrics system."""
        total = f"http.{names.entrance_statistics(MODEL)}.downstream_rq_total"
        active = f"cluster.{names.local_cluster(MODEL)}.upstream_rq_active"
        counts = await self._envoy.stats(f"^({total}|{active})$".replace(".", "\\."))
        return counts[total], counts[active]

    async def sent(self) -> tuple[int, int, int]:
        """Return how many requests Envoy has sent to the replicas and elsewhere, and how many the replicas have now."""
        total = f"http.{names.entrance_statistics(MODEL)}.downstream_rq_total"
        cluster = f"cluster.{names.local_cluster(MODEL)}"
        sent, active = f"{cluster}.upstream_rq_total", f"{cluster}.upstream_rq_active"
        counts = await self._envoy.stats(f"^({total}|{sent}|{active})$".replace(".", "\\."))
        return counts[sent], counts[total] - counts[sent], counts[active]


@asynccontextmanager
async def stage(envoys: Envoys, policy: Policy, plan: Plan) -> AsyncIterator[Stage]:
    """Start what a policy needs. Raises CannotRunError and OSError."""
    pool = plan.pool
    network = Network.unused()
    front, remote, *replicas = (network.host(number) for number in range(1, pool.replicas + 3))
    cpus = frozenset(os.sched_getaffinity(0))
    program = [sys.executable, "-I", "-S", _PROGRAM, plan.service, UPSTREAM_PORT, remote, pool.places, *replicas]
    envoys.start(f"the replicas of {policy.name}", program)
    route = _route(remote, pool.places if policy.is_limited else _NEVER_REACHED)
    plane = ServedModel(EnvoySettings(front), replicas, route)
    url = f"http://{front}:{FRONT_PORT}/v1/completions"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(plane.stop)
        envoy = envoys.envoy(policy.name, await plane.start(), cpus, policy.workers)
        stack.push_async_callback(envoy.stop)
        await envoy.started()
        await _until_served(url, policy, envoys)
        yield Stage(url, plane, route, envoy)


def _route(remote: str, limit: int) -> Route:
    """Build the route of every policy.

    Without the limit of the product a limit is never reached, so that requests are spread over the replicas in the same
    way and only the decision differs.
    """
    return Route.between(
        port=FRONT_PORT,
        split=Split.away(0),
        local=LocalBackend(
            namespace=MODEL.namespace,
            service=MODEL.name,
            health_check=ReplicaCheck(path="/healthz", interval=timedelta(seconds=1)),
            max_requests_per_replica=limit,
        ),
        remote=Remote(host=remote, port=UPSTREAM_PORT, authority="models.example"),
    )


async def _until_served(url: str, policy: Policy, envoys: Envoys) -> None:
    last: object = "no answer"
    try:
        async with asyncio.timeout(_STARTS_WITHIN), httpx.AsyncClient() as client:
            while last != (200, names.LOCAL):
                envoys.check()
                try:
                    answer = await client.post(url)
                    last = answer.status_code, answer.headers.get(names.ROUTE_HEADER)
                except httpx.HTTPError as error:
                    last = repr(error)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise CannotRunError(f"{policy.name} is not served in time: {last}") from None
