"""How much memory this process and its children may have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_limit(of_process: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Read the bytes: the least limit of a control group that this process is in, or what the host has.

    `of_process` lists its groups (cgroups(7)): those of version 2 on a line of their own, `0::/path`, those of version
    1 by their controllers. In a container the path may be that of the host, and its own group the root.
    """
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((host, *_limits(of_process, cgroups)))


def _limits(of_process: Path, cgroups: Path) -> Iterator[int]:
    try:
        lines = of_process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for one in (group, *group.parents):
            # What is not there, cannot be read or says `max` limits nothing.
            with contextlib.suppress(OSError, ValueError):
                yield int((one / name).read_text())
            if one == root:
                break
