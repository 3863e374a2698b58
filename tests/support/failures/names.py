"""A name server (RFC 1035) that knows one name, for as long as it is to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator
from typing import Any, cast

NAME = "models.test"
_PORT = 5300
_A = 1
_NO_SUCH_NAME = 3


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP that `NAME` is `address`; or, if it does not know it, that there is no such name."""

    def __init__(self, host: str, address: str) -> None:
        self.up = True
        self.knows = True
        self._host = host
        self._address = ipaddress.IPv4Address(address).packed

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[NameServer]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, (self._host, _PORT))
        try:
            yield self
        finally:
            transport.close()

    def asked_by(self, bootstrap: dict[str, Any]) -> None:
        """Edit the bootstrap of an Envoy: it asks this server and no other."""
        kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
        bootstrap["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": kind,
                "resolvers": [{"socket_address": {"address": self._host, "port_value": _PORT}}],
                "dns_resolver_options": {"no_default_search_domain": True},
                "query_timeout_seconds": 1,
                "query_tries": 1,
            },
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self.up:
            self._transport.sendto(self._answer_to(data), addr)

    def _answer_to(self, query: bytes) -> bytes:
        identity, _, questions = struct.unpack("!HHH", query[:6])
        end = query.index(b"\0", 12) + 5  # the name, its end, type and class
        question, (kind,) = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])
        is_known = self.knows and question[:-5] == b"".join(b"%c%s" % (len(one), one) for one in _LABELS)
        answers = b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 1, 4) + self._address if is_known and kind == _A else b""
        flags = 0x8580 | (0 if is_known else _NO_SUCH_NAME)
        return struct.pack("!6H", identity, flags, questions, bool(answers), 0, 0) + question + answers


_LABELS = [label.encode() for label in NAME.split(".")]
