"""Whose token a client shows, as the API server says it: asked once for each token, and rarely for those of nobody.

A token is asked about again after some minutes, so that one of a pod or an account that is gone ends. While the API
server cannot be asked, what it said of a token before holds until the token ends.

What strangers cost the API server is bounded. What is no token of this audience, or one that has ended, is never asked
about. Each address has one new token looked at at a time, so however many wait at one, others wait for one of them at
most. And an address whose tokens are nobody's, or of accounts that are no clients, has some of them looked at, and then
one each second; one each second, too, while the API server cannot say. None of this keeps those that are known out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from controller.api.timing import REAL
from xds_server.stream.callers import (
    CallerError,
    CannotTellError,
    NotAllowedError,
    TokenHolder,
    TooManyTokensError,
    UnknownCallerError,
)
from xds_server.stream.limits import LONGEST_WORD, printable

LONGEST_TOKEN = 8192
"""In characters; that of a ServiceAccount has some 1,200."""
# The API server takes a token with spaces in it, too: one token would be as many as its holder likes.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_LATEST = 253_402_300_800
"""The year 10000, in seconds since the epoch: no token ends later."""


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """How long an answer is believed (seconds), how many are kept, and how often it may be asked.

    `rest` is how long an address is asked nothing new for after the API server could not say.
    """

    known_for: float = 300.0
    refused_for: float = 10.0
    most_known: int = 10_000
    most_refused: int = 2_000
    at_once: int = 4
    waiting_of_an_address: int = 50
    refusals_of_an_address: int = 20
    answer: float = 5.0
    rest: float = REAL.streams.token_rest


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What the API server says of a token that it knows."""

    name: str
    pod: str = ""


Review = Callable[[str], Awaitable[Reviewed | None]]
"""Asks about a token; None: it is nobody's, or not for this audience. Raises CannotTellError."""


@dataclass(slots=True)
class _Address:
    """What one address costs: `left` of its tokens that are no client's may still be asked about, one more each second.

    `silent_since` is when the API server could not say the last time, `because` of what.
    """

    left: float
    at: float
    waiting: int = 0
    silent_since: float = -math.inf
    because: str = ""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def refill(self, now: float, most: int) -> float:
        self.left = min(self.left + max(now - self.at, 0.0), most)
        self.at = now
        return self.left


@dataclass(frozen=True, slots=True)
class _Known:
    holder: TokenHolder
    fresh_until: float


@dataclass(frozen=True, slots=True)
class _Refused:
    error: type[CallerError]
    because: str
    until: float


_MOST_ADDRESSES = 4_096


def _anybody(_: str) -> bool:
    return True


