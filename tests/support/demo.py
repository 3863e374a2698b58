"""`python -m demo` as a user starts it, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import ROOT, ends_with_me


@contextmanager
def start_demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo; every process of it has `folder` in its arguments. A test that fails kills it."""
    with subprocess.Popen(
        ends_with_me((sys.executable, "-m", "demo", *options, "--output", folder / "demo.png")),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def read_until(demo: subprocess.Popen[str], words: str) -> None:
    """Read what it says, up to a line with these words."""
    assert demo.stdout is not None
    read = []
    for line in demo.stdout:
        read.append(line)
        if words in line:
            return
    raise AssertionError(f"the demo ended before it said {words!r}:\n{''.join(read)}")
