"""Envoys, each on the CPUs it is given, and what CPU they used."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.cli.envoy_process import NoEnvoyError, envoy_binary

_LAUNCHED = Path(__file__).with_name("launched.py")


class CannotRunError(Exception):
    """There is nothing to measure: an Envoy did not start, or does not do what it is to do. The message says which."""


@dataclass(frozen=True, slots=True)
class Cpus:
    """The proxies run on one CPU, the load and the upstream on another, so that neither is measured with the other."""

    proxies: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_process(cls) -> Cpus:
        """Divide the CPUs that this process may use; a single one is shared by everything. Raises CannotRunError."""
        if sys.platform != "linux":
            raise CannotRunError("this measures CPU time as Linux tells it, and runs on nothing else")
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others[:1] or (first,)))


class Envoy:
    """One running Envoy, or another program."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._clock = cpu_clock(process.pid)

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its threads have used, user and system, to the nanosecond."""
        return time.clock_gettime(self._clock)

    def check(self) -> None:
        """Raise CannotRunError if it ended."""
        if self._process.poll() is not None:
            words = "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])
            raise CannotRunError(f"{self.name} ended:\n{words}")

    def stop(self) -> None:
        """Kill it and wait until it is gone."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Envoys:
    """All Envoys of a run; leaving the context ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Envoy] = []

    def start(self, name: str, config: str, cpus: frozenset[int], workers: int = 1) -> Envoy:
        """Start one from its configuration (YAML). Raises CannotRunError when there is no Envoy to start."""
        try:
            binary = envoy_binary()
        except NoEnvoyError as error:
            raise CannotRunError(str(error)) from error
        file = self._file(name, "yaml")
        file.touch(mode=0o600)
        file.write_text(config)
        flags = ["--concurrency", workers, "--disable-hot-restart", "--log-level", "warning"]
        return self.launch(f"the Envoy of {name}", [binary, "--config-path", file, *flags], cpus)

    def launch(self, name: str, command: Sequence[object], cpus: frozenset[int]) -> Envoy:
        """Start a program that ends with the Envoys."""
        log = self._file(name, "log")
        where = [os.getpid(), ",".join(map(str, sorted(cpus)))]
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(map(str, [sys.executable, "-I", "-S", _LAUNCHED, *where, *command])),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in a terminal goes to the benchmark alone, which ends them.
                start_new_session=True,
            )
        envoy = Envoy(name, process, log)
        self._started.append(envoy)
        return envoy

    def check(self) -> None:
        """Raise CannotRunError if one ended."""
        for envoy in self._started:
            envoy.check()

    def _file(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name.replace('/', '-').replace(' ', '-')}.{suffix}"

    def __enter__(self) -> Envoys:
        return self

    def __exit__(self, *_: object) -> None:
        for envoy in self._started:
            envoy.stop()


def free_network(port: int) -> str:
    """Find a loopback network 127.x.y that nobody uses, by `port` of its first 120 addresses; return its prefix."""
    while True:
        prefix = f"127.{random.randint(16, 254)}.{random.randint(1, 254)}"
        if all(_is_free(f"{prefix}.{number}", port) for number in range(1, 121)):
            return prefix


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((host, port))
        return True
    return False


def cpu_clock(pid: int) -> int:
    """Return the CPU-time clock of a process: clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise CannotRunError(f"no CPU clock of process {pid}: {os.strerror(error)}")
    return clock.value


@contextlib.contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Run this thread on some CPUs only, for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
