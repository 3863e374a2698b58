"""Reading one HTTP/1.1 answer from bytes as they arrive (RFC 9112, sections 6 and 7), without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BODILESS = frozenset({204, 304})
_TO_THE_END = -1


class AnswerError(Exception):
    """The bytes are no complete HTTP/1.1 answer; the message is the kind of error a report counts.

    `begun` is what there is of it, where at least its head had come.
    """

    def __init__(self, error: str, begun: Answer | None = None) -> None:
        super().__init__(error)
        self.begun = begun


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer. Header names are in lower case; of a repeated header the last value is kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def route(self) -> str:
        """Where the answer came from: the `x-beamlit-route` header, or an empty string."""
        return self.headers.get("x-beamlit-route", "")

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request."""
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers or self.status in _BODILESS
        return framed and self.headers.get("connection", "").lower() != "close"


class AnswerReader:
    """Reads the answer to one request that was not a HEAD: feed it what arrives until it returns the answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer when it is complete. Raises AnswerError."""
        self._buffer += data
        while not self._status:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return None
            self._buffer = rest
            status, self._headers = _head_of(head)
            # Interim answers (1xx) precede the real one: RFC 9110, section 15.2.
            self._status = status if status >= 200 else 0
        return self._body()

    def end(self) -> Answer:
        """Return the answer that the closed connection ended. Raises AnswerError when it ended too soon."""
        if not self._status:
            raise AnswerError("truncated" if self._buffer else "closed")
        if self._length() != _TO_THE_END or self._chunked:
            raise AnswerError("truncated", self.begun)
        return Answer(self._status, self._headers, self._buffer)

    @property
    def begun(self) -> Answer | None:
        """What there is so far of an answer whose head has come."""
        return Answer(self._status, self._headers, b"".join(self._chunks)) if self._status else None

    @property
    def _chunked(self) -> bool:
        return self._headers.get("transfer-encoding", "").lower().endswith("chunked")

    def _length(self) -> int:
        if self._status in _BODILESS:
            return 0
        return _number(self._headers.get("content-length", str(_TO_THE_END)), 10)

    def _body(self) -> Answer | None:
        if self._chunked:
            return self._chunked_body()
        length = self._length()
        if length == _TO_THE_END or len(self._buffer) < length:
            return None
        if len(self._buffer) > length:
            raise AnswerError("bytes after the answer")
        return Answer(self._status, self._headers, self._buffer)

    def _chunked_body(self) -> Answer | None:
        while True:
            line, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                return None
            size = _number(line.partition(b";")[0].decode("latin-1"), 16)
            if size == 0:
                return self._trailers(rest)
            if len(rest) < size + 2:
                return None
            self._chunks.append(rest[:size])
            self._buffer = rest[size + 2 :]

    def _trailers(self, rest: bytes) -> Answer | None:
        """End a chunked body: trailer lines, if any, are read and dropped."""
        if rest != b"\r\n" and not rest.endswith(b"\r\n\r\n"):
            return None
        return Answer(self._status, self._headers, b"".join(self._chunks))


def _head_of(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise AnswerError("not HTTP/1.1")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return _number(rest[:3], 10), headers


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise AnswerError("not a number in the framing") from None
