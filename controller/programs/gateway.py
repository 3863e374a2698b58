"""What `beamlit envoy` does: start an Envoy as a child, watch it, and drain it before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from controller.api.timing import EnvoyTiming, Timing
from controller.gateway.admin import SOCKET, Drain, EnvoyAdmin, EnvoyAdminError, drain
from controller.gateway.bootstrap import HostPort, bootstrap_for
from controller.gateway.process import ENVOY_FLAGS, NoEnvoyError, envoy_binary
from controller.programs.admin import Admin
from controller.programs.configuration import NodeTokenError, read_node_token
from controller.programs.lifetime import CannotStartError, log_to_stderr, process_registry, signalled, started
from controller.programs.state import State, StateError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What the command line says."""

    arguments: tuple[str, ...]
    xds_address: HostPort
    node_id: str
    envoy_binary: Path | None
    admin_address: HostPort
    drain_delay: float
    drain_seconds: float
    node_token_file: Path | None
    state_dir: Path
    log_level: str
    timing: Timing


def serve(options: GatewayOptions) -> int:
    """Run until a signal or the end of the Envoy, and return the exit code. Exits with 1 when it cannot start."""
    log_to_stderr(options.log_level)
    try:
        return asyncio.run(_run(options))
    except (CannotStartError, NoEnvoyError, NodeTokenError, StateError) as error:
        raise click.ClickException(str(error)) from error


async def _run(options: GatewayOptions) -> int:
    at_once = asyncio.Event()
    stop, timing = signalled(at_once), options.timing.envoy
    readiness = _Readiness()
    async with contextlib.AsyncExitStack() as stack:
        reason, farewell = (lambda: readiness.reason), options.timing.farewell
        health = Admin(not_ready=reason, metrics=process_registry(), shutdown=farewell)
        port = await stack.enter_async_context(health.served("--admin-address", options.admin_address))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamlit-envoy-")))
        process = await stack.enter_async_context(_envoy(options, folder))
        admin = await stack.enter_async_context(EnvoyAdmin.of(folder))
        started(stack, readiness.follow(admin, timing))
        shown = HostPort(options.admin_address.host, port)
        logger.info("started envoy", extra={"pid": process.pid, "admin": shown, "envoy_admin": folder / SOCKET})
        if await _ended_before(process, stop.wait()):
            return _exit_code(process)
        readiness.draining = True
        wanted = Drain(options.drain_delay, options.drain_seconds)
        return _exit_code(process) if await _ended_before(process, drain(admin, wanted, at_once, timing)) else 0


async def _ended_before(process: asyncio.subprocess.Process, other: Coroutine[Any, Any, object]) -> bool:
    """Wait for the end of a process or of something else; tell whether the process was first."""
    ended, done = asyncio.create_task(process.wait()), asyncio.create_task(other)
    try:
        await asyncio.wait((ended, done), return_when=asyncio.FIRST_COMPLETED)
        return ended.done()
    finally:
        ended.cancel()
        done.cancel()
        await asyncio.gather(ended, done, return_exceptions=True)


def _exit_code(process: asyncio.subprocess.Process) -> int:
    """Return the code of a process that ended by itself, as a shell would."""
    code = process.returncode or 0
    logger.error("envoy ended by itself", extra={"code": code})
    return code if code >= 0 else 128 - code


class _Readiness:
    """Whether the Envoy should get requests."""

    def __init__(self) -> None:
        self.draining = False
        self._said: str | None = "Envoy has not started yet"

    @property
    def reason(self) -> str | None:
        """Why it should not, None if it should."""
        return "draining" if self.draining else self._said

    async def follow(self, admin: EnvoyAdmin, timing: EnvoyTiming) -> None:
        """Ask it again and again."""
        while True:
            try:
                async with asyncio.timeout(timing.answers_within):
                    self._said = await admin.not_ready()
            except (EnvoyAdminError, TimeoutError) as error:
                self._said = f"Envoy does not answer at its admin interface: {error or 'it takes too long'}"
            await asyncio.sleep(timing.asked_every)


@contextlib.asynccontextmanager
async def _envoy(options: GatewayOptions, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the Envoy; it does not outlive the block, nor this process (it asks the kernel for that)."""
    token = (
        read_node_token(options.node_token_file) if options.node_token_file else State(options.state_dir).node_token()
    )
    config = folder / "bootstrap.yaml"
    config.touch(mode=0o600)
    config.write_text(bootstrap_for(options.node_id or socket.gethostname(), token, options.xds_address, SOCKET))
    process = await asyncio.create_subprocess_exec(
        options.envoy_binary or envoy_binary(),
        *("--config-path", str(config), *ENVOY_FLAGS, *options.arguments),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        # Ctrl-C in a terminal goes to this program alone, which drains it.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        await _end(process, options.timing.envoy.ends_within)


async def _end(process: asyncio.subprocess.Process, within: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
