"""Trap 8: a stream may be silent for longer than Envoy's defaults allow.

Those are minutes (5 for `stream_idle_timeout`), so a test cannot wait for them. This one shows with a short one that it
is this setting which ends a silent stream; `test_streams_timeouts` looks at every timeout that Envoy has taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.model import Model
from tests.support.data_plane.mutation import Change, managers
from tests.support.data_plane.stage import Stage
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.data_plane.visits import Visit
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Silence = Callable[[Visit], Awaitable[None]]
"""Tells of a visit that nothing comes on it from now on, and returns when something may."""


def shorter_in(kind: str) -> Change:
    """Let only a second of silence pass in the front ("") or in an internal listener."""

    def edit(manager: HttpConnectionManager) -> None:
        if manager.stat_prefix.partition("/")[0] == (kind or "model"):
            manager.stream_idle_timeout.FromTimedelta(timedelta(seconds=1))

    return managers(edit)


# The way of a request, and which listener on it is the one that gives up.
LISTENERS = (("local", ""), ("guarded", "remote"), ("fallback", "local"))


async def test_a_stream_may_be_silent(stage: Stage) -> None:
    """For longer than those have lasted that may not: every kind, on every way, at the same time."""
    went_on = await asyncio.gather(*(_went_on(stage, way, kind) for way, kind in LISTENERS))

    assert went_on == [Variants(held=[True] * 4, removed=[False] * 4)] * len(LISTENERS)


async def _went_on(stage: Stage, way: str, kind: str) -> Variants[list[bool]]:
    """Tell which kinds of streams went on after the silence.

    Those that may be silent are so before the others begin, and until a server has lost the last of these.
    """
    http = await serve_both(stage.plane, stage.http.wanted(way), shorter_in(kind))
    rpc = await serve_both(stage.plane, stage.rpc.wanted(way), shorter_in(kind))
    ended = asyncio.Event()

    def streams(http: Model, rpc: Model, silent: list[Visit]) -> asyncio.Task[list[bool]]:
        async def silence(visit: Visit) -> None:
            silent.append(visit)
            await ended.wait()

        async def all_kinds() -> list[bool]:
            kinds = (_events, _not_even_a_head, _websocket)
            went_on = (*(kind(stage, http, silence) for kind in kinds), _grpc_stream(stage, rpc, silence))
            return [one is True for one in await asyncio.gather(*went_on, return_exceptions=True)]

        return asyncio.create_task(all_kinds())

    of_held, of_removed = list[Visit](), list[Visit]()
    held = streams(http.held, rpc.held, of_held)
    await until(lambda: len(of_held) == 4, "those that may be silent are")
    removed = streams(http.removed, rpc.removed, of_removed)
    await until(lambda: len(of_removed) == 4, "those that may not be silent are")
    await until(lambda: all(visit.over.is_set() for visit in of_removed), "they have ended for that")
    ended.set()
    return Variants(await held, await removed)


async def _events(stage: Stage, model: Model, silence: Silence) -> bool:
    visit = stage.visits[probe := stage.probe()]
    visit.script.put_nowait("one")
    async with stage.session.get(f"{model.url}v1/events", headers={"probe": probe}) as answer:
        assert await answer.content.readline() == b"data: one\n"
        await silence(visit)
        visit.script.put_nowait("two")
        visit.script.put_nowait(None)
        return await answer.content.read() == b"\ndata: two\n\n"


async def _not_even_a_head(stage: Stage, model: Model, silence: Silence) -> bool:
    visit = stage.visits[probe := stage.probe()]

    async def answer_at_last() -> None:
        await visit.begun.wait()
        await silence(visit)
        visit.script.put_nowait("text")

    answering = asyncio.create_task(answer_at_last())
    async with stage.session.get(f"{model.url}v1/poll", headers={"probe": probe}) as answer:
        # An internal listener that gives up has the request sent again, to a replica.
        told = (answer.status, await answer.text(), stage.visits.attempts[probe])
    await answering
    return told == (200, "text", 1)


async def _websocket(stage: Stage, model: Model, silence: Silence) -> bool:
    visit = stage.visits[probe := stage.probe()]
    async with stage.session.ws_connect(f"{model.url}v1/socket", headers={"probe": probe}) as socket:
        await silence(visit)
        await socket.send_str("hello")
        return bool((await socket.receive()).data == "echo hello")


async def _grpc_stream(stage: Stage, model: Model, silence: Silence) -> bool:
    visit = stage.visits[probe := stage.probe()]
    async with stage.channel(model) as channel:
        call = channel.unary_stream("/any.Service/Lines")(b"", metadata=(("probe", probe),))
        visit.script.put_nowait("one")
        assert await call.read() == b"one"
        await silence(visit)
        visit.script.put_nowait("two")
        return bool(await call.read() == b"two")