class ReviewedTokens:
    """The holders of tokens for one audience.

    `is_client` tells by the name of an account whether its tokens are of any use here: any pod of a cluster can have
    one for this audience. `clock` is the wall clock, in seconds since the epoch.
    """

    def __init__(
        self,
        review: Review,
        audience: str,
        is_client: Callable[[str], bool] = _anybody,
        limits: TokenLimits = TokenLimits(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._review = review
        self._audience = audience
        self._is_client = is_client
        self._limits = limits
        self._clock = clock
        # By a hash: a token is kept no longer than it takes to ask.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[TokenHolder]] = {}
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._slots = asyncio.Semaphore(limits.at_once)

    async def holder(self, token: str, address: str) -> TokenHolder:
        """Return who holds a token.

        Raises UnknownCallerError, NotAllowedError, CannotTellError and TooManyTokensError.
        """
        now = self._clock()
        ends = self._end_of(token, now)
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known is not None and now < known.fresh_until:
            self._known.move_to_end(key)
            return known.holder
        refused = self._refused.get(key)
        if refused is not None and now < refused.until:
            raise refused.error(refused.because)
        asking = self._asking.get(key)
        if asking is None:
            # Who is known is not kept out by what others of its address show.
            answer = self._new(token, address) if known is None else self._answer(token)
            asking = self._asking[key] = asyncio.create_task(self._ask(key, ends, answer))
            asking.add_done_callback(lambda task: self._asked(key, task))
        try:
            # One who goes away leaves the question to others that wait for it.
            return await asyncio.shield(asking)
        except CannotTellError:
            if known is None:
                raise
            # What was known holds, and the next one to come need not wait for as long.
            self._known[key] = _Known(known.holder, min(ends, self._clock() + self._limits.refused_for))
            return known.holder

    def _end_of(self, token: str, now: float) -> float:
        """Return when a token ends, as it says itself: true once the API server has said whose it is."""
        claims = _claims(token)
        audiences, ends = claims.get("aud"), claims.get("exp")
        if self._audience not in (audiences if isinstance(audiences, list) else [audiences]):
            raise UnknownCallerError(f"the token is not for the audience {self._audience}")
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not ends < _LATEST:
            raise UnknownCallerError("the token does not say when it ends (exp)")
        if ends <= now:
            raise UnknownCallerError("the token has ended")
        return float(ends)

    async def _ask(self, key: bytes, ends: float, answer: Awaitable[Reviewed | None]) -> TokenHolder:
        reviewed = await answer
        if reviewed is None:
            words = "the API server does not know the token, or not for this audience"
            raise self._refuse(key, UnknownCallerError(words))
        if not self._is_client(reviewed.name):
            words = f"no client of this server is {printable(reviewed.name, LONGEST_WORD)}"
            raise self._refuse(key, NotAllowedError(words))
        holder = TokenHolder(reviewed.name, reviewed.pod, ends)
        self._known[key] = _Known(holder, min(ends, self._clock() + self._limits.known_for))
        self._known.move_to_end(key)
        _shrink(self._known, self._limits.most_known)
        return holder

    def _refuse(self, key: bytes, error: CallerError) -> CallerError:
        """Remember for some seconds that a token is no client's, and why."""
        self._known.pop(key, None)
        self._refused[key] = _Refused(type(error), str(error), self._clock() + self._limits.refused_for)
        _shrink(self._refused, self._limits.most_refused)
        return error

    async def _new(self, token: str, address: str) -> Reviewed | None:
        """Ask about a token that is not known, within the bounds of its address."""
        limits, whose = self._limits, self._address(address)
        if whose.waiting >= limits.waiting_of_an_address:
            raise TooManyTokensError(f"{limits.waiting_of_an_address} tokens of this address wait to be looked at")
        whose.waiting += 1
        try:
            async with whose.turn:
                if 0 <= self._clock() - whose.silent_since < limits.rest:
                    raise CannotTellError(whose.because)
                if whose.refill(self._clock(), limits.refusals_of_an_address) < 1:
                    raise TooManyTokensError("this address showed too many tokens that are no client's: one a second")
                try:
                    reviewed = await self._answer(token)
                except CannotTellError as error:
                    whose.silent_since, whose.because = self._clock(), str(error)
                    raise
                if reviewed is None or not self._is_client(reviewed.name):
                    whose.left -= 1
                return reviewed
        finally:
            whose.waiting -= 1

    async def _answer(self, token: str) -> Reviewed | None:
        try:
            async with asyncio.timeout(self._limits.answer), self._slots:
                return await self._review(token)
        except TimeoutError:
            raise CannotTellError(
                f"the API server did not say in {self._limits.answer:g} s whose token it is"
            ) from None

    def _asked(self, key: bytes, task: asyncio.Task[TokenHolder]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # Whoever waited has it; there may be nobody left who does.

    def _address(self, address: str) -> _Address:
        """Return what is known of an address; of too many, those that ask nothing are forgotten, the oldest first."""
        found = self._addresses.setdefault(address, _Address(self._limits.refusals_of_an_address, self._clock()))
        self._addresses.move_to_end(address)
        if len(self._addresses) > _MOST_ADDRESSES:
            oldest = next((name for name, one in self._addresses.items() if not one.waiting and one is not found), None)
            if oldest is not None:
                del self._addresses[oldest]
        return found


def _shrink(kept: OrderedDict[bytes, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def _claims(token: str) -> dict[str, Any]:
    """Read what a token says of itself (RFC 7519), which anybody may have written. Raises UnknownCallerError."""
    compact = _COMPACT.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
    if compact:
        said = compact[1]
        try:
            claims = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        except (ValueError, RecursionError):
            claims = None
        if isinstance(claims, dict):
            return claims
    raise UnknownCallerError(f"the token is no JSON Web Token of at most {LONGEST_TOKEN} characters")
