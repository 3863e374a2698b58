"""Bodies up to the documented 4 MiB are sent again, also under load and half sent; above it they are not."""

from __future__ import annotations

import asyncio
import hashlib
import json
from urllib.parse import urlsplit

import pytest

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Answer, Sample, Traffic, closed_loop
from tests.support.load.answer import AnswerReader
from tests.support.waiting import in_time, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
LARGE = bytes(range(251)) * (3 * MIB // 251)
TOO_LARGE = bytes(range(251)) * (5 * MIB // 251)
SIDES = pytest.mark.parametrize(("side", "other", "away"), [("local", "remote", 0), ("remote", "local", 100)])


def damaged(answer: Answer) -> str:
    """Tell whether the server that answered got another body than was sent."""
    seen = json.loads(answer.body)["sha256"]
    return "" if seen == hashlib.sha256(LARGE).hexdigest() else "damaged"


@SIDES
async def test_large_bodies_are_sent_again_under_load(plane: Plane, side: str, other: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))
    headers = {"probe": model.key.name, f"on-{side}": "status=503"}
    traffic = Traffic(body=lambda _: LARGE, headers=lambda _: headers, fault=damaged)

    report = await closed_loop(model.url, clients=8, requests=24, traffic=traffic)

    assert report.errors == {}
    assert {sample.route for sample in report.samples} == {other}


@SIDES
async def test_large_bodies_survive_a_kill_under_load(plane: Plane, side: str, other: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))
    dying = plane.backends.local if side == "local" else (plane.backends.remote,)
    answered = 0

    def kill_in_the_midst(_: Sample) -> None:
        nonlocal answered
        answered += 1
        if answered == 12:
            for one in dying:
                one.kill()

    traffic = Traffic(
        body=lambda _: LARGE,
        headers=lambda _: {"probe": model.key.name},
        fault=damaged,
        on_sample=kill_in_the_midst,
    )
    try:
        report = await closed_loop(model.url, clients=8, requests=36, traffic=traffic)
    finally:
        for one in dying:
            one.revive()

    assert report.errors == {}
    assert {sample.route for sample in report.samples} == {side, other}


@SIDES
async def test_a_body_above_the_buffer_is_not_sent_again(plane: Plane, side: str, other: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))

    reply = await plane.ask(model, "POST", headers=[(f"on-{side}", "status=503")], content=TOO_LARGE)

    sides = [record["servedBy"].partition("-")[0] for record in plane.backends.seen(reply.probe)]
    assert (reply.status, reply.route, sides) == (503, side, [side])


@SIDES
async def test_a_request_whose_replica_dies_in_the_midst_of_its_body_is_answered(
    plane: Plane, side: str, other: str, away: int
) -> None:
    model = await plane.serve(Wanted(away=away, replicas=plane.backends.replicas[:1]))
    dying = plane.backends.local[0] if side == "local" else plane.backends.remote

    answer = await sent_in_two(model, LARGE, dying)

    assert (answer.status, answer.route, damaged(answer)) == (200, other, "")


@SIDES
async def test_one_whose_body_is_above_the_buffer_fails_then(plane: Plane, side: str, other: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away, replicas=plane.backends.replicas[:1]))
    dying = plane.backends.local[0] if side == "local" else plane.backends.remote

    answer = await sent_in_two(model, TOO_LARGE, dying)

    assert (answer.status, answer.route) == (503, side)


async def sent_in_two(model: Model, body: bytes, dying: Backend) -> Answer:
    """Send most of a body, kill the server that is getting it, then send the rest; return the answer."""
    url = urlsplit(model.url)
    part = len(body) - 100_000
    before = dying.received()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST / HTTP/1.1\r\nhost: x\r\nprobe: {model.key.name}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:part])

    async def has_most_of_it() -> bool:
        return dying.received() - before >= part

    await until(has_most_of_it, "the server has most of the body")
    dying.kill()
    try:
        await asyncio.sleep(0.1)
        writer.write(body[part:])
        parsed = AnswerReader()
        while (answer := parsed.feed(data := await in_time(reader.read(65536), "an answer", within=60))) is None:
            assert data, "the connection was closed without an answer"
        return answer
    finally:
        dying.revive()
        writer.close()
