"""The dashboard and the alert rules name nothing but what there is: metrics, runbooks, panels that fit together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.support.metrics import documented
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "observability"
ALERTS = [
    rule
    for group in yaml.load((FOLDER / "rules.yaml").read_text(), yaml.CSafeLoader)["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RUNBOOK = re.compile(r"https://github\.com/beamlit/beamlit-controller/blob/main/(docs/[\w-]+\.md)#([\w-]+)")
OF_A_HISTOGRAM = ("_bucket", "_count")


def named() -> frozenset[str]:
    """Every metric that docs/cluster.md knows of any program."""
    return frozenset().union(*(documented(program) for program in "CXRE"))


def metrics_in(query: str) -> Iterator[str]:
    for name in re.findall(r"\bbeamlit_\w+", query):
        ends = next((end for end in OF_A_HISTOGRAM if name.endswith(end)), "")
        yield name.removesuffix(ends)


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / document).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def queries() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_how_bad_it_is_and_where_its_runbook_is(alert: dict[str, Any]) -> None:
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    found = RUNBOOK.fullmatch(alert["annotations"]["runbook_url"])
    assert found
    assert found[2] in anchors(found[1])
    assert found[2] == alert["alert"].lower()
    assert "for" in alert, "an alert that fires for a moment wakes people for nothing"


def test_every_runbook_is_of_an_alert() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    assert re.findall(r"^### (Beamlit\w+)$", text, re.MULTILINE) == sorted(
        (alert["alert"] for alert in ALERTS), key=lambda name: text.index(f"### {name}\n")
    )


@pytest.mark.parametrize("query", [*(alert["expr"] for alert in ALERTS), *queries()])
def test_a_query_asks_for_metrics_that_are_documented(query: str) -> None:
    asked = set(metrics_in(query))
    assert asked or "process_" in query
    assert asked <= named()


def test_the_dashboard_shows_every_metric_of_ours_but_for_these() -> None:
    shown = {metric for query in queries() for metric in metrics_in(query)}
    assert named() - shown == {
        "beamlit_gateway_requests_in_flight",
        "beamlit_models_yielded",
        "beamlit_service_writes_total",
        "beamlit_xds_acks_total",
    }


def test_every_panel_says_what_it_shows_and_asks_the_data_source_that_was_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert Counter(panel["id"] for panel in DASHBOARD["panels"]).most_common(1)[0][1] == 1
    for panel in PANELS:
        assert panel["title"]
        assert len(panel["description"]) > 10
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_two_panels_lie_over_each_other() -> None:
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
