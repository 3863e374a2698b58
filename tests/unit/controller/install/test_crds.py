"""The custom resource definitions are fit for `kubectl explain` and the API server."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from controller.api.registry import KINDS
from controller.install.crd import definition_files

FILES = definition_files()


def schema_of(text: str) -> dict[str, Any]:
    return yaml.load(text, yaml.CSafeLoader)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def parts_of(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, and where it stands."""
    yield at, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts_of(part, f"{at}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from parts_of(schema[name], f"{at}[]")


PARTS = {f"{name}{at}": part for name, text in FILES.items() for at, part in parts_of(schema_of(text))}


def test_one_file_for_each_kind_of_ours():
    ours = [kind for kind in KINDS.values() if kind.group.endswith(".beamlit.com")]
    assert sorted(FILES) == sorted(f"{kind.kind.lower()}.yaml" for kind in ours)


def test_every_field_is_described_in_sentences():
    fields = {at: part for at, part in PARTS.items() if not at.endswith(("[]", ".metadata", ".yaml"))}
    assert len(fields) > 200
    for at, part in fields.items():
        text = part.get("description", "")
        assert text.endswith("."), f"{at}: {text!r}"
        assert "``" not in text, f"{at}: {text!r}"
        assert "\n" not in text, f"{at}: {text!r}"


def test_every_default_is_in_its_description():
    for at, part in PARTS.items():
        default = part.get("default")
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, list):
            default = ", ".join(map(str, default))
        if default not in (None, {}, ""):
            assert f"Default: {default}." in part["description"], at


@pytest.mark.parametrize("word", ["$ref", "$defs", "anyOf", "allOf", "title", "const"])
def test_structural(word):
    assert all(word not in part for part in PARTS.values())


def test_nothing_in_a_list_has_a_default_or_kubectl_would_find_a_change_at_every_apply():
    assert [at for at, part in PARTS.items() if "[]" in at and "default" in part] == []


def test_every_list_says_how_it_is_merged():
    lists = {at: part for at, part in PARTS.items() if part.get("type") == "array"}
    merged = {at for at, part in lists.items() if part["x-kubernetes-list-type"] == "map"}
    assert {at.partition(".yaml")[2] for at in merged} == {".status.conditions"}
    assert {part["x-kubernetes-list-type"] for at, part in lists.items() if at not in merged} == {"atomic"}


def test_unknown_fields_are_kept_only_where_they_have_to_be():
    kept = {at.partition(".yaml")[2] for at, part in PARTS.items() if "x-kubernetes-preserve-unknown-fields" in part}
    assert {at for at in kept if not at.endswith(".selector")} == {".status.route", ".status.memory"}


def test_a_status_is_never_refused_for_what_it_says():
    for at, part in PARTS.items():
        if ".status" in at:
            assert not part.keys() & {"pattern", "enum", "minimum", "maximum", "maxLength", "x-kubernetes-validations"}
            assert part.get("required") in (None, ["type"])


def test_prior_fault_30_columns_names_and_a_status_of_its_own_without_the_broken_scale():
    definition = yaml.safe_load(FILES["modeldeployment.yaml"])["spec"]
    (version,) = definition["versions"]
    assert version["subresources"] == {"status": {}}
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert (definition["names"]["shortNames"], definition["names"]["categories"]) == (["mdep"], ["beamlit"])
    columns = version["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    wide = [column["name"] for column in columns if column.get("priority")]
    assert shown == ["MODEL", "READY", "PORT", "LOCAL", "SPLIT", "REASON", "AGE"]
    assert wide == ["FRONTEND", "REMOTE", "PROXIES"]


def test_optional_fields_of_the_original_have_its_defaults():
    spec = schema_of(FILES["modeldeployment.yaml"])["properties"]["spec"]
    assert spec["required"] == ["model", "modelSourceRef"]
    fields = spec["properties"]
    assert (fields["enabled"]["default"], fields["environment"]["default"]) == (True, "production")
    behavior = fields["offloadingConfig"]["properties"]["behavior"]
    assert (behavior["default"], behavior["properties"]["percentage"]["default"]) == ({}, 100)
    scaling = fields["serverlessConfig"]["properties"]
    assert (scaling["minNumReplicas"]["default"], scaling["maxNumReplicas"]["default"]) == (0, 10)


OF_1_27 = {"has", "size", "type", "duration", ".all", ".exists_one", ".matches", ".startsWith", ".lowerAscii"}
"""What rules call of what every Kubernetes since 1.27 has: functions and macros of the language, and the library of
strings that k8s.io/apiserver 0.27 brings (pkg/cel/library, ExtensionLibs)."""


def test_rules_call_nothing_that_kubernetes_1_27_does_not_have():
    rules = [rule for part in PARTS.values() for rule in part.get("x-kubernetes-validations", ())]
    assert len(rules) > 100
    for rule in rules:
        assert rule.keys() <= {"rule", "message", "fieldPath"}, "the chart leaves out fieldPath, and nothing else"
        without_texts = re.sub(r"""r?"[^"]*"|'[^']*'""", "''", rule["rule"])
        assert set(re.findall(r"[.]?\b[A-Za-z]\w*(?=\()", without_texts)) <= OF_1_27, rule["rule"]
        assert not re.search(r"[.\[]\?", without_texts), "optional fields are of 1.29"


def test_no_rule_is_about_what_may_be_a_number_or_a_string():
    # Before 1.34 such a string counts as long as a request may be, and the rule as too dear: the definition is refused.
    either = [part for part in PARTS.values() if part.get("x-kubernetes-int-or-string")]
    assert len(either) > 20
    assert not [part for part in either if "x-kubernetes-validations" in part]
