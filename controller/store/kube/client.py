"""A client of the API server: raw JSON, time limits, retries where they are safe."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_random_exponential

from controller.api.timing import REAL, KubeTiming
from controller.store.kube.access import Access, RedirectedError, Source, find_source, load_access
from controller.store.kube.answers import (
    UNAUTHORIZED,
    RawAnswer,
    UnauthorizedError,
    UnusableAnswerError,
    error_for,
    moment_of,
    object_of,
    split_lines,
)
from controller.store.protocol import UnavailableError

# What YAML does not take as it is, or takes for the end of a line (YAML 1.1, sections 4.1.1 and 4.2.2).
_ESCAPED_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def json_for_apply(body: Mapping[str, Any]) -> bytes:
    """Write an object as JSON that is YAML too, as which the API server reads it.

    JSON's usual way to write what lies beyond U+FFFF, as two escapes, is an error in YAML: it is written as it is.
    """
    text = json.dumps(body, ensure_ascii=False)
    return _ESCAPED_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


JSON = "application/json"
APPLY = "application/apply-patch+yaml"  # Server-side apply; JSON is YAML.
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

Body = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What is sent: an object, or the operations of a JSON patch (RFC 6902)."""

_ATTEMPTS = 5
_LONGEST_REFUSAL = 64 * 1024  # Bytes of an answer that says no: the rest of it is nothing that anybody reads.


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    body: Body | None = field(default=None, repr=False)
    content_type: str = JSON
    accept: str = JSON

    def __str__(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is doing it once: it reads, or has a precondition that the first time ends."""
        body = self.body if isinstance(self.body, Mapping) else {}
        metadata = body.get("metadata") or {}
        return self.method in ("GET", "HEAD") or bool(metadata.get("resourceVersion") or body.get("preconditions"))


class KubeClient:
    """A client of one API server; `async with` opens it. `answers` counts answers by method and status (0: none).

    `timing` is how long it waits, and its store with it.
    """

    def __init__(self, source: Source, timing: KubeTiming = REAL.kube) -> None:
        self.timing = timing
        self._source = source
        self._limits = aiohttp.ClientTimeout(total=timing.answer, sock_connect=timing.connect)
        self._stream = aiohttp.ClientTimeout(total=None, sock_connect=timing.connect, sock_read=timing.silence)
        self._backoff = wait_random_exponential(multiplier=timing.first_retry, max=timing.longest_retry)
        self._access: Access | None = None
        self._retired: Access | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.answers: Counter[tuple[str, int]] = Counter()

    @classmethod
    def from_environment(
        cls, kubeconfig: Path | None = None, context: str | None = None, timing: KubeTiming = REAL.kube
    ) -> KubeClient:
        """Take the kubeconfig given, `$KUBECONFIG`, the pod's service account or `~/.kube/config`, in this order.

        Raises ConfigurationError, as opening the client does.
        """
        return cls(find_source(kubeconfig, context, os.environ), timing)

    @property
    def cluster(self) -> str:
        """What tells this cluster from others, the same for whoever reaches it in the same way."""
        return self._opened.cluster

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self._opened.server

    @property
    def namespace(self) -> str:
        """Where we are at home: the namespace of the pod, or that of the context of the kubeconfig."""
        return self._opened.namespace

    async def __aenter__(self) -> KubeClient:
        self._access = await load_access(self._source, self.timing.credentials)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        for access in (self._access, self._retired):
            if access is not None:
                await access.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """Send a request, again if that is worth it and safe; give the object that the API server answers.

        Takes at most a minute; who has less time puts an `asyncio.timeout` around it. Raises StoreError.
        """
        call = _Call(method, _with_query(path, query), body, content_type)
        retrying = AsyncRetrying(
            retry=retry_if_exception(partial(_is_worth_another_try, call)),
            wait=self._wait,
            stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(self.timing.patience),
            reraise=True,
        )
        answer: dict[str, Any] = await retrying(self._answer, call)
        return answer

    async def fetch(self, path: str, query: Mapping[str, str], most: int | None = None) -> dict[str, Any]:
        """GET once, for a caller that has its own way to wait; an answer of more than `most` bytes is not read.

        Raises StoreError.
        """
        return await self._answer(_Call("GET", _with_query(path, query)), most)

    async def look(self, path: str, query: Mapping[str, str], accept: str, most: int) -> RawAnswer:
        """GET once, and give the answer whatever its status says, `most` bytes of it at most.

        `accept` is the form that is asked for. Raises UnavailableError when no answer comes.
        """
        call = _Call("GET", _with_query(path, query), accept=accept)
        access = self._opened
        response = await self._exchange(access, call, self._limits)
        if response.status == UNAUTHORIZED:
            response.close()
            await self._renew(access)
            response = await self._exchange(self._opened, call, self._limits)
        try:
            async with response:
                body, _ = await _read(response, most)
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(call, error) from error
        return RawAnswer(response.status, body, moment_of(response.headers.get("Date")))

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """GET a stream and yield its lines; one that is cut off is left out. Raises StoreError, also in between."""
        call = _Call("GET", _with_query(path, query))
        response = await self._open(call, self._stream)
        try:
            rest = b""
            async for data in response.content.iter_any():
                lines, rest = split_lines(rest, data)
                for line in lines:
                    yield line
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(call, error) from error
        finally:
            response.close()  # What is left of a stream is of no use to the next request.

    async def _answer(self, call: _Call, most: int | None = None) -> dict[str, Any]:
        response = await self._open(call, self._limits)
        try:
            async with response:
                body, is_whole = await _read(response, most)
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(call, error) from error
        if not is_whole:
            raise UnusableAnswerError(f"{call}: the answer is larger than {_size(most or 0)}")
        return object_of(str(call), body, most)

    async def _open(self, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send; give an answer that says yes. Credentials that are refused are read anew, once."""
        access = self._opened
        try:
            return await self._send(access, call, limits)
        except UnauthorizedError:
            await self._renew(access)
        return await self._send(self._opened, call, limits)

    async def _send(self, access: Access, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        response = await self._exchange(access, call, limits)
        if response.status < 300:
            return response
        try:
            async with response:
                words, _ = await _read(response, _LONGEST_REFUSAL)
        except (aiohttp.ClientError, OSError):
            words = b""
        raise error_for(str(call), response.status, response.headers, words)

    async def _exchange(self, access: Access, call: _Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send; give the answer, whatever its status is. Raises UnavailableError."""
        headers = {"Accept": call.accept, "Content-Type": call.content_type, "User-Agent": "beamlit-controller"}
        body: object = call.body
        if call.content_type == APPLY and isinstance(call.body, Mapping):
            # With a charset, the library sends the body as it is given.
            headers["Content-Type"], body = f"{APPLY}; charset=utf-8", json_for_apply(call.body)
        try:
            response = await access.open(call.method, call.path, headers, body, limits)
        except RedirectedError as error:
            self.answers[call.method, error.status] += 1
            raise UnusableAnswerError(f"{call}: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            self.answers[call.method, 0] += 1
            raise _unavailable(call, error) from error
        self.answers[call.method, response.status] += 1
        return response

    @property
    def _opened(self) -> Access:
        if self._access is None:
            raise RuntimeError("the client is not open")
        return self._access

    async def _renew(self, refused: Access) -> None:
        """Read the credentials anew unless that was done since; requests that are refused together wait for one."""
        if self._access is not refused:
            return
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._reload(), name="kube-credentials")
        await asyncio.shield(self._renewal)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, at least the backoff."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.after if isinstance(error, UnavailableError) else None
        return max(self._backoff(state), asked or 0.0)

    async def _reload(self) -> None:
        renewed = await load_access(self._source, self.timing.credentials)
        # Streams that run on the connections before stay: they end when this happens again.
        before, self._retired, self._access = self._retired, self._access, renewed
        if before is not None:
            await before.close()


async def _read(response: aiohttp.ClientResponse, most: int | None) -> tuple[bytes, bool]:
    """Read an answer, and say whether that is all of it: of one that is longer than `most`, the rest is not awaited."""
    if most is None:
        return await response.read(), True
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > most:
            response.close()
            del body[most:]
            return bytes(body), False
    return bytes(body), True


def _size(number: int) -> str:
    return f"{number // 2**20} MiB" if number >= 2**20 else f"{number} bytes"


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _unavailable(call: _Call, error: Exception) -> UnavailableError:
    unsent = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    return UnavailableError(f"{call}: {str(error) or type(error).__name__}", unsent=unsent)


def _is_worth_another_try(call: _Call, error: BaseException) -> bool:
    """HTTP 500 answers a write that went wrong, not one that came at a bad time."""
    if not isinstance(error, UnavailableError) or (error.status == 500 and call.method != "GET"):
        return False
    return call.repeatable or error.unsent
