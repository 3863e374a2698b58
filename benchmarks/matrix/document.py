"""The table of docs/failures.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tests.support.failures.cases import Case, Cell, Group
from tests.support.failures.promise import Outcome, breaches

BEGIN = "<!-- begin: written by make bench NAME=failures -->"
END = "<!-- end -->"

_HEAD = (
    "| what fails | split | requests | failed | p99 | asked for each | share remote |\n"
    "|---|---|---:|---:|---:|---:|---:|"
)


class DocumentError(Exception):
    """The document has no room for the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one cell went."""

    cell: Cell
    figures: tuple[str, ...]
    """Requests, failed, p99, upstream requests for each, share remote."""
    breaches: tuple[str, ...]
    """What of the promise did not hold."""

    def __str__(self) -> str:
        names = ("requests", "failed", "p99", "asked", "remote")
        figures = ", ".join(f"{name} {figure}" for name, figure in zip(names, self.figures, strict=True))
        return f"{self.cell}: {figures}" + "".join(f"\n         BUT {one}" for one in self.breaches)


def row_of(cell: Cell, outcome: Outcome) -> Row:
    """Judge a cell, and write its figures."""
    figures = (
        f"{outcome.requests:,}",
        f"{sum(outcome.failed.values()):,}",
        f"{outcome.p99 * 1000:.0f} ms",
        f"{outcome.asked_each:.2f}",
        "-" if outcome.failed_lasting == outcome.lasting else f"{outcome.share_remote * 100:.1f} %",
    )
    return Row(cell, figures, tuple(breaches(outcome, cell.promise)))


def as_markdown(rows: Sequence[Row]) -> str:
    """Write a table for each group, and what each of its cases means. `rows` are in the order of the table of cases."""
    return "\n\n".join(_section(group, list(of_it)) for group, of_it in groupby(rows, lambda row: row.cell.case.group))


def spliced(document: str, table: str) -> str:
    """Put the table between the marks of the document, in place of what is there. Raises DocumentError."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DocumentError(f"the document does not have the marks {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def _section(group: Group, rows: Sequence[Row]) -> str:
    by_case: list[tuple[Case, list[Row]]] = [
        (case, list(of_it)) for case, of_it in groupby(rows, lambda row: row.cell.case)
    ]
    lines = [line for case, of_it in by_case for line in _lines(case, of_it)]
    meanings = "\n".join(f"* *{case.name}*: {case.means}" for case, _ in by_case)
    return f"## {group.value}\n\n{_HEAD}\n" + "\n".join(lines) + f"\n\n{meanings}"


def _lines(case: Case, rows: Sequence[Row]) -> Sequence[str]:
    names = [case.name, *[""] * (len(rows) - 1)]
    return [
        "| " + " | ".join((name, row.cell.split, *row.figures)) + " |" for name, row in zip(names, rows, strict=True)
    ]
