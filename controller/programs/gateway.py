"""`beamlit envoy`: start an Envoy as a child, watch it, and drain it before it ends."""

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
from controller.gateway.admin import SOCKET, DrainOptions, EnvoyAdmin, EnvoyAdminError, drain
from controller.gateway.bootstrap import HostPort, Provision, XdsAddress, bootstrap_for
from controller.gateway.client_tls import ClientTls, sds_files
from controller.gateway.memory import memory_limit
from controller.gateway.process import ENVOY_FLAGS, NoEnvoyError, envoy_binary
from controller.programs.admin import Admin, process_registry
from controller.programs.certificate_expiry import CertificateExpiry
from controller.programs.lifetime import CannotStartError, handle_signals, log_to_stderr, start_tasks
from controller.programs.metrics import GatewayMetrics
from controller.programs.state import NodeTokenError, StateDirectory, StateError, node_token

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What the command line says."""

    arguments: tuple[str, ...]
    xds_address: XdsAddress
    node_id: str
    envoy_binary: Path | None
    admin_address: HostPort
    drain_delay: float
    drain_seconds: float
    memory: int | None
    connections: int
    all_statistics: bool
    node_token_file: Path | None
    tls: ClientTls | None
    state: StateDirectory
    log_level: str
    log_format: str
    timing: Timing


def serve(options: GatewayOptions) -> int:
    """Run until a signal or the end of the Envoy, and return the exit code. Exits with 1 when it cannot start."""
    log_to_stderr(options.log_level, options.log_format)
    try:
        return asyncio.run(_run(options))
    except (CannotStartError, NoEnvoyError, NodeTokenError, StateError) as error:
        raise click.ClickException(str(error)) from error


async def _run(options: GatewayOptions) -> int:
    draining = DrainOptions(options.drain_delay, options.drain_seconds, asyncio.Event())
    stop, timing = handle_signals(draining.at_once), options.timing.envoy
    readiness = _Readiness()
    async with contextlib.AsyncExitStack() as stack:
        registry = process_registry("envoy")
        CertificateExpiry(registry, "--xds-cert", options.tls.certificate if options.tls else None)
        requests = GatewayMetrics(registry, timing.answers_within)
        health = Admin(lambda: readiness.reason, registry, refresh=requests.refresh, shutdown=options.timing.shutdown)
        port = await stack.enter_async_context(health.served("--admin-address", options.admin_address))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamlit-envoy-")))
        process = await stack.enter_async_context(_envoy(options, folder))
        admin = requests.envoy = await stack.enter_async_context(EnvoyAdmin.connect(folder))
        start_tasks(stack, readiness.follow(admin, timing))
        address = HostPort(options.admin_address.host, port)
        logger.info("started envoy", extra={"pid": process.pid, "admin": address, "envoy_admin": folder / SOCKET})
        if await _ends_before(process, stop.wait()):
            return _exit_code(process)
        readiness.draining = True
        return _exit_code(process) if await _ends_before(process, drain(admin, draining, timing)) else 0


async def _ends_before(process: asyncio.subprocess.Process, other: Coroutine[Any, Any, object]) -> bool:
    """Wait for the end of a process or of something else; return whether the process was first."""
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
        self._reason: str | None = "Envoy has not started yet"

    @property
    def reason(self) -> str | None:
        """Why it should not, None if it should."""
        return "draining" if self.draining else self._reason

    async def follow(self, admin: EnvoyAdmin, timing: EnvoyTiming) -> None:
        """Ask the Envoy again and again, until cancelled."""
        was_told = False
        while True:
            try:
                async with asyncio.timeout(timing.answers_within):
                    # What it was told it keeps; and to look through all its statistics twice a second costs.
                    self._reason = await (admin.not_live() if was_told else admin.not_ready())
                    was_told = was_told or self._reason is None
            except (EnvoyAdminError, TimeoutError) as error:
                self._reason = f"Envoy does not answer at its admin interface: {error or 'it takes too long'}"
            await asyncio.sleep(timing.readiness_every)


@contextlib.asynccontextmanager
async def _envoy(options: GatewayOptions, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the Envoy; it does not outlive the block, nor this process (it asks the kernel for that)."""
    token = _token(options)
    config = folder / "bootstrap.yaml"
    config.touch(mode=0o600)
    memory = options.memory or memory_limit()
    provision = Provision(memory, options.connections, options.all_statistics, options.tls, folder)
    if options.tls and isinstance(options.xds_address, HostPort):
        _check(options.tls)
        for name, content in sds_files(options.tls, options.xds_address.host).items():
            (folder / name).write_text(content)
    node_id = options.node_id or socket.gethostname()
    config.write_text(bootstrap_for(node_id, token, options.xds_address, SOCKET, provision))
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


def _token(options: GatewayOptions) -> str:
    """Return the token that the Envoy carries: with TLS none but the one that is named, for its certificate speaks."""
    if options.tls and options.node_token_file is None:
        return ""
    return node_token(options.node_token_file, options.state)


def _check(tls: ClientTls) -> None:
    """Look at the files before Envoy does, which says of them what few understand. Raises CannotStartError."""
    try:
        tls.context()
        tls.headers()
    except OSError as error:  # ssl.SSLError is one
        shown = f"--xds-token-file {tls.token}" if tls.token else f"--xds-cert {tls.certificate}, --xds-key {tls.key}"
        files = f"--xds-ca {tls.ca}, {shown}"
        raise CannotStartError(f"{files}: {error.strerror or error}") from error


async def _end(process: asyncio.subprocess.Process, within: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
