"""Connections as Envoy makes them: resolve, refuse where nothing may be sent, connect, verify the certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from controller.api.timing import REAL, CheckTiming
from xds_server.health import outcome
from xds_server.health.backend import Address, Refusal, Trust
from xds_server.health.outcome import NothingNewError

TIMED_OUT = "timed out"

# A name may have many addresses; a few are tried.
_ADDRESSES = 3

# Look-ups that hang, each a thread: as many as one bad name server may cost.
_LOOK_UPS = 64

SocketAddress = tuple[socket.AddressFamily, Any]
_LookedUp = list[SocketAddress] | OSError | UnicodeError


class Resolver(Protocol):
    """Where addresses come from."""

    async def addresses(self, address: Address) -> list[SocketAddress]:
        """Look up a name, the address to try first in front. Raises CheckError, or NothingNewError when too busy."""
        ...


class SystemResolver:
    """The system's resolver, which cannot be interrupted.

    Its threads are no executor's, so a look-up that hangs holds up nothing else, the end of the process neither. For
    one name there is never more than one.
    """

    def __init__(self) -> None:
        self._under_way: dict[Address, asyncio.Future[_LookedUp]] = {}

    async def addresses(self, address: Address) -> list[SocketAddress]:
        """Look up a name; IPv6 only where there is no IPv4, as in Envoy's clusters."""
        if _is_ip(address.host):
            return _look_up(address)
        result = self._under_way.get(address)
        if result is None:
            if len(self._under_way) >= _LOOK_UPS:
                raise NothingNewError
            result = asyncio.get_running_loop().create_future()
            self._under_way[address] = result
            result.add_done_callback(lambda _: self._under_way.pop(address))
            threading.Thread(target=_look_up_for, args=(address, result), daemon=True, name="look-up").start()
        match await asyncio.shield(result):
            case OSError() as error:
                raise outcome.not_resolved(address.host, error.strerror or "no answer")
            case UnicodeError():
                raise outcome.not_resolved(address.host, "not a name")
            case addresses:
                return addresses


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(address: Address) -> list[SocketAddress]:
    infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    found: list[SocketAddress] = [(info[0], info[4]) for info in infos]
    return [one for one in found if one[0] == socket.AF_INET] or found


def _look_up_for(address: Address, future: asyncio.Future[_LookedUp]) -> None:
    result: _LookedUp
    try:
        result = _look_up(address)
    except (OSError, UnicodeError) as error:
        result = error
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        future.get_loop().call_soon_threadsafe(_complete, future, result)


def _complete(future: asyncio.Future[_LookedUp], result: _LookedUp) -> None:
    if not future.done():
        future.set_result(result)


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Connector:
    """Makes connections: by which resolver, where to, and how long it may take.

    `refusal` says why nothing may be sent to an address that a name leads to.
    """

    def __init__(self, resolver: Resolver, refusal: Refusal, timing: CheckTiming = REAL.checks) -> None:
        self.timing = timing
        self._resolver = resolver
        self._refusal = refusal
        self._system_context: ssl.SSLContext | None = None

    @contextlib.asynccontextmanager
    async def connect(self, address: Address, trust: Trust | None, deadline: float) -> AsyncIterator[Connection]:
        """Connect, over TLS if there is a `trust`. Raises CheckError; `deadline` is of the loop's clock."""
        plain = await self._open_socket(address, deadline)
        try:
            connection = await (self._start_tls(plain, address, trust, deadline) if trust else _over(plain))
        except BaseException:
            plain.close()
            raise
        try:
            yield connection
        finally:
            connection.writer.transport.abort()

    async def _open_socket(self, address: Address, deadline: float) -> socket.socket:
        try:
            async with asyncio.timeout_at(deadline):
                found = await self._resolver.addresses(address)
        except TimeoutError:
            raise outcome.not_resolved(address.host, TIMED_OUT) from None
        for _, one in found:
            if reason := self._refusal(address.host, one[0]):
                raise outcome.host_refused(address.host, reason)
        loop, failures = asyncio.get_running_loop(), []
        for family, one in found[:_ADDRESSES]:
            try:
                return await _open_socket_to(family, one, min(deadline, loop.time() + self.timing.connect))
            except TimeoutError:
                failures.append(TIMED_OUT)
            except OSError as error:
                # The system's own words: those of the exception name the address.
                failures.append(os.strerror(error.errno).lower() if error.errno else "no connection")
        raise outcome.not_connected(address, failures[0] if failures else "it has no address")

    async def _start_tls(self, plain: socket.socket, address: Address, trust: Trust, deadline: float) -> Connection:
        """Verify the server. What is shown and what is accepted is as in `resources.remote_backend`."""
        context = self._context_for(trust)
        try:
            async with asyncio.timeout_at(deadline):
                return await _over(plain, ssl=context, server_hostname=trust.server_name)
        except TimeoutError:
            raise outcome.no_tls(address, TIMED_OUT) from None
        except ssl.SSLCertVerificationError as error:
            words = (address, trust.server_name, error.verify_code, error.verify_message)
            raise outcome.certificate_not_accepted(*words) from None
        except ssl.SSLError as error:
            raise outcome.no_tls(address, error.reason or "") from None
        except OSError:
            raise outcome.no_tls(address, "") from None

    def _context_for(self, trust: Trust) -> ssl.SSLContext:
        if trust.authorities is None and trust.client_certificate is None:
            if self._system_context is None:
                # Some hundred authorities, which are not read for each backend.
                self._system_context = _verifying_context()
                self._system_context.load_default_certs()
            return self._system_context
        context = _verifying_context()
        if trust.authorities:
            context.load_verify_locations(cadata=trust.authorities.get_secret_value())
        else:
            context.load_default_certs()
        if trust.client_certificate:
            _load_client_certificate(context, trust.client_certificate.get_secret_value())
        return context


async def _open_socket_to(family: socket.AddressFamily, address: Any, deadline: float) -> socket.socket:
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


async def _over(plain: socket.socket, **tls: Any) -> Connection:
    return Connection(*await asyncio.open_connection(sock=plain, **tls))


def _verifying_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Envoy takes an intermediate authority for one when it is given it, and looks at no common name.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_client_certificate(context: ssl.SSLContext, pem: str) -> None:
    # The module reads files alone; this one is in memory and has no name.
    with os.fdopen(os.memfd_create("certificate"), "wb", buffering=0) as file:
        file.write(pem.encode())
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password="")
        except ssl.SSLError:
            raise outcome.own_certificate_unusable() from None
