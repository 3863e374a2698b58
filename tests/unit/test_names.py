"""Each class of the two packages has a name of its own: who reads a name knows which class is meant."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.support.processes import ROOT

PACKAGES = ("controller", "xds_server")


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
