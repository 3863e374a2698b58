"""What every test keeps to where time is concerned, as CONTRIBUTING says: no bound that a busy machine can break."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.processes import ROOT
from tests.support.sources import files_with, names_in

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


TIMES_OF_PROGRAMS = {"Timing", "GatewayTiming"}
SENT_REQUESTS = ("tests/data_plane", "tests/e2e", "tests/kube", "tests/support", "tests/compatibility")
SEND_NONE = {
    "tests/kube/test_check.py": "a command that looks, and is asked nothing",
    "tests/kube/test_token_identity.py": "an xDS server alone",
    "tests/support/timing.py": "where they are made",
    "tests/support/data_plane/plane.py": "those of benchmarks",
}


def test_no_pause_of_the_machine_decides_where_a_request_goes() -> None:
    impatient = {
        str(file.relative_to(ROOT)): lines
        for file in files_with(rf"\b({'|'.join(TIMES_OF_PROGRAMS)})\(|\bREAL\.gateway\b", *SENT_REQUESTS)
        if (lines := list(impatient_times(file.read_text())))
    }
    assert impatient.keys() <= SEND_NONE.keys(), f"made of tests.support.timing.PATIENT: {impatient}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("TIMING = Timing(folder=SHORT)\n", [1]),
        ("timing = GatewayTiming(vacated=0)\n", [1]),
        ("timing = replace(REAL.gateway, vacated=0)\n", [1]),
        ("timing = replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0), folder=FolderTiming())\n", []),
    ],
)
def test_a_time_that_a_pause_reaches_is_found(source: str, found: list[int]) -> None:
    assert list(impatient_times(source)) == found


def impatient_times(source: str) -> Iterator[int]:
    """Find the lines that give a program the product's own times for a connection."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in TIMES_OF_PROGRAMS:
                yield node.lineno
            case ast.Attribute(value=ast.Name(id="REAL"), attr="gateway"):
                yield node.lineno
