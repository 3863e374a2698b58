"""What every test keeps to, as CONTRIBUTING says, and what shows in its text alone.

No test imports a benchmark or another suite, or patches anything. `test_rules_of_time` and `test_rules_of_processes`
have more of it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest

from tests.support.processes import ROOT
from tests.support.sources import files_with, imported_modules, imported_names, nodes_in, root_of


def test_no_test_imports_a_benchmark() -> None:
    imported = {
        str(file.relative_to(ROOT)): modules
        for file in files_with("benchmarks", "tests")
        if (modules := [name for name in imported_modules(nodes_in(file)) if name.split(".")[0] == "benchmarks"])
    }
    assert imported == {}


def test_no_suite_imports_another() -> None:
    """What several use is in `tests.support`, or is a tool: who changes a suite then knows whom it concerns."""
    imported = {
        str(file.relative_to(ROOT)): foreign
        for file in files_with(r"\btests\.(?!(?:support|tools|conftest)\b)", "tests")
        if (foreign := list(foreign_to(file.relative_to(ROOT).parts[1], imported_modules(nodes_in(file)))))
    }
    assert imported == {}


@pytest.mark.parametrize(
    ("suite", "module", "is_foreign"),
    [
        ("kube", "tests.protocol.test_tls", True),
        ("support", "tests.health.servers", True),
        ("kube", "tests.kube.test_crds", False),
        ("kube", "tests.support.waiting", False),
        ("kube", "tests.tools", False),
        ("kube", "controller.api", False),
    ],
)
def test_what_belongs_to_another_suite_is_found(suite: str, module: str, is_foreign: bool) -> None:
    assert list(foreign_to(suite, [module])) == ([module] if is_foreign else [])


def foreign_to(suite: str, modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        match module.split("."):
            case ["tests", other, *_] if other not in (suite, "support", "tools", "conftest"):
                yield module


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
