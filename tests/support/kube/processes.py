"""What runs of an API server, from outside."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def processes_naming(folder: Path) -> list[str]:
    """The names of the programs that were started with this folder's etcd or kube-apiserver in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # It may end meanwhile.
            program, *arguments = (process / "cmdline").read_bytes().decode().split("\0")
            if any(f"={folder}" in argument for argument in arguments):
                found.append(program)
    return found
