"""Every benchmark that has goals, one after another, and at the end what was missed: `make bench NAME=all`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import click

from benchmarks.proxies.signals import INTERRUPTED, until_signalled
from tests.support.processes import ends_with_me

WITH_GOALS = (
    "translation",
    "memory",
    "hosts",
    "joins",
    "hostile",
    "xds_hostile",
    "data_path",
    "surge",
    "kube",
    "signals",
    "failures",
    "decision",
    "takeover",
)
WITHOUT_GOALS = ("features", "load_reports")
"""They print what something costs, for the docs."""

_MISSED = "missed "
"""How a benchmark's line on a goal begins that it missed."""
_COULD_NOT_RUN = 2

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    a benchmark could not run, the others did
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=all
  python -m benchmarks.all translation data_path           some of them
"""


class Result(NamedTuple):
    """How a benchmark ended: its exit code, the goals it missed, and what it said last."""

    name: str
    code: int
    missed: tuple[str, ...] = ()
    last: str = ""


async def run(names: Sequence[str]) -> int:
    """Run them in this order, tell what is missed, and return the exit code. Raises OSError."""
    results = []
    for name in names:
        click.secho(f"\n== {name}\n", bold=True)
        result = await play(name, [sys.executable, "-u", "-m", f"benchmarks.{name}"])
        if result.code == INTERRUPTED:
            return INTERRUPTED
        results.append(result)
    click.echo("")
    for line in summary(results):
        click.echo(line)
    return exit_code(results)


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Write a line for each benchmark, and then one for each goal that was missed, and for each that could not run."""
    words = {0: "met", 1: "missed"}
    for one in results:
        yield f"{one.name:<14}{words.get(one.code, 'could not run')}"
    missed = [f"{one.name}: {goal}" for one in results for goal in one.missed]
    missed += [f"{one.name}: {one.last or 'it said nothing'}" for one in results if one.code and not one.missed]
    yield ""
    yield f"{len(missed)} missed" if missed else "every goal is met"
    yield from missed


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 if all goals are met, 2 if one could not be judged, else 1."""
    codes = {one.code for one in results}
    if codes - {0, 1}:
        return _COULD_NOT_RUN
    return max(codes, default=0)


async def play(name: str, command: Sequence[str]) -> Result:
    """Run one, show what it says while it says it, and pick out what it missed. Raises OSError."""
    missed, last = [], ""
    async with _started(command) as process:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            click.echo(line)
            if line.startswith(_MISSED):
                missed.append(line.removeprefix(_MISSED).strip())
            last = line.strip() or last
        return Result(name, await process.wait(), tuple(missed), last)


@contextlib.asynccontextmanager
async def _started(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a benchmark, and leave it no process: it ends its own at a SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *ends_with_me(command, signal.SIGTERM),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
        # A Ctrl-C in the terminal reaches this process alone.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("names", nargs=-1, type=click.Choice(WITH_GOALS), metavar="[NAME]...")
def main(names: Sequence[str]) -> None:
    """Run every benchmark that has goals, or those called NAME, and end with the goals that were missed.

    All take about forty minutes on two cores that do nothing else. `failures` writes docs/failures.md if all is met.
    """
    sys.exit(asyncio.run(until_signalled(run(names or WITH_GOALS))))


if __name__ == "__main__":
    main()
