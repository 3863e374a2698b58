"""Who makes a call, by what it shows: a certificate, or the token of a ServiceAccount. And how long that lets it stay.

::

    CallerError
    ├── NotAllowedError       it is known, and may not do that
    ├── UnknownCallerError    nobody vouches for it
    ├── CannotTellError       who would vouch for it cannot be asked
    └── TooManyTokensError    its address showed too many tokens that nobody vouches for
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from xds_server.stream.identity import ClientGrant, ClientTable, certified_names
from xds_server.stream.limits import LONGEST_WORD, printable
from xds_server.stream.protocol.messages import ProtocolError

_MOST_NAMES = 5
_BEARER = "bearer "


class CallerError(ProtocolError):
    """Who calls may not be here; the message says why."""

    code = "UNAUTHENTICATED"


class NotAllowedError(CallerError):
    """The client may not do that, or be who it says it is; the message says what it may."""

    code = "PERMISSION_DENIED"


class UnknownCallerError(CallerError):
    """The client shows nothing by which it is known."""


class CannotTellError(CallerError):
    """Who the client is cannot be found out at this moment."""

    code = "UNAVAILABLE"


class TooManyTokensError(CallerError):
    """An address showed too many tokens that are nobody's, or too many at once."""

    code = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class ShownIdentity:
    """What a client shows: the names of its certificate and its fingerprint (SHA-256, hexadecimal), or a bearer token.

    `address` is where it comes from.
    """

    names: tuple[str, ...] = ()
    fingerprint: str = ""
    bearer: str = ""
    address: str = ""

    @property
    def marks(self) -> frozenset[str]:
        """By what a list of clients that are refused may name it, in lower case, as such a list is read."""
        return frozenset(one.lower() for one in (*self.names, self.fingerprint))


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that is known: its `granted`, its `marks`, and when it has to show something new (epoch seconds)."""

    granted: frozenset[ClientGrant]
    marks: frozenset[str] = frozenset()
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """Whose token it is: `system:serviceaccount:NAMESPACE:NAME`, the pod that it is bound to, and when it ends."""

    name: str
    pod: str
    ends: float


class Tokens(Protocol):
    """Who holds a token."""

    async def holder(self, token: str, address: str) -> TokenHolder:
        """Find out. Raises UnknownCallerError, CannotTellError and TooManyTokensError."""


class ClientConnection(Protocol):
    """What is asked of the call of a client: what gRPC knows of the certificate behind it, and what came with it."""

    def auth_context(self) -> Mapping[str, Collection[bytes]]:
        """Return it as gRPC has it; without TLS there is nothing of a certificate in it."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """Return the metadata."""

    def peer(self) -> str:
        """Return the address, as gRPC writes it."""


class Callers:
    """Knows callers by `clients` and `tokens`, and ends the calls of those that are refused from now on.

    Without `tokens` a bearer token counts for nothing; nor does it beside a certificate. `refused` is what `refuse` was
    told last.
    """

    def __init__(
        self, clients: ClientTable, tokens: Tokens | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._clients = clients
        self._tokens = tokens
        self._clock = clock
        self.refused: frozenset[str] = frozenset()
        self._open: dict[asyncio.Timeout, Caller] = {}

    async def caller(self, shown: ShownIdentity) -> Caller:
        """Return who it is that shows this. Raises CallerError."""
        if shown.fingerprint or self._tokens is None:
            return self.certified(shown)
        if not shown.bearer:
            raise UnknownCallerError("there is neither a certificate nor a token (authorization: Bearer TOKEN)")
        holder = await self._tokens.holder(shown.bearer, shown.address)
        granted = self._clients.grants_of_account(holder.name, holder.pod)
        if not granted:
            bound = f" of the pod {holder.pod}" if holder.pod else " that is bound to no pod"
            raise NotAllowedError(f"no client of this server is {holder.name} with a token{bound}")
        return self._not_refused(Caller(granted, frozenset((holder.name,)), holder.ends))

    def certified(self, shown: ShownIdentity) -> Caller:
        """Return who it is by its certificate alone. Raises NotAllowedError."""
        granted = self._clients.grants(shown.names)
        if not granted:
            said = ", ".join(printable(name, LONGEST_WORD) for name in shown.names[:_MOST_NAMES])
            raise NotAllowedError(
                f"no client of this server has a certificate of these names: {said or 'none of a URI or DNS'}"
            )
        return self._not_refused(Caller(granted, shown.marks))

    def refuse(self, marks: frozenset[str]) -> int:
        """Refuse who is named so from now on, and nobody else; end the open calls, and return how many those are."""
        self.refused = marks
        ended = [limit for limit, caller in self._open.items() if caller.marks & marks and not limit.expired()]
        for limit in ended:
            limit.reschedule(asyncio.get_running_loop().time())
        return len(ended)

    @asynccontextmanager
    async def call_of(self, caller: Caller) -> AsyncIterator[None]:
        """Have what is inside end when the caller is refused, or has to show something new. Raises CallerError."""
        loop, at = asyncio.get_running_loop(), None
        if caller.ends is not None:
            at = loop.time() + caller.ends - self._clock()
        try:
            async with asyncio.timeout_at(at) as limit:
                self._open[limit] = caller
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            self._not_refused(caller)
            raise UnknownCallerError("the token has ended: call again with a new one") from None
        finally:
            self._open.pop(limit, None)

    def _not_refused(self, caller: Caller) -> Caller:
        named = caller.marks & self.refused
        if named:
            raise NotAllowedError(f"this server was told to refuse {printable(min(named), LONGEST_WORD)}")
        return caller


def shown_by(connection: ClientConnection) -> ShownIdentity:
    """Read what the client of a call shows to gRPC."""
    context = connection.auth_context()
    certificate = next(iter(context.get("x509_pem_cert", ())), b"")
    fingerprint = fingerprint_of(ssl.PEM_cert_to_DER_cert(certificate.decode("ascii"))) if certificate else ""
    said = [value for key, value in connection.invocation_metadata() or () if key == "authorization"]
    bearer = bearer_in(*(one for one in said if isinstance(one, str)))
    return ShownIdentity(certified_names(context), fingerprint, bearer, connection.peer().rpartition(":")[0])


def bearer_in(*headers: str) -> str:
    """Return the token of the only `authorization`, empty if that has none (RFC 6750, section 2.1)."""
    if len(headers) != 1 or headers[0][: len(_BEARER)].lower() != _BEARER:
        return ""
    return headers[0][len(_BEARER) :].strip()


def fingerprint_of(certificate: bytes) -> str:
    """Return the fingerprint of a certificate (DER), as `openssl x509 -fingerprint -sha256` has it without colons."""
    return hashlib.sha256(certificate).hexdigest()
