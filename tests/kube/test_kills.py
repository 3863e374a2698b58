"""Controllers and xDS servers are killed at random while objects change and Envoys serve: no request fails, and when
it is over everything is as if it had never happened.

`BEAMLIT_TEST_KILLS` is for how many seconds (default 15), `BEAMLIT_TEST_SEED` the seed, which is printed.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from tests.support.data_plane.backends import Backend
from tests.support.forked import Forked
from tests.support.kube.elected import timing
from tests.support.kube.program import Program
from tests.support.kube.site import Site, endpoints, model, service
from tests.support.objects import AModel
from tests.support.timing import PATIENT
from tests.support.waiting import eventually, until

SECONDS = float(os.environ.get("BEAMLIT_TEST_KILLS", "15"))
SEED = int(os.environ.get("BEAMLIT_TEST_SEED", "0")) or random.randrange(1, 2**31)

STABLE = ("s0", "s1", "s2")
"""Models whose requests must all be answered, whatever is changed of them."""
CONVERGED = 120.0
"""Seconds: a lease, the time in which a gone xDS server is forgotten, and a machine with other work."""


@dataclass
class Wanted:
    """One stable model as it is to be: how much of it leaves, where to, and how many of its replicas are ready."""

    name: str
    remote: Backend
    replicas: tuple[Backend, ...]
    away: int = 0
    ready: list[bool] = field(default_factory=lambda: [True, True])

    @property
    def object(self) -> AModel:
        return model(self.name, self.remote).overridden(f"remote={self.away}")

    @property
    def route(self) -> dict[str, object]:
        """What a decision that knows nothing of the past says of it; the port is its own for life."""
        return {
            "split": {"local": 100 - self.away, "remote": self.away},
            "local": {"namespace": "", "service": self.name, "portName": ""},
            "remote": {
                "host": self.remote.host,
                "port": self.remote.port,
                "authority": f"{self.remote.host}:{self.remote.port}",
                "pathPrefix": "",
                "headersToAdd": [],
            },
        }


class Weather:
    """What happens to the objects and to the programs, all of it drawn from one seed."""

    def __init__(self, site: Site, models: list[Wanted], remotes: list[Backend], draw: random.Random) -> None:
        self._site = site
        self._models = models
        self._remotes = remotes
        self._draw = draw
        self.passing: set[str] = set()
        self.kills = 0
        self.changes = 0
        self.over = False
        """Ends both storms after what they are at: a change that is cut off would leave nobody knows what."""

    async def changes_blow(self) -> None:
        """Change something several times a second, until it is over."""
        while not self.over:
            await self._draw.choice((self._split, self._split, self._remote, self._readiness, self._pass_by))()
            self.changes += 1
            await asyncio.sleep(self._draw.uniform(0.05, 0.4))

    async def kills_strike(self) -> None:
        """Kill one program after the other, and start it again sooner or later; one may be gone at a time."""
        while not self.over:
            await asyncio.sleep(self._draw.uniform(0.05, 0.7))
            # A leader that is killed leaves a lease that nobody has until it is over: not too often.
            kind = self._draw.choices((self._site.controllers, self._site.xds_servers), (1, 3))[0]
            program = self._draw.choice(kind)
            program.kill()
            self.kills += 1
            await asyncio.sleep(self._draw.choice((0.0, 0.2, 0.6)))
            program.start()

    async def _split(self) -> None:
        one = self._draw.choice(self._models)
        one.away = self._draw.choice((0, 20, 50, 80, 100))
        await self._site.change(one.object)

    async def _remote(self) -> None:
        one = self._draw.choice(self._models)
        one.remote = self._draw.choice(self._remotes)
        await self._site.change(one.object)

    async def _readiness(self) -> None:
        one, number = self._draw.choice(self._models), self._draw.randrange(2)
        one.ready[number] = not one.ready[number]
        await self._site.change(endpoints(one.name, one.replicas[number], ready=one.ready[number]))

    async def _pass_by(self) -> None:
        """Make a model, or delete one that was made before."""
        name = f"p{self._draw.randrange(4)}"
        if name in self.passing:
            self.passing.remove(name)
            await self._site.remove(model(name))
        else:
            self.passing.add(name)
            replica = self._models[0].replicas[0]
            await self._site.change(service(name), endpoints(name, replica), model(name, self._remotes[0]))


@pytest.mark.timeout(2 * SECONDS + 4 * CONVERGED)
async def test_no_kill_fails_a_request_and_everything_converges(site: Site) -> None:
    print(f"BEAMLIT_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    replicas, remotes = [site.backend(f"local-{number}") for number in (1, 2)], [site.backend("remote-1")]
    remotes.append(site.backend("remote-2"))
    models = [Wanted(name, remotes[0], tuple(replicas)) for name in STABLE]
    for one in models:
        site.served(one.name, replicas)
        site.write(one.object)
    await site.start(
        controllers=2, xds_servers=2, envoys=2, start=partial(Forked, context=replace(PATIENT, lease=timing(6)))
    )
    for name in STABLE:
        await site.until_condition(name, "Ready", "True")
    ports = {name: await site.port(name) for name in STABLE}
    weather = Weather(site, models, remotes, draw)
    async with site.no_request_fails(*ports.values()):
        storm = [asyncio.create_task(weather.changes_blow()), asyncio.create_task(weather.kills_strike())]
        done, _ = await asyncio.wait(storm, timeout=SECONDS)
        if not done:
            await until(lambda: weather.kills >= SECONDS / 2, "it was stormy enough", within=SECONDS)
        weather.over = True
        await asyncio.gather(*storm)
        for program in (*site.controllers, *site.xds_servers):
            await alive(program)
        for one in models:
            await converged(site, one)
    decided = sum(program.log.count("split changed") for program in site.controllers)
    print(f"{weather.kills} kills, {weather.changes} changes, {decided} splits")
    assert decided >= len(STABLE)
    assert {name: await site.port(name) for name in STABLE} == ports
    # Nothing is left of models that are gone, nothing is missing of those that are there.
    await eventually(lambda: served_models(site), lambda found: found == {*STABLE, *weather.passing})
    for one in models:
        await until(lambda one=one: _is_split(site, one, ports[one.name]), f"split as it should be: {one}")


async def served_models(site: Site) -> set[str]:
    """The models whose replicas are a cluster at each of the xDS servers."""
    served = await site.served_by_all()
    clusters = (name.split("/") for type_url, name in served if type_url.endswith(".Cluster"))
    return {parts[2] for parts in clusters if parts[0] == "model"}


async def alive(program: Program) -> None:
    if not program.alive:
        program.start()
    await program.ready()


async def converged(site: Site, one: Wanted) -> None:
    """Wait until a model has the route that it shall have, and all Envoys have it, too."""
    hosts = [f"{one.name}.{site.namespace}", f"{one.name}.{site.namespace}:80"]
    local = {**one.route["local"], "namespace": site.namespace}  # type: ignore[dict-item]
    route = {**one.route, "local": local, "hosts": hosts}
    await site.until_status(one.name, lambda status: {**status["route"], "port": 0} == {**route, "port": 0}, CONVERGED)
    await site.until_condition(one.name, "Programmed", "True", within=CONVERGED)
    await site.until_condition(one.name, "Ready", "True")


async def _is_split(site: Site, wanted: Wanted, port: int) -> bool:
    """Measure the split. A remote backend that is new, or was down, gets its share when its next check is good."""
    # Where no replica is ready Envoy sends everything away, whatever the split.
    expected, requests = (100 - wanted.away) / 100 if any(wanted.ready) else 0.0, 400
    error = max(0.10, 4.5 * math.sqrt(expected * (1 - expected) / requests))
    return abs(await site.local_share(port, requests) - expected) < error
