"""What an Envoy does as its heap fills: each action of the overload manager, and the streams that go on meanwhile.

The bootstrap is the product's own. Only where its monitor of the heap would look, the test says how full it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import yaml

from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from tests.support.data_plane.model import Model
from tests.support.data_plane.open_streams import USUAL, OpenStreams, opened
from tests.support.data_plane.raw_clients import GOAWAY, OPENING, Http2Client, called, connected, in_frames
from tests.support.data_plane.stage import Stage, stage_on
from tests.support.envoy import Bootstrap
from tests.support.network import Network
from tests.support.waiting import in_time, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAP = "envoy.resource_monitors.fixed_heap"
RECEIVING = ("events", "silent grpc")
"""The kinds of stream whose clients send nothing while they last."""


class Heap:
    """How full the heap is said to be (Envoy, "Injected resource")."""

    def __init__(self, folder: Path) -> None:
        self._file, self._next = folder / "heap", folder / "heap.next"
        self._file.write_text("0")

    def provided(self, bootstrap: Bootstrap) -> None:
        """Give an Envoy what `beamlit envoy` would for 1 GiB, with this in place of the heap."""
        printed = yaml.safe_load(bootstrap_for("", "", HostPort("h", 1), None, Provision(memory=2**30)))
        bootstrap["overload_manager"] = printed["overload_manager"]
        (monitor,) = (one for one in bootstrap["overload_manager"]["resource_monitors"] if one["name"] == HEAP)
        kind = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig"
        monitor["typed_config"] = {"@type": kind, "filename": str(self._file)}

    def say(self, share: float) -> None:
        self._next.write_text(str(share))
        self._next.replace(self._file)  # Envoy follows what is moved there.


class Overloaded:
    """An Envoy, a model for each protocol, and streams that are open all the while."""

    def __init__(self, stage: Stage, heap: Heap, models: Mapping[str, Model]) -> None:
        self.stage, self.models, self._heap = stage, models, heap

    @contextlib.asynccontextmanager
    async def at(self, share: float, *kinds: str) -> AsyncIterator[OpenStreams]:
        """Fill the heap so far, in the block, while streams go on: of these kinds, or of all."""
        async with opened(self.stage, self.models, 6, kinds or USUAL) as streams:
            try:
                await self.is_full(share)
                yield streams
                await streams.go_on()
            finally:
                await self.is_full(0.0)

    async def is_full(self, share: float) -> None:
        self._heap.say(share)

        async def is_known() -> bool:
            return await self.stage.plane.envoy.stat(f"overload.{HEAP}.pressure") == round(share * 100)

        await until(is_known, f"the heap is taken for {share:.0%} full")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def overloaded(network: Network, folder: Path) -> AsyncIterator[Overloaded]:
    heap = Heap(folder)
    async with stage_on(network, folder, change=heap.provided) as stage:
        models = {
            "http": await stage.plane.serve(stage.http.wanted()),
            "rpc": await stage.plane.serve(stage.rpc.wanted()),
        }
        yield Overloaded(stage, heap, models)


class Kept:
    """A connection of HTTP/1.1 that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, model: Model) -> AsyncIterator[Kept]:
        kept = cls(*await connected(model))
        try:
            yield kept
        finally:
            kept.writer.transport.abort()

    def ask(self) -> None:
        """The server refuses it, with 403, which says that it got there."""
        self.writer.write(b"GET /v1/other HTTP/1.1\r\nhost: a\r\nprobe: p\r\n\r\n")

    async def head(self) -> str:
        """The beginning of an answer, in lower case; the rest is read."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        (length,) = (int(line.split(": ")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
        await self.reader.readexactly(length)
        return head

    async def asked(self) -> str:
        self.ask()
        return await self.head()


async def asked_anew(model: Model) -> str:
    """The beginning of the answer on a new connection.

    One that is without a request for two seconds has ended from 90 percent on, also if this machine had a pause then:
    another one is asked.
    """
    heads: list[str] = []

    async def is_answered() -> bool:
        async with Kept.of(model) as kept:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                heads.append(await kept.asked())
        return bool(heads)

    await until(is_answered, f"{model.key} answers")
    return heads[0]


async def called_anew(model: Model, probe: str) -> tuple[dict[str, str], bool]:
    """Do the same with a call of gRPC: see `called`."""
    answers: list[tuple[dict[str, str], bool]] = []

    async def is_answered() -> bool:
        with contextlib.suppress(EOFError, ConnectionError):
            answers.append(await called(model, "Talk", probe))
        return bool(answers)

    await until(is_answered, f"{model.key} answers")
    return answers[0]


async def test_at_90_percent_connections_without_a_request_end(overloaded: Overloaded) -> None:
    """And one with a request stays, however long nothing comes of it."""
    model, stage = overloaded.models["http"], overloaded.stage
    probe = stage.probe()
    silent = asyncio.create_task(stage.session.get(f"{model.url}v1/poll", headers={"probe": probe}))
    try:
        await stage.visits[probe].begun.wait()
        async with Kept.of(model) as idle, Http2Client.of(overloaded.models["rpc"]) as idle_2, overloaded.at(0.9):
            assert await in_time(asyncio.ensure_future(idle.reader.read()), "the connection is closed") == b""
            await until(lambda: idle_2.told_to_go, "the client of HTTP/2 is told to go")

        stage.visits[probe].script.put_nowait("there")
        assert await (await silent).text() == "there"
    finally:
        silent.cancel()


async def test_at_92_percent_clients_are_asked_for_another_connection(overloaded: Overloaded) -> None:
    model, rpc, stage = overloaded.models["http"], overloaded.models["rpc"], overloaded.stage
    before = await asked_anew(model), await called_anew(rpc, stage.probe())
    async with overloaded.at(0.92):
        after = await asked_anew(model), await called_anew(rpc, stage.probe())

    assert ["connection: close" in answer for answer, _ in (before, after)] == [False, True]
    assert [told_to_go for _, (_, told_to_go) in (before, after)] == [False, True]
    assert ["grpc-status" in answer for _, (answer, _) in (before, after)] == [False, False]


async def test_at_95_percent_new_requests_are_refused(overloaded: Overloaded) -> None:
    model, rpc, stage = overloaded.models["http"], overloaded.models["rpc"], overloaded.stage
    async with overloaded.at(0.95):
        assert (await asked_anew(model)).startswith("http/1.1 503")
        refused, _ = await called_anew(rpc, stage.probe())
        assert refused["grpc-status"] == str(grpc.StatusCode.UNAVAILABLE.value[0])

    assert (await asked_anew(model)).startswith("http/1.1 403")
    answer, told_to_go = await called_anew(rpc, stage.probe())
    assert ("grpc-status" in answer, told_to_go) == (False, False)


async def test_at_98_percent_a_connection_ends_that_sends_more(overloaded: Overloaded) -> None:
    """Without an answer over HTTP/1.1, too (Envoy 1.40, whatever the name of its load shed point says). So does a
    WebSocket that sends; what only receives goes on.
    """
    shed = "overload.envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch.shed_load_count"
    stat = overloaded.stage.plane.envoy.stat
    async with overloaded.at(0.98, *RECEIVING):
        before = await stat(shed)
        reader, writer = await connected(overloaded.models["rpc"])
        writer.write(OPENING)
        assert GOAWAY in [kind async for kind, _ in in_frames(reader)], "it is told to go, and ended"
        writer.close()
        async with Kept.of(overloaded.models["http"]) as kept:
            kept.ask()
            assert await in_time(asyncio.ensure_future(kept.reader.read()), "the connection is closed") == b""
        assert await stat(shed) == before + 2


async def test_at_100_percent_connections_wait_and_are_served_later(overloaded: Overloaded) -> None:
    model, envoy = overloaded.models["http"], overloaded.stage.plane.envoy
    accepted = f"http.{model.key}.downstream_cx_total"
    async with contextlib.AsyncExitStack() as stack:
        async with overloaded.at(1.0, *RECEIVING) as streams:
            before = await envoy.stat(accepted)
            kept = await stack.enter_async_context(Kept.of(model))
            kept.ask()
            await streams.go_on()
            assert await envoy.stat(accepted) == before
        assert (await kept.head()).startswith("http/1.1 403")
        assert await envoy.stat(accepted) == before + 1
