"""Trap 8: a stream may be silent for longer than Envoy's defaults allow.

Those are minutes (5 for `stream_idle_timeout`), so a test cannot wait for them. It looks at every timeout that Envoy
has taken in, and shows with a short one that it is this setting which ends a silent stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from controller.api.timing import GatewayTiming, Timing
from tests.support.data_plane.mutation import Change, managers
from tests.support.data_plane.stage import WAYS, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

SILENCE_SECONDS = 2.5


@pytest.fixture(scope="module")
def timing() -> Timing:
    """What is shorter here must not be found below, where Envoy is asked for all that it has taken in."""
    return Timing(gateway=GatewayTiming(departed=0))


def shorter_in(kind: str) -> Change:
    """Let only a second of silence pass in the front ("") or in an internal listener."""

    def edit(manager: HttpConnectionManager) -> None:
        if manager.stat_prefix.partition("/")[0] == (kind or "ns"):
            manager.stream_idle_timeout.FromTimedelta(timedelta(seconds=1))

    return managers(edit)


@pytest.mark.parametrize(("way", "kind"), [("local", ""), ("guarded", "remote"), ("fallback", "local")])
@pytest.mark.parametrize("held", [True, False], ids=["as it is", "shorter"])
async def test_a_stream_may_be_silent(stage: Stage, way: str, kind: str, held: bool) -> None:
    change = {} if held else {"change": shorter_in(kind)}
    http = await stage.plane.serve(stage.http.wanted(way, **change))
    rpc = await stage.plane.serve(stage.rpc.wanted(way, **change))

    async def events() -> bool:
        script = stage.visits[probe := stage.probe()].script
        script.put_nowait("one")
        async with stage.session.get(f"{http.url}v1/events", headers={"probe": probe}) as answer:
            assert await answer.content.readline() == b"data: one\n"
            await asyncio.sleep(SILENCE_SECONDS)
            script.put_nowait("two")
            script.put_nowait(None)
            return await answer.content.read() == b"\ndata: two\n\n"

    async def not_even_a_head() -> bool:
        script = stage.visits[probe := stage.probe()].script
        asyncio.get_running_loop().call_later(SILENCE_SECONDS, script.put_nowait, "text")
        async with stage.session.get(f"{http.url}v1/poll", headers={"probe": probe}) as answer:
            # An internal listener that gives up has the request sent again, to a replica.
            return (answer.status, await answer.text(), stage.visits.attempts[probe]) == (200, "text", 1)

    async def websocket() -> bool:
        async with stage.session.ws_connect(f"{http.url}v1/socket", headers={"probe": stage.probe()}) as socket:
            await asyncio.sleep(SILENCE_SECONDS)
            await socket.send_str("hello")
            return (await socket.receive()).data == "echo hello"

    async def grpc_stream() -> bool:
        script = stage.visits[probe := stage.probe()].script
        async with stage.channel(rpc) as channel:
            call = channel.unary_stream("/any.Service/Lines")(b"", metadata=(("probe", probe),))
            script.put_nowait("one")
            assert await call.read() == b"one"
            await asyncio.sleep(SILENCE_SECONDS)
            script.put_nowait("two")
            return bool(await call.read() == b"two")

    went_on = await asyncio.gather(
        *(one() for one in (events, not_even_a_head, websocket, grpc_stream)), return_exceptions=True
    )

    for model in (http, rpc):
        await stage.plane.withdraw(model)
    assert [one is True for one in went_on] == [held] * 4, went_on


async def test_nothing_that_envoy_has_taken_in_ends_a_long_stream(stage: Stage) -> None:
    for way in WAYS:
        await stage.plane.serve(stage.http.wanted(way, away=50))

    dump = json.loads(await stage.plane.envoy.dump())

    routes = list(_all_of("route", dump, having="upgrade_configs"))
    assert len(routes) > 3 * len(WAYS)  # the two of the split, and those of the internal listeners
    assert {one.get("timeout") for one in routes} == {"0s"}
    found = {(name, str(value)) for name in ENDS_STREAMS for value in _values(name, dump)}
    assert found == {("stream_idle_timeout", "3600s")}


ENDS_STREAMS = (
    "stream_idle_timeout",
    "idle_timeout",
    "max_stream_duration",
    "max_connection_duration",
    "max_downstream_connection_duration",
    "per_try_timeout",
    "per_try_idle_timeout",
    "request_timeout",
    "stream_flush_timeout",
    "grpc_timeout_header_max",
    "close_connections_on_host_health_failure",
)


def _values(name: str, where: Any) -> Iterator[Any]:
    """Find all values of a field, however deep."""
    if isinstance(where, dict):
        for key, value in where.items():
            if key == name:
                yield value
            elif key != "draining_state":  # a listener of another test, on its way out
                yield from _values(name, value)
    elif isinstance(where, list):
        for one in where:
            yield from _values(name, one)


def _all_of(name: str, where: Any, having: str) -> Iterator[dict[str, Any]]:
    return (one for one in _values(name, where) if isinstance(one, dict) and having in one)
