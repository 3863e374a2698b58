"""A name server of some names, over UDP (RFC 1035), and an Envoy that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tests.support.network import unused_port

_A, _AAAA = 1, 28
_VERSIONS = {_A: 4, _AAAA: 6}
_ANSWER, _SERVER_FAILURE, _NO_SUCH_NAME = 0x8180, 2, 3


@dataclass(frozen=True)
class NameServer:
    """Knows the addresses of names, which are in lower case and without a dot at their end.

    A name without addresses does not exist; of one with None instead, it says that it fails itself.
    """

    host: str
    port: int
    names: Mapping[str, tuple[str, ...] | None]
    asked: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """How often it was asked for a name, and whether it failed."""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, host: str, names: Mapping[str, tuple[str, ...] | None]) -> AsyncIterator[NameServer]:
        one = cls(host, unused_port(), names)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Socket(one), local_addr=(one.host, one.port)
        )
        try:
            yield one
        finally:
            transport.close()

    def asked_by_envoy(self) -> Callable[[dict[str, Any]], None]:
        """Return the edit of a bootstrap that makes an Envoy ask here, and nobody else."""
        resolver = {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": self.host, "port_value": self.port}}],
        }
        config = {"name": "envoy.network.dns_resolver.cares", "typed_config": resolver}
        return lambda bootstrap: bootstrap.update(typed_dns_resolver_config=config)

    def answer(self, query: bytes) -> bytes:
        """Answer a query of one question."""
        at, labels = 12, []
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        kind, question = int.from_bytes(query[at + 1 : at + 3], "big"), query[12 : at + 5]
        name = ".".join(labels)
        known = self.names.get(name, ())
        self.asked[name, known is None] += 1
        found = [one for one in map(ipaddress.ip_address, known or ()) if one.version == _VERSIONS.get(kind)]
        flags = _ANSWER | (0 if known else _SERVER_FAILURE if known is None else _NO_SUCH_NAME)
        counts = b"".join(number.to_bytes(2, "big") for number in (1, len(found), 0, 0))
        # A pointer to the name in the question, the type, the class, five seconds to live.
        head = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\5"
        records = (head + len(one.packed).to_bytes(2, "big") + one.packed for one in found)
        return query[:2] + flags.to_bytes(2, "big") + counts + question + b"".join(records)


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Of Python 3.11 it is no instance of that class.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport
        self._transport.sendto(self._server.answer(data), addr)
