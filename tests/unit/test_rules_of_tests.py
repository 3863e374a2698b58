"""What every test keeps to, as CONTRIBUTING says, and what shows in its text alone.

No test imports a benchmark, patches anything, starts a process that nobody ends, or says in seconds how long something
may take.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT


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


CLOCKS_THAT_RUN = {"monotonic", "perf_counter", "time", "monotonic_ns", "perf_counter_ns"}


def test_no_test_says_in_seconds_how_long_something_may_take() -> None:
    bounds = {
        str(file.relative_to(ROOT)): found
        for file in files_with(rf"\b({'|'.join(CLOCKS_THAT_RUN)})\(\)|\.seconds\b", "tests", "benchmarks/tests")
        if (found := list(bounds_in_seconds(file.read_text())))
    }
    assert bounds == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("assert loop.time() - start < 5", ["loop.time() - start < 5"]),
        ("assert MOST >= took", ["MOST >= took"]),
        ("assert reply.seconds <= 2 * PATIENCE, reply", ["reply.seconds <= 2 * PATIENCE"]),
        ("assert 0.5 < took < 1", ["0.5 < took < 1"]),
        # That it took at least so long is true on every machine; and a control has the same turns.
        ("assert took > 0.5", []),
        ("assert took < 2 * control", []),
        ("assert reply.seconds < other.seconds + 1", []),
    ],
)
def test_a_bound_in_seconds_is_found(line: str, found: list[str]) -> None:
    source = f"def test(loop):\n    start = loop.time()\n    took = loop.time() - start\n    {line}\n"
    assert list(bounds_in_seconds(source)) == found


def bounds_in_seconds(source: str) -> Iterator[str]:
    """Find what is asserted of a time by a clock that runs: that it is less than a number."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes = list(ast.walk(function))
            assigned = [one for one in nodes if isinstance(one, ast.Assign) and asks_a_clock(one.value)]
            times = {name for one in assigned for target in one.targets for name in names_in(target)}
            for compared in (one for node in nodes if isinstance(node, ast.Assert) for one in ast.walk(node.test)):
                if isinstance(compared, ast.Compare) and is_a_bound(compared, times):
                    yield ast.unparse(compared)


def is_a_bound(compared: ast.Compare, times: set[str]) -> bool:
    sides = [compared.left, *compared.comparators]
    return any(
        (isinstance(operator, ast.Lt | ast.LtE) and is_a_time(first, times) and is_a_number(second))
        or (isinstance(operator, ast.Gt | ast.GtE) and is_a_number(first) and is_a_time(second, times))
        for first, operator, second in zip(sides, compared.ops, sides[1:], strict=False)
    )


def is_a_time(expression: ast.expr, times: set[str]) -> bool:
    is_told = isinstance(expression, ast.Attribute) and expression.attr == "seconds"
    return is_told or asks_a_clock(expression) or bool(times & names_in(expression))


def is_a_number(expression: ast.expr) -> bool:
    """Whether it is made of numbers and of constants alone."""
    parts = (ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(one, parts) for one in ast.walk(expression)) and all(map(str.isupper, names_in(expression)))


def asks_a_clock(expression: ast.expr) -> bool:
    return any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in CLOCKS_THAT_RUN
        for one in ast.walk(expression)
    )


def names_in(expression: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(expression) if isinstance(one, ast.Name)}


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
