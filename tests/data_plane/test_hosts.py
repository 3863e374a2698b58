"""The port that all models share: the Host of a request leads to a model, and nothing but its names does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.support.data_plane.access_log import lines_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Traffic, closed_loop
from tests.support.waiting import until
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMS = ("{}", "{}.svc", "{}.svc.cluster.local")


@dataclass(frozen=True)
class Answer:
    """One answer of the shared port: `model` is whose remote backend was asked."""

    status: int
    side: str = ""
    model: str = ""
    body: str = ""


async def sent(plane: Plane, request: str) -> Answer:
    """Send the text of a request of HTTP/1 on a connection of its own."""
    reader, writer = await asyncio.open_connection(plane.network.host(1), SHARED_PORT)
    try:
        writer.write(request.replace("\n", "\r\n").encode("latin-1"))
        head, _, body = (await reader.read()).decode("latin-1").partition("\r\n\r\n")
    finally:
        writer.close()
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers.get("x-beamlit-route", ""), headers.get("x-model", ""), body)


async def asked(plane: Plane, host: str, target: str = "/", method: str = "GET") -> Answer:
    """Ask for a path with this Host."""
    return await sent(plane, f"{method} {target} HTTP/1.1\nhost: {host}\nconnection: close\n\n")


def away(name: str, *hosts: str) -> Wanted:
    """Ask for a model at its remote backend, which answers with the name of the model."""
    return Wanted(away=100, hosts=hosts, headers_to_add=(("on-remote", f"header=x-model:{name}"),))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(plane: Plane) -> Model:
    """A model of the Service chat in namespace a, port 80."""
    return await plane.serve(away("chat", "chat.a", "chat.a:80"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(plane: Plane, chat: Model) -> Model:
    """A model of another port of the same Service."""
    return await plane.serve(away("admin", "chat.a:8000"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def models(plane: Plane, chat: Model, admin: Model) -> AsyncIterator[None]:
    """Serve both, and a namesake next door, before anything is asked."""
    next_door = await plane.serve(away("next-door", "chat.b", "chat.b:80"))
    for model in (chat, admin, next_door):
        await plane.acknowledged(model)
    yield


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("host", "model"),
    [("chat.a", "chat"), ("chat.a:80", "chat"), ("chat.a:8000", "admin"), ("chat.b", "next-door")],
)
async def test_a_model_is_called_by_every_form_of_the_name_of_its_service(
    plane: Plane, form: str, host: str, model: str
) -> None:
    name, colon, port = host.partition(":")
    assert (await asked(plane, form.format(name) + colon + port)).model == model


async def test_a_name_may_end_in_a_dot(plane: Plane) -> None:
    assert (await asked(plane, "chat.a.svc.cluster.local.")).model == "chat"
    assert (await asked(plane, "chat.a.svc.cluster.local.:8000")).model == "admin"


@pytest.mark.parametrize(
    "host",
    [
        *("chat", "a", "chat.c", "a.chat", "chat.a:81", "chat.a:", "chat.a:080", "chat.a:8000:80"),
        *("x.chat.a", "chat.a.x", "chat.a.svc.cluster.local.x", "chat.a.example.com", "chat.a.cluster.local"),
        *("chata", "chat-a", "chat.a,chat.b", "chat.a/", "chat.b@chat.a", "*", "*.a", "localhost", "gateway/hosts"),
        *("127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80", "[chat.a]", "model/ns/m1", "remote/model/ns/m1"),
        *("port/9001", "port/9001/ns", "host/chat.a"),
    ],
)
async def test_no_other_host_leads_to_a_model(plane: Plane, host: str) -> None:
    answer = await asked(plane, host)
    assert (answer.status in (400, 404), answer.side, answer.model) == (True, "", "")


async def test_who_is_told_404_is_told_what_a_host_is(plane: Plane) -> None:
    answer = await asked(plane, "chat.c")
    assert answer.status == 404
    assert 'no model is called by the host "chat.c"' in answer.body
    assert "<service>.<namespace>" in answer.body


async def test_without_a_host_there_is_no_model(plane: Plane) -> None:
    assert (await sent(plane, "GET / HTTP/1.0\n\n")).status == 404
    assert (await sent(plane, "GET / HTTP/1.1\nconnection: close\n\n")).status == 400
    assert (await asked(plane, "")).status in (400, 404)


async def test_what_a_request_is_for_goes_before_its_host(plane: Plane) -> None:
    """RFC 9112, section 3.2.2: of an absolute-form request the Host is ignored."""
    assert (await asked(plane, "chat.b", "http://chat.a/")).model == "chat"
    assert (await asked(plane, "chat.a", "http://nobody.a/")).status == 404
    assert (await asked(plane, "chat.a", "chat.b:80", "CONNECT")).model == ""


async def test_of_two_hosts_none_is_believed(plane: Plane) -> None:
    answer = await sent(plane, "GET / HTTP/1.1\nhost: chat.a\nhost: chat.b\nconnection: close\n\n")
    assert (answer.status in (400, 404), answer.model) == (True, "")


async def test_each_request_of_a_connection_is_for_its_own_model(plane: Plane) -> None:
    reader, writer = await asyncio.open_connection(plane.network.host(1), SHARED_PORT)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(writer.close)
        for host, model in (("chat.a", "chat"), ("chat.b", "next-door"), ("chat.a:8000", "admin"), ("chat.a", "chat")):
            writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert f"x-model: {model}\r\n" in head
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))


@pytest.mark.parametrize(("side", "away_from_it"), [("local", 100), ("remote", 0)])
async def test_who_is_not_answered_is_asked_of_the_other_side_as_on_the_own_port(
    plane: Plane, backends: Backends, side: str, away_from_it: int
) -> None:
    """What one side does not answer goes to the other; to a replica as the client sent it, in upper case, too."""
    model = await plane.serve(Wanted(away=away_from_it, hosts=("failing.a",)))
    other = {"local": "remote", "remote": "local"}[side]
    for host in ("failing.a", "FAILING.a"):
        probe = f"failing-{side}-{host}"
        head = f"GET /v1/x HTTP/1.1\nhost: {host}\nconnection: close\nprobe: {probe}\nauthorization: Bearer client\n"
        assert (await sent(plane, f"{head}on-{other}: reset=before\n\n")).side == side
        (seen,) = [one for one in backends.seen(probe) if one["servedBy"].startswith(side)]
        headers = {name.lower(): value for name, value in seen["headers"]}
        if side == "local":
            assert (headers["host"], headers["authorization"]) == ("failing.a", "Bearer client")
        else:
            assert (headers["host"], "authorization" in headers) == (model.authority, False)
    await plane.withdraw(model)


async def test_a_split_holds_on_the_shared_port(plane: Plane) -> None:
    model = await plane.serve(replace(away("split", "split.a"), away=50))
    sides = [(await asked(plane, "split.a")).side for _ in range(100)]
    assert 20 <= sides.count("remote") <= 80
    assert sides.count("remote") + sides.count("local") == 100
    await plane.withdraw(model)


async def test_a_host_passes_from_one_model_to_another_under_load(plane: Plane) -> None:
    """As a port does (docs/adr/0024): no request is refused in between."""
    first, second = away("first", "passing.a"), away("second", "passing.a")
    model, stop = await plane.serve(first), asyncio.Event()
    url = f"http://{plane.network.host(1)}:{SHARED_PORT}/"

    def passing(_: int) -> dict[str, str]:
        return {"host": "passing.a"}

    loops = [
        asyncio.create_task(
            closed_loop(url, 4, 200_000, Traffic(keepalive=kept, headers=passing), stop=stop, every=0.005)
        )
        for kept in (True, False)
    ]
    try:
        other = await plane.serve(second)

        async def has_passed() -> bool:
            return (await asked(plane, "passing.a")).model == "second"

        await until(has_passed, "the second model has the host")
        await plane.withdraw(model)
        assert (await asked(plane, "passing.a")).model == "second"
    finally:
        stop.set()
        reports = await asyncio.gather(*loops)
    assert [report.errors for report in reports] == [{}, {}]
    await plane.withdraw(other)


async def test_hosts_outlive_the_control_plane(plane: Plane) -> None:
    """Nobody who calls by host notices that the xDS server is gone, and back."""
    stop, url = asyncio.Event(), f"http://{plane.network.host(1)}:{SHARED_PORT}/"
    traffic = Traffic(keepalive=False, headers=lambda _: {"host": "chat.a"})
    asking = asyncio.create_task(closed_loop(url, 4, 200_000, traffic, stop=stop, every=0.005))
    try:
        await plane.restart(pause=0.2)
        assert (await asked(plane, "chat.a")).model == "chat"
    finally:
        stop.set()
        report = await asking
    assert report.errors == {}


async def test_the_host_of_a_model_that_is_gone_is_nobodys(plane: Plane) -> None:
    model = await plane.serve(away("gone", "gone.a"))
    assert (await asked(plane, "gone.a")).model == "gone"
    await plane.withdraw(model)

    async def is_unknown() -> bool:
        return (await asked(plane, "gone.a")).status == 404

    await until(is_unknown, "nobody has its host")


async def test_the_log_says_whose_a_request_is(plane: Plane) -> None:
    model = await plane.serve(Wanted(hosts=("told.a",), access_log=AccessLog.ALL))
    assert (await asked(plane, "told.a", "/v1")).side == "local"
    (line,) = await lines_of(plane, model)
    assert (line["namespace"], line["path"], line["authority"], line["status"]) == ("ns", "/v1", "told.a", 200)


async def test_a_name_in_upper_case_leads_to_the_model(plane: Plane) -> None:
    assert (await asked(plane, "Chat.A.svc")).model == "chat"
