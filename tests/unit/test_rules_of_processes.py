"""What starts a process, in what every test has: the kernel ends it, too, should nobody else be there to do it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.processes import ROOT
from tests.support.sources import files_with

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
