"""What `.importlinter` cannot see: what is pure asks no clock and opens nothing.

A module may import `datetime` for its values, and `open` needs no import. The rules forbid `os` with its environment,
and whatever else gives chance.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.support.processes import ROOT

CLOCKS = {"now", "today", "utcnow"}
DEVICES = {"input", "open", "print"}
CHANCE = {"hash"}
"""That of a text is another in each process. Where an object is, by `id`, names it among others and no more."""
FORBIDDEN = {"os", "random", "secrets", "time", "uuid"}


def pure_files() -> Iterator[Path]:
    """Find the files of the modules that the import rules call pure."""
    rules = ConfigParser()
    rules.read(ROOT / ".importlinter")
    for module in rules["importlinter:contract:pure"]["source_modules"].split():
        place = ROOT / module.replace(".", "/")
        yield from sorted(place.rglob("*.py")) if place.is_dir() else (place.with_suffix(".py"),)


def impure_calls(source: str) -> Iterator[str]:
    """Find calls that ask a clock or do I/O, by line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield f"{node.lineno}: {name}"
            case ast.Attribute(value=ast.Name(id="date" | "datetime"), attr=name) if name in CLOCKS:
                yield f"{node.lineno}: {name}"  # also where it is handed over, as what a field begins with
            case ast.Call(func=ast.Attribute(attr="astimezone"), args=[], keywords=[]):
                yield f"{node.lineno}: astimezone"  # the time zone of this machine
            case ast.Call(func=ast.Name(id=name)) if name in DEVICES | CHANCE:
                yield f"{node.lineno}: {name}"


def test_what_is_pure_asks_no_clock_and_opens_nothing() -> None:
    files = list(pure_files())
    assert ROOT / "xds_server/stream/protocol/ledger.py" in files
    found = {str(file.relative_to(ROOT)): list(impure_calls(file.read_text())) for file in files}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("at = datetime.now(UTC)\n", ["1: now"]),
        ("at = datetime.datetime.utcnow()\n", ["1: utcnow"]),
        ("at: date = field(default_factory=date.today)\n", ["1: today"]),
        ("at = moment.astimezone()\n", ["1: astimezone"]),
        ("at = moment.astimezone(UTC)\nsince = s.now - at\n", []),
        ("with open(path) as file:\n    pass\n", ["1: open"]),
        ("place = hash(name) % 8\n", ["1: hash"]),
    ],
)
def test_a_clock_a_file_and_chance_are_found(source: str, found: list[str]) -> None:
    assert [*dict.fromkeys(impure_calls(source))] == found


def test_the_rules_forbid_the_environment_and_chance() -> None:
    rules = ConfigParser()
    rules.read(ROOT / ".importlinter")
    pure = rules["importlinter:contract:pure"]
    assert {*pure["forbidden_modules"].split()} >= FORBIDDEN
    assert {"controller.decision", "controller.plan", "controller.intent"} <= {*pure["source_modules"].split()}
    assert "allow_indirect_imports" not in pure
