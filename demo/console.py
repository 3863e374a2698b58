"""What the demo prints: plain lines for a terminal or a log; colour only on a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import click

from benchmarks.load import Summary

_WIDTH = 96
_HEADER = "   time  requests   local  remote  failed       p50       p99  decision"


class Console:
    """Prints; click leaves the colours out where the output is no terminal."""

    def step(self, text: str) -> None:
        """Something about the start or the end."""
        click.echo(text)

    def header(self) -> None:
        """The titles of the columns of `second`."""
        click.secho(f"\n{_HEADER}", bold=True)

    def second(self, second: int, summary: Summary, decision: str) -> None:
        """One second of load: the requests that ended in it."""
        line = second_line(second, summary, decision)
        click.secho(line, fg="red" if summary.failed else None)

    def event(self, at: float, text: str) -> None:
        """Something the demo did to the servers."""
        click.secho(_wrapped(at, text), fg="yellow", bold=True)

    def decision(self, at: float, text: str) -> None:
        """The controller decided otherwise."""
        click.secho(_wrapped(at, text), fg="cyan")

    def table(self, rows: Sequence[tuple[str, Summary]]) -> None:
        """The summary at the end, one row per phase."""
        click.secho(
            f"\n{'phase':<22}{'requests':>9}{'local':>8}{'remote':>8}{'failed':>8}{'p50':>10}{'p99':>10}", bold=True
        )
        for name, row in rows:
            line = f"{name:<22}{row.requests:>9}{row.local:>8}{row.remote:>8}{row.failed:>8}"
            click.secho(
                f"{line}{milliseconds(row.p50):>10}{milliseconds(row.p99):>10}", fg="red" if row.failed else None
            )


def second_line(second: int, summary: Summary, decision: str) -> str:
    """Return one line of the live table."""
    local = summary.local_share
    return (
        f"{second:>5} s{summary.requests:>10}{percent(local):>8}{percent(1 - local):>8}{summary.failed:>8}"
        f"{milliseconds(summary.p50):>10}{milliseconds(summary.p99):>10}  {decision}"
    )


def percent(share: float) -> str:
    """Return a share in whole percent; a share that is not quite 0 or 1 is not shown as such."""
    if math.isnan(share):
        return "-"
    whole = round(share * 100) if share in (0, 1) else min(max(round(share * 100), 1), 99)
    return f"{whole} %"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds."""
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.0f} ms"


def _wrapped(at: float, text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=f"{at:>7.1f} s  ", subsequent_indent=" " * 11)
