"""docs/configuration.md says what the code does: all of it, and nothing else."""

from __future__ import annotations

import re

import pytest

from tests.golden.reference import reference
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_what_the_options_and_the_model_of_the_file_say(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--rewrite-golden"):
        PAGE.write_text(reference())
    assert PAGE.read_text() == reference(), "make golden writes it anew"


def test_every_environment_variable_that_the_code_names_is_on_the_page() -> None:
    sources = (file.read_text() for package in ("controller", "xds_server") for file in (ROOT / package).rglob("*.py"))
    named = {name for text in sources for name in re.findall(r'(?:environ(?:\.get)?[\[(]|envvar=)"(\w+)"', text)}
    assert named >= {"KUBECONFIG", "BEAMLIT_NAMESPACES"}
    assert {name for name in named if f"| `{name}` |" not in PAGE.read_text()} == set()
