"""Connections as Envoy makes them: resolve, refuse where nothing may be sent, connect, verify the certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohappyeyeballs import start_connection

from controller.api.timing import REAL, CheckTiming
from xds_server.health import outcome
from xds_server.health.backend import Address, Refusal, Trust
from xds_server.health.contexts import TlsContexts
from xds_server.health.outcome import NothingNewError

TIMED_OUT = "timed out"

# A name may have many addresses; a few are tried, of both families in turn. The next one begins when the one before has
# not answered for a moment (RFC 8305, sections 4 and 5).
_ADDRESSES = 6
_ATTEMPT_DELAY = 0.25

# Look-ups that hang, each a thread: as many as bad name servers may cost, and those of one namespace.
_LOOK_UPS = 64
_OF_A_NAMESPACE = 8

SocketAddress = tuple[socket.AddressFamily, Any]
_LookedUp = list[SocketAddress] | OSError | UnicodeError


class Resolver(Protocol):
    """Where addresses come from."""

    async def addresses(self, address: Address, namespaces: Collection[str]) -> list[SocketAddress]:
        """Look up all addresses of a name, which models of these namespaces use; the one to try first is in front.

        Raises CheckError, or NothingNewError when too busy.
        """
        ...


def _look_up(host: str) -> list[SocketAddress]:
    # Any port will do: a name has the same addresses for all.
    infos = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    return [(info[0], info[4]) for info in infos]


class SystemResolver:
    """The system's resolver, which cannot be interrupted. `look_up` asks it and raises OSError or UnicodeError.

    Its threads are no executor's, so a look-up that hangs holds up nothing else, the end of the process neither. For
    one name there is never more than one, and a namespace has a few: those of others go on while its name servers hang.
    """

    def __init__(self, look_up: Callable[[str], list[SocketAddress]] = _look_up) -> None:
        self._look_up = look_up
        self._under_way: dict[str, asyncio.Future[_LookedUp]] = {}
        self._taken: Counter[str] = Counter()

    async def addresses(self, address: Address, namespaces: Collection[str]) -> list[SocketAddress]:
        """Look up a name. The system has sorted its addresses (RFC 6724)."""
        found = _look_up(address.host) if _is_ip(address.host) else await self._looked_up(address, namespaces)
        return [(family, (ip, address.port, *more)) for family, (ip, _, *more) in found]

    async def _looked_up(self, address: Address, namespaces: Collection[str]) -> list[SocketAddress]:
        result = self._under_way.get(address.host)
        if result is None:
            result = self._begin(address.host, namespaces)
        match await asyncio.shield(result):
            case OSError() as error:
                raise outcome.not_resolved(address.host, error.strerror or "no answer")
            case UnicodeError():
                raise outcome.not_resolved(address.host, "not a name")
            case addresses:
                return addresses

    def _begin(self, host: str, namespaces: Collection[str]) -> asyncio.Future[_LookedUp]:
        # One of several is enough that has room: no namespace keeps a backend from being checked by using it, too.
        payer = min(namespaces, key=self._taken.__getitem__, default="")
        if len(self._under_way) >= _LOOK_UPS or self._taken[payer] >= _OF_A_NAMESPACE:
            raise NothingNewError
        self._taken[payer] += 1
        result = self._under_way[host] = asyncio.get_running_loop().create_future()
        result.add_done_callback(lambda _: self._end(host, payer))
        threading.Thread(target=_look_up_for, args=(self._look_up, host, result), daemon=True, name="look-up").start()
        return result

    def _end(self, host: str, payer: str) -> None:
        del self._under_way[host]
        self._taken[payer] -= 1
        if not self._taken[payer]:
            del self._taken[payer]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _look_up_for(look_up: Callable[[str], list[SocketAddress]], host: str, future: asyncio.Future[_LookedUp]) -> None:
    result: _LookedUp
    try:
        result = look_up(host)
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
        self._contexts = TlsContexts()
        self._resolver = resolver
        self._refusal = refusal

    async def context_for(self, trust: Trust, deadline: float) -> ssl.SSLContext:
        """Make the context of a trust, or take the one that is there; who waits for it in vain may find it later.

        What keeps us from making one says nothing of a server. Raises CheckError, NothingNewError and OSError.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._contexts.context_for(trust)
        except TimeoutError:
            raise NothingNewError from None

    @contextlib.asynccontextmanager
    async def connect(
        self, address: Address, trust: Trust | None, deadline: float, namespaces: Collection[str]
    ) -> AsyncIterator[Connection]:
        """Connect for these namespaces, over TLS if there is a `trust`; `deadline` is of the loop's clock.

        Raises CheckError, or NothingNewError, and OSError where there are no means to make a TLS context.
        """
        plain = await self._open_socket(address, deadline, namespaces)
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        # From here on the socket is asyncio's. To close it under a transport would leave its number with that one, and
        # who is given the number next would lose what arrives.
        transport, _ = await loop.create_connection(asyncio.Protocol if trust else lambda: protocol, sock=plain)
        try:
            if trust:
                transport = await self._start_tls(transport, protocol, address, trust, deadline)
            yield Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        finally:
            transport.abort()

    async def _open_socket(self, address: Address, deadline: float, namespaces: Collection[str]) -> socket.socket:
        try:
            async with asyncio.timeout_at(deadline):
                found = await self._resolver.addresses(address, namespaces)
        except TimeoutError:
            raise outcome.not_resolved(address.host, TIMED_OUT) from None
        for _, one in found:
            if self._refusal(address.host, one[0]):
                raise outcome.host_refused(address.name)
        if not found:
            raise outcome.not_connected(address, "it has no address")
        tried = _in_turn(found)[:_ADDRESSES]
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + self.timing.connect)):
                return await start_connection(
                    [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", one) for family, one in tried],
                    happy_eyeballs_delay=_ATTEMPT_DELAY,
                )
        except TimeoutError:
            raise outcome.not_connected(address, TIMED_OUT) from None
        except OSError as error:
            # The system's own words, if they are the same for all: those of the exception name the address.
            same = os.strerror(error.errno).lower() if error.errno else None
            raise outcome.not_connected(address, same or f"none of {len(tried)} addresses answers") from None

    async def _start_tls(
        self,
        plain: asyncio.Transport,
        protocol: asyncio.StreamReaderProtocol,
        address: Address,
        trust: Trust,
        deadline: float,
    ) -> asyncio.Transport:
        """Verify the server.

        Whoever is cancelled in `create_connection(ssl=...)` before the handshake begins leaves a transport behind.
        """
        context = await self.context_for(trust, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                loop = asyncio.get_running_loop()
                over = await loop.start_tls(plain, protocol, context, server_hostname=trust.server_name)
                assert over is not None
                protocol.connection_made(over)
                return over
        except TimeoutError:
            raise outcome.no_tls(address, TIMED_OUT) from None
        except ssl.SSLCertVerificationError as error:
            words = (address, trust.server_name, error.verify_code, error.verify_message)
            raise outcome.certificate_not_accepted(*words) from None
        except ssl.SSLError as error:
            raise outcome.no_tls(address, error.reason or "") from None
        except OSError:
            raise outcome.no_tls(address, "") from None


def _in_turn(found: Sequence[SocketAddress]) -> list[SocketAddress]:
    """Take the addresses of the family that comes first and of the other one in turn, each in their order."""
    first = [one for one in found if one[0] == found[0][0]]
    other = [one for one in found if one[0] != found[0][0]]
    return [one for pair in itertools.zip_longest(first, other) for one in pair if one]
