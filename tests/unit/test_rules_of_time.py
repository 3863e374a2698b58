"""What every test keeps to where time is concerned, as CONTRIBUTING says: no bound that a busy machine can break."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.processes import ROOT
from tests.support.sources import files_with, names_in

CLOCKS_THAT_RUN = {"monotonic", "perf_counter", "time", "monotonic_ns", "perf_counter_ns"}


def test_no_test_says_in_seconds_how_long_something_may_take() -> None:
    bounds = {
        str(file.relative_to(ROOT)): found
        for file in files_with(
            rf"\b({'|'.join(CLOCKS_THAT_RUN)})\(\)|\.(seconds|latency)\b", "tests", "benchmarks/tests"
        )
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
        ("assert not took > 5", ["took > 5"]),
        ("if took > 5: pytest.fail('late')", ["took > 5"]),
        ("if 5 < took: raise AssertionError", ["5 < took"]),
        ("late: float = loop.time() - start; assert late < 5", ["late < 5"]),
        ("assert (late := loop.time() - start) and late < 5", ["late < 5"]),
        ("waits.append(loop.time() - start); assert max(waits) < 1", ["max(waits) < 1"]),
        ("assert sample.latency < 1", ["sample.latency < 1"]),
        # That it took at least so long is true on every machine; and a control has the same turns.
        ("assert took > 0.5", []),
        ("if took < 0.5: raise AssertionError", []),
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
            times = set(names_of_times(nodes))
            for expression, holds in (one for node in nodes for one in asserted(node)):
                for compared, is_so in comparisons(expression, holds):
                    if is_a_bound(compared, times, is_so):
                        yield ast.unparse(compared)


def names_of_times(nodes: list[ast.AST]) -> Iterator[str]:
    """Name what is given the time of a clock, or is a list of such."""
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value) if asks_a_clock(value):
                yield from (name for target in targets for name in names_in(target))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if asks_a_clock(value):
                yield name
            case ast.NamedExpr(target=ast.Name(id=name), value=value) if asks_a_clock(value):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]) if asks_a_clock(
                value
            ):
                yield name


def asserted(node: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
    """Say what has to be so, or must not be, for a test to pass."""
    match node:
        case ast.Assert(test=test):
            yield test, True
        case ast.If(test=test, body=[ast.Raise() | ast.Expr(value=ast.Call(func=ast.Attribute(attr="fail"))), *_]):
            yield test, False


def comparisons(expression: ast.expr, holds: bool) -> Iterator[tuple[ast.Compare, bool]]:
    """The comparisons of an expression, and whether each has to hold for it to."""
    match expression:
        case ast.Compare():
            yield expression, holds
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield from comparisons(operand, not holds)
        case _:
            for part in ast.iter_child_nodes(expression):
                if isinstance(part, ast.expr):
                    yield from comparisons(part, holds)


def is_a_bound(compared: ast.Compare, times: set[str], holds: bool) -> bool:
    less, more = (ast.Lt | ast.LtE, ast.Gt | ast.GtE) if holds else (ast.Gt | ast.GtE, ast.Lt | ast.LtE)
    sides = [compared.left, *compared.comparators]
    return any(
        (isinstance(operator, less) and is_a_time(first, times) and is_a_number(second))
        or (isinstance(operator, more) and is_a_number(first) and is_a_time(second, times))
        for first, operator, second in zip(sides, compared.ops, sides[1:], strict=False)
    )


def is_a_time(expression: ast.expr, times: set[str]) -> bool:
    is_told = isinstance(expression, ast.Attribute) and expression.attr in ("seconds", "latency")
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


SLEEPS = {
    # What shall not happen, beside a control or after it, and nothing shows that it will not.
    "tests/data_plane/test_first_byte_timeout.py": 2,
    "tests/data_plane/test_overflow_places.py": 1,
    "tests/data_plane/test_trap_spoofing.py": 1,
    # The length is what it is about, or any length is as good.
    "tests/data_plane/test_access_log.py": 1,
    "tests/data_plane/test_large_bodies.py": 1,
    "tests/data_plane/test_replica_checks.py": 2,
    "tests/kube/test_token_identity.py": 2,
    "tests/unit/support/test_loops.py": 2,
    "tests/unit/xds_server/stream/test_callers.py": 1,
    # What a server does, or the pause before the next look or request.
    "tests/kube/test_any_accepted_object.py": 2,
    "tests/support/data_plane/answering.py": 2,
    "tests/support/data_plane/plane.py": 1,
    "tests/support/data_plane/stream_grpc.py": 1,
    "tests/support/failures/troubles.py": 1,
    "tests/support/kube/elected.py": 1,
    "tests/support/kube/killed.py": 1,
    "tests/support/load/loops.py": 1,
    # Clients call meanwhile, and Kubernetes goes on: to be counted instead, one by one.
    "tests/e2e_node/test_node.py": 1,
    "tests/e2e_node/test_node_chart.py": 2,
    "tests/e2e_node/test_quick_start.py": 1,
    "tests/e2e_node/test_taken_over.py": 12,
}
"""How many sleeps there are that are no part of a loop, and why. One more is one to be thought about."""


def test_no_test_sleeps_to_let_something_happen() -> None:
    found = {
        str(file.relative_to(ROOT)): lines
        for file in files_with(r"\bsleep\(", "tests")
        if (lines := list(sleeps(file.read_text())))
    }
    assert {name: len(lines) for name, lines in found.items()} == SLEEPS, found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("await asyncio.sleep(0.1)", 1),
        ("with client: time.sleep(WHILE)", 1),
        ("await asyncio.sleep(0)", 0),
        ("while not seen(): await asyncio.sleep(0.01)", 0),
        ("for one in these: time.sleep(0.01)", 0),
    ],
)
def test_a_sleep_is_found_but_for_what_paces_a_loop(body: str, found: int) -> None:
    assert len(list(sleeps(f"async def test():\n    {body}\n"))) == found


def sleeps(source: str) -> Iterator[int]:
    """Find the lines that sleep, and are no part of a loop."""
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    while waiting:
        node, loops = waiting.pop()
        match node:
            case ast.Call(func=ast.Attribute(attr="sleep"), args=[ast.Constant(value=0), *_]):
                pass
            case ast.Call(func=ast.Attribute(attr="sleep"), args=[_, *_]) if not loops:
                yield node.lineno
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            loops = False
        inside = loops or isinstance(node, ast.While | ast.For | ast.AsyncFor)
        waiting.extend((one, inside) for one in ast.iter_child_nodes(node))


LOOKED_AT_AGAIN = {
    "tests/e2e/test_few_files.py",
    "tests/protocol/test_no_files_left.py",
    "tests/support/kube/api_server.py",
    "tests/support/node/node.py",
}
"""In these a question that is not answered soon is asked again, in a wait that counts turns."""
MINUTE = 60


def test_no_deadline_that_counts_the_seconds_of_others_is_short() -> None:
    """Those of HTTP, gRPC, `subprocess` and kubectl pass while a machine gives nobody a turn: none, or minutes."""
    found = {
        str(file.relative_to(ROOT)): lines
        for file in files_with(
            r"\btimeout=",
            *(f"tests/{suite}" for suite in ("chart", "data_plane", "e2e", "e2e_node", "kube", "protocol", "support")),
        )
        if (lines := list(short_deadlines(file.read_text())))
    }
    assert found.keys() == LOOKED_AT_AGAIN, found


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("client.get(url, timeout=30)", 1),
        ("demo.communicate(timeout=PATIENCE)", 1),
        ("cluster.kubectl('wait', '--timeout=10s')", 1),
        ("plain_http(timeout=None)", 0),
        ("run(command, timeout=4 * MINUTE)", 0),
        ("cluster.kubectl('wait', '--timeout=3m')", 0),
    ],
)
def test_a_short_deadline_is_found(call: str, found: int) -> None:
    assert len(list(short_deadlines(call))) == found


def short_deadlines(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(arg="timeout", value=ast.Name(id="PATIENCE")):
                yield node.lineno
            case ast.keyword(arg="timeout", value=ast.Constant(value=int() | float() as value)) if 0 < value < MINUTE:
                yield node.lineno
            case ast.Constant(value=str(text)) if re.search(r"--timeout=\d+s\b", text):
                yield node.lineno
