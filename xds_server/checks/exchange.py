"""One HTTP/1.1 request on an open connection."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

import h11

from xds_server.checks import outcome
from xds_server.checks.connection import TIMED_OUT, Stream

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
