"""The admin address and that of the reports: who only takes up room there has little of it, and not for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import Gauge

from controller.api.contract.reports import ServerReport
from controller.api.timing import ReportTiming
from controller.gateway.bootstrap import HostPort
from controller.programs.admin import Admin
from controller.programs.http_server import STRANGERS, HttpBounds, http_served
from controller.programs.metrics_page import ProgramRegistry
from controller.programs.reports import report_routes, reports_over_tls
from tests.protocol.test_hostile_connections import still_open
from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, time_limit, until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HERE, THERE = "127.0.0.1", "127.0.0.2"
HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.asynccontextmanager
async def served(bounds: HttpBounds, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/livez", answer)])
    async with http_served(app, HostPort(HERE, 0), 0, tls, bounds) as port:
        yield port


async def asked(port: int, whence: str = HERE, said: bytes = HEAD + b"Connection: close\r\n\r\n") -> bytes:
    """What a request from an address is answered; nothing if the connection ends."""
    try:
        async with time_limit(PATIENCE):
            reader, writer = await asyncio.open_connection(HERE, port, local_addr=(whence, 0))
            try:
                writer.write(said)
                return await reader.read()
            finally:
                writer.close()
    except ConnectionError:
        return b""


@contextlib.contextmanager
def connected(port: int, count: int, says: bytes = b"", whence: str = HERE) -> Iterator[Sequence[socket.socket]]:
    """So many connections from an address that say this, and then nothing more."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection((HERE, port), source_address=(whence, 0)))
            one.sendall(says)
            one.setblocking(False)
            opened.append(one)
        yield opened


async def is_full(opened: Sequence[socket.socket], of: int) -> None:
    await until(lambda: len(still_open(opened)) <= of, "those above the bound are closed")


@pytest.mark.parametrize(
    "says", [b"", b"GET", HEAD, HEAD + b"x: " + b"y" * 4000], ids=["nothing", "word", "head", "long"]
)
async def test_who_sends_no_whole_head_is_not_waited_for(says):
    async with served(HttpBounds(unused=1.0)) as port:
        with connected(port, 20, says) as opened:
            assert (await asked(port)).startswith(b"HTTP/1.1 200")
            await until(lambda: not still_open(opened), "they are closed")


async def test_a_connection_on_which_nothing_more_is_asked_ends():
    async with served(HttpBounds(unused=1.0)) as port:
        with connected(port, 3, HEAD + b"\r\n") as opened:
            await until(lambda: not still_open(opened), "they are closed")


async def test_one_address_has_its_part_and_whoever_comes_is_answered():
    async with served(HttpBounds(of_an_address=5, unused=PATIENCE)) as port:
        with connected(port, 1, whence=THERE) as of_another, connected(port, 20) as opened:
            await is_full(opened, 5)
            assert still_open(opened) == opened[-5:]
            # A probe comes from the address of a node, and others may have that one, too.
            for whence in (HERE, THERE):
                assert (await asked(port, whence)).startswith(b"HTTP/1.1 200")
            assert still_open(of_another)


async def test_all_together_have_a_bound_and_who_has_the_most_makes_room():
    async with served(HttpBounds(connections=6, of_an_address=4, unused=PATIENCE)) as port:
        with (
            connected(port, 1, whence="127.0.0.3") as of_a_third,
            connected(port, 4) as here,
            connected(port, 4, whence=THERE) as there,
        ):
            await is_full([*here, *there], 5)
            for _ in range(3):
                assert (await asked(port, "127.0.0.4")).startswith(b"HTTP/1.1 200")
            # Who comes again and again only ends what is its own.
            with connected(port, 20) as more:
                await is_full([*here, *there, *more], 5)
                assert len(still_open(there)) >= 2
                assert still_open(of_a_third)


async def test_what_was_asked_on_connections_that_ended_goes_on_no_more():
    answering = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal answering
        answering += 1
        try:
            await asyncio.Event().wait()
        finally:
            answering -= 1
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/livez", answer)])
    async with http_served(app, HostPort(HERE, 0), 0, bounds=HttpBounds(of_an_address=5, unused=PATIENCE)) as port:
        with connected(port, 20, HEAD + b"\r\n") as opened:
            await is_full(opened, 5)
            await until(lambda: answering == 5, "those are answered that are connected")
        await until(lambda: not answering, "nobody waits")


