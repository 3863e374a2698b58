"""What a process has used so far, as Linux tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proxies.envoys import cpu_clock
from tests.support.beamlit import processes_of
from tests.tools import binaries

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One running process, by its id."""

    name: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its threads have used, user and system. Raises CannotRunError."""
        return time.clock_gettime(cpu_clock(self.pid))

    def resident_bytes(self) -> int:
        """Return how much memory it holds now. Raises OSError when it is gone."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * _KIB if found else 0


def api_server_in(folder: Path) -> Sequence[Process]:
    """Find the kube-apiserver and the etcd that keep their files in this folder."""
    programs = tuple(f"{program()} " for program in (binaries.etcd, binaries.kube_apiserver))
    return [Process("API server", pid) for pid, command in processes_of(folder).items() if command.startswith(programs)]
