"""The text of the tests, for rules that hold for all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.processes import ROOT


def nodes_in(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text()))


def files_with(words: str | re.Pattern[str], *folders: str) -> Iterator[Path]:
    """Find the modules whose text has a match: to parse all takes a second."""
    for folder in folders:
        files = sorted((ROOT / folder).rglob("*.py"))
        assert files
        yield from (file for file in files if re.search(words, file.read_text()))


def names_in(expression: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(expression) if isinstance(one, ast.Name)}


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
