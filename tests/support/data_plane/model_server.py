"""A model server whose answers each request chooses: the program behind `backends`, which `fork_server` forks.

A request header `on-<side>: <behaviour>` is meant for the servers of that side ("local", "remote"), so that one request
can fail on one side and succeed on the other. A behaviour is any of, joined with ";":

* `status=503`            answer with this status
* `delay=0.2`             wait that many seconds before anything else
* `reset=before`          reset the connection instead of answering; `reset=after`: in the middle of the body
* `stall=5`               begin to answer, and go on after that many seconds
* `size=1000000`          a body of that many bytes
* `header=name:value`     one more header
* `silent=1`              never answer
* `held=NAME`             wait for `PUT /-/release` with this name in the body
* `early=103`             say so, and then answer

What came with a header `probe: ID` is kept: `GET /-/seen/ID` lists it. `GET /-/count` says how many requests came in
all, `GET /-/received` how many bytes, `GET /-/spans` when each of those since it was asked last began and ended (clock
of the host), and whether by an answer; `GET /-/count/HOST` and `GET /-/spans/HOST` only of those with this Host. `PUT
/-/health` with a status code in the body sets what `/healthz` answers, 0 that it never does; `PUT /-/behaviour` how
requests are treated that choose nothing.

With a ledger (see `ledger`) behind name, host and port it notes there each request with a header `number: N` as it
comes. With the file of a certificate and its key behind that it speaks TLS; with one of authorities behind that, only
to clients who have a certificate of theirs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import socket
import ssl
import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path


class Server:
    """What one server knows: its name and side, what it was asked, and how healthy it says it is."""

    def __init__(self, name: str, ledger: mmap.mmap) -> None:
        self.name = name
        self.side = name.partition("-")[0]
        self.health = 200
        self.behaviour = ""
        self.count: Counter[str] = Counter()
        self.received = 0
        self.ledger = ledger
        self.held: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self.spans: deque[tuple[str, float, float, bool]] = deque(maxlen=100_000)
        self.seen: dict[str, list[dict[str, object]]] = defaultdict(list)


class Request:
    """One complete request; header names are in lower case."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.headers = dict(self.pairs)
        self.length = int(self.headers.get("content-length", 0))
        self.body = b""

    def record(self, name: str) -> dict[str, object]:
        digest = hashlib.sha256(self.body).hexdigest()
        return {
            **{"servedBy": name, "method": self.method, "target": self.target, "headers": self.pairs},
            **{"length": len(self.body), "sha256": digest},
        }


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._request: Request | None = None
        self._upgraded = False
        self._began: tuple[str, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._done(answered=False)

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._transport.write(data)
            return
        self._buffer += data
        self._server.received += len(data)
        if self._request is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._request = Request(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        if len(self._buffer) >= self._request.length:
            request, self._request = self._request, None
            request.body = bytes(self._buffer[: request.length])
            del self._buffer[: request.length]
            self._take(request)

    def _take(self, request: Request) -> None:
        path = request.target.partition("?")[0]
        if path.endswith("/healthz"):
            # Servers exist that refuse a Host with a "/", and only the path itself says anything about health.
            refused = path != "/healthz" or "/" in request.headers.get("host", "")
            if refused or self._server.health:
                self._answer(404 if refused else self._server.health, b"")
        elif path.startswith("/-/"):
            self._control(path, request)
        else:
            if number := request.headers.get("number"):
                self._server.ledger[int(number)] += 1
            self._begin(request.headers.get("host", ""))
            self._behave(request)

    def _begin(self, host: str) -> None:
        self._began = host, time.monotonic()
        self._server.count[host] += 1

    def _done(self, *, answered: bool) -> None:
        if self._began is not None:
            self._server.spans.append((*self._began, time.monotonic(), answered))
            self._began = None

    def _control(self, path: str, request: Request) -> None:
        if path == "/-/health":
            self._server.health = int(request.body)
            self._answer(200, b"")
        elif path == "/-/behaviour":
            self._server.behaviour = request.body.decode()
            self._answer(200, b"")
        elif path == "/-/release":
            for finish in self._server.held.pop(request.body.decode(), ()):
                finish()
            self._answer(200, b"")
        elif path == "/-/count":
            self._answer(200, b"%d" % self._server.count.total())
        elif path.startswith("/-/count/"):
            self._answer(200, b"%d" % self._server.count[path.removeprefix("/-/count/")])
        elif path == "/-/received":
            self._answer(200, b"%d" % self._server.received)
        elif path.startswith("/-/spans"):
            self._answer(200, json.dumps(self._taken_spans(path.removeprefix("/-/spans").lstrip("/"))).encode())
        else:
            self._answer(200, json.dumps(self._server.seen.get(path.rpartition("/")[2], [])).encode())

    def _taken_spans(self, host: str) -> list[tuple[float, float, bool]]:
        """Take out the spans of this host, or all if it is empty."""
        server = self._server
        taken = [(begin, end, answered) for of, begin, end, answered in server.spans if host in ("", of)]
        kept = [span for span in server.spans if host not in ("", span[0])]
        server.spans.clear()
        server.spans.extend(kept)
        return taken

    def _behave(self, request: Request) -> None:
        server = self._server
        body = b'{"servedBy": "%s"}' % server.name.encode()
        if probe := request.headers.get("probe"):
            record = request.record(server.name)
            server.seen[probe].append(record)
            body = json.dumps(record).encode()
        if request.headers.get("upgrade") == "websocket":
            self._upgraded = True
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
            return
        chosen = request.headers.get(f"on-{server.side}", server.behaviour)
        does = dict(part.split("=", 1) for part in chosen.split(";") if part)
        if "silent" in does:
            return
        if "held" in does:
            server.held[does["held"]].append(partial(self._finish, does, body))
        elif "delay" in does:
            asyncio.get_running_loop().call_later(float(does["delay"]), self._finish, does, body)
        else:
            self._finish(does, body)

    def _finish(self, does: dict[str, str], body: bytes) -> None:
        if self._transport.is_closing():
            return
        if "early" in does:
            self._transport.write(f"HTTP/1.1 {does['early']} .\r\nlink: </a>\r\n\r\n".encode())
        if does.get("reset") == "before":
            self._reset()
        elif does.get("reset") == "after":
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nthe first bytes")
            asyncio.get_running_loop().call_later(0.05, self._reset)
        elif "stall" in does:
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\nthe first")
            asyncio.get_running_loop().call_later(float(does["stall"]), self._transport.write, b" and the last.")
        else:
            body = b"x" * int(does["size"]) if "size" in does else body
            self._answer(int(does.get("status", 200)), body, does.get("header", ""))

    def _answer(self, status: int, body: bytes, header: str = "") -> None:
        more = f"{header}\r\n" if header else ""
        head = f"HTTP/1.1 {status} .\r\nx-served-by: {self._server.name}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        self._done(answered=True)  # before anybody can know of the answer and send the next request
        self._transport.write(head.encode("latin-1") + body)

    def _reset(self) -> None:
        # Closing with SO_LINGER 0 sends RST instead of FIN.
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def serve(server: Server, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), host, port, backlog=4096, ssl=tls)
    print("ready", flush=True)
    await listening.serve_forever()


def tls_with(certificate: str, authorities: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate)
    if authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authorities)
    return context


def ledger_in(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def main(name: str, host: str, port: str, ledger: str, *files: str) -> None:
    asyncio.run(serve(Server(name, ledger_in(Path(ledger))), host, int(port), tls_with(*files) if files else None))
