"""What becomes of a client's path: with the replicas, with the remote backend, and on the way from one to the other."""

from __future__ import annotations

import itertools
import posixpath
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import pytest
import pytest_asyncio

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.sealed import api_key, bring
from tests.support.data_plane.witness import Witness
from tests.support.load.answer import Answer
from tests.support.load.connection import Connections
from tests.support.network import BACKEND_PORT, Network

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFIX = "/ws/models/meta%2FLlama"
KEY = api_key("key", "x-key")


@dataclass(frozen=True)
class Ways:
    """The ways a request can take. A model of its own for each, since a replica that fails is soon avoided."""

    replica: Witness
    remote: Witness
    to_replica: Model
    to_remote: Model
    back_to_replica: Model
    on_to_remote: Model
    to_remote_with_key: Model
    on_to_remote_with_key: Model

    def all(self) -> tuple[tuple[Model, str, Witness, str], ...]:
        """Each model, how its request is to fail first, who gets it in the end, and behind which prefix."""
        return (
            (self.to_replica, "", self.replica, ""),
            (self.back_to_replica, "on-remote: 503", self.replica, ""),
            (self.to_remote, "", self.remote, PREFIX),
            (self.on_to_remote, "on-local: 503", self.remote, PREFIX),
            (self.to_remote_with_key, "", self.remote, PREFIX),
            (self.on_to_remote_with_key, "on-local: 503", self.remote, PREFIX),
        )

    def leaving(self) -> tuple[tuple[Model, str], ...]:
        return tuple((model, failure) for model, failure, witness, _ in self.all() if witness is self.remote)

    def forget(self) -> None:
        self.replica.seen.clear()
        self.remote.seen.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(plane: Plane, network: Network) -> AsyncIterator[Ways]:
    bring(plane, {KEY: "secret"})
    replica, remote = Witness("local", network.host(40)), Witness("remote", network.host(41))
    replicas = (Replica(replica.host, BACKEND_PORT, True),)

    async def serve(away: int, *, key: bool = False) -> Model:
        auth = KEY if key else None
        return await plane.serve(Wanted(away=away, host=remote.host, replicas=replicas, path_prefix=PREFIX, auth=auth))

    async with replica.running(), remote.running():
        yield Ways(
            replica,
            remote,
            to_replica=await serve(0),
            to_remote=await serve(100),
            back_to_replica=await serve(100),
            on_to_remote=await serve(0),
            to_remote_with_key=await serve(100, key=True),
            on_to_remote_with_key=await serve(0, key=True),
        )


async def ask(model: Model, target: str, header: str = "", method: str = "GET") -> Answer:
    """Send a request target as it is, which a client library would not do."""
    url = urlsplit(model.url)
    connections = Connections(url.hostname or "", url.port or 80, keepalive=False)
    head = [f"{method} {target} HTTP/1.1", "host: client.test", *filter(None, [header])]
    return await connections.exchange(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))


ORDINARY = [
    "/",
    "/v1/chat?stream=true",
    "/a%20b",
    "/meta-llama%2FLlama",
    "/meta-llama%2fLlama/x",
    "//double//slashes/",
    "/a;v=1/b;w",
    "/~user",
    "/%C3%A9/%c3%a9",
    "/%c3%28",
    "/a?a=../b&c=%2e%2e%2f..\\..",
    "/a?",
    "/a/?//..//",
    "/'()!$&*+,=:@-._",
    "/[x]",
    "/%5Bx%5D%22%7B%7D",
    "/a%5Cb",
    "/100%25",
    "/%",
    "/%zz",
    "/%0a%7F%u0041",
    "/.well-known/..a/a../.../.a",
    "/%252e/%252fx",
    "/...",
]


@pytest.mark.parametrize("path", ORDINARY)
async def test_an_ordinary_path_arrives_as_it_was_sent(ways: Ways, path: str) -> None:
    for model, failure, witness, prefix in ways.all():
        ways.forget()
        answer = await ask(model, path, failure)

        assert (answer.status, [seen.target for seen in witness.seen]) == (200, [prefix + path]), failure


# docs/data-plane.md has these: dot segments are resolved, what need not be escaped is not, what must be is.
CHANGED = {
    "/a/../b": "/b",
    "/a/./b": "/a/b",
    "/a/..": "/",
    "/..": "/",
    "/../../x": "/x",
    "/%2e%2E/%2e/x": "/x",
    "/a/%2e./b?../c": "/b?../c",
    "/a/..;x/b": "/b",
    "/a\\..\\b\\c": "/b/c",
    "/a//../b": "/a/b",
    "/%7Euser/%41%2D%5f%2ejson": "/~user/A-_.json",
    '/a"<>^`{|}': "/a%22%3C%3E%5E%60%7B%7C%7D",
    "http://else.test/a/../b": "/b",
    "http://else.test": "/",
}


