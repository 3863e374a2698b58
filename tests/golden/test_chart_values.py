"""docs/install.md shows every value of the chart, with its default, and values.schema.json knows it, and no other."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from tests.golden.chart_values import BEGIN, END, keys_of, values_table
from tests.support.processes import ROOT

PAGE, CHART = ROOT / "docs" / "install.md", ROOT / "deploy" / "chart"
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_table_is_what_the_values_say(request: pytest.FixtureRequest) -> None:
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "docs/install.md has no place for the table"
    current = f"{before}{BEGIN}\n\n{values_table(VALUES)}\n{END}{after}"
    if request.config.getoption("--rewrite-golden"):
        PAGE.write_text(current)
    assert PAGE.read_text() == current, "make golden writes it anew"


def test_the_model_of_the_page_is_a_model() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    parse(ModelDeployment, yaml.safe_load(text))


def test_every_value_is_described_in_words() -> None:
    described = {path.rpartition(".")[2] for path, comment in keys_of(VALUES) if comment}
    assert {
        path for path, comment in keys_of(VALUES) if not comment and path.rpartition(".")[2] not in described
    } == set()
    assert all(comment.endswith((".", "]")) for _, comment in keys_of(VALUES) if comment)


def test_every_default_is_in_the_schema_and_every_object_is_closed() -> None:
    found: list[str] = []

    def look(value: Any, schema: dict[str, Any], path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for key, one in value.items():
                found.append(f"{path}{key}")
                assert key in schema["properties"], f"{path}{key}"
                if isinstance(one, dict):
                    look(one, schema["properties"][key], f"{path}{key}.")

    look(yaml.safe_load(VALUES), SCHEMA, "")
    assert len(found) > 60


def test_the_schema_knows_no_value_that_has_no_default() -> None:
    """But for those of the configuration file, which docs/configuration.md shows."""
    values = yaml.safe_load(VALUES)
    missing: list[str] = []

    def look(given: Any, schema: dict[str, Any], path: str) -> None:
        for key, one in schema.get("properties", {}).items():
            if key not in given:
                missing.append(f"{path}{key}")
            elif isinstance(given[key], dict):
                look(given[key], one, f"{path}{key}.")

    look(values, SCHEMA, "")
    assert [one for one in missing if not one.startswith("config.")] == ["global"]
