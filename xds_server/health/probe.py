"""Whether the token endpoint of a backend gives tokens. The tokens are Envoy's business: what comes is thrown away."""

from __future__ import annotations

import asyncio
import json
import re

from xds_server.health import outcome
from xds_server.health.backend import Backend, TokenRequest, Trust
from xds_server.health.connection import Answer, Question, Way, answered
from xds_server.health.outcome import CheckError, NothingNewError, Outcome, answer_to, connected_to
from xds_server.health.schedule import token_pause_after, token_pause_within

# In seconds; a number can be larger than any that Python calculates with.
_LONGEST_LIFE = 1_000_000_000

_DIGITS = re.compile(r"[0-9]{1,20}")

# RFC 6749, section 5.2, and those of section 4.1.2.1 that servers say here, too. Other words of a server are not told:
# whoever writes a ModelDeployment could have any server's answer read to him.
_ERRORS = (
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
)


class Tokens:
    """One token endpoint as one backend uses it; it is asked no more often than a token is needed."""

    def __init__(self, request: TokenRequest) -> None:
        self.request = request
        self._failures = 0
        self._due = 0.0

    async def check(self, way: Way, deadline: float) -> None:
        """See that there are tokens. Raises CheckError; NothingNewError while the last failure is all there is."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            if self._failures:
                raise NothingNewError
            return
        try:
            lifetime = await self._issued(way, deadline)
        except CheckError:
            self._failures += 1
            self._due = loop.time() + token_pause_after(self._failures, way.timing)
            raise
        self._failures = 0
        self._due = loop.time() + token_pause_within(lifetime, way.timing)

    async def _issued(self, way: Way, deadline: float) -> float:
        asked = self.request
        trust = Trust(server_name=asked.place.host) if asked.over_tls else None
        question = Question(asked.authority, asked.target, asked.form.get_secret_value())
        try:
            async with way.connected(asked.place, trust, deadline) as stream:
                answer = await answered(stream, question, deadline)
        except CheckError as error:
            raise outcome.no_token(error.message) from None
        return _lifetime(answer, asked.place.host)


def _lifetime(answer: Answer, host: str) -> float:
    """Read how many seconds the token lives; Envoy uses none whose life it does not know."""
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    said = said if isinstance(said, dict) else {}
    if answer.status != 200:
        known = f" ({said['error']})" if said.get("error") in _ERRORS else ""
        raise outcome.no_token(f"{host} answers {answer.status}{known}")
    if not said.get("access_token") or not isinstance(said["access_token"], str):
        raise outcome.no_token(f"{host} answers 200 without a token")
    lifetime = _whole_seconds(said.get("expires_in"))
    if lifetime is None:
        raise outcome.no_token(f"{host} does not say how long it lives (expires_in)")
    return float(min(lifetime, _LONGEST_LIFE))


def _whole_seconds(said: object) -> int | float | None:
    """Take what Envoy takes, the JSON form of an unsigned integer of Protocol Buffers: also "3600", as some say it."""
    if isinstance(said, str):
        # A number of so many digits is one that Python reads.
        return int(said) if _DIGITS.fullmatch(said) else None
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return said if said >= 0 and (isinstance(said, int) or said.is_integer()) else None


class Probe:
    """Checks a backend; `before` is the probe of the same backend before it changed."""

    def __init__(self, backend: Backend, way: Way, before: Probe | None = None) -> None:
        self.backend = backend
        self._way = way
        self._tokens = Tokens(backend.token) if backend.token else None
        if before and before._tokens and before._tokens.request == backend.token:
            self._tokens = before._tokens

    async def check(self) -> Outcome | None:
        """Check once; None when that taught nothing new."""
        try:
            return await self._steps(asyncio.get_running_loop().time() + self._way.timing.longest)
        except CheckError as error:
            return error.outcome
        except NothingNewError:
            return None

    async def _steps(self, deadline: float) -> Outcome:
        backend, now = self.backend, asyncio.get_running_loop().time
        patience = backend.patience.total_seconds()
        async with self._way.connected(backend.place, backend.trust, min(deadline, now() + patience)) as stream:
            if self._tokens:
                await self._tokens.check(self._way, deadline)
            if not backend.path:
                return connected_to(backend.place, over_tls=backend.trust is not None)
            # Without the credential: Envoy's own health check has none either.
            question = Question(backend.authority, backend.path)
            answer = await answered(stream, question, min(deadline, now() + patience))
            return answer_to(backend.path, answer.status)
