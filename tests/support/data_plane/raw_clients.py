"""Clients that say to an Envoy what no library would: the bytes themselves, and one connection of HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, RemoteSettingsChanged, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import Decoder, Encoder

from tests.support.data_plane.model import Model
from tests.support.waiting import time_limit, until

_PATIENCE = 100
"""How often a client looks whether it may send more before it gives up: for two seconds, or longer."""

# <asm-generic/socket.h> and <linux/bpf_common.h>; Python has no names for them.
_ATTACH_FILTER, _DETACH_FILTER, _RETURN = 26, 27, 0x06


async def connected(model: Model) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(model.url)
    return await asyncio.open_connection(url.hostname, url.port)


async def said(model: Model, request: bytes) -> bytes:
    """Send something, and return all that comes until the connection ends."""
    reader, writer = await connected(model)
    try:
        writer.write(request)
        async with time_limit(30):
            return await reader.read()
    finally:
        writer.close()


OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 says first: the preface, and that it has no settings (RFC 9113, section 3.4)."""


# RFC 9113, section 6.
DATA, HEADERS, RST_STREAM, GOAWAY, CONTINUATION = 0, 1, 3, 7, 9
_END_STREAM, _END_HEADERS = 1, 4

Frames = AsyncIterator[tuple[int, bytes]]
"""Of each its kind, and what is in it."""


def frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """Make a frame of the first stream of a client (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + (1).to_bytes(4, "big") + payload


async def in_frames(reader: asyncio.StreamReader) -> Frames:
    """Read frames of HTTP/2 until the connection ends."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(9)
            yield head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))


@contextlib.asynccontextmanager
async def calling(model: Model, method: str, probe: str, body: bytes = b"") -> AsyncIterator[Frames]:
    """Begin a call of gRPC on a connection of its own, which says nothing more; the frames that come.

    Without a body its request goes on.
    """
    start = {":method": "POST", ":scheme": "http", ":path": f"/any.Service/{method}", ":authority": "c.test"}
    head = Encoder().encode({**start, "content-type": "application/grpc", "te": "trailers", "probe": probe})
    reader, writer = await connected(model)
    try:
        writer.write(OPENING + frame(HEADERS, head, _END_HEADERS) + (frame(DATA, body, _END_STREAM) if body else b""))
        yield in_frames(reader)
    finally:
        writer.transport.abort()


async def called(model: Model, method: str, probe: str) -> tuple[dict[str, str], bool]:
    """Begin a call of gRPC; return the head of its answer, and whether a GOAWAY was before.

    h2 would take no answer behind that.
    """
    told_to_go = False
    async with calling(model, method, probe) as frames:
        async for kind, payload in frames:
            told_to_go = told_to_go or kind == GOAWAY
            if kind == HEADERS:
                return head_of(payload), told_to_go
    raise EOFError


def head_of(payload: bytes) -> dict[str, str]:
    """What is in the first HEADERS of a connection."""
    return dict(Decoder().decode(payload))


class Http2Client:
    """One connection, and what the Envoy says on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.http = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self.streams_allowed = 0
        self.resets = 0
        self.told_to_go = False
        """Whether there was a GOAWAY."""
        self.ended = False

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, model: Model) -> AsyncIterator[Http2Client]:
        """Connect, and learn how many streams are allowed."""
        client = cls(*await connected(model))
        listening = asyncio.create_task(client._listen())
        try:
            await client.send()
            await until(lambda: client.streams_allowed, "its settings")
            yield client
        finally:
            listening.cancel()
            client._writer.close()

    async def send(self) -> None:
        self._writer.write(self.http.data_to_send())
        await self._writer.drain()

    async def begin(self, *more: tuple[str, str]) -> int:
        """Begin a request with a body."""
        stream = self.http.get_next_available_stream_id()
        start = [(":method", "POST"), (":scheme", "http"), (":authority", "c.test"), (":path", "/a"), *more]
        self.http.send_headers(stream, start)
        await self.send()
        return stream

    async def upload(self, stream: int, size: int) -> None:
        """Send a body as far as the Envoy takes it, until it has taken nothing for a while or ended the stream."""
        sent, idle = 0, 0
        with contextlib.suppress(ProtocolError, ConnectionError):
            while sent < size and idle < _PATIENCE:
                room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size, size - sent)
                if room <= 0:
                    idle += 1
                    await asyncio.sleep(0.02)
                    continue
                self.http.send_data(stream, bytes(room))
                sent, idle = sent + room, 0
                await self.send()

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._hear()
        self.ended = True

    async def _hear(self) -> None:
        while data := await self._reader.read(65536):
            for event in self.http.receive_data(data):
                match event:
                    case RemoteSettingsChanged(changed_settings=changed):
                        if one := changed.get(SettingCodes.MAX_CONCURRENT_STREAMS):
                            self.streams_allowed = int(one.new_value)
                    case StreamReset():
                        self.resets += 1
                    case ConnectionTerminated():
                        self.told_to_go = True
            self._writer.write(self.http.data_to_send())


@contextlib.contextmanager
def vanished(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Have the host of a client be gone: nothing that comes for its connection is seen by TCP, so nothing is answered.

    It is done with a socket filter that lets nothing pass, which every user may attach (socket(7)).
    """
    own: socket.socket = writer.get_extra_info("socket")
    drop_everything = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    own.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_everything)))
    try:
        yield
    finally:
        own.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
