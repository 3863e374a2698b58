"""What clients see of each thing that can fail: the failure matrix with many requests, written into docs/failures.md.

The cells are those of tests/data_plane/failures, each played by itself; see tests/support/failures.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.matrix.document import Row, as_markdown, row_of, spliced
from tests.support.data_plane.plane import MEASURED
from tests.support.failures.cases import Cell, cells
from tests.support.failures.clients import Size
from tests.support.failures.play import Part, come_of
from tests.support.failures.site import Site
from tests.support.network import Network

INTERRUPTED = 130
DOCUMENT = Path(__file__).parents[1] / "docs" / "failures.md"
_CLIENTS = 100
_SECONDS = 60.0

EPILOG = """\b
Exit codes:
  0    every cell keeps its promise
  1    some do not; they are named, and docs/failures.md is left as it is
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=failures
  python -m benchmarks.failures --only 503 --requests 2000      some cells, quicker; nothing is written
"""


async def run(chosen: Sequence[Cell], requests: int) -> Sequence[Row]:
    """Play the cells one after another, and tell of each. Raises OSError."""
    size, rows, begun = Size(requests, _SECONDS, _CLIENTS), list[Row](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="failures-") as folder:
        async with Site(Network.unused(), Path(folder), timing=MEASURED).running() as site:
            for number, cell in enumerate(chosen, 1):
                try:
                    (outcome,) = await come_of(site, [Part(cell)], size)
                    row = row_of(cell, outcome)
                except AssertionError as error:  # what was waited for did not come
                    row = Row(cell, ("?",) * 5, (str(error),))
                rows.append(row)
                passed = time.monotonic() - begun
                click.echo(f"{passed:>5.0f} s  {number:>3} of {len(chosen)}  {row}")
    return rows


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--requests",
    type=click.IntRange(500, 100_000),
    default=20_000,
    show_default=True,
    help="How many requests each cell has at least.",
)
@click.option("--only", default="", help="Play only the cells whose name has this in it, and write nothing.")
def main(requests: int, only: str) -> None:
    """Play everything that can fail, with each split, under load.

    Prints how each cell went, and writes the table into docs/failures.md if all of them keep their promise. Takes about
    20 minutes; a cell that takes longer than a minute is cut, and missed.
    """
    chosen = [cell for cell in cells() if only in str(cell)]
    if not chosen:
        raise click.BadParameter("there is no such cell", param_hint="--only")
    try:
        rows = asyncio.run(_until_signalled(chosen, requests))
    except asyncio.CancelledError:
        click.echo("\ninterrupted; every process of the benchmark is gone", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        click.secho(f"\ncould not run: {error}", fg="red", err=True)
        sys.exit(2)
    missed = [row for row in rows if row.breaches]
    for row in missed:
        click.echo(f"missed  {row}")
    click.echo(f"{len(rows) - len(missed)} of {len(rows)} cells keep their promise")
    if not missed and not only:
        DOCUMENT.write_text(spliced(DOCUMENT.read_text(), as_markdown(rows)))
    sys.exit(1 if missed else 0)


async def _until_signalled(chosen: Sequence[Cell], requests: int) -> Sequence[Row]:
    """Run; SIGINT and SIGTERM cancel it, and it takes its processes down with it."""
    benchmark = asyncio.create_task(run(chosen, requests))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, benchmark.cancel)
    return await benchmark


if __name__ == "__main__":
    main()