async def test_who_waits_for_an_answer_is_not_ended_for_those_of_its_address_who_say_nothing():
    asking, free = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asking.set()
        await free.wait()
        return web.Response(text="late\n")

    app = web.Application()
    app.add_routes([web.get("/livez", answer)])
    async with http_served(app, HostPort(HERE, 0), 0, bounds=HttpBounds(of_an_address=5, unused=PATIENCE)) as port:
        late = asyncio.create_task(asked(port))
        async with time_limit(PATIENCE):
            await asking.wait()
        with connected(port, 20) as opened:
            await is_full(opened, 4)
            free.set()
            assert (await late).endswith(b"late\n")


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"x: " + b"y" * 9000 + b"\r\n\r\n",
        HEAD + b"".join(b"x%d: y\r\n" % number for number in range(200)) + b"\r\n",
    ],
    ids=["target", "header", "headers"],
)
async def test_a_head_has_a_bound(said):
    async with served(STRANGERS) as port:
        assert (await asked(port, said=said)).split()[1] == b"400"
        assert (await asked(port)).startswith(b"HTTP/1.1 200")


async def test_a_body_that_nobody_reads_is_not_waited_for():
    async with served(HttpBounds(unread=0.1)) as port:
        said = HEAD + b"Content-Length: 1000000000\r\n\r\n"
        with connected(port, 1, said) as opened:
            await until(lambda: not still_open(opened), "it is closed")


async def test_a_handshake_that_does_not_end_is_not_waited_for(tmp_path: Path):
    context = Certificates.make(tmp_path).server().context()
    async with served(HttpBounds(handshake=1.0), context) as port:
        with connected(port, 10) as silent, connected(port, 10, b"\x16\x03\x01\x40\x00") as begun:
            await until(lambda: not still_open([*silent, *begun]), "they are closed")


async def test_what_the_programs_serve_has_these_bounds(tmp_path: Path):
    admin = Admin(not_ready=lambda: None, metrics=ProgramRegistry())
    tls = Certificates.make(tmp_path).server()
    more = STRANGERS.of_an_address + 10
    async with admin.served("--admin-address", HostPort(HERE, 0)) as port:
        with connected(port, more) as opened:
            await is_full(opened, STRANGERS.of_an_address)
            assert (await asked(port, THERE)).startswith(b"HTTP/1.1 200")
    async with reports_over_tls(HostPort(HERE, 0), tls, (), 0) as port:
        with connected(port, 1, b"GET / HTTP/1.1\r\n\r\n") as opened:
            await until(lambda: not still_open(opened), "it is closed")


class Talkative:
    """Reports without end, for who reads them."""

    def __init__(self) -> None:
        self.written = 0

    def follow(self) -> Talkative:
        return self

    def loads(self) -> Talkative:
        return self

    def news(self, _: float) -> tuple[ServerReport, ...]:
        return ()

    def replica(self, _: float) -> ServerReport:
        return ServerReport(envoys=0, silent=("x" * 100_000,))

    async def __anext__(self) -> tuple[ServerReport, ...]:
        await asyncio.sleep(0)
        self.written += 1
        return ()


async def test_who_reads_no_reports_is_cut_off():
    reports, ended = Talkative(), asyncio.Event()

    @web.middleware
    async def noting_the_end(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            ended.set()

    app = web.Application(middlewares=[noting_the_end])
    app.add_routes(report_routes(reports, ReportTiming(reported_every=0, stall=0.5)))  # type: ignore[arg-type]
    async with http_served(app, HostPort(HERE, 0), 0) as port:
        with connected(port, 1, b"GET /reports HTTP/1.1\r\nHost: localhost\r\n\r\n") as opened:
            async with time_limit(PATIENCE):
                await ended.wait()
            assert reports.written
            await until(lambda: not still_open(opened), "it is closed")


LONG = 8 * 1024 * 1024


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes this process has allocated meanwhile."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


def conversations() -> int:
    """With how many clients aiohttp is not done in this process."""
    return sum(getattr(one.get_coro(), "__qualname__", "") == "RequestHandler.start" for one in asyncio.all_tasks())


async def test_who_reads_no_metrics_costs_no_copy_of_them_and_is_cut_off(traced: Callable[[], int]):
    registry = ProgramRegistry()
    Gauge("long", "x", ["text"], registry=registry).labels("x" * LONG).set(1)
    admin = Admin(not_ready=lambda: None, metrics=registry, bounds=HttpBounds(unused=PATIENCE, answer=0.5))
    async with admin.served("--admin-address", HostPort(HERE, 0)) as port:
        before = traced()
        with connected(port, 8, HEAD.replace(b"livez", b"metrics") + b"\r\n") as opened:
            await until(lambda: all(begins(one) for one in opened), "they are answered")
            # All may have asked for one page, or some for the next one.
            assert traced() - before < 4 * LONG
            await until(lambda: not conversations(), "they are cut off")
            assert not still_open(opened)


def begins(one: socket.socket) -> bool:
    """Whether there is something to read, which is not read."""
    with contextlib.suppress(BlockingIOError):
        return bool(one.recv(1, socket.MSG_PEEK))
    return False
