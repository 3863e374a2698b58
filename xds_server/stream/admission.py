"""Who is one of ours, how many streams the others may have, and whose turn it is.

Over TLS a client is who its certificate or token says (`stream.callers`), and one that is nobody's is refused.
Elsewhere Envoys carry the node token. Whoever does not is a stranger: somebody with grpcurl who looks at what there is,
or somebody who means harm; over TLS a reader is one. A stranger sees no secrets, counts for nothing that is reported,
may say little, has few streams, and waits for the stranger before it. Without TLS and without a token everybody is one
of ours. What is asked by a single call, or of health and reflection, nobody says who they are for: it is a stranger's.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import unquote

from xds_server.stream.callers import Caller, CallerError, Callers, ClientConnection, NotAllowedError, shown_by
from xds_server.stream.identity import ClientGrant, GrantKind
from xds_server.stream.limits import OF_MEMBERS, OF_STRANGERS, RequestLimits, printable
from xds_server.stream.protocol.messages import ProtocolError
from xds_server.stream.protocol.parts import Parts
from xds_server.stream.wire import Node

T = TypeVar("T")

STREAMS_OF_AN_ADDRESS = 20
STREAMS_OF_STRANGERS = 200
MOST_SILENT = 4_000
"""How many streams may wait for their first message: each costs some 30 KB. Envoys say it with the stream."""
# An answer of so many bytes is packed for a few strangers at a time: it is there until the client has read it, or was
# cut off since it does not.
_LARGE_ANSWER = 256 << 10
_LARGE_ANSWERS = 4
# An Envoy that is refused comes again within half a minute (its backoff), unless it is gone.
_COMES_AGAIN_WITHIN = 60.0
_LONGEST_REFUSAL = 300
_ROUNDS_OF_A_REQUEST = 5
"""Of the event loop, from a request on the socket to its answer there: it is read, parsed, answered, packed, sent."""

_SECONDS_OF_A_TURN = 0.003
"""After so many no further part of what takes long is begun in this turn."""


class TooManyStreamsError(ProtocolError):
    """A stranger opened more streams than strangers may have."""

    code = "RESOURCE_EXHAUSTED"


class SilentError(ProtocolError):
    """The client opened a stream and never said who it is."""

    code = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class ClientStanding:
    """What a client is here: whether it may see secrets (`authorised`), and whether what it says counts (`trusted`)."""

    authorised: bool
    trusted: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Who was refused and why, since when that is told, and when it came last (seconds of the loop's clock)."""

    address: str
    words: str
    told_since: float
    came: float


_READER = ClientStanding(authorised=False, trusted=False)
_MEMBER = ClientStanding(authorised=True, trusted=True)


