"""One check of one backend, and what it keeps until the next."""

from __future__ import annotations

import asyncio

from xds_server.checks.backend import Backend
from xds_server.checks.connection import Way
from xds_server.checks.exchange import Question, answered
from xds_server.checks.outcome import CheckError, NothingNewError, Outcome, answer_to, connected_to
from xds_server.checks.tokens import Tokens


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
