"""The custom resource definitions as the chart brings them, to whichever Kubernetes."""

from __future__ import annotations

import json
import re

import yaml

from tests.support.chart import CHART, Chart


def test_definitions_upgrade_with_the_release_and_outlive_it(chart: Chart) -> None:
    definitions = [one for one in chart.objects() if one["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == 3
    for one in definitions:
        file = CHART.parent / "crds" / f"{one['spec']['names']['kind'].lower()}.yaml"
        assert one["spec"] == yaml.safe_load(file.read_text())["spec"]
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [one for one in chart.objects("crds.install=false") if one["kind"] == "CustomResourceDefinition"]


def test_kubernetes_1_27_gets_the_rules_without_the_field_at_fault_which_it_would_refuse(chart: Chart) -> None:
    old, new = (
        {one["metadata"]["name"]: json.dumps(one["spec"]) for one in objects if one["kind"].endswith("Definition")}
        for objects in (chart.objects(options=[f"--kube-version=v1.{minor}.0"]) for minor in (27, 28))
    )
    # Such as {"fieldPath": ".value", "message": ...; where a reference has a field of that name it is a schema.
    at_fault = re.compile(r'"fieldPath": "\.[^"]+", ')
    assert sum(len(at_fault.findall(text)) for text in new.values()) > 50
    assert old == {name: at_fault.sub("", text) for name, text in new.items()}
