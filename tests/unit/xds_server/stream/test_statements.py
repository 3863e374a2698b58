"""docs/xds.md has every statement that code and tests cite, and names no test that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]
STATEMENT = re.compile(r"^- \*\*(X\d\d)\*\* (.*?)(?=^- \*\*X|^#|\Z)", re.MULTILINE | re.DOTALL)
NUMBERS = {f"X{number:02}" for number in range(1, 64)}


def statements():
    """By number: what docs/xds.md says of it."""
    found = STATEMENT.findall((ROOT / "docs" / "xds.md").read_text())
    assert len(dict(found)) == len(found), "a number is there twice"
    return dict(found)


def sources(*folders):
    return {path: path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")}


def named_tests(text):
    return set(re.findall(r"`(test_\w+)`", text))


def test_every_number_has_a_statement():
    assert statements().keys() == NUMBERS


def test_every_number_that_is_cited_is_one_of_them():
    for path, text in sources("controller", "xds_server", "tests", "benchmarks").items():
        cited = set(re.findall(r"\bX\d\d\b", text))
        for name in re.findall(r"def (test_\w+)", text):
            cited |= {number.upper() for number in re.findall(r"(?<=_)x\d\d(?=_)", name)}
        assert cited <= NUMBERS, f"{path} cites {sorted(cited - NUMBERS)}"


def test_every_test_that_is_named_exists():
    there = {name for text in sources("tests").values() for name in re.findall(r"def (test_\w+)", text)}
    assert named_tests((ROOT / "docs" / "xds.md").read_text()) <= there


def test_a_statement_names_its_tests_or_says_that_it_is_not_built():
    for number, text in statements().items():
        assert named_tests(text) or "*Not built*" in text, number


def test_a_test_that_has_a_number_is_named_under_it():
    said = {number: named_tests(text) for number, text in statements().items()}
    names = {name for text in sources("tests").values() for name in re.findall(r"def (test_\w+)", text)}
    numbered = {(f"X{number}", name) for name in names for number in re.findall(r"(?<=_)x(\d\d)(?=_)", name)}
    assert sorted(one for one in numbered if one[1] not in said[one[0]]) == []
