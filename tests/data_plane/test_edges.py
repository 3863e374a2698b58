"""Requests that a client library would not write: what the replicas see of them, and what the remote backend.

The remote backend always sees the Host and the headers that the model adds, once each, whatever the client says of
them; a replica sees what was sent, less what HTTP has a proxy take off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.sealed import api_key, bring
from tests.support.data_plane.witness import Pairs, Seen, Witness
from tests.support.load.answer import Answer
from tests.support.load.connection import Connections
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import in_time

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = api_key("key", "x-key")
CHUNKED = "transfer-encoding: chunked"
# The second is sent without a value.
ADDED = (("x-own", "ours"), ("x-none", ""))


@dataclass(frozen=True)
class Row:
    """`sent` are the lines behind the request line; what is seen of them, or the status if nobody sees anything."""

    sent: list[str]
    at_replica: list[str] | None = None
    at_remote: list[str] | None = None
    body: str = ""
    status: int = 200
    start: str = "GET /a HTTP/1.1"
    host: str = "c.test"
    """What a replica sees."""


def passing(*lines: str) -> Row:
    """Both sides see it."""
    return Row([*lines], [*lines], [*lines])


def staying(*lines: str) -> Row:
    """The replicas alone see it."""
    return Row([*lines], [*lines], [])


def vanishing(*lines: str) -> Row:
    """Nobody sees it."""
    return Row([*lines], [], [])


def refused(status: int, *lines: str, body: str = "", start: str = "POST /a HTTP/1.1") -> Row:
    return Row([*lines], None, None, body, status, start)


ROWS = {
    # Whose request it is.
    "authorization": staying("authorization: Bearer c"),
    "proxy-authorization": staying("proxy-authorization: Basic c"),
    "cookies": staying("cookie: a=1", "cookie: b=2"),
    "keys of the client": staying("api-key: c", "x-api-key: c"),
    "cookie-like": passing("cookie2: a", "x-cookie: a"),
    # Where it comes from, and where it was for.
    "x-forwarded-for": Row(["x-forwarded-for: 203.0.113.7"], [], []),
    "x-forwarded-host": staying("x-forwarded-host: evil.test", "x-forwarded-port: 1"),
    "forwarded": staying("forwarded: for=203.0.113.7;host=evil.test", "x-real-ip: 203.0.113.7"),
    "the client's address": staying("true-client-ip: 203.0.113.7", "x-client-ip: 1", "x-cluster-client-ip: 1"),
    "the client's address, of content networks": staying("cf-connecting-ip: 203.0.113.7", "fastly-client-ip: 1"),
    "the client's address, of other networks": staying(
        *(f"{name}: 203.0.113.7" for name in ("cf-connecting-ipv6", "fly-client-ip", "x-azure-clientip")),
        *(f"{name}: 203.0.113.7" for name in ("wl-proxy-client-ip", "x-appengine-user-ip")),
    ),
    "keys of the client, of vendors": staying(
        *(f"{name}: c" for name in ("x-goog-api-key", "x-auth-token", "ocp-apim-subscription-key")),
    ),
    "who logged in": staying(
        *(f"x-amzn-oidc-{what}: c" for what in ("accesstoken", "data", "identity")),
        *(f"x-forwarded-{what}: c" for what in ("access-token", "email", "user")),
        *(f"{name}: c" for name in ("cf-access-jwt-assertion", "x-goog-iap-jwt-assertion")),
        *(f"{name}: c" for name in ("x-auth-request-access-token", "x-ms-token-aad-access-token")),
        "x-ms-token-aad-id-token: c",
    ),
    "of ingress-nginx": staying("x-original-forwarded-for: 203.0.113.7", "x-original-forwarded-host: evil.test"),
    "httpoxy": vanishing("proxy: http://evil.test:8080"),
    "x-original-url": staying("x-original-url: /admin", "x-rewrite-url: /admin"),
    "client certificate": vanishing("x-forwarded-client-cert: By=x"),
    "x-envoy-original-path": vanishing("x-envoy-original-path: /admin", "x-envoy-original-host: evil.test"),
    "via": passing("via: 1.1 somewhere"),
    # Headers that the model adds or Envoy injects.
    "of the model's name": Row(["x-own: c", "X-Own: c2"], ["x-own: c", "x-own: c2"], []),
    "of the model's name, where the model has no value": Row(["x-none: c"], ["x-none: c"], []),
    "of the key's name": Row(["X-KEY: c"], ["x-key: c"], []),
    "of the model's name, dropped by Connection": vanishing("connection: close, x-own, x-key", "x-own: c", "x-key: c"),
    # docs/data-plane.md, "What it does not do".
    "underscores": vanishing("x_own: c", "x_forwarded_for: c"),
    # Of the connection.
    "connection": vanishing("connection: keep-alive, x-c, authorization", "x-c: 1", "authorization: c"),
    "keep-alive": vanishing("keep-alive: timeout=5", "proxy-connection: keep-alive"),
    "te": vanishing("te: gzip"),
    "te: trailers": passing("te: trailers"),
    "h2c": vanishing("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
    "another upgrade": refused(403, "connection: upgrade", "upgrade: foo", start="GET /a HTTP/1.1"),
    "Connection names what is ours": refused(400, "connection: close, x-forwarded-for", start="GET /a HTTP/1.1"),
    # The Host.
    "absolute target": Row([], [], [], start="GET http://evil.test/a HTTP/1.1", host="evil.test"),
    "a user in the target": Row([], [], [], start="GET http://u:p@evil.test/a HTTP/1.1", host="evil.test"),
    "a second host": Row(["host: evil.test"], [], [], host="c.test,evil.test"),
    "a path in the host": refused(400, "host: c.test/x"),
    # Framing.
    "length and chunks": refused(400, "content-length: 3", CHUNKED, body="3\r\nabc\r\n0\r\n\r\n"),
    "two lengths": refused(400, "content-length: 3", "content-length: 4", body="abcd"),
    "the same length twice": refused(400, "content-length: 3", "content-length: 3", body="abc"),
    "no chunks after all": refused(501, "transfer-encoding: chunked, identity", body="0\r\n\r\n"),
    "odd chunks": refused(501, "transfer-encoding: xchunked", body="0\r\n\r\n"),
    "space before the colon": refused(400, "x-c : 1"),
    "a NUL": refused(400, "x-c: \0"),
    "a pseudo-header": refused(400, ":path: /admin"),
    "trailers": Row(
        ["trailer: authorization", CHUNKED],
        ["trailer: authorization", CHUNKED],
        ["trailer: authorization", CHUNKED],
        "3;ext=1\r\nabc\r\n0\r\nauthorization: c\r\nx-own: c\r\n\r\n",
        start="POST /a HTTP/1.1",
    ),
}


@dataclass(frozen=True)
class Sides:
    replica: Witness
    remote: Witness
    local: Model
    away: Model
    guarded: Model

    def forget(self) -> None:
        self.replica.seen.clear()
        self.remote.seen.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sides(plane: Plane, network: Network) -> AsyncIterator[Sides]:
    bring(plane, {KEY: "ours"})
    replica, remote = Witness("local", network.host(40)), Witness("remote", network.host(41))
    common = {
        "host": remote.host,
        "authority": "remote.test",
        "replicas": (Replica(replica.host, BACKEND_PORT, True),),
        "headers_to_add": ADDED,
    }
    async with replica.running(), remote.running():
        yield Sides(
            replica,
            remote,
            await plane.serve(Wanted(away=0, **common)),
            await plane.serve(Wanted(away=100, **{**common, "headers_to_add": (*ADDED, ("x-key", "ours"))})),
            await plane.serve(Wanted(away=100, auth=KEY, **common)),
        )


async def ask(model: Model, row: Row, *more: str) -> Answer:
    url = urlsplit(model.url)
    connections = Connections(url.hostname or "", url.port or 80, keepalive=False)
    head = "\r\n".join([row.start, "host: c.test", *row.sent, *more])
    return await connections.exchange(f"{head}\r\n\r\n{row.body}".encode())


def seen_of(seen: Seen, *known: str) -> list[str]:
    """Return the headers that were seen, in order, but for these."""
    return sorted(f"{name}: {value}" for name, value in seen.pairs if name not in known and not name.startswith("on-"))


TOLD_TO_REPLICAS = ("host", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address")


@pytest.mark.parametrize("name", ROWS)
async def test_what_each_side_sees_of_it(sides: Sides, name: str) -> None:
    row = ROWS[name]

    sides.forget()
    answer = await ask(sides.local, row)
    assert answer.status == row.status
    assert [seen_of(seen, *TOLD_TO_REPLICAS) for seen in sides.replica.seen] == _wanted(row.at_replica)
    assert [seen.values("host") for seen in sides.replica.seen] == ([] if row.at_replica is None else [[row.host]])

    for model in (sides.away, sides.guarded):
        sides.forget()
        assert (await ask(model, row)).status == row.status
        assert [seen_of(seen, "host", "x-own", "x-none", "x-key") for seen in sides.remote.seen] == _wanted(
            row.at_remote
        )
        assert sides.replica.seen == []
        for seen in sides.remote.seen:
            ours = {name: seen.values(name) for name in ("host", "x-own", "x-none", "x-key")}
            assert ours == {"host": ["remote.test"], "x-own": ["ours"], "x-none": [""], "x-key": ["ours"]}
        # What is behind the last chunk is dropped, and nothing hides in the body.
        assert {seen.rest for seen in sides.remote.seen} <= {b"", b"3\r\nabc\r\n0\r\n\r\n"}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.at_replica is not None])
async def test_what_comes_back_from_the_remote_is_as_if_it_had_never_left(sides: Sides, name: str) -> None:
    row = ROWS[name]

    for model in (sides.away, sides.guarded):
        # Answers, so that the failures of the rows are not in a row, and the remote backend is asked each time.
        await ask(model, row)
        sides.forget()
        answer = await ask(model, row, "on-remote: 503")

        assert (answer.status, len(sides.remote.seen)) == (200, 1)
        (seen,) = sides.replica.seen
        assert seen_of(seen, *TOLD_TO_REPLICAS) == _first(row, model is sides.away)
        assert (seen.values("host"), seen.target) == ([row.host], "/a")


async def test_a_client_of_http_1_0_need_not_say_whom_it_asks(sides: Sides) -> None:
    sides.forget()
    for model in (sides.local, sides.away, sides.guarded):
        url = urlsplit(model.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"GET /a HTTP/1.0\r\n\r\n")
        head, _, _ = (await in_time(reader.read(), "an answer", within=60)).partition(b"\r\n")
        writer.close()
        assert head.split()[1] == b"200"

    assert [seen.values("host") for seen in sides.replica.seen] == [["localhost"]]
    assert [seen.values("host") for seen in sides.remote.seen] == [["remote.test"]] * 2


def _wanted(lines: list[str] | None) -> list[list[str]]:
    return [] if lines is None else [sorted(lines)]


def _first(row: Row, direct: bool) -> list[str]:
    """What a replica sees; of a header that is given back by itself, the first value (docs/data-plane.md)."""
    assert row.at_replica is not None
    pairs: Pairs = [(line.partition(": ")[0], line) for line in row.at_replica]
    if not direct:
        return sorted(line for _, line in pairs)
    kept = dict(reversed(pairs))
    return sorted(line for name, line in pairs if kept[name] == line)
