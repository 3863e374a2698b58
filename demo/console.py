"""What the demo prints: plain lines for a terminal or a log; colour only on a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import click

from demo.outcome import Phase, Tally
from demo.promises import Promise

_WIDTH = 110
_MARGIN = 10
_COUNTS = f"{'local':>7}{'remote':>8}{'cut':>5}{'failed':>8}"
_WAITS = f"{'p50':>9}{'p99':>10}"
_HEADER = f"{'time':>8}{'requests':>10}{'in flight':>11}{_COUNTS}{_WAITS}  decision"


class Console:
    """Prints; click leaves the colours out where the output is no terminal."""

    def step(self, text: str) -> None:
        """Something about the start or the end."""
        click.echo(text)

    def header(self) -> None:
        """The titles of the columns of `tick`."""
        click.echo(
            "\nRequests that ended in each half second; in flight: the most at the local replicas, and their places;\n"
            "p50, p99: milliseconds to the first byte.\n"
        )
        click.secho(_HEADER, bold=True)

    def tick(self, at: float, tally: Tally, flight: str, decision: str) -> None:
        """A part of a second of load: the requests that ended in it."""
        click.secho(tick_line(at, tally, flight, decision), fg="red" if tally.failed else None)

    def event(self, at: float, text: str) -> None:
        """Something the demo did to the servers."""
        click.secho(_wrapped(at, text), fg="yellow", bold=True)

    def decision(self, at: float, text: str) -> None:
        """The controller decided otherwise."""
        click.secho(_wrapped(at, text), fg="cyan")

    def table(self, phases: Sequence[Phase], whole: Tally) -> None:
        """The summary at the end, one row for each phase."""
        click.secho(f"\n{'phase':<22}{'requests':>8}{_COUNTS}{'most in flight':>17}{_WAITS}", bold=True)
        rows = [(one.name, one.tally, f"{one.most}/{one.capacity}") for one in phases]
        for name, tally, flight in [*rows, ("all", whole, "")]:
            line = f"{name:<22}{tally.requests:>8}{counts(tally)}{flight:>17}{waits(tally)}"
            click.secho(line, fg="red" if tally.failed else None)

    def promises(self, promises: Sequence[Promise]) -> None:
        """What was promised, and whether it was kept."""
        click.echo()
        for one in promises:
            word, colour = ("kept", "green") if one.kept else ("BROKEN", "red")
            click.secho(f"{word:<7} {one.text}: {one.measured}", fg=colour)


def tick_line(at: float, tally: Tally, flight: str, decision: str) -> str:
    """Return one line of the live view."""
    routed = tally.local + tally.remote
    share = tally.local / routed if routed else math.nan
    shares = f"{percent(share):>7}{percent(1 - share):>8}{tally.cut:>5}{tally.failed:>8}"
    return f"{at:>6.1f} s{tally.requests:>10}{flight:>11}{shares}{waits(tally)}  {decision}"


def counts(tally: Tally) -> str:
    """Return the columns of a tally that say what became of the requests."""
    return f"{tally.local:>7}{tally.remote:>8}{tally.cut:>5}{tally.failed:>8}"


def waits(tally: Tally) -> str:
    """Return the columns of a tally that say how long the first byte took."""
    return f"{milliseconds(tally.p50):>9}{milliseconds(tally.p99):>10}"


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
    return textwrap.fill(text, _WIDTH, initial_indent=f"{at:>6.1f} s  ", subsequent_indent=" " * _MARGIN)
