"""The two ways of sending load: at given times (open loop) and from a number of clients (closed loop)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.load.answer import Answer, AnswerError
from tests.support.load.connection import Connections
from tests.support.load.report import Report, Sample


def _no_headers(_: int) -> Mapping[str, str]:
    return {}


def _small_body(_: int) -> bytes:
    return b'{"prompt": "hello", "max_tokens": 1}'


def _nothing(_: Answer) -> str:
    return ""


def _ignore(_: Sample) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a request looks like and what counts as a good answer. The functions get the number of the request."""

    method: str = "POST"
    headers: Callable[[int], Mapping[str, str]] = _no_headers
    body: Callable[[int], bytes] = _small_body
    keepalive: bool = True
    """Without it every request has a new connection."""
    timeout: float | None = None
    """Seconds after which a client gives up, the connect included; without, a test ends what it holds back."""
    good: frozenset[int] = frozenset({200})
    """The status codes that are no failure."""
    fault: Callable[[Answer], str] = _nothing
    """What is wrong with an answer of a good status, in a few words; empty when nothing is."""
    note: Callable[[Answer], str] = _nothing
    """What else to keep of an answer, also of one that broke off after its head."""
    on_sample: Callable[[Sample], None] = _ignore
    """Called as each request ends."""


async def open_loop(urls: str | Sequence[str], arrivals: Iterable[float], traffic: Traffic | None = None) -> Report:
    """Send one request at each arrival time (seconds from the start, ascending), to the urls in turn.

    The latency of a request counts from its arrival time, so a late sender is part of it. Cancelling the loop gives up
    what is in flight.
    """
    traffic = traffic or Traffic()
    loop = asyncio.get_running_loop()
    async with _senders(urls, traffic) as senders:
        begin = loop.time()

        async def request(number: int, arrival: float) -> Sample:
            return await senders[number % len(senders)].sample(number, begin, arrival)

        async with asyncio.TaskGroup() as group:
            tasks = []
            for number, arrival in enumerate(arrivals):
                if (delay := begin + arrival - loop.time()) > 0:
                    await asyncio.sleep(delay)
                tasks.append(group.create_task(request(number, arrival)))
    return Report(tuple(task.result() for task in tasks), loop.time() - begin)


async def closed_loop(
    urls: str | Sequence[str],
    clients: int,
    requests: int,
    traffic: Traffic | None = None,
    stop: asyncio.Event | None = None,
    *,
    every: float = 0.0,
) -> Report:
    """Send `requests` requests from `clients` clients that each wait for their answer, to the urls in turn.

    Each of them sends `every` so many seconds, or later if it still waits; they begin one after another in this time.
    A set `stop` ends it early; what is in flight is still answered.
    """
    traffic = traffic or Traffic()
    loop = asyncio.get_running_loop()
    samples: list[Sample] = []
    async with _senders(urls, traffic) as senders:
        begin = loop.time()

        async def client(numbers: Iterator[int], after: float) -> None:
            await asyncio.sleep(after)
            for number in numbers:
                if stop is not None and stop.is_set():
                    return
                sender, start = senders[number % len(senders)], loop.time()
                samples.append(await sender.sample(number, begin, start - begin))
                if (rest := start + every - loop.time()) > 0:
                    await asyncio.sleep(rest)

        numbers = iter(range(requests))
        async with asyncio.TaskGroup() as group:
            for place in range(min(clients, requests)):
                group.create_task(client(numbers, every * place / clients))
    return Report(tuple(sorted(samples, key=lambda sample: sample.start)), loop.time() - begin)


class _Sender:
    """Sends the requests for one url."""

    def __init__(self, url: str, traffic: Traffic) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url}: not an http:// url")
        self._traffic = traffic
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._host = parts.netloc
        self.connections = Connections(parts.hostname, parts.port or 80, traffic.keepalive)

    async def sample(self, number: int, begin: float, start: float) -> Sample:
        """Send request `number` and tell how it went; `begin` is loop time, `start` seconds after it."""
        clock = asyncio.get_running_loop().time
        first_byte = math.nan

        def began() -> None:
            nonlocal first_byte
            first_byte = clock() - begin - start

        late = clock() - begin - start
        answer, begun, error = await self._answer(number, began)
        sample = Sample(
            start=start,
            latency=clock() - begin - start,
            status=answer.status if answer else 0,
            route=answer.route if answer else "",
            size=len(answer.body) if answer else 0,
            error=error,
            late=late,
            first_byte=first_byte,
            note=self._traffic.note(begun) if begun else "",
        )
        self._traffic.on_sample(sample)
        return sample

    async def _answer(self, number: int, began: Callable[[], None]) -> tuple[Answer | None, Answer | None, str]:
        """Return the whole answer, what there is of it, and the error."""
        try:
            async with asyncio.timeout(self._traffic.timeout):
                answer = await self.connections.exchange(self._request(number), began)
        except TimeoutError:
            return None, None, "timeout"
        except AnswerError as error:
            return None, error.begun, str(error)
        except OSError as error:
            return None, None, type(error).__name__
        if answer.status not in self._traffic.good:
            return answer, answer, f"status {answer.status}"
        return answer, answer, self._traffic.fault(answer)

    def _request(self, number: int) -> bytes:
        body = self._traffic.body(number)
        headers = {"host": self._host, "content-type": "application/json"}
        if body:
            headers["content-length"] = str(len(body))
        if not self._traffic.keepalive:
            headers["connection"] = "close"
        headers |= self._traffic.headers(number)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self._traffic.method} {self._target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


@asynccontextmanager
async def _senders(urls: str | Sequence[str], traffic: Traffic) -> AsyncIterator[tuple[_Sender, ...]]:
    senders = tuple(_Sender(url, traffic) for url in ([urls] if isinstance(urls, str) else urls))
    try:
        yield senders
    finally:
        for sender in senders:
            sender.connections.close()
