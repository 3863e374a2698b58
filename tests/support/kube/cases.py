"""What clients get in each case: the table of docs/cluster.md, read as what a test has to show."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tests.support.processes import ROOT

DOCUMENT = ROOT / "docs" / "cluster.md"
HEADING = "### What clients get"

_REPLICAS = ("yes", "no", "leaving")
_CHOICES = (_REPLICAS, ("none", "off", "up", "down"), ("yes", "no", "-"), ("no", "yes"), ("no", "yes"))


@dataclass(frozen=True, slots=True)
class Case:
    """What a model has: ready replicas, a remote backend, its credential, a policy of this cluster, a limit."""

    replicas: str
    remote: str
    credential: str
    policy: str
    limit: str

    @property
    def name(self) -> str:
        """A name for its model, such as `yes-up-yes-no-no`."""
        return "-".join((self.replicas, self.remote, self.credential.replace("-", "x"), self.policy, self.limit))


@dataclass(frozen=True, slots=True)
class Said:
    """What clients get, and what the status and the events say."""

    clients: str
    split: str
    reason: str
    ready: str
    resolved: str
    remote: str
    events: str


def all_cases() -> set[Case]:
    """Every combination that there is: a remote backend that is none, or off, needs no credential."""
    cases = {Case(*choice) for choice in itertools.product(*_CHOICES)}
    return {one for one in cases if (one.credential == "-") == (one.remote in ("none", "off"))}


def documented_cases() -> list[tuple[Case, Said]]:
    """Read the lines of the table, each once for all that it stands for."""
    _, _, section = DOCUMENT.read_text().partition(f"{HEADING}\n")
    lines = [line for line in section.partition("\n### ")[0].splitlines() if line.startswith("| ")][1:]
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        given, said = cells[: len(_CHOICES)], Said(*cells[len(_CHOICES) :])
        choices = (all_of if cell == "any" else (cell,) for cell, all_of in zip(given, _CHOICES, strict=True))
        found += [(Case(*choice), said) for choice in itertools.product(*choices)]
    return found
