"""Servers of all kinds on addresses of this machine, and a resolver that knows their names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta

import trustme

from controller.api.timing import CheckTiming
from tests.support.connections import accepting
from tests.support.network import unused_port
from xds_server.health import outcome
from xds_server.health.backend import Address
from xds_server.health.connection import Connector

PATIENT = CheckTiming(connect=600.0, longest=600.0)
"""On a busy machine a check waits for its answer all the same."""


class Names:
    """The addresses of names, which may change; what is not listed cannot be resolved."""

    def __init__(self, **addresses: str) -> None:
        self.addresses_of = {name.replace("__", "."): text.split() for name, text in addresses.items()}
        self.asked: list[str] = []

    async def addresses(self, address: Address, namespaces: Collection[str]):
        self.asked.append(address.host)
        if address.host not in self.addresses_of:
            raise outcome.not_resolved(address.host, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in one], (one, address.port)) for one in self.addresses_of[address.host]]


def connector_by(names: Names, timing: CheckTiming = PATIENT, **refused: str) -> Connector:
    """Connect by these names; `refused` are addresses, dots written as "_", that nothing may be sent to, and why."""
    forbidden = {address.replace("_", "."): why for address, why in refused.items()}
    return Connector(names, lambda host, address: forbidden.get(address), timing)


class Authority:
    """Makes certificates for servers, good ones and others; one below another one if it is given that."""

    def __init__(self, above: Authority | None = None) -> None:
        self._ca = above._ca.create_child_ca() if above else trustme.CA()
        self.pem = self._ca.cert_pem.bytes().decode()

    def server(self, *names: str, days: tuple[int, int] = (-1, 1), clients: str = "", cn: str = "") -> ssl.SSLContext:
        """Make a context with a certificate for names, valid between two days from now; `cn` is its common name.

        With `clients`, authorities in PEM, it asks for a certificate of theirs.
        """
        now = datetime.now(UTC)
        start, end = (now + timedelta(days=one) for one in days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made = self._ca.issue_cert(*names, common_name=cn or None, not_before=start, not_after=end)
        made.configure_cert(context)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=clients)
        return context

    def client(self, *, with_key_of: Authority | None = None) -> str:
        """Make a certificate and a key for a client, in PEM; the key of another certificate if one is named."""
        mine = self._ca.issue_cert("client.test")
        key = with_key_of._ca.issue_cert("x").private_key_pem if with_key_of else mine.private_key_pem
        return "".join(pem.bytes().decode() for pem in (*mine.cert_chain_pems, key))


class Talker:
    """Says `words` to whoever connects and said something (at once if `first`), and keeps what it heard."""

    def __init__(self, words: bytes = b"", *, first: bool = False, hang: bool = False) -> None:
        self.words, self.first, self.hang = words, first, hang
        self.heard: list[bytes] = []
        self.connections = 0

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            if not self.first:
                said = await reader.read(65536)
                if not said:
                    return
                self.heard.append(said)
            writer.write(self.words)
            await writer.drain()
            if self.hang:
                await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Listen while the block runs; the port."""
        async with accepting(self._talk, host, unused_port(), tls) as (port, _):
            yield port


def answer(status: int, body: str = "", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} .", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(head) + f"\r\n\r\n{body}").encode()


@contextlib.asynccontextmanager
async def refusing(tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen for one client whose certificate is refused, with the alert that asyncio's own servers do not send."""
    with socket.create_server(("127.0.0.1", unused_port())) as server:
        server.settimeout(60)

        def refuse() -> None:
            plain, _ = server.accept()
            plain.settimeout(60)
            with tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secured:
                try:
                    secured.do_handshake()
                except ssl.SSLError:
                    # Who closes with something unread resets, and the alert is lost.
                    while socket.socket.recv(secured, 65536):
                        pass
                else:
                    raise AssertionError("the certificate was accepted")

        task = asyncio.create_task(asyncio.to_thread(refuse))
        yield server.getsockname()[1]
        await task
