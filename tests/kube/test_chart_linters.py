"""kubeconform and kube-score over what the chart renders: no finding that docs/install.md does not explain."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import EVERYTHING, INSTALL, Chart
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import knows_field_paths, version_of
from tests.support.kube.schemas import LOCATION, write_schemas
from tests.support.processes import ROOT
from tests.tools import binaries

FOREIGN = "ServiceMonitor,PrometheusRule"
FEW_RIGHT = 5
"""The grade of kube-score that is a warning; a lower one is critical."""


@pytest.fixture
def schemas(api_server: Cluster, tmp_path: Path) -> Path:
    """The folder of the schemas of the API server."""
    folder = tmp_path / "schemas"
    folder.mkdir()
    write_schemas(api_server, folder)
    return folder


def conform(manifest: str, schemas: Path) -> list[dict[str, Any]]:
    """What kubeconform finds."""
    location = f"--schema-location={schemas}/{LOCATION}"
    command = [str(binaries.kubeconform()), "-strict", "-output=json", "-skip", FOREIGN, location]
    ended = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60, check=False)
    found: list[dict[str, Any]] = json.loads(ended.stdout).get("resources") or []
    return found


@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["defaults", "everything"])
def test_kubeconform_finds_nothing(chart: Chart, api_server: Cluster, schemas: Path, values: tuple[str, ...]) -> None:
    version = ".".join(map(str, version_of(api_server)))
    assert conform(chart.text(*values, options=[f"--kube-version={version}"]), schemas) == []


def test_kubeconform_finds_nothing_in_install_yaml(api_server: Cluster, schemas: Path) -> None:
    # Kubernetes 1.27 knows no `fieldPath`, which rules of two definitions have.
    at_fault = 0 if knows_field_paths(api_server) else 2
    found = conform(INSTALL.read_text(), schemas)
    assert len(found) == at_fault, found
    for one in found:
        faults = [fault for fault in one["msg"].split(" - at ")[1:] if "validation failed" not in fault]
        assert faults
        assert all("'fieldPath' not allowed" in fault for fault in faults), one["msg"]


def test_kubeconform_would_find_a_field_that_does_not_exist(chart: Chart, schemas: Path) -> None:
    spoilt = chart.text("crds.install=false").replace("serviceAccountName:", "serviceAcountName:", 1)
    (found,) = conform(spoilt, schemas)
    assert "serviceAcountName" in found["msg"]


def findings(manifest: str) -> set[str]:
    """The checks of kube-score that are not passed."""
    command = [str(binaries.kube_score()), "score", "--output-format=json", "--kubernetes-version=v1.27", "-"]
    ended = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60, check=False)
    return {
        one["check"]["id"]
        for scored in json.loads(ended.stdout)
        for one in scored["checks"]
        if not one["skipped"] and one["grade"] <= FEW_RIGHT
    }


def test_kube_score_finds_what_the_documentation_explains_and_nothing_else(chart: Chart) -> None:
    page = (ROOT / "docs" / "install.md").read_text().partition("## What linters find")[2]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert (
        findings(chart.text("crds.install=false", "installMetricServer=true", "networkPolicy.enabled=true"))
        == explained
    )
