"""Connecting as Envoy does: resolve, see that nobody is sent where he may not go, connect, see who is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import h11

from controller.api.timing import REAL, CheckTiming
from xds_server.health import outcome
from xds_server.health.backend import Place, Trust
from xds_server.health.resolver import Resolver

TIMED_OUT = "timed out"

# A name may have many addresses; a few are tried.
_ADDRESSES = 3


@dataclass(frozen=True, slots=True)
class Stream:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(frozen=True, slots=True)
class Way:
    """How connections are made: by which resolver, where to, and how long it may take.

    `refused` says why nothing may be sent to an address that a name leads to; both are its arguments.
    """

    resolver: Resolver
    refused: Callable[[str, str], str | None]
    timing: CheckTiming = REAL.checks

    @contextlib.asynccontextmanager
    async def connected(self, place: Place, trust: Trust | None, deadline: float) -> AsyncIterator[Stream]:
        """Connect, with TLS if there is somebody to trust. Raises CheckError; `deadline` is of the loop's clock."""
        plain = await self._plain(place, deadline)
        try:
            stream = await (_proven(plain, place, trust, deadline) if trust else _opened(plain))
        except BaseException:
            plain.close()
            raise
        try:
            yield stream
        finally:
            stream.writer.transport.abort()

    async def _plain(self, place: Place, deadline: float) -> socket.socket:
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self.resolver.addresses(place)
        except TimeoutError:
            raise outcome.not_resolved(place.host, TIMED_OUT) from None
        for _, address in addresses:
            if reason := self.refused(place.host, address[0]):
                raise outcome.host_refused(place.host, reason)
        loop, failures = asyncio.get_running_loop(), []
        for family, address in addresses[:_ADDRESSES]:
            try:
                return await _connection(family, address, min(deadline, loop.time() + self.timing.connect))
            except TimeoutError:
                failures.append(TIMED_OUT)
            except OSError as error:
                # The system's own words: those of the exception name the address.
                failures.append(os.strerror(error.errno).lower() if error.errno else "no connection")
        raise outcome.not_connected(place, failures[0] if failures else "it has no address")


async def _connection(family: socket.AddressFamily, address: Any, deadline: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    plain = socket.socket(family, socket.SOCK_STREAM)
    plain.setblocking(False)
    try:
        async with asyncio.timeout_at(deadline):
            await loop.sock_connect(plain, address)
    except BaseException:
        plain.close()
        raise
    return plain


async def _opened(plain: socket.socket, **tls: Any) -> Stream:
    return Stream(*await asyncio.open_connection(sock=plain, **tls))


async def _proven(plain: socket.socket, place: Place, trust: Trust, deadline: float) -> Stream:
    """See who is there. What is shown and what is accepted is as in `resources.tls`."""
    context = _context_for(trust)
    try:
        async with asyncio.timeout_at(deadline):
            return await _opened(plain, ssl=context, server_hostname=trust.server_name)
    except TimeoutError:
        raise outcome.no_tls(place, TIMED_OUT) from None
    except ssl.SSLCertVerificationError as error:
        words = (place, trust.server_name, error.verify_code, error.verify_message)
        raise outcome.certificate_not_accepted(*words) from None
    except ssl.SSLError as error:
        raise outcome.no_tls(place, error.reason or "") from None
    except OSError:
        raise outcome.no_tls(place, "") from None


@lru_cache(1)
def _of_the_system() -> ssl.SSLContext:
    # Some hundred authorities, which are not read for each backend.
    context = _verifying()
    context.load_default_certs()
    return context


def _context_for(trust: Trust) -> ssl.SSLContext:
    if trust.authorities is None and trust.shown is None:
        return _of_the_system()
    context = _verifying()
    if trust.authorities:
        context.load_verify_locations(cadata=trust.authorities.get_secret_value())
    else:
        context.load_default_certs()
    if trust.shown:
        _show(context, trust.shown.get_secret_value())
    return context


def _verifying() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Envoy takes an intermediate authority for one when it is given it, and looks at no common name.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


def _show(context: ssl.SSLContext, pem: str) -> None:
    # The module reads files alone; this one is in memory and has no name.
    with os.fdopen(os.memfd_create("certificate"), "wb", buffering=0) as file:
        file.write(pem.encode())
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password="")
        except ssl.SSLError:
            raise outcome.own_certificate_unusable() from None


# The most that is read of an answer; a token is a few kilobytes.
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The status, and the body if it was asked for."""

    status: int
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A request: a GET, whose answer's body does not matter, or the POST of a `form`."""

    authority: str
    target: str
    form: str = field(default="", repr=False)

    @property
    def method(self) -> str:
        """The method."""
        return "POST" if self.form else "GET"


async def answered(stream: Stream, question: Question, deadline: float) -> Answer:
    """Ask and read the answer. Raises CheckError in words of our own: what the server sends is not told."""
    what = f"{question.method} {question.target.partition('?')[0]}"
    try:
        async with asyncio.timeout_at(deadline):
            return await _answered(stream, question)
    except TimeoutError:
        raise outcome.not_answered(what, TIMED_OUT) from None
    except ssl.SSLError as error:
        raise outcome.no_tls(question.authority, error.reason or "") from None
    except OSError:
        raise outcome.not_answered(what, "the connection breaks") from None
    except h11.ProtocolError:
        raise outcome.not_answered(what, "what comes is no HTTP") from None


async def _answered(stream: Stream, question: Question) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST)
    form = question.form.encode()
    headers = [("Host", question.authority), ("User-Agent", "beamlit-xds-server"), ("Connection", "close")]
    if form:
        headers += [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(form)))]
        headers += [("Accept", "application/json")]
    request = h11.Request(method=question.method, target=question.target, headers=headers)
    events = (request, h11.Data(data=form), h11.EndOfMessage()) if form else (request, h11.EndOfMessage())
    for event in events:
        stream.writer.write(connection.send(event) or b"")
    await stream.writer.drain()
    status, body = 0, b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                data = await stream.reader.read(_LONGEST)
                if not data and not status:
                    raise ConnectionResetError
                # The end is data too: h11 knows whether it may come now.
                connection.receive_data(data)
            case h11.Response(status_code=status) if not form:
                return Answer(status)
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                return Answer(status, body)
            case h11.ConnectionClosed():
                raise ConnectionResetError
        if len(body) > _LONGEST:
            return Answer(status)
