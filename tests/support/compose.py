"""docker-compose.yml, and its services as processes: each at an address of its own, with the folders of its volumes.

It shows that the command lines fit together. What a container adds (the network, the file system) is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.forked import Forked
from tests.support.network import Network
from tests.support.processes import ROOT, Child, run

FILE = ROOT / "docker-compose.yml"
_POD = "service:pod"


def services() -> Mapping[str, Mapping[str, Any]]:
    """Every service of the file, anchors resolved and variables as they are by default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["services"]
    return found


def command_of(service: Mapping[str, Any]) -> tuple[str, ...]:
    """What a container of a service executes. A `$$` of the file is a `$`."""
    words = (*service.get("entrypoint", ()), *service.get("command", ()))
    return tuple(str(word).replace("$$", "$") for word in words)


class Composed:
    """Services that run as processes. What others call `pod` or `remote` is an address of loopback here."""

    def __init__(self, folder: Path) -> None:
        network = Network.unused()
        self._services = services()
        owners = [name for name, one in self._services.items() if one.get("network_mode") != _POD]
        self._addresses = {name: network.host(number) for number, name in enumerate(owners, 1)}
        self._folder = folder
        self._running: dict[str, Child | Forked] = {}
        for name in ("objects", "credentials", "state", "tmp"):
            (folder / name).mkdir(mode=0o700)

    @contextlib.contextmanager
    def running(self) -> Iterator[Composed]:
        """End everything afterwards."""
        try:
            yield self
        finally:
            for name, one in reversed(self._running.items()):
                if name == "envoy":
                    one.terminate()
                else:
                    one.kill()

    def address(self, name: str) -> str:
        """Where a service is."""
        shared = self._services[name].get("network_mode") == _POD
        return self._addresses["pod" if shared else name]

    def start(self, *names: str) -> None:
        """Start services, without waiting."""
        for name in names:
            (program, *words), log = self._command(name), self._folder / f"{name}.log"
            if program == "beamlit":
                self._running[name] = Forked(words, log, self._variables)
            else:
                variables = (f"{variable}={value}" for variable, value in self._variables.items())
                self._running[name] = Child(("/usr/bin/env", *variables, program, *words), log)

    def run(self, name: str) -> None:
        """Run a service to its end."""
        environment = {**os.environ, **self._variables}
        run(self._command(name), cwd=ROOT, env=environment, check=True, timeout=60)

    def kill(self, *names: str) -> None:
        """SIGKILL services, and nothing that others started."""
        for name in names:
            self._running.pop(name).kill()

    def log(self, name: str) -> str:
        """What a service has written, over all its starts."""
        return (self._folder / f"{name}.log").read_text()

    def _command(self, name: str) -> tuple[str, ...]:
        """Put addresses in place of names, and folders in place of volumes."""
        program, *words = command_of(self._services[name])
        own = self.address(name)
        program = sys.executable if program == "python3" else program
        return (program, *(self._here(word, own) for word in words))

    @property
    def _variables(self) -> Mapping[str, str]:
        """All that is below /tmp in a container is its own."""
        return {"TMPDIR": str(self._folder / "tmp")}

    def _here(self, word: str, own: str) -> str:
        word = re.sub(r"\b0\.0\.0\.0\b|\b127\.0\.0\.1\b", own, word)
        word = word.replace("/demo/", f"{self._folder}/").replace("/tmp/journal", f"{self._folder}/journal-{own}")
        word = re.sub(r"\bpython3\b", shlex.quote(sys.executable), word)
        names = "|".join(map(re.escape, self._addresses))
        return re.sub(rf"^({names})$|(?<=//)({names})(?=:)|(?:^|(?<==))({names})(?=:)", self._named, word)

    def _named(self, match: re.Match[str]) -> str:
        return self._addresses[next(name for name in match.groups() if name)]
