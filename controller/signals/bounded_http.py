"""HTTP for metrics: one request and its answer, read piece by piece within bounds, whoever answers.

Nothing is followed (a redirect is an answer that cannot be used), nothing is unpacked (an answer is asked for as it is,
and refused if it is compressed anyway), nothing is remembered (no cookies), and the environment has no say (no proxies,
no `.netrc`). How long an answer may take is up to who asks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from controller.decision.facts import Cause
from controller.signals.poller import SourceError

_REFUSED = {401: "who asks is not known there", 403: "who asks may not read it", 404: "nothing is there"}


@dataclass(frozen=True, slots=True)
class BoundedRequest:
    """What is asked: GET, or POST of a `form` as it goes over the wire. Answers of other `statuses` are not read."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: bytes | None = None
    statuses: Collection[int] = (200,)


class BoundedHttp:
    """A client for answers of at most `most_bytes`, over at most so many connections at once.

    `tls` says whom to trust; without it only `http` is spoken.
    """

    def __init__(self, most_bytes: int, connections: int, tls: ssl.SSLContext | None = None) -> None:
        self._most_bytes = most_bytes
        self._connections = connections
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep connections while the block runs."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            headers={"accept-encoding": "identity", "user-agent": "beamlit-controller"},
        ) as session:
            self._session = session
            try:
                yield
            finally:
                self._session = None

    async def read(self, request: BoundedRequest, receive: Callable[[bytes], None]) -> int:
        """Send a request, hand over the pieces of its answer, and return the status. Raises SourceError.

        What `receive` raises ends the reading, and is raised.
        """
        assert self._session is not None, "it is asked while it is open"
        method = "GET" if request.form is None else "POST"
        form = {} if request.form is None else {"content-type": "application/x-www-form-urlencoded"}
        sent = self._session.request(
            method,
            URL(request.url, encoded=True),
            headers={**request.headers, **form},
            data=request.form,
            allow_redirects=False,
        )
        try:
            async with sent as response:
                self._check(response, request.statuses)
                size = 0
                async for piece in response.content.iter_any():
                    size += len(piece)
                    if size > self._most_bytes:
                        raise SourceError(f"the answer is longer than {self._most_bytes // 2**20} MiB")
                    receive(piece)
                return response.status
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise SourceError(why_of(error), Cause.NOT_ANSWERING) from error

    def _check(self, response: aiohttp.ClientResponse, statuses: Collection[int]) -> None:
        status, packed = response.status, response.headers.get("content-encoding", "identity")
        if 300 <= status < 400:
            raise SourceError(f"the answer is a redirect ({status}), which is not followed")
        if status not in statuses:
            why = _REFUSED.get(status)
            raise SourceError(f"the answer is {status}: {why}" if why else f"the answer is {status}", cause_of(status))
        if packed.strip().lower() != "identity":
            raise SourceError("the answer is compressed, which nobody asked for")


def cause_of(status: int) -> Cause:
    """Say what an answer of a status means that is no good one (RFC 9110, "Status Codes")."""
    if status in (401, 403):
        return Cause.NOT_PERMITTED
    if status == 404:
        return Cause.NO_SOURCE
    return Cause.NOT_ANSWERING if status == 429 or status >= 500 else Cause.NOT_USABLE


def why_of(error: BaseException) -> str:
    """Say why somebody could not be reached or understood: in the words of the operating system or of TLS, where they
    are behind it. No address, no secret.
    """
    behind: BaseException | None = error
    while behind is not None:
        match behind:
            case aiohttp.ClientSSLError():
                pass  # What it says stands in what is behind it.
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {behind.verify_message}"
            case ssl.SSLError():
                return "TLS failed"
            case socket.gaierror():
                return "its name is not known"
            case OSError() if behind.errno and behind.errno > 0:
                return os.strerror(behind.errno)
        behind = behind.__cause__ or behind.__context__
    match error:
        case aiohttp.ClientConnectionError():
            return "the connection ended before the answer"
        case aiohttp.ClientPayloadError():
            return "the connection ended within the answer"
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP"
    return "it cannot be asked"
