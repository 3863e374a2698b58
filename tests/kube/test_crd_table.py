"""Objects that the API server takes and objects that it refuses, in what words; and that the program judges alike."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from controller.api.registry import KINDS
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import knows_field_paths

FOLDER = Path(__file__).parent / "crd_cases"
SMALLEST: dict[str, dict[str, Any]] = {
    "ModelDeployment": {"spec": {"model": "a", "modelSourceRef": {"kind": "Deployment", "name": "a"}}},
    "Policy": {},
    "ToolDeployment": {},
}
HOST = {"host": "h"}
"""What every backend needs."""


@dataclass(frozen=True)
class Case:
    """One object and what is to be said of it: by the API server, and here. Nothing if it is accepted."""

    kind: str
    raw: dict[str, Any]
    api: str | None
    here: str | None

    @property
    def path(self) -> str:
        return KINDS[self.kind].path("default")


def cases() -> Iterator[Any]:
    for file in sorted(FOLDER.glob("*.yaml")):
        table = yaml.load(file.read_text(), yaml.CSafeLoader)
        for line in table["cases"]:
            refused = line.get("refused")
            words = refused if isinstance(refused, dict) else {"api": refused, "here": refused}
            # Where the two differ, the table says why.
            assert ("because" in line) == (set(words) != {"api", "here"})
            kind = table.get("kind", "ModelDeployment")
            raw = object_of(kind, table["at"], line["given"])
            name = yaml.dump(line["given"], Dumper=yaml.CSafeDumper, default_flow_style=True, width=10_000).strip()
            yield pytest.param(Case(kind, raw, words.get("api"), words.get("here")), id=f"{file.stem}: {name}")


def object_of(kind: str, at: str, given: Any) -> dict[str, Any]:
    """Put what is given where it belongs in the smallest object of a kind: `[0]` is the only item of a list."""
    here = raw = copy.deepcopy(SMALLEST[kind])
    *steps, last = at.removesuffix("[0]").split(".")
    for step in steps:
        here = here.setdefault(step, dict(HOST) if step == "remoteBackend" else {})
    whole = {**here.get(last, {}), **(HOST if last == "remoteBackend" else {}), **given}
    here[last] = [whole] if at.endswith("[0]") else whole
    return {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": "a"}, **raw}


@pytest.fixture(scope="module")
def api(api_server: Cluster, crds: None) -> Iterator[httpx.Client]:
    with api_server.client() as client:
        yield client


@pytest.fixture(scope="module")
def names_fields(api_server: Cluster) -> bool:
    """Whether the API server names the field at fault; Kubernetes 1.27 names the object around it."""
    return knows_field_paths(api_server)


@pytest.mark.parametrize("case", list(cases()))
def test_an_object(api: httpx.Client, case: Case, names_fields: bool) -> None:
    answer = api.post(case.path, params={"dryRun": "All", "fieldValidation": "Strict"}, json=case.raw)
    said_there = case.api if names_fields or not case.api else case.api.replace(".target: Invalid", ": Invalid")
    judge(said_there, None if answer.status_code == 201 else answer.json()["message"])
    judge(case.here, refusal(case.kind, case.raw))
    if answer.status_code == 201:
        assert refusal(case.kind, answer.json()) is None
        # What the API server fills in is what the program takes for given.
        schema = schema_of(case.kind)
        assert parse(schema, answer.json()).spec == parse(schema, case.raw).spec


def judge(words: str | None, said: str | None) -> None:
    if words is None:
        assert said is None
    else:
        assert said is not None, f"accepted, though it should be said: {words}"
        assert words in said


def schema_of(kind: str) -> type[Any]:
    schema = KINDS[kind].schema
    assert schema is not None
    return schema


def refusal(kind: str, raw: Mapping[str, Any]) -> str | None:
    try:
        parse(schema_of(kind), raw)
    except InvalidObjectError as error:
        return str(error)
    return None
