"""Envoys, each on the CPUs it is given."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.envoy import Envoy
from tests.support.processes import Children


class CannotRunError(Exception):
    """There is nothing to measure: an Envoy does not do what it is to do. The message says which."""


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


class Envoys(Children):
    """All Envoys of a run, and the programs beside them."""

    def envoy(self, name: str, bootstrap: str, cpus: frozenset[int], workers: int = 1) -> Envoy:
        """Start an Envoy from its bootstrap (YAML). Raises NoEnvoyError when there is none to start."""
        envoy = Envoy(name, bootstrap, self.folder, workers=workers, cpus=cpus)
        self.add(f"the Envoy of {name}", envoy.process)
        return envoy


@contextlib.contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Run this thread on some CPUs only, for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
