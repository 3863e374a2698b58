"""What of a request reaches the replicas and what the remote backend, and what of an answer reaches the client."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.support.data_plane.model import Model, Reply, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.waiting import in_time, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPOOFED = [
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-retriable-status-codes", "404"),
    ("x-envoy-force-trace", "true"),
    ("x-envoy-internal", "true"),
    ("x-envoy-external-address", "192.0.2.1"),
    ("x-envoy-original-path", "/forged"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("X-Envoy-Decorator-Operation", "forged"),
    ("x-beamlit-route", "forged"),
    ("x-beamlit-host", "forged"),
    ("X-Beamlit-Anything", "forged"),
]
SIDES = [("local", 0), ("remote", 100)]


def only(plane: Plane, reply: Reply) -> dict[str, Any]:
    """Return the one request that reached a backend."""
    (record,) = plane.backends.seen(reply.probe)
    return record


def headers_of(record: dict[str, Any]) -> dict[str, str]:
    return dict(record["headers"])


@pytest.mark.parametrize(("side", "away"), SIDES)
async def test_headers_that_would_steer_envoy_have_no_effect_and_reach_nobody(
    plane: Plane, side: str, away: int
) -> None:
    model = await plane.serve(Wanted(away=away))

    slow = await plane.ask(model, headers=[*SPOOFED, (f"on-{side}", "delay=0.2")])
    refused = await plane.ask(model, headers=[*SPOOFED, (f"on-{side}", "status=404")])

    assert (slow.status, slow.route) == (200, side)
    assert refused.status == 404
    for reply in (slow, refused):
        record = only(plane, reply)
        ours = {name: value for name, value in record["headers"] if name.startswith(("x-envoy-", "x-beamlit-"))}
        # Envoy's own word on who the client is; it stays inside.
        assert ours == ({"x-envoy-external-address": "127.0.0.1"} if side == "local" else {})


@pytest.mark.parametrize(("side", "away"), SIDES)
async def test_the_route_header_of_a_backend_is_overwritten(plane: Plane, side: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))

    reply = await plane.ask(model, headers=[(f"on-{side}", "header=x-beamlit-route: forged")])

    assert reply.header("x-beamlit-route") == [side]


async def test_answers_carry_nothing_of_envoy(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))

    replies = [await plane.ask(model) for _ in range(10)]

    assert {reply.route for reply in replies} <= {"local", "remote"}
    assert [n for reply in replies for n, _ in reply.headers if n.startswith("x-envoy-") or n == "server"] == []


async def test_a_replica_sees_what_the_client_sent(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=0))

    reply = await plane.ask(
        model,
        method="PUT",
        path="v1/chat?stream=true&q=%20x",
        headers=[("authorization", "Bearer of-the-client"), ("host", "chat.example"), ("x-own", "1")],
        content=b"\x00\xff body",
    )

    record = only(plane, reply)
    assert (record["method"], record["target"], record["length"]) == ("PUT", "/v1/chat?stream=true&q=%20x", 7)
    assert headers_of(record)["host"] == "chat.example"
    assert headers_of(record)["authorization"] == "Bearer of-the-client"
    assert headers_of(record)["x-own"] == "1"


async def test_the_remote_sees_its_own_host_path_and_headers(plane: Plane) -> None:
    odd = [("x-key", "100% %REQ(:path)% %% %{x}"), ("x-own", "of the model")]
    model = await plane.serve(Wanted(away=100, path_prefix="/ws/models/chat", headers_to_add=tuple(odd)))

    reply = await plane.ask(
        model,
        method="POST",
        path="v1/chat?q=1",
        headers=[("authorization", "Bearer of-the-client"), ("x-own", "of the client"), ("x-request-id", "r")],
        content=b"{}",
    )

    record = only(plane, reply)
    headers = headers_of(record)
    assert (reply.status, reply.route, record["servedBy"]) == (200, "remote", "remote")
    assert (record["method"], record["target"]) == ("POST", "/ws/models/chat/v1/chat?q=1")
    assert headers["host"] == model.authority
    assert [pair for pair in map(tuple, record["headers"]) if pair[0] in ("x-key", "x-own")] == odd
    inside = ("authorization", "x-forwarded-for", "x-forwarded-proto", "x-request-id")
    assert [name for name in inside if name in headers] == []


@pytest.mark.parametrize(("prefix", "path", "target"), [("", "", "/"), ("", "a/b", "/a/b"), ("/p", "", "/p/")])
async def test_the_path_of_the_client_follows_the_prefix(plane: Plane, prefix: str, path: str, target: str) -> None:
    model = await plane.serve(Wanted(away=100, path_prefix=prefix))

    assert only(plane, await plane.ask(model, path=path))["target"] == target


@pytest.mark.parametrize("failure", ["status=503", "reset=before"])
async def test_a_request_that_falls_back_to_local_is_the_clients_own_again(plane: Plane, failure: str) -> None:
    model = await plane.serve(Wanted(away=100, headers_to_add=(("x-key", "of the model"),)))

    reply = await plane.ask(
        model,
        method="POST",
        path="v1/chat?q=1",
        headers=[("authorization", "Bearer of-the-client"), ("host", "chat.example"), ("on-remote", failure)],
        content=b"exactly this",
    )

    local, remote = sorted(plane.backends.seen(reply.probe), key=lambda record: record["servedBy"])
    assert (reply.status, reply.route) == (200, "local")
    assert remote["servedBy"] == "remote"
    assert local["target"] == "/v1/chat?q=1"
    assert headers_of(local)["host"] == "chat.example"
    assert headers_of(local)["authorization"] == "Bearer of-the-client"
    assert "x-key" not in headers_of(local)
    assert "authorization" not in headers_of(remote)
    assert (local["length"], local["sha256"]) == (remote["length"], remote["sha256"])


TRICKY = [
    ("host", "chat.example:8080"),
    ("authorization", "Bearer " + "x" * 60),
    ("x-own", "100% of the client, %REQ(:path)%"),
    ("x-beamlit-host", "forged"),
    ("x-request-id", "r-1"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-empty", ""),
    ("x-percent", "100% %REQ(:path)%"),
    ("cookie", "a=1"),
    ("accept", "text/event-stream"),
]
ADDED = (("x-own", "of the model"), ("x-key", "of the model"))
PATHS = ["", "v1/chat?stream=true&q=%20%2F", "ws/models/m/v1", "/double//slash/", "a%2Fb;c=1?x=/../y", "?only=query"]


@pytest.mark.parametrize("failure", ["status=503", "reset=before"])
@pytest.mark.parametrize("prefix", ["", "/ws/models/m", "/ws/models/m/"])
@pytest.mark.parametrize(("side", "away"), SIDES)
async def test_a_request_sent_again_is_what_it_would_have_been_at_once(
    plane: Plane, side: str, away: int, prefix: str, failure: str
) -> None:
    wanted = Wanted(path_prefix=prefix, headers_to_add=ADDED)
    at_once = await plane.serve(replace(wanted, away=away))
    second = await plane.serve(replace(wanted, away=100 - away))
    other = {"local": "remote", "remote": "local"}[side]

    for path in PATHS:
        direct = only(plane, await plane.ask(at_once, "POST", path, headers=TRICKY, content=b"body"))
        reply = await plane.ask(second, "POST", path, headers=[*TRICKY, (f"on-{other}", failure)], content=b"body")
        again = [one for one in plane.backends.seen(reply.probe) if one["servedBy"].startswith(side)]

        assert (reply.status, reply.route) == (200, side)
        assert len(again) == 1
        assert _headers(again[0], second) == _headers(direct, at_once)
        assert [again[0][part] for part in _ELSE] == [direct[part] for part in _ELSE]


@pytest.mark.parametrize("prefix", ["/other", "", "/ws/models"])
async def test_a_request_that_met_an_older_backend_comes_back_as_it_was(plane: Plane, prefix: str) -> None:
    wanted = Wanted(away=100, path_prefix="/ws")
    model = await plane.serve(wanted)

    remote = plane.backends.remote
    before = remote.count()

    async def has_it() -> bool:
        return remote.count() > before

    held = [("on-remote", "held=x;status=503")]
    asking = asyncio.create_task(plane.ask(model, "POST", "v1/chat?a=b", headers=held))
    try:
        await until(has_it, "the remote backend has the request")
        await plane.change(model, replace(wanted, path_prefix=prefix))
    finally:
        remote.release("x")
    reply = await asking

    (local,) = (one for one in plane.backends.seen(reply.probe) if one["servedBy"].startswith("local"))
    assert (reply.status, reply.route, local["target"]) == (200, "local", "/v1/chat?a=b")


# What docs/data-plane.md says of it: Envoy formats the first value of a header, and an empty one as if it were absent.
@pytest.mark.parametrize(("values", "restored"), [(["first", "second"], ["first"]), ([""], [])])
async def test_of_a_header_that_the_model_overwrites_the_first_value_is_restored(
    plane: Plane, values: list[str], restored: list[str]
) -> None:
    model = await plane.serve(Wanted(away=100, headers_to_add=ADDED))

    reply = await plane.ask(model, headers=[*(("x-own", value) for value in values), ("on-remote", "status=503")])

    (local,) = (one for one in plane.backends.seen(reply.probe) if one["servedBy"].startswith("local"))
    assert [value for name, value in local["headers"] if name == "x-own"] == restored


_ELSE = ("method", "target", "length", "sha256")


def _headers(record: dict[str, Any], model: Model) -> list[str]:
    """All that must be equal: not the name of the test's model, nor what steers the backends."""
    return sorted(
        f"{name}: {value}".replace(model.authority, "<authority>")
        for name, value in record["headers"]
        if name != "probe" and not name.startswith("on-")
    )


@pytest.mark.parametrize(("side", "away"), SIDES)
async def test_websockets_pass_both_ways(plane: Plane, side: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))

    head, echoed = await _upgraded(model, b"hello over there")

    assert head.startswith(b"HTTP/1.1 101")
    # Clients of HTTP/1.1 see words with a capital, as they are told in every example of HTTP.
    assert f"X-Beamlit-Route: {side}".encode() in head
    assert echoed == b"hello over there"


async def _upgraded(model: Model, sent: bytes) -> tuple[bytes, bytes]:
    host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        head = await in_time(reader.readuntil(b"\r\n\r\n"), "an answer", within=60)
        writer.write(sent)
        return head, await in_time(reader.readexactly(len(sent)), "an answer", within=60)
    finally:
        writer.close()