@pytest.mark.parametrize(("path", "resolved"), CHANGED.items())
async def test_what_is_changed_is_changed_alike_for_both_sides(ways: Ways, path: str, resolved: str) -> None:
    for model, failure, witness, prefix in ways.all():
        ways.forget()
        answer = await ask(model, path, failure)

        assert (answer.status, [seen.target for seen in witness.seen]) == (200, [prefix + resolved]), failure


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/a%00b", 400),
        ("GET", "/a#b", 400),
        ("GET", "/\xe9", 400),
        ("GET", "a", 400),
        ("OPTIONS", "*", 404),
        ("CONNECT", "client.test:80", 404),
    ],
)
async def test_what_is_no_path_is_answered_by_envoy(ways: Ways, method: str, target: str, status: int) -> None:
    for model, _, _, _ in ways.all():
        ways.forget()

        assert (await ask(model, target, method=method)).status == status
        assert (ways.replica.seen, ways.remote.seen) == ([], [])


LEADING_OUT = [
    "/..%2fx",
    "/..%2Fx?y",
    "/a/..%2f..%2f..%2f..%2fx",
    "/%2e%2e%2fx",
    "/a%2f..%2f..",
    "/a%2f%2E%2e",
    "/..%5cx",
    "/%2e.%5C..%5c",
    "/a%5c../x",
    "/..%252fx",
    "/%252e%252e/x",
    "/%25252E%25252e%25252fx",
    "/%2%65%2%65/x",
    "/..%3bx/y",
    "/..%20/x",
]


@pytest.mark.parametrize("path", LEADING_OUT)
async def test_what_could_lead_out_of_the_prefix_does_not_leave(ways: Ways, path: str) -> None:
    for model, failure in ways.leaving():
        ways.forget()

        answer = await ask(model, path, failure)

        # Nobody saw it but a replica that failed, once, unless that is avoided by now.
        assert (answer.status, ways.remote.seen) == (400, [])
        assert len(ways.replica.seen) <= bool(failure)
    ways.forget()
    assert (await ask(ways.to_replica, path)).status == 200
    assert len(ways.replica.seen) == 1


async def test_without_a_prefix_there_is_nothing_to_leave(plane: Plane, ways: Ways) -> None:
    model = await plane.serve(Wanted(away=100, host=ways.remote.host, path_prefix=""))
    ways.forget()

    assert (await ask(model, "/..%2fx")).status == 200
    assert [seen.target for seen in ways.remote.seen] == ["/..%2fx"]


PIECES = ["..", "..", ".", "%2e", "%2E", "/", "/", "\\", "%2f", "%2F", "%5c", "%25", "%252f", "2e", "%32", "%65", "a"]
PIECES += [";", "%3b", "%", "2", "%20", "%41"]


async def test_whatever_a_server_makes_of_a_path_it_is_behind_the_prefix(ways: Ways) -> None:
    """Paths made of what may lead out, as seen by servers that decode once, or again and again."""
    chance = random.Random(1)
    legs = itertools.cycle(ways.leaving())
    refused = arrived = 0
    for _ in range(2_000):
        path = "/" + "".join(chance.choices(PIECES, k=chance.randint(2, 8)))
        model, failure = next(legs)
        ways.forget()

        answer = await ask(model, path, failure)

        if answer.status == 400:
            refused += 1
            assert any(".." in form for form in readings(path)), f"{path} was refused"
            assert ways.remote.seen == []
        else:
            arrived += 1
            (seen,) = ways.remote.seen
            assert seen.target.startswith(f"{PREFIX}/")
            behind = seen.target.removeprefix(PREFIX)
            for form in readings(behind):
                assert not leads_out(form), f"{path} arrived as {seen.target}, which may be read as {form}"
    assert min(refused, arrived) > 100


def readings(path: str) -> set[str]:
    """List what servers may take a path for: decoded as often as it can be, with backslashes for slashes or not."""
    forms = {path}
    while (path := unquote(path, "latin-1")) not in forms:
        forms.add(path)
    return forms | {form.replace("\\", "/") for form in forms}


def leads_out(path: str) -> bool:
    """Tell whether dot segments take a path above where it begins, with parameters or without."""
    segments = path.split("/")
    bare = [segment.partition(";")[0] for segment in segments]
    return any(posixpath.normpath("p" + "/".join(one)).partition("/")[0] != "p" for one in (segments, bare))
