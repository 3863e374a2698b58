"""What programs export at `/metrics`, and what docs/cluster.md says that they do."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import ROOT

_OF_THE_PROCESS = ("process_", "python_gc_")
_OF_ANY_METRIC = {"le"}
_SINCE_WHEN = "_created"
"""What the name of a counter or a histogram has behind it for the time from which it counts."""


def documented(program: str) -> dict[str, frozenset[str]]:
    """Give the labels of each metric that the table says to be exported by a program, by the letter it has there."""
    document = (ROOT / "docs" / "cluster.md").read_text()
    table = document.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    named: dict[str, frozenset[str]] = {}
    for line in re.findall(r"^\| `.*", table, re.MULTILINE):
        metrics, labels, programs, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:5])
        if program in programs.split(", "):
            named |= dict.fromkeys(_in_code(metrics), frozenset(_in_code(labels)))
    return {name: labels for name, labels in named.items() if not name.startswith(_OF_THE_PROCESS)}


def exported(text: str) -> dict[str, frozenset[str]]:
    """Give the labels of each metric in what a program exports, none for one that has no sample."""
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(_OF_THE_PROCESS) and not family.name.endswith(_SINCE_WHEN):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = (label for sample in family.samples for label in sample.labels)
            found[name] = frozenset(labels) - _OF_ANY_METRIC
    return found


def differences(program: str, text: str) -> list[str]:
    """Say how what a program exports differs from what is written of it."""
    written, real = documented(program), exported(text)
    wrong = {name for name in written.keys() & real.keys() if real[name] and real[name] != written[name]}
    return [
        *(f"{name} is exported and not documented" for name in sorted(real.keys() - written.keys())),
        *(f"{name} is documented and not exported" for name in sorted(written.keys() - real.keys())),
        *(f"{name} has the labels {sorted(real[name])}, not {sorted(written[name])}" for name in sorted(wrong)),
    ]


def _in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
