"""An API server's bad days, on demand: a proxy in front of it that a test tells how to fail, and what it has seen.

It serves TLS of its own. Whatever no fault is set for goes through as it is; watches go through event by event. What a
client sent arrives though the client has gone meanwhile, as it may on a real network.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from controller.store.kube.access import Connections
from tests.support.kube.cluster import Cluster, User, kubeconfig
from tests.support.kube.gates import Gate, Gates
from tests.support.kube.request import Request, Which, every
from tests.support.network import unused_port

NOT_PASSED_ON = ("Host", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Accept-Encoding")
REASONS = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests"}


def failure(status: int) -> dict[str, Any]:
    """What an API server says when it answers with a status that is no success."""
    said = {"reason": REASONS.get(status, "InternalError"), "message": "a test made it fail", "code": status}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **said}


EXPIRED: Mapping[str, Any] = {"type": "ERROR", "object": failure(410)}
"""The event of a watch whose place the server has forgotten."""


@dataclass(slots=True)
class _Failures:
    which: Which
    status: int
    left: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _OpenWatch:
    request: Request
    response: web.StreamResponse
    connection: asyncio.Transport
    relay: asyncio.Task[None]


class Proxy:
    """A client that uses `kubeconfig` talks to the cluster through here."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._ca = trustme.CA()
        self._cluster = cluster
        self._folder = folder
        self._port = unused_port()
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = self.kubeconfig_of(User(cluster.token, cluster.kubeconfig))
        self.requests: list[Request] = []
        """Everything that was asked so far, in order, also what a fault answered. A test may clear it."""
        self._failures: list[_Failures] = []
        self._before = Gates()
        self._after = Gates()
        self._emptied: list[str] = []
        self._watches: list[_OpenWatch] = []
        self._on_the_way: set[asyncio.Task[web.Response]] = set()
        self._runner = web.AppRunner(self._application(), handler_cancellation=True, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None

    def kubeconfig_of(self, user: User) -> Path:
        """The kubeconfig with which somebody else talks through here."""
        file = self._folder / f"{user.kubeconfig.stem}.proxy.kubeconfig"
        file.write_text(kubeconfig(self.url, self._ca.cert_pem.bytes(), user.token))
        return file

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Serve, and leave no connection behind."""
        never = aiohttp.ClientTimeout(total=None, sock_connect=5)
        connector = Connections(limit=0, ssl=self._cluster.trust)
        async with aiohttp.ClientSession(timeout=never, connector=connector) as self._upstream:
            await self._runner.setup()
            try:
                await self._listen()
                yield self
            finally:
                self._cut_connections()
                for task in self._on_the_way:
                    task.cancel()
                await asyncio.gather(*self._on_the_way, return_exceptions=True)
                await self._runner.cleanup()

    # What a test may do.

    @property
    def writes(self) -> tuple[Request, ...]:
        """What clients tried to change so far."""
        return tuple(request for request in self.requests if request.writes)

    @property
    def open_watches(self) -> tuple[Request, ...]:
        return tuple(watch.request for watch in self._watches)

    def fail(self, which: Which, status: int, times: int = 1, retry_after: int | None = None) -> None:
        """Answer the next so many requests with a status; `retry_after`, in seconds, is said with it."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._failures.append(_Failures(which, status, times, headers))

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Cut every connection and refuse new ones."""
        assert self._site
        await self._site.stop()
        self._cut_connections()
        try:
            yield
        finally:
            await self._listen()

    def requests_held(self, which: Which = every) -> AbstractContextManager[Gate]:
        """Let requests wait before the API server sees them."""
        return self._before.closed(which)

    def answers_held(self, which: Which = every) -> AbstractContextManager[Gate]:
        """Let answers wait, and the events of watches, after the API server did what was asked."""
        return self._after.closed(which)

    @contextmanager
    def emptied(self, resource: str) -> Iterator[None]:
        """Say to every list of a resource that there is nothing."""
        self._emptied.append(resource)
        try:
            yield
        finally:
            self._emptied.remove(resource)

    async def inject(self, event: Mapping[str, Any], which: Which = every) -> int:
        """Send an event, such as EXPIRED, in open watches; return in how many."""
        return await self.inject_bytes(json.dumps(event).encode() + b"\n", which)

    async def inject_bytes(self, data: bytes, which: Which = every) -> int:
        """Send whatever it is, such as the beginning of an event, in open watches; return in how many."""
        watches = self._open(which)
        for watch in watches:
            await watch.response.write(data)
        return len(watches)

    def end_watches(self, which: Which = every) -> int:
        """End open watches as a server does when their time is over; return how many."""
        watches = self._open(which)
        for watch in watches:
            watch.relay.cancel()
        return len(watches)

    def cut_watches(self, which: Which = every) -> int:
        """Cut the connections of open watches in the middle; return how many."""
        watches = self._open(which)
        for watch in watches:
            watch.connection.abort()
        return len(watches)

    # How it does it.

    def _open(self, which: Which) -> list[_OpenWatch]:
        return [watch for watch in self._watches if which(watch.request)]

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._serve)
        return application

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await self._site.start()

    def _cut_connections(self) -> None:
        assert self._runner.server
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _serve(self, incoming: web.Request) -> web.StreamResponse:
        body = await incoming.read()
        request = Request(incoming.method, incoming.path, dict(incoming.query), incoming.content_type, body)
        self.requests.append(request)
        for failures in self._failures:
            if failures.left and failures.which(request):
                failures.left -= 1
                return web.json_response(failure(failures.status), status=failures.status, headers=failures.headers)
        try:
            if request.watches:
                return await self._watch(incoming, request)
            return await self._arriving(self._forward(incoming, request))
        except aiohttp.ClientError:
            # The API server went away in the middle: so do we.
            if incoming.transport:
                incoming.transport.abort()
            return web.Response()

    async def _arriving(self, answer: Coroutine[Any, Any, web.Response]) -> web.Response:
        """Shield what was sent from its sender's leaving."""
        task = asyncio.create_task(answer)
        self._on_the_way.add(task)
        task.add_done_callback(self._on_the_way.discard)
        return await asyncio.shield(task)

    async def _forward(self, incoming: web.Request, request: Request) -> web.Response:
        await self._before.passed(request)
        async with self._ask(incoming, request) as upstream:
            body = await upstream.read()
        if request.lists and request.resource in self._emptied and upstream.ok:
            nothing = json.loads(body)
            body = json.dumps(nothing | {"items": [], "metadata": _of_whole_list(nothing["metadata"])}).encode()
        await self._after.passed(request)
        return web.Response(status=upstream.status, body=body, headers=_passed_on(upstream.headers))

    async def _watch(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        await self._before.passed(request)
        async with self._ask(incoming, request) as upstream:
            headers = _passed_on(upstream.headers)
            if not upstream.ok:
                return web.Response(status=upstream.status, body=await upstream.read(), headers=headers)
            response = web.StreamResponse(headers=headers)
            await response.prepare(incoming)
            assert isinstance(incoming.transport, asyncio.Transport)
            relay = asyncio.create_task(self._relay(upstream, response, request))
            watch = _OpenWatch(request, response, incoming.transport, relay)
            self._watches.append(watch)
            try:
                await asyncio.wait([relay])
                if not relay.cancelled() and (error := relay.exception()):
                    raise error
            finally:
                relay.cancel()
                self._watches.remove(watch)
        return response

    async def _relay(self, upstream: aiohttp.ClientResponse, response: web.StreamResponse, request: Request) -> None:
        """Pass on whole events only, so that others can be put between them."""
        rest = b""
        async for chunk in upstream.content.iter_any():
            events, newline, rest = (rest + chunk).rpartition(b"\n")
            if events:
                await self._after.passed(request)
                await response.write(events + newline)

    def _ask(self, incoming: web.Request, request: Request) -> Any:
        headers = _passed_on(incoming.headers)
        headers["Accept-Encoding"] = "identity"
        url = URL(self._cluster.url + incoming.raw_path, encoded=True)
        return self._upstream.request(
            request.method, url, headers=headers, data=request.body or None, allow_redirects=False
        )


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    passed = CIMultiDict(headers)
    for name in NOT_PASSED_ON:
        passed.popall(name, None)
    return passed


def _of_whole_list(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in ("continue", "remainingItemCount")}
