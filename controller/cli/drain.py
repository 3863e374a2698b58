"""How an Envoy leaves without a request being lost: by itself it ends at once on SIGTERM, and drops what it has.

1. It says that it goes: readiness probes fail, each answer asks the client to connect anew (`connection: close`,
   GOAWAY). New connections are still served, since whoever sends them has not noticed yet.
2. After the delay it accepts no more connections.
3. It is over when no request was in flight, and none came, for a moment; or when the time is up.

Source: Envoy, "Draining"; Kubernetes, "Pod Lifecycle", section "Termination of Pods". An idle connection of HTTP/1.1
cannot be told anything (envoy issue 42305): it is closed at the end, as any server closes one that was idle for long.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from controller.api.timing import EnvoyTiming
from controller.cli.envoy_admin import EnvoyAdmin, Load

logger = logging.getLogger(__name__)

_QUIET_AFTER_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Drain:
    """How long it may take: `delay` seconds during which new connections are served, `seconds` in all."""

    delay: float
    seconds: float


async def drain(admin: EnvoyAdmin, wanted: Drain, at_once: asyncio.Event, timing: EnvoyTiming) -> None:
    """Take an Envoy out of service; it may be ended when this returns. `at_once` makes it return, whatever is left."""
    draining = asyncio.create_task(_drain(admin, wanted, timing))
    impatient = asyncio.create_task(at_once.wait())
    try:
        await asyncio.wait((draining, impatient), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            logger.warning("a second signal ends the drain")
        elif error := draining.exception():
            logger.warning("envoy cannot be drained", extra={"error": error})
    finally:
        for task in (draining, impatient):
            task.cancel()
        await asyncio.gather(draining, impatient, return_exceptions=True)


async def _drain(admin: EnvoyAdmin, wanted: Drain, timing: EnvoyTiming) -> None:
    """Raises EnvoyAdminError."""
    seen = _Seen(wanted.seconds, timing.drain_told_every)
    try:
        async with asyncio.timeout(wanted.seconds):
            await admin.fail_health_checks()
            await _serve_new_connections(admin, wanted.delay, seen)
            await admin.stop_listening()
            await _wait_until_quiet(admin, seen, timing.drain_looks_every)
    except TimeoutError:
        in_flight = seen.last.in_flight if seen.last else "unknown"
        logger.warning("envoy ends with requests in flight: the time is up", extra={"in_flight": in_flight})
    else:
        logger.info("drained envoy")


async def _serve_new_connections(admin: EnvoyAdmin, seconds: float, seen: _Seen) -> None:
    over = seen.now() + seconds
    while (left := over - seen.now()) > 0:
        seen.load(await admin.load())
        await asyncio.sleep(min(left, seen.tells_every))


async def _wait_until_quiet(admin: EnvoyAdmin, seen: _Seen, looks_every: float) -> None:
    """Wait until nothing is in flight and nothing comes: a client that has just connected may be about to ask."""
    quiet = 0
    while quiet < _QUIET_AFTER_LOOKS:
        before, now = seen.last, await admin.load()
        seen.load(now)
        quiet = quiet + 1 if now.idle and before and now.requests == before.requests else 0
        await asyncio.sleep(looks_every)


class _Seen:
    """What was seen of a drain so far; it tells of it every few seconds."""

    def __init__(self, seconds: float, tells_every: float) -> None:
        self.tells_every = tells_every
        self.now = asyncio.get_running_loop().time
        self.last: Load | None = None
        self._end = self.now() + seconds
        self._tells_next = 0.0

    def load(self, load: Load) -> None:
        self.last = load
        if self.now() < self._tells_next:
            return
        self._tells_next = self.now() + self.tells_every
        left = round(max(0.0, self._end - self.now()), 1)
        logger.info("draining envoy", extra={"in_flight": load.in_flight, "seconds_left": left})
