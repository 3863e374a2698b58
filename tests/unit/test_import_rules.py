"""What `.importlinter` cannot see: what is pure asks no clock and opens nothing.

And no test imports a benchmark, or patches anything: it changes nothing that it imports.

A module may import `datetime` for its values, and `open` needs no import. The rules forbid `os` with its environment,
and whatever else gives chance.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
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


def test_no_test_imports_a_benchmark() -> None:
    imported = {
        str(file.relative_to(ROOT)): modules
        for file in files_with("benchmarks", "tests")
        if (modules := [name for name in imported_modules(nodes_in(file)) if name.split(".")[0] == "benchmarks"])
    }
    assert imported == {}


STARTS = {"Popen", "create_subprocess_exec", "create_subprocess_shell"}
OF_THEIR_OWN = {"tests/support/forked.py", "tests/support/kube/shared.py"}
"""These start what ends by itself: a fork server that nobody can ask any more, a keeper that nobody needs."""


def test_what_starts_a_process_lets_the_kernel_end_it_too() -> None:
    # `subprocess.run` waits for the end itself.
    unbound = {
        str(file.relative_to(ROOT)): lines
        for file in files_with(re.compile("|".join(f"{name}\\(" for name in STARTS)), "tests", "benchmarks", "demo")
        if (lines := list(unbound_starts(file.read_text())))
    }
    assert unbound.keys() == OF_THEIR_OWN, unbound


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("subprocess.Popen(command, cwd=ROOT)\n", [1]),
        ("await asyncio.create_subprocess_exec(program, *arguments)\n", [1]),
        ("Popen(ends_with_me(command), env={})\n", []),
        ("await asyncio.create_subprocess_exec(*ends_with_me((program, *arguments)))\n", []),
    ],
)
def test_a_process_that_nobody_ends_is_found(source: str, found: list[int]) -> None:
    assert list(unbound_starts(source)) == found


def unbound_starts(source: str) -> Iterator[int]:
    """Find the lines that start a process whose command is not `ends_with_me(...)`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[command, *_]) if name in STARTS:
                match command:
                    case ast.Call(func=ast.Name(id="ends_with_me")):
                        pass
                    case ast.Starred(value=ast.Call(func=ast.Name(id="ends_with_me"))):
                        pass
                    case _:
                        yield node.lineno


def nodes_in(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text()))


def files_with(words: str | re.Pattern[str], *folders: str) -> Iterator[Path]:
    """Find the modules whose text has a match: to parse all takes a second."""
    for folder in folders:
        files = sorted((ROOT / folder).rglob("*.py"))
        assert files
        yield from (file for file in files if re.search(words, file.read_text()))


def test_no_test_patches_anything() -> None:
    patching = {
        str(file.relative_to(ROOT)): found
        for file in files_with(MAY_PATCH, "tests", "benchmarks/tests")
        if (found := list(patches(file.read_text())))
    }
    # What forks programs becomes one, with its arguments.
    assert patching == {"tests/support/fork_server.py": ["sys.argv"]}


PATCHING = {"monkeypatch", "mocker", "MonkeyPatch"}
MAY_PATCH = re.compile(
    r"\b(?:mock|unittest|[mM]onkey[pP]atch|mocker)\b|(?:set|del)attr(?:__)?\("
    # Something with a dot or an index is given a value or deleted, and it is not `self`.
    r"|^[ \t]*(?!self\b)[A-Za-z_]\w*(?:\.\w+|\[[^\]\n]*\])+(?:, .*| *\W{0,2})=(?!=)|^[ \t]*del \w+[.\[]",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from unittest import mock\nfrom unittest.mock import patch\n", ["unittest", "unittest.mock"]),
        ("def test(monkeypatch, *, mocker): pass\n", ["monkeypatch", "mocker"]),
        ("with pytest.MonkeyPatch.context() as patch: pass\n", ["MonkeyPatch"]),
        ("request.getfixturevalue('monkeypatch')\n", ["monkeypatch"]),
        ("import time\ntime.sleep = lambda _: None\n", ["time.sleep"]),
        ("import a.b\ndel a.b.c\n", ["a.b.c"]),
        ("from a import Model\nModel.limit += 1\nsetattr(Model, 'limit', 1)\n", ["Model.limit", "setattr"]),
        ("import os\nos.environ['HOME'], first = 1, 2\nos.environ['HOME'] = 3\n", ["os.environ['HOME']"] * 2),
        ("import a\nobject.__setattr__(a.EMPTY, 'limit', 1)\n", ["__setattr__"]),
        ("from a import EMPTY\nwith pytest.raises(TypeError):\n    EMPTY.x = 1\n", []),
        ("from a import Model\nmodel = Model()\nmodel.limit = 2\nsetattr(model, 'limit', 3)\n", []),
    ],
)
def test_what_patches_is_found(source: str, found: list[str]) -> None:
    assert list(patches(source)) == found
    assert MAY_PATCH.search(source) or not found


def patches(source: str) -> Iterator[str]:
    """Name the means of patching that a module has, and what it changes of all that it imports."""
    nodes = list(ast.walk(ast.parse(source)))
    yield from (name for name in imported_modules(nodes) if name.split(".")[0] in ("unittest", "mock"))
    imported = set(imported_names(nodes))
    refused = {id(one) for block in nodes if is_refused(block) for one in ast.walk(block)}
    for node in nodes:
        match node:
            case ast.arg(arg=name) | ast.Name(id=name) | ast.Attribute(attr=name) if name in PATCHING:
                yield name
            case ast.Call(func=ast.Attribute(attr="getfixturevalue"), args=[ast.Constant(value=name)]):
                yield from PATCHING & {name}
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                if root_of(node) in imported and id(node) not in refused:
                    yield ast.unparse(node)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[whose, *_]):
                if name.strip("_") in ("setattr", "delattr") and root_of(whose) in imported:
                    yield name


def is_refused(node: ast.AST) -> bool:
    """Whether it is a block of which a test says that it raises."""
    match node:
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Attribute(attr="raises")))]):
            return True
    return False


def root_of(node: ast.expr) -> str:
    """The name that an expression such as `a.b[c].d` begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def imported_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The names by which a module knows what it imports."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def imported_modules(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Name the modules that are imported, wherever in a module."""
    for node in nodes:
        match node:
            case ast.ImportFrom(module=str(name)):
                yield name
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
