"""Many open streams of every kind. Each gets a number every tenth of a second; none may end, none may skip a number."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.data_plane.model import Model
from tests.support.data_plane.raw_clients import DATA, HEADERS, calling, head_of
from tests.support.data_plane.stage import Stage
from tests.support.waiting import until

Ticks = AsyncIterator[str]
"""The side that answers, then the numbers."""


async def events(stage: Stage, model: Model) -> Ticks:
    async with stage.session.get(f"{model.url}v1/ticks", headers={"probe": stage.probe()}) as answer:
        yield answer.headers["x-beamlit-route"]
        while event := await answer.content.readline():
            if event != b"\n":
                yield event.decode().removeprefix("data: ").strip()


async def websocket(stage: Stage, model: Model) -> Ticks:
    """Each number is sent back, so both directions must be there."""
    async with stage.session.ws_connect(f"{model.url}v1/socket?ticks", headers={"probe": stage.probe()}) as socket:
        yield socket._response.headers["x-beamlit-route"]
        async for message in socket:
            if message.data.startswith("echo"):
                yield message.data.removeprefix("echo ")
            else:
                await socket.send_str(message.data)


async def grpc_stream(stage: Stage, model: Model) -> Ticks:
    async with stage.channel(model) as channel:
        call = channel.unary_stream("/any.Service/Ticks")(b"", metadata=(("probe", stage.probe()),))
        yield (await call.initial_metadata())["x-beamlit-route"]
        async for number in call:
            yield number.decode()


async def silent_grpc_stream(stage: Stage, model: Model) -> Ticks:
    """Nothing is sent once it has begun. A library would answer with pings, and with window that it has again."""
    came = b""
    async with calling(model, "Ticks", stage.probe(), body=bytes(_PREFIX)) as frames:
        async for kind, payload in frames:
            if kind == HEADERS:
                yield head_of(payload)["x-beamlit-route"]
            elif kind == DATA:
                came += payload
                while len(came) >= _PREFIX and len(came) >= (end := _PREFIX + int.from_bytes(came[1:_PREFIX], "big")):
                    yield came[_PREFIX:end].decode()
                    came = came[end:]


KINDS: Mapping[str, tuple[str, Callable[[Stage, Model], Ticks]]] = {
    "events": ("http", events),
    "websocket": ("http", websocket),
    "grpc": ("rpc", grpc_stream),
    "silent grpc": ("rpc", silent_grpc_stream),
}
USUAL = ("events", "websocket", "grpc")

_PREFIX = 5
"""Bytes before a message of gRPC: whether it is compressed, and its length."""


@dataclass
class OpenStream:
    """One of them: what came on it, and how it ended if it did."""

    kind: str
    side: str = ""
    numbers: list[int] = field(default_factory=list)
    ended: str = ""

    async def follow(self, ticks: Ticks) -> None:
        try:
            self.side = await anext(ticks)
            async for number in ticks:
                self.numbers.append(int(number))
            self.ended = "the end"
        except Exception as error:
            self.ended = repr(error)


@dataclass
class OpenStreams:
    """All of them."""

    streams: list[OpenStream]

    @property
    def sides(self) -> set[tuple[str, str]]:
        return {(one.kind, one.side) for one in self.streams}

    @property
    def cut(self) -> list[str]:
        """How those ended that did."""
        return [f"{one.kind} {one.side} after {len(one.numbers)}: {one.ended}" for one in self.streams if one.ended]

    async def go_on(self, ticks: int = 3) -> None:
        """Wait until each has got so many more; fail if one ended or skipped any."""
        goals = [len(one.numbers) + ticks for one in self.streams]

        async def reached() -> bool:
            assert not self.cut, self.cut
            return all(len(one.numbers) >= goal for one, goal in zip(self.streams, goals, strict=True))

        await until(reached, f"{ticks} more on each stream", within=60)
        assert [one for one in self.streams if one.numbers != list(range(len(one.numbers)))] == []


@contextlib.asynccontextmanager
async def opened(
    stage: Stage, models: Mapping[str, Model], count: int = 50, of: Iterable[str] = USUAL
) -> AsyncIterator[OpenStreams]:
    """Open so many streams, as many of each of these kinds, to the model of its protocol, if there is one."""
    kinds = itertools.cycle(kind for kind in of if KINDS[kind][0] in models)
    streams = [OpenStream(next(kinds)) for _ in range(count)]
    following = []
    for one in streams:
        protocol, ticks = KINDS[one.kind]
        following.append(asyncio.create_task(one.follow(ticks(stage, models[protocol]))))
    try:
        all_ = OpenStreams(streams)
        await all_.go_on(2)
        yield all_
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
