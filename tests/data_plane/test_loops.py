"""Remote backends that lead back to where requests come from: at once, by another model, by another installation.

How often a request passes is counted by the fronts themselves.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.extensions.filters.http.cdn_loop.v3.cdn_loop_pb2 import CdnLoopConfig
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted, route_of
from tests.support.data_plane.mutation import managers
from tests.support.data_plane.plane import Plane
from tests.support.network import Network
from tests.support.waiting import time_limit, until
from xds_server.loads.loads import Answers
from xds_server.resources.backend_names import backend_name
from xds_server.resources.loops import PASSES
from xds_server.resources.names import Side

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, THERE = "beamlit-here", "beamlit-there"
AWAY = Wanted(away=100, installation=HERE)
# How often a request is signed that leaves: by the front, and so often that its first return is one too many.
SIGNED = 1 + PASSES
# The ways that a request may take to a remote backend: straight, by an internal listener, and since replicas are full.
WAYS = {"direct": AWAY, "guarded": replace(AWAY, retries=1), "limited": replace(AWAY, limit=100)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """Another installation."""
    (folder / "there").mkdir()
    async with Plane(Network.unused(), backends, folder / "there").running() as plane:
        await plane.join("there")
        yield plane


def leading_to(model: Model, wanted: Wanted) -> Wanted:
    host, _, port = model.host.partition(":")
    return replace(wanted, host=host, port=int(port))


async def to_itself(plane: Plane, wanted: Wanted) -> Model:
    """Serve a model whose remote backend is the front of the model."""
    model = await plane.serve(wanted)
    return await plane.change(model, leading_to(model, wanted))


async def passed(plane: Plane, model: Model) -> int:
    """Say how many requests came to the front of a model."""
    return await plane.envoy.stat(f"http.{model.key}.downstream_rq_total")


def patient(hops: int) -> object:
    """Let a request come back so many times."""

    def edit(manager: HttpConnectionManager) -> None:
        for one in manager.http_filters:
            config = CdnLoopConfig()
            if one.typed_config.Unpack(config):
                config.max_allowed_occurrences = hops
                one.typed_config.Pack(config)

    return managers(edit)


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_that_comes_back_goes_to_the_replicas(plane: Plane, way: str) -> None:
    model = await to_itself(plane, WAYS[way])

    reply = await plane.ask(model)

    tries = 1 + (model.wanted.retries or 0)
    assert (reply.status, reply.route, await passed(plane, model)) == (200, "local", 1 + tries)
    assert len(plane.backends.seen(reply.probe)) == 1


async def test_without_the_signature_it_goes_around(plane: Plane) -> None:
    """The control: a front that looks away 30 times has a hop more for each `SIGNED` of them.

    One that never looks has them without end.
    """
    model = await plane.serve(replace(AWAY, change=patient(30)))
    model = await plane.change(model, leading_to(model, model.wanted))

    await plane.ask(model)

    assert await passed(plane, model) == 1 + math.ceil(31 / SIGNED)


async def test_with_nobody_to_answer_it_the_client_is_told_so_at_once(plane: Plane) -> None:
    model = await to_itself(plane, replace(AWAY, replicas=()))

    reply = await plane.ask(model)

    assert (reply.status, await passed(plane, model)) == (502, 3)


async def test_two_models_of_one_gateway_do_not_send_each_other_requests(plane: Plane) -> None:
    first, second = await plane.serve(AWAY), await plane.serve(AWAY)
    first = await plane.change(first, leading_to(second, AWAY))
    second = await plane.change(second, leading_to(first, AWAY))

    reply = await plane.ask(first)

    assert (reply.status, reply.route) == (200, "local")
    assert (await passed(plane, first), await passed(plane, second)) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_model_may_fall_back_on_another_and_that_on_a_remote_backend(plane: Plane, way: str) -> None:
    """The control is the same chain without the word of the controller that it is one: it ends at its first return."""
    last, apart = replace(WAYS[way], through_gateway=False), await plane.serve(WAYS[way])
    small = await plane.serve(last)
    large = await plane.serve(leading_to(small, replace(WAYS[way], through_gateway=True)))
    alone = await plane.serve(leading_to(apart, WAYS[way]))

    told, untold = await plane.ask(large), await plane.ask(alone)

    assert (told.status, told.route, await passed(plane, small)) == (200, "remote", 1)
    (seen,) = plane.backends.seen(told.probe)
    # Once by each front, and by the last one as what must not come back.
    assert ["cdn-loop", ",".join([HERE] * (2 + PASSES))] in seen["headers"]
    assert (untold.status, untold.route) == (200, "local")


async def test_a_chain_has_four_models_and_a_fifth_is_not_asked(plane: Plane) -> None:
    """Each of them is without replicas but the one that has to answer."""
    bare = replace(AWAY, replicas=(), through_gateway=True)
    fifth = await plane.serve(AWAY)
    fourth = await plane.serve(leading_to(fifth, replace(bare, replicas=None)))
    third = await plane.serve(leading_to(fourth, bare))
    second = await plane.serve(leading_to(third, bare))
    first = await plane.serve(leading_to(second, bare))

    reply = await plane.ask(first)

    assert (reply.status, reply.route) == (200, "remote")
    assert [await passed(plane, one) for one in (second, third, fourth, fifth)] == [1, 1, 1, 1]
    # It refused: what the fourth got, its replicas answered.
    assert await plane.envoy.stat(f"cluster.{fifth.local_cluster}.upstream_rq_total") == 0


async def test_gateways_of_two_installations_may_stand_behind_each_other(plane: Plane, there: Plane) -> None:
    """What the other one cannot serve itself comes back once, and is then served by whoever has replicas."""
    theirs = replace(AWAY, installation=THERE)
    here, other = await plane.serve(AWAY), await there.serve(theirs)
    here = await plane.change(here, leading_to(other, AWAY))
    other = await there.change(other, leading_to(here, theirs))

    replies = [await plane.ask(here), await there.ask(other)]

    # Each asked the other one, which tried to send it back, was refused, and asked its own replicas.
    assert [(one.status, one.route) for one in replies] == [(200, "remote"), (200, "remote")]
    assert (await passed(plane, here), await passed(there, other)) == (3, 3)


async def test_the_fronts_sign_what_they_send_on_behind_what_others_wrote(plane: Plane, there: Plane) -> None:
    other = await there.serve(Wanted(installation=THERE))
    here = await plane.serve(leading_to(other, AWAY))

    reply = await plane.ask(here, headers=[("cdn-loop", "somebody; version=1")])

    (seen,) = plane.backends.seen(reply.probe)
    assert ["cdn-loop", ",".join(("somebody; version=1", *[HERE] * SIGNED, THERE))] in seen["headers"]


def at(model: Model) -> tuple[Replica, ...]:
    """A replica that passes on what it gets to a model of the gateway, headers and all: here, its very front."""
    host, _, port = model.host.partition(":")
    return (Replica(host, int(port), ready=True),)


@pytest.mark.parametrize("way", WAYS)
async def test_a_replica_may_ask_another_model_with_the_headers_that_it_got(plane: Plane, way: str) -> None:
    """Agents and routers do. What they ask for may leave then, as anything else, and come back no more."""
    model = await plane.serve(replace(WAYS[way], away=0))
    leaving = await to_itself(plane, WAYS[way])
    router = await plane.serve(replace(AWAY, away=0, replicas=at(model)))
    agent = await plane.serve(replace(AWAY, away=0, replicas=at(router)))
    another = await plane.serve(replace(AWAY, away=0, replicas=at(leaving)))

    replies = [await plane.ask(agent), await plane.ask(another)]

    assert [(one.status, one.route) for one in replies] == [(200, "local"), (200, "local")]
    assert [len(plane.backends.seen(one.probe)) for one in replies] == [1, 1]
    assert [await passed(plane, one) for one in (agent, router, model)] == [1, 1, 1]
    tries = 1 + (leaving.wanted.retries or 0)
    assert [await passed(plane, one) for one in (another, leaving)] == [1, 1 + tries]


async def test_a_model_whose_replicas_are_the_gateway_itself_ends_a_request_soon(plane: Plane) -> None:
    """Each front tries once more what the next one refused."""
    model = await plane.serve(replace(AWAY, remote=False, away=0, replicas=()))
    model = await plane.change(model, replace(model.wanted, replicas=at(model)))

    reply = await plane.ask(model)

    assert (reply.status, await passed(plane, model)) == (502, sum(2**hop for hop in range(PASSES + 2)))


async def test_what_leaves_and_finds_nobody_is_again_signed_once(plane: Plane) -> None:
    """Or a replica that passes its headers on to another model would be refused there."""
    model = await plane.serve(replace(AWAY, port=1))

    reply = await plane.ask(model)

    (seen,) = plane.backends.seen(reply.probe)
    assert ["cdn-loop", HERE] in seen["headers"]


async def test_a_websocket_reaches_both_sides_with_upgrade_alone_in_its_connection(plane: Plane) -> None:
    stays, leaves = await plane.serve(replace(AWAY, away=0)), await plane.serve(AWAY)

    heads = [await asked_to_upgrade(one, "keep-alive, Upgrade, X-Key") for one in (stays, leaves)]

    assert [head.partition(" ")[2][:3] for head, _ in heads] == ["101", "101"]
    for _, probe in heads:
        (seen,) = plane.backends.seen(probe)
        headers = dict(seen["headers"])
        assert (headers["connection"], headers["x-key"]) == ("Upgrade", "kept")


async def asked_to_upgrade(model: Model, connection: str) -> tuple[str, str]:
    """Ask for a WebSocket with such a `Connection`; return the first line of the answer, and the probe."""
    host, _, port = model.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    probe = f"{model.key.name}-websocket"
    lines = {"host": "x", "connection": connection, "upgrade": "websocket", "probe": probe, "x-key": "kept"}
    try:
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
        async with time_limit(30):
            return (await reader.readline()).decode(), probe
    finally:
        writer.close()


async def test_a_signature_that_cannot_be_read_is_the_clients_mistake(plane: Plane) -> None:
    model = await plane.serve(replace(AWAY, away=0))

    replies = [await plane.ask(model, headers=[("cdn-loop", text)]) for text in ('"', "somebody")]

    assert [one.status for one in replies] == [400, 200]


async def test_the_load_reports_tell_a_loop_from_a_backend_that_is_down(plane: Plane, there: Plane) -> None:
    theirs = replace(AWAY, installation=THERE)
    at_once = await to_itself(plane, AWAY)
    here, other = await plane.serve(AWAY), await there.serve(replace(theirs, replicas=()))
    here = await plane.change(here, leading_to(other, AWAY))
    other = await there.change(other, leading_to(here, other.wanted))
    failing = await plane.serve(AWAY)
    # What a cluster that is new does in its first second is not counted.
    await asyncio.gather(plane.told_of_loads(), there.told_of_loads())

    for _ in range(5):
        await asyncio.gather(
            plane.ask(at_once), there.ask(other), plane.ask(failing, headers=[("on-remote", "status=502")])
        )
    await asyncio.gather(plane.told_of_loads(), there.told_of_loads())

    def told() -> list[Answers | None]:
        return [answers(plane, at_once), answers(there, other), answers(plane, here), answers(plane, failing)]

    async def is_told() -> bool:
        # Nobody is told anything of an Envoy whose last report is old.
        return told() == [
            Answers(succeeded=0, failed=5, came_back=5, lead_here=5),
            # It asks here, which asks there again, which refuses: what is asked here is answered by replicas of here.
            Answers(succeeded=5, failed=0),
            Answers(succeeded=0, failed=5, came_back=5, lead_here=0),
            Answers(succeeded=0, failed=5),
        ]

    await until(is_told, f"five requests of each are told as they ended: {told()}")


def answers(plane: Plane, model: Model) -> Answers | None:
    remote = route_of(model, model.wanted, plane.backends.remote.host).remote
    assert remote
    sides = frozenset({str(Side(model.key, remote.name))})
    return plane.loads.answers(backend_name(model.key, remote), sides, asyncio.get_running_loop().time())
