"""What has a name that nothing else may have: a class of the two packages, and a file of tests in no package."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.support.processes import ROOT

PACKAGES = ("controller", "xds_server")


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for name in re.findall(r"^ *class (\w+)[(:\[]", file.read_text(), re.MULTILINE):
                places[name].append(str(file.relative_to(ROOT)))
    assert len(places) > 500
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_file_of_tests_outside_of_packages_has_the_name_of_another() -> None:
    """pytest imports such a file by its name alone, and would refuse the second one."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        if not (file.parent / "__init__.py").exists():
            places[file.name].append(str(file.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
