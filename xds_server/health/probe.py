"""One check of a backend: connect, see that its token endpoint gives tokens, ask for its health check's path.

The tokens are Envoy's business: what comes is thrown away.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field

import h11

from xds_server.health import outcome
from xds_server.health.backend import Backend, TokenRequest, Trust
from xds_server.health.connection import TIMED_OUT, Connection, Connector
from xds_server.health.judgement import token_pause_after, token_pause_within
from xds_server.health.outcome import CheckError, CheckOutcome, NothingNewError, answer_to, connected_to

# The most that is read of an answer; a token is a few kilobytes.
_LONGEST_ANSWER = 64 * 1024

# In seconds; a number can be larger than any that Python calculates with.
_LONGEST_LIFE = 1_000_000_000

_DIGITS = re.compile(r"[0-9]{1,20}")

# RFC 6749, section 5.2, and those of section 4.1.2.1 that servers say here, too. Other words of a server are not
# repeated: whoever writes a ModelDeployment could have any server's answer read to him.
_ERRORS = (
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request: a GET, whose answer's body does not matter, or the POST of a `form`."""

    authority: str
    target: str
    form: str = field(default="", repr=False)

    @property
    def method(self) -> str:
        """The method."""
        return "POST" if self.form else "GET"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The status, and the body of the answer to a form."""

    status: int
    body: bytes = field(default=b"", repr=False)


async def send(request: HttpRequest, connection: Connection, deadline: float) -> HttpAnswer:
    """Send a request and read the answer. Raises CheckError in words of our own, not in those of the server."""
    what = f"{request.method} {request.target.partition('?')[0]}"
    try:
        async with asyncio.timeout_at(deadline):
            return await _send(request, connection)
    except TimeoutError:
        raise outcome.not_answered(what, TIMED_OUT) from None
    except ssl.SSLError as error:
        raise outcome.no_tls(request.authority, error.reason or "") from None
    except OSError:
        raise outcome.not_answered(what, "the connection breaks") from None
    except h11.ProtocolError:
        raise outcome.not_answered(what, "what comes is no HTTP") from None


async def _send(request: HttpRequest, connection: Connection) -> HttpAnswer:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_ANSWER)
    form = request.form.encode()
    headers = [("Host", request.authority), ("User-Agent", "beamlit-xds-server"), ("Connection", "close")]
    if form:
        headers += [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(form)))]
        headers += [("Accept", "application/json")]
    head = h11.Request(method=request.method, target=request.target, headers=headers)
    for event in (head, h11.Data(data=form), h11.EndOfMessage()) if form else (head, h11.EndOfMessage()):
        connection.writer.write(http.send(event) or b"")
    await connection.writer.drain()
    status, body = 0, b""
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                data = await connection.reader.read(_LONGEST_ANSWER)
                if not data and not status:
                    raise ConnectionResetError
                # The end is data too: h11 knows whether it may come now.
                http.receive_data(data)
            case h11.Response(status_code=status) if not form:
                return HttpAnswer(status)
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                return HttpAnswer(status, body)
            case h11.ConnectionClosed():
                raise ConnectionResetError
        if len(body) > _LONGEST_ANSWER:
            return HttpAnswer(status)


class TokenEndpoint:
    """One token endpoint as one backend uses it; it is asked no more often than a token is needed."""

    def __init__(self, request: TokenRequest) -> None:
        self.request = request
        self._failures = 0
        self._due = 0.0

    async def check(self, connector: Connector, deadline: float, namespaces: Collection[str]) -> None:
        """See that there are tokens, for these namespaces.

        Raises CheckError; NothingNewError while the last failure is all there is.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            if self._failures:
                raise NothingNewError
            return
        try:
            lifetime = await self._token_lifetime(connector, deadline, namespaces)
        except CheckError:
            self._failures += 1
            self._due = loop.time() + token_pause_after(self._failures, connector.timing)
            raise
        self._failures = 0
        self._due = loop.time() + token_pause_within(lifetime, connector.timing)

    async def _token_lifetime(self, connector: Connector, deadline: float, namespaces: Collection[str]) -> float:
        token = self.request
        trust = Trust(server_name=token.address.name) if token.over_tls else None
        request = HttpRequest(token.authority, token.target, token.form.get_secret_value())
        try:
            async with connector.connect(token.address, trust, deadline, namespaces) as connection:
                answer = await send(request, connection, deadline)
        except CheckError as error:
            raise outcome.no_token(error.message) from None
        return _lifetime_in(answer, token.address.name)


def _lifetime_in(answer: HttpAnswer, host: str) -> float:
    """Read how many seconds the token lives; Envoy uses none whose life it does not know."""
    try:
        parsed = json.loads(answer.body)
    except (ValueError, RecursionError):
        parsed = None
    fields = parsed if isinstance(parsed, dict) else {}
    if answer.status != 200:
        known = f" ({fields['error']})" if fields.get("error") in _ERRORS else ""
        raise outcome.no_token(f"{host} answers {answer.status}{known}")
    if not fields.get("access_token") or not isinstance(fields["access_token"], str):
        raise outcome.no_token(f"{host} answers 200 without a token")
    lifetime = _whole_seconds(fields.get("expires_in"))
    if lifetime is None:
        raise outcome.no_token(f"{host} does not say how long it lives (expires_in)")
    return float(min(lifetime, _LONGEST_LIFE))


def _whole_seconds(value: object) -> int | float | None:
    """Read what Envoy reads, the JSON form of an unsigned integer of Protocol Buffers: also "3600"."""
    if isinstance(value, str):
        # A number of so many digits is one that Python reads.
        return int(value) if _DIGITS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value >= 0 and (isinstance(value, int) or value.is_integer()) else None


class BackendProbe:
    """Checks a backend; `before` is the probe of the same backend before it changed."""

    def __init__(self, backend: Backend, connector: Connector, before: BackendProbe | None = None) -> None:
        self.backend = backend
        self._connector = connector
        self._tokens = TokenEndpoint(backend.token) if backend.token else None
        if before and before._tokens and before._tokens.request == backend.token:
            self._tokens = before._tokens

    async def check(self, namespaces: Collection[str] = ()) -> CheckOutcome | None:
        """Check once for the namespaces that use it; None when nothing new was learned."""
        now, longest = asyncio.get_running_loop().time, self._connector.timing.longest
        try:
            if self.backend.trust:
                # In a time of its own: what it takes us to read certificates is no fault of the server's.
                await self._connector.context_for(self.backend.trust, now() + longest)
            return await self._check(now() + longest, namespaces)
        except CheckError as error:
            return error.outcome
        except NothingNewError:
            return None

    async def _check(self, deadline: float, namespaces: Collection[str]) -> CheckOutcome:
        backend, now = self.backend, asyncio.get_running_loop().time
        patience = backend.patience.total_seconds()
        by = min(deadline, now() + patience)
        connecting = self._connector.connect(backend.address, backend.trust, by, namespaces)
        async with connecting as connection:
            if self._tokens:
                await self._tokens.check(self._connector, deadline, namespaces)
            if not backend.path:
                return connected_to(backend.address, over_tls=backend.trust is not None)
            # Without the credential: Envoy's own health check has none either.
            request = HttpRequest(backend.authority, backend.path)
            answer = await send(request, connection, min(deadline, now() + patience))
            return answer_to(backend.path, answer.status)