class ClientAdmission:
    """Tells strangers from clients that are ours, and counts the streams of strangers by their address.

    `node_token` is what clients of ours carry where there is no TLS; empty: there everybody is one of ours. At most
    `most_silent` streams wait for their first message.
    """

    def __init__(self, node_token: str, most_silent: int = MOST_SILENT) -> None:
        self._node_token = node_token.encode()
        self._callers: Callers | None = None
        self._calls: dict[ClientConnection, Caller] = {}
        self._refusal: _Refusal | None = None
        self._strangers: Counter[str] = Counter()
        self._most_silent = most_silent
        self._silent: dict[asyncio.Timeout, None] = {}
        self._large_answers = asyncio.Semaphore(_LARGE_ANSWERS)
        self._strangers_turn, self._newcomers_turn = asyncio.Lock(), asyncio.Lock()
        self._long_turn = asyncio.Lock()

    def require(self, callers: Callers) -> None:
        """Go by certificates and tokens from now on, and by nothing else: the server listens with TLS."""
        self._callers = callers

    @property
    def by_callers(self) -> bool:
        """Whether it goes by certificates and tokens of ServiceAccounts."""
        return self._callers is not None

    def refused(self, now: float) -> str:
        """Say who comes and does not count, and why: the first, for as long as it comes again; empty without one.

        It is told in statuses. So it has the address of a client and our own words, not what that says of itself, and
        changes once a minute at the most, whoever comes and goes.
        """
        known = self._refusal
        if known is None or now - known.came > _COMES_AGAIN_WITHIN:
            return ""
        return f"the client at {known.address} is no Envoy of ours: {known.words}"

    def note_refusal(self, peer: str, why: str, now: float) -> None:
        """Remember who came and does not count."""
        known, address = self._refusal, host_of(peer) or peer
        away = now - known.came if known else math.inf
        if _COMES_AGAIN_WITHIN < away <= 2 * _COMES_AGAIN_WITHIN:
            return  # That it is told no longer is a change, too.
        if known and away <= _COMES_AGAIN_WITHIN:
            if known.address != address:
                return
            if now - known.told_since <= _COMES_AGAIN_WITHIN:
                self._refusal = replace(known, came=now)
                return
        self._refusal = _Refusal(address, printable(why)[:_LONGEST_REFUSAL], now, now)

    @asynccontextmanager
    async def call(self, connection: ClientConnection) -> AsyncIterator[None]:
        """Find out who calls, and serve it inside for as long as it may stay. Raises CallerError, also meanwhile.

        Every method is behind this where there is TLS.
        """
        assert self._callers is not None
        try:
            caller = await self._callers.caller(shown_by(connection))
            _granted(caller)
        except CallerError as error:
            self.note_refusal(connection.peer(), str(error), _now())
            raise
        self._calls[connection] = caller
        try:
            async with self._callers.call_of(caller):
                yield
        finally:
            del self._calls[connection]

    def standing(self, node: Node, connection: ClientConnection) -> ClientStanding:
        """Return what a client is that says it is this node. Raises NotAllowedError if it may not be that."""
        if self._callers is None:
            authorised = bool(self._node_token) and hmac.compare_digest(node.token.encode(), self._node_token)
            return ClientStanding(authorised, trusted=authorised or not self._node_token)
        granted = _granted(self._calls[connection])
        if any(one.lets_join(node) for one in granted):
            return _MEMBER
        if any(one.kind is GrantKind.READER for one in granted):
            return _READER
        may = ", ".join(sorted(map(str, granted)))
        self.note_refusal(connection.peer(), f"it is {may}, and says it is another node", _now())
        raise NotAllowedError(f"the client is {may}, and not the {node.scope} {node.id!r}")

    def limits(self, trusted: bool) -> RequestLimits:
        """Return how much a client may say."""
        return OF_MEMBERS if trusted else OF_STRANGERS

    async def first_word(self, read: Callable[[], Awaitable[T]], within: float) -> T:
        """Read the first message of a stream. Raises SilentError if it does not come in so many seconds.

        Of too many streams that wait for theirs, the one that has waited longest is ended.
        """
        try:
            async with asyncio.timeout(within) as wait:
                self._silent[wait] = None
                if len(self._silent) > self._most_silent:
                    longest = next(iter(self._silent))
                    del self._silent[longest]
                    longest.reschedule(asyncio.get_running_loop().time())
                return await read()
        except TimeoutError:
            waited = f"for {within:g} s" if wait in self._silent else f"while {self._most_silent} others came"
            raise SilentError(f"the client said nothing {waited}") from None
        finally:
            self._silent.pop(wait, None)

    def turn_of_strangers(self) -> AbstractAsyncContextManager[None]:
        """Wait for the strangers before: however many there are, others wait for one of them at most."""
        return _turn(self._strangers_turn)

    def turn_of_newcomers(self) -> AbstractAsyncContextManager[None]:
        """Wait for the first messages before this one: until it is read, nobody knows whose it is."""
        return _turn(self._newcomers_turn)

    def turn_of_long(self) -> AbstractAsyncContextManager[None]:
        """Wait for what else takes some ten milliseconds, whoever asked for it: others wait for one of that at most."""
        return _turn(self._long_turn, _ROUNDS_OF_A_REQUEST)

    async def in_turns(self, parts: Parts[T]) -> T:
        """Do what takes long in its parts, some milliseconds of them in each turn; return what comes of it."""
        while True:
            async with self.turn_of_long():
                ends = _now() + _SECONDS_OF_A_TURN
                try:
                    next(parts)
                    while _now() < ends:
                        next(parts)
                except StopIteration as end:
                    result: T = end.value
                    return result

    @contextmanager
    def visit(self, peer: str) -> Iterator[None]:
        """Count a call of somebody who does not say who they are as a stream. Raises TooManyStreamsError."""
        self.enter(peer)
        try:
            yield
        finally:
            self.leave(peer)

    def room_for(self, trusted: bool, size: int) -> AbstractAsyncContextManager[None]:
        """Wait until an answer of so many bytes may be packed and sent to a client."""
        return nullcontext() if trusted or size < _LARGE_ANSWER else self._large_answers

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


def _granted(caller: Caller) -> frozenset[ClientGrant]:
    """Return what of its grants is of xDS. Raises NotAllowedError if nothing is."""
    granted = frozenset(one for one in caller.granted if one.is_of_xds)
    if not granted:
        raise NotAllowedError(f"the client is {', '.join(sorted(map(str, caller.granted)))}, which is nobody for xDS")
    return granted


@asynccontextmanager
async def _turn(lock: asyncio.Lock, rounds: int = 1) -> AsyncIterator[None]:
    """Have all others that are ready go on, so many times, before the next of these does."""
    async with lock:
        try:
            yield
        finally:
            # What is done in a turn may be over before anybody else could ask for the lock.
            for _ in range(rounds):
                await asyncio.sleep(0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def address_of(peer: str) -> str:
    """Return the address of a peer as gRPC writes it (`ipv4:10.0.0.1:4711`), without the port."""
    return peer.rpartition(":")[0]


def host_of(peer: str) -> str:
    """Return the IP address of a peer in its usual form; empty for one that has none, such as a socket file."""
    return usual_form(unquote(address_of(peer)).partition(":")[2].strip("[]"))


def usual_form(text: str) -> str:
    """Return an IP address in the one form that is compared, without its zone; empty for what is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str((address.ipv4_mapped if address.version == 6 else None) or address)
