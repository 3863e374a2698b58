"""Objects in, status and Envoy configuration out. A case is a folder whose name is a sentence.

`make golden` writes the expectations anew; the diff is what there is to review.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.runner import result_of

CASES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_dir() and not path.name.startswith("__"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_golden(case: Path, request: pytest.FixtureRequest) -> None:
    result = await result_of(case)
    result.snapshot.check()
    files, expect = result.files(), case / "expect"
    if request.config.getoption("--rewrite-golden"):
        rewrite(expect, files)
    assert {path.name for path in expect.glob("*")} == files.keys(), "write the expectations with: make golden"
    differences = "".join(difference((expect / name).read_text(), found, name) for name, found in sorted(files.items()))
    if differences:
        pytest.fail(f"{case.name}: if this is what is meant, make golden\n{differences}", pytrace=False)


def rewrite(expect: Path, files: dict[str, Any]) -> None:
    expect.mkdir(exist_ok=True)
    for stale in expect.iterdir():
        stale.unlink()
    for name, content in files.items():
        (expect / name).write_text(written(content))


def written(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=True, width=120)


def difference(expected: str, found: Any, name: str) -> str:
    """Say in which lines a file differs. What is found is written as one for that alone: it takes ten times as long."""
    if as_json(yaml.load(expected, yaml.CSafeLoader)) == as_json(found):
        return ""
    lines = difflib.unified_diff(
        expected.splitlines(keepends=True), written(found).splitlines(keepends=True), f"expect/{name}", f"found/{name}"
    )
    return "".join(lines)


def as_json(content: Any) -> str:
    """Write a content so that 1 is no `true`, as it is to Python."""
    return json.dumps(content, sort_keys=True)


def test_nothing_lies_about_in_a_case() -> None:
    assert CASES
    for case in CASES:
        names = {path.name for path in case.iterdir()}
        assert {"given.yaml", "expect"} <= names <= {"given.yaml", "config.yaml", "envoys.yaml", "expect"}, case.name
