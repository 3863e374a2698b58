"""The documents lead where they say: links and their anchors, files that they name, decisions that the code cites."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PACKAGES = ("benchmarks", "controller", "demo", "deploy", "docs", "envoy", "examples", "tests", "xds_server")

_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAMED = re.compile(rf"`((?:{'|'.join(PACKAGES)})/[\w./*-]+)`")
_TEST = re.compile(r"`(test_\w+)(\.py)?`")


def _prose(document: Path) -> str:
    return _CODE.sub("", document.read_text())


def _anchors(document: Path) -> Iterator[str]:
    """Give the anchors of a document as GitHub makes them: letters, digits, `-` and `_` of each heading."""
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.*)$", _prose(document), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1


@functools.cache
def _tests() -> frozenset[str]:
    """Every function that is a test."""
    texts = (file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"def (test_\w+)\(", text))


def _names(documents: tuple[Path, ...]) -> list[str]:
    return [str(document.relative_to(ROOT)) for document in documents]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = [link for link in _LINK.findall(_prose(document)) if not re.match(r"[a-z]+:", link)]
    for path, _, anchor in (link.partition("#") for link in links):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        assert not anchor or anchor in set(_anchors(target)), f"{path}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_file_that_is_named_exists(document: Path) -> None:
    for path in _NAMED.findall(_prose(document)):
        assert any(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=_names(DOCUMENTS))
def test_every_test_that_is_named_exists(document: Path) -> None:
    for name, is_file in _TEST.findall(_prose(document)):
        if is_file:
            assert any((ROOT / "tests").rglob(f"{name}.py")), name
        else:
            assert name in _tests(), name


def test_every_bolt_names_the_test_that_holds_it() -> None:
    bolts = (ROOT / "docs" / "security.md").read_text().partition("## Bolts")[2].partition("## ")[0]
    rows = [line for line in bolts.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert _TEST.search(row.rstrip(" |").rpartition(" | ")[2]), row


def test_each_decision_has_a_number_of_its_own_in_file_and_title() -> None:
    numbers = [int(re.match(r"# (\d+)\. ", decision.read_text())[1]) for decision in DECISIONS]  # type: ignore[index]
    assert numbers == [int(decision.name[:4]) for decision in DECISIONS]
    assert len(set(numbers)) == len(numbers)


def test_every_decision_that_the_code_cites_exists() -> None:
    numbers = {decision.name[:4] for decision in DECISIONS}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert numbers.issuperset(re.findall(r"docs/adr/(\d{4})", file.read_text())), file
