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
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

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
        self._client: httpx.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep connections while the block runs."""
        bounds = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
        async with httpx.AsyncClient(
            verify=self._tls or False,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            limits=bounds,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"accept-encoding": "identity", "user-agent": "beamlit-controller"},
        ) as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def read(self, request: BoundedRequest, receive: Callable[[bytes], None]) -> int:
        """Send a request, hand over the pieces of its answer, and return the status. Raises SourceError.

        What `receive` raises ends the reading, and is raised.
        """
        assert self._client is not None, "it is asked while it is open"
        method = "GET" if request.form is None else "POST"
        form = {} if request.form is None else {"content-type": "application/x-www-form-urlencoded"}
        try:
            sent = self._client.stream(method, request.url, headers={**request.headers, **form}, content=request.form)
            async with sent as response:
                self._check(response, request.statuses)
                size = 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if size > self._most_bytes:
                        raise SourceError(f"the answer is longer than {self._most_bytes // 2**20} MiB")
                    receive(piece)
                return response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            raise SourceError(why_of(error)) from error

    def _check(self, response: httpx.Response, statuses: Collection[int]) -> None:
        status, packed = response.status_code, response.headers.get("content-encoding", "identity")
        if response.is_redirect:
            raise SourceError(f"the answer is a redirect ({status}), which is not followed")
        if status not in statuses:
            why = _REFUSED.get(status)
            raise SourceError(f"the answer is {status}: {why}" if why else f"the answer is {status}")
        if packed.strip().lower() != "identity":
            raise SourceError("the answer is compressed, which nobody asked for")


def why_of(error: BaseException) -> str:
    """Say why somebody could not be reached or understood: in the words of the operating system or of TLS, where they
    are behind it. No address, no secret.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {behind.verify_message}"
        if isinstance(behind, ssl.SSLError):
            return "TLS failed"
        if isinstance(behind, socket.gaierror):
            return "its name is not known"
        if isinstance(behind, OSError) and behind.errno and behind.errno > 0:
            return os.strerror(behind.errno)
        behind = behind.__cause__ or behind.__context__
    match error:
        case httpx.ConnectError():
            return "no connection"
        case httpx.RemoteProtocolError():
            return "the connection ended within the answer, or it is no HTTP"
        case httpx.TransportError():
            return "the connection ended"
    return "it cannot be asked"
