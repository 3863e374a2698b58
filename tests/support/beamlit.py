"""`beamlit` as a user starts it, requests as clients send them, and what of both can be seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import httpx

from controller.api.timing import Timing
from controller.gateway.process import envoy_binary
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.load import Traffic, open_loop
from tests.support.network import unused_port
from tests.support.processes import ROOT, Child, ends_with_me, kill_all, processes_of
from tests.support.timing import PATIENT
from tests.support.waiting import eventually, in_time, until

BEAMLIT = Path(sys.executable).with_name("beamlit")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    output: str
    errors: str


class Start(Protocol):
    """How a `beamlit` is started; what it prints goes to its log."""

    def __call__(
        self, arguments: Sequence[object], log: Path, environment: Mapping[str, str] | None = None, /
    ) -> Child | Forked:
        """Start it, without waiting."""


def executed(arguments: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start it as a user does, imports and all: for what a fork cannot show, and for what is measured."""
    variables = (f"{name}={value}" for name, value in (environment or {}).items())
    return Child(("/usr/bin/env", *variables, BEAMLIT, *arguments), log)


async def beamlit(*arguments: object, timing: Timing = PATIENT, **environment: str) -> Ended:
    """Run a command to its end, with these times; it is killed after 30 seconds."""
    with TemporaryDirectory() as folder:
        errors, output = Path(folder, "errors"), Path(folder, "output")
        process = Forked(arguments, errors, environment, output=output, context=timing)

        async def ended() -> bool:
            return not process.alive

        try:
            await until(ended, f"beamlit {arguments} ends", within=30)
        finally:
            process.kill()
        return Ended(process.terminate(), *(file.read_text() for file in (output, errors)))


async def executed_beamlit(*arguments: object, **environment: str) -> Ended:
    """Run a command to its end as a user does."""
    process = await asyncio.create_subprocess_exec(
        *ends_with_me((BEAMLIT, *arguments)),
        cwd=ROOT,
        env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await in_time(asyncio.ensure_future(process.communicate()), f"beamlit {arguments} ends")
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), errors.decode())


class Product:
    """One `beamlit run`, the folder it watches and its state folder. It may be started several times."""

    def __init__(self, home: Path, start: Start = Forked) -> None:
        self.home = home
        self.objects = home / "objects"
        self.objects.mkdir()
        self.state = home / "state"
        self.xds = f"127.0.0.1:{unused_port()}"
        self.admin = f"127.0.0.1:{unused_port()}"
        self._log = home / "beamlit.log"
        self._start = start
        self._process: Child | Forked | None = None

    @contextlib.asynccontextmanager
    async def running(self, *options: object) -> AsyncIterator[Product]:
        """Start it, and leave no process of this home behind, whoever started it."""
        try:
            await self.start(*options)
            yield self
            if self._process is not None and self._process.alive:
                await self.end(signal.SIGTERM)
        finally:
            if self._process is not None:
                self._process.kill()  # first: it would start its Envoy again
            kill_all(self.home)

    async def start(self, *options: object) -> None:
        """Start `beamlit run` and wait until it is ready."""
        self.launch(*options)
        await eventually(self.readiness, lambda status: status == 200)

    def launch(self, *options: object) -> None:
        """Start `beamlit run` without waiting."""
        addresses = ("--xds-address", self.xds, "--admin-address", self.admin)
        self._process = self._start(("run", self.objects, *addresses, "--state-dir", self.state, *options), self._log)

    def kill(self) -> None:
        """SIGKILL `beamlit run`, and nothing else."""
        assert self._process is not None
        self._process.kill()

    async def end(self, number: signal.Signals) -> int:
        """Signal `beamlit run` and return its exit code."""
        process = self._process
        assert process is not None
        process.send(number)

        async def alive() -> bool:
            return process.alive

        await eventually(alive, lambda alive: not alive)
        return process.terminate()

    def log(self) -> str:
        """What it has written to standard error, over all its starts."""
        return self._log.read_text()

    def save(self, name: str, text: str) -> None:
        """Save a file in the watched folder as good editors do: all at once."""
        partial = self.home / f"{name}.partial"
        partial.write_text(text)
        partial.replace(self.objects / name)

    def remove(self, name: str) -> None:
        (self.objects / name).unlink()

    def processes(self) -> Mapping[int, str]:
        """The ids and command lines of what runs of it. A forked program has no command line of its own."""
        own = {self._process.pid: "beamlit run"} if self._process is not None and self._process.alive else {}
        return {**own, **processes_of(self.home)}

    def envoy_pid(self) -> int:
        """The process id of its Envoy; 0 while there is none."""
        found = [pid for pid, command in processes_of(self.home).items() if command.startswith(str(envoy_binary()))]
        assert len(found) <= 1, found
        return found[0] if found else 0

    async def readiness(self) -> int:
        """The status of /readyz; 0 while nobody answers."""
        assert self._process is not None
        assert self._process.alive, f"beamlit run ended:\n{self._process.last_words()}"
        try:
            return (await self.look("/readyz")).status_code
        except httpx.TransportError:
            return 0

    async def look(self, path: str) -> httpx.Response:
        """GET from the admin address."""
        async with plain_http() as client:
            return await client.get(f"http://{self.admin}{path}")

    async def problems(self, file: str) -> list[str]:
        """What is wrong with one file."""
        report: dict[str, Any] = (await self.look("/status")).json()
        return [problem for problem in report["problems"] if problem.startswith(f"{file}:")]

    async def status(self, name: str) -> dict[str, Any]:
        """The status of one model; empty while it is unknown."""
        items = (await self.look("/status")).json()["items"]
        return next((one.get("status", {}) for one in items if one["metadata"]["name"] == name), {})

    async def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of one condition of one model; empty while it is unknown."""
        for one in (await self.status(name)).get("conditions", ()):
            if one["type"] == kind:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    async def split(self, name: str) -> str:
        """The split of one model and its reason, such as `100/0 Steady`."""
        split = (await self.status(name)).get("split")
        return f"{split['local']}/{split['remote']} {split['reason']}" if split else ""

    async def programmed(self, name: str) -> None:
        """Wait until every Envoy has acknowledged a model."""
        await eventually(lambda: self.condition(name, "Programmed"), lambda seen: seen[:2] == ("True", "Programmed"))


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request went: the side that answered, the server that did, or the name of the error."""

    side: str = ""
    server: str = ""
    error: str = ""


async def ask(port: int, *, host: str = "127.0.0.1", **headers: str) -> Reply:
    """Send one request, once, on a connection of its own. Its answer may take as long as a test holds it back."""
    try:
        async with plain_http(timeout=None) as client:
            answer = await client.get(f"http://{host}:{port}/", headers=headers)
    except httpx.TransportError as error:
        return Reply(error=type(error).__name__)
    if answer.status_code != 200:
        return Reply(error=f"status {answer.status_code}")
    return Reply(answer.headers.get("x-beamlit-route", ""), answer.headers.get("x-served-by", ""))


@contextlib.asynccontextmanager
async def no_request_fails(*ports: int, rate: float = 40.0, host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Send `rate` requests a second, each on a connection of its own, while the block runs; all must be answered."""
    stop = asyncio.Event()

    def arrivals() -> Iterator[float]:
        number = 0
        while not stop.is_set():
            yield number / rate
            number += 1

    urls = [f"http://{host}:{port}/" for port in ports]
    load = asyncio.create_task(open_loop(urls, arrivals(), Traffic(keepalive=False)))
    try:
        yield
    finally:
        stop.set()
        report = await load
    assert report.samples
    assert report.errors == {}, report.errors
