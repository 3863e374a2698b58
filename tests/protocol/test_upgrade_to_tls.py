"""The upgrade of docs/cluster.md from an xDS server without TLS to one with it, as pods of a gateway go through it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from controller.gateway.bootstrap import HostPort
from tests.support.connections import accepting
from tests.support.data_plane.gateway import Gateway
from tests.support.http import plain_http
from tests.support.network import unused_port
from tests.support.protocol.envoy_resources import answers, model, upstream
from tests.support.protocol.xds_client import TOKEN, Served
from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, until

CLIENTS = 4


class Service:
    """The Service of the gateway: connections go to the pods that are in it, in turn; `passing` are those to each."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.passing: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()
        self._next = 0

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._next += 1
        port = self.ports[self._next % len(self.ports)]
        self.passing[port] += 1
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            try:
                with contextlib.suppress(ConnectionError):
                    await asyncio.gather(_copy(reader, forth), _copy(back, writer))
            finally:
                forth.close()
        finally:
            self.passing[port] -= 1

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Send requests, each on a connection of its own, while the block runs."""
        stop, port = asyncio.Event(), unused_port()

        async def ask() -> None:
            while not stop.is_set():
                try:
                    async with plain_http() as client:
                        answer = await client.get(f"http://127.0.0.1:{port}/", timeout=4 * PATIENCE)
                    self.answers[str(answer.status_code)] += 1
                except httpx.TransportError as error:
                    self.answers[type(error).__name__] += 1

        async with accepting(self._pass_on, port=port), asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(ask())
            try:
                yield
            finally:
                stop.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_gateways_move_from_a_server_without_tls_to_one_with_it_and_no_request_fails(tmp_path: Path) -> None:
    certificates, service = Certificates.make(tmp_path / "tls"), Service()
    before, after = unused_port(), unused_port()
    certificate, key, ca = certificates.files("gateway")
    proof = ("--xds-ca", ca, "--xds-cert", certificate, "--xds-key", key)
    async with upstream() as backend, contextlib.AsyncExitStack() as stack:
        plain = await Served.start()
        stack.push_async_callback(plain.stop)
        plain.publish(*model("ns/m", before, backend))
        old = Gateway("old", HostPort("127.0.0.1", plain.port), TOKEN, tmp_path, "--drain-delay-seconds", 1)
        stack.callback(old.stop)
        await until(lambda: answers(before), "the model answers")
        service.ports.append(before)
        async with service.under_load():
            # Beside the old one, as another Service.
            over_tls = await Served.start(tls=certificates.server())
            stack.push_async_callback(over_tls.stop)
            over_tls.publish(*model("ns/m", after, backend))
            new = Gateway("new", HostPort("localhost", over_tls.port), "says nothing there", tmp_path, *proof)
            stack.callback(new.stop)
            await new.ready()
            await until(lambda: answers(after), "the model answers at the new pod")
            service.ports.append(after)
            # A pod that is replaced leaves the Service. Here it is told to end when nothing is on its way to it any
            # more, however slow this machine is.
            service.ports.remove(before)
            await until(lambda: not service.passing[before], "nothing is on its way to the old pod")
            old.process.send(signal.SIGTERM)
            assert await old.ended() == 0
            await plain.stop()
            (client,) = over_tls.server.clients()
            assert (client.node_id, client.authorised) == ("new", True)
            served = service.answers["200"]
            await until(lambda: service.answers["200"] > served, "the new pod serves alone")
        assert service.answers.keys() == {"200"}, service.answers
