"""Who is one of ours, and how many streams the others may have.

Envoys carry the node token. Whoever does not is a stranger: somebody with grpcurl who looks at what is served, or
somebody who means harm. A stranger sees no secrets, counts for nothing that is reported, may say little, has few
streams, and waits for the stranger before it. Where there is no token everybody is one of ours.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from xds_server.stream.limits import OF_MEMBERS, OF_STRANGERS, RequestLimits
from xds_server.stream.protocol.messages import ProtocolError
from xds_server.stream.wire import Node

T = TypeVar("T")

STREAMS_OF_AN_ADDRESS = 20
STREAMS_OF_STRANGERS = 200


class TooManyStreamsError(ProtocolError):
    """A stranger opened more streams than strangers may have."""


class SilentError(ProtocolError):
    """The client opened a stream and never said who it is."""


async def first_word(read: Callable[[], Awaitable[T]], within: float) -> T:
    """Read the first message of a stream. Raises SilentError if it does not come in so many seconds."""
    try:
        async with asyncio.timeout(within):
            return await read()
    except TimeoutError:
        raise SilentError(f"the client said nothing for {within:g} s") from None


class ClientAdmission:
    """Tells strangers from clients that carry `node_token`, and counts the streams of strangers by their address."""

    def __init__(self, node_token: str) -> None:
        self._node_token = node_token.encode()
        self._strangers: Counter[str] = Counter()
        self.turn_of_strangers = asyncio.Lock()
        """One message of a stranger at a time: however many there are, others wait for one of them at most."""

    def authorises(self, node: Node) -> bool:
        """Tell whether a client carries the node token, so that it may see secrets."""
        return bool(self._node_token) and hmac.compare_digest(node.token.encode(), self._node_token)

    def trusts(self, node: Node) -> bool:
        """Tell whether what a client says counts: it carries the node token, or there is none."""
        return not self._node_token or self.authorises(node)

    def limits(self, trusted: bool) -> RequestLimits:
        """Return how much a client may say."""
        return OF_MEMBERS if trusted else OF_STRANGERS

    def enter(self, peer: str) -> None:
        """Count a stream of a stranger, until it leaves. Raises TooManyStreamsError."""
        address = address_of(peer)
        if self._strangers[address] >= STREAMS_OF_AN_ADDRESS:
            raise TooManyStreamsError(
                f"without the node token an address may have {STREAMS_OF_AN_ADDRESS} streams, and this one has them"
            )
        if self._strangers.total() >= STREAMS_OF_STRANGERS:
            raise TooManyStreamsError(
                f"clients without the node token may have {STREAMS_OF_STRANGERS} streams together, and they have them"
            )
        self._strangers[address] += 1

    def leave(self, peer: str) -> None:
        """End what `enter` began."""
        address = address_of(peer)
        self._strangers[address] -= 1
        if not self._strangers[address]:
            del self._strangers[address]


def address_of(peer: str) -> str:
    """Return the address of a peer as gRPC writes it (`ipv4:10.0.0.1:4711`), without the port."""
    return peer.rpartition(":")[0]
