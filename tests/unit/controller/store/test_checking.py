from __future__ import annotations

import pytest

from controller.api.schema.errors import FieldError
from controller.store.directory.checking import check_file
from controller.store.objects import ObjectRef

OURS = "deployment.beamlit.com/v1alpha1"
KINDS = {
    ("v1", "Service"): lambda raw: (),
    (OURS, "ModelDeployment"): lambda raw: (FieldError(("spec", "items", 1, "port"), "is wrong"),),
}


def problems_of(text: str, file: str = "a.yaml") -> list[str]:
    return [str(problem) for problem in check_file(file, text, KINDS).problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Service", "a.yaml:1: apiVersion: is required"),
        ("apiVersion: v1\nkind: 1", "a.yaml:2: kind: must be a string"),
        ("apiVersion: v1\nkind: Service", "a.yaml:1: metadata: is required"),
        ("apiVersion: v1\nkind: Service\nmetadata: x", "a.yaml:3: metadata: must be an object"),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: x", "a.yaml:3: metadata.name: is required"),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: y", "a.yaml:4: metadata.name: must be a string; quote it"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: a.b}",
            "a.yaml:3: metadata.namespace: must be lower case letters, digits and dashes, at most 63 characters",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: yes}}",
            "a.yaml:3: metadata.labels.x: must be a string; quote it",
        ),
        (
            f"apiVersion: {OURS}\nkind: ModelDeployment\nmetadata: {{name: a}}\nspec:\n  items:\n  - a: 1\n  - port: 2",
            "a.yaml:7: spec.items[1].port: is wrong",
        ),
        (
            "apiVersion: deployment.beamlit.com/v2\nkind: ModelDeployment\nmetadata: {name: a}",
            f"a.yaml:1: apiVersion: must be {OURS}, is deployment.beamlit.com/v2",
        ),
        (
            "apiVersion: authorization.beamlit.com/v1alpha1\nkind: Policy\nmetadata: {name: a}",
            "a.yaml:2: kind: authorization.beamlit.com/v1alpha1 Policy is not known here",
        ),
        (
            "apiVersion: model.beamlit.io/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a}",
            f"a.yaml:1: apiVersion: must be {OURS}, is model.beamlit.io/v1alpha1",
        ),
        (
            "apiVersion: deployment.beamlit.com/v1alpha1\nkind: Modeldeployment\nmetadata: {name: a}",
            "a.yaml:2: kind: must be one of ModelDeployment, is Modeldeployment",
        ),
        ("apiVersion: v1\nkind: Serv", "a.yaml:1: metadata: is required"),
        ("apiVersion: v1\nkind: Serv\nmetadata: {labels: {a: b}}", "a.yaml:3: metadata.name: is required"),
        ('apiVersion: v1\nkind: Service\nmetadata: {name: ""}', "a.yaml:3: metadata.name: is required"),
    ],
)
def test_a_fault_of_an_object_is_told_with_line_and_field(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


@pytest.mark.parametrize("name", ["A", "-a", "a-", "a_b", "a..b", "a" * 254, "1.5.", "[a]"])
def test_a_name_that_the_api_server_refuses_is_refused(name: str) -> None:
    (problem,) = problems_of(f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name!r}")
    assert problem.startswith("a.yaml:4: metadata.name: must be lower case")


@pytest.mark.parametrize("name", ["a", "a.b-c.d", "0", "a" * 253])
def test_a_name_that_the_api_server_takes_is_taken(name: str) -> None:
    assert problems_of(f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name!r}") == []


def test_what_is_empty_is_absent_as_in_go() -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: '', generateName: ''}"
    (manifest,) = check_file("a.yaml", text, KINDS).manifests
    assert manifest.ref == ObjectRef("Service", "default", "a")


def test_mistakes_of_form_and_of_content_are_told_together() -> None:
    text = (
        f"apiVersion: {OURS}\nkind: ModelDeployment\nmetadata: {{name: a}}\nspec:\n  a: 1\n  a: 2\n"
        "---\napiVersion: v1\nkind: .nan\n---\nb: [\n"
    )
    assert problems_of(text) == [
        "a.yaml:4: spec.items[1].port: is wrong",
        "a.yaml:6: spec.a: is given twice, first on line 5",
        "a.yaml:9: kind: must be a finite number",
        "a.yaml:12: did not find expected node content",
    ]


def test_the_number_of_problems_of_a_file_is_bounded() -> None:
    problems = problems_of("---\nkind: x\nmetadata: {name: a}\n" * 1000)
    assert len(problems) == 101
    assert problems[-1] == "a.yaml:299: from here on there are 900 more mistakes"


def test_every_fault_of_a_file_is_told_and_nothing_of_it_is_taken() -> None:
    good = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
    content = check_file("a.yaml", f"{good}---\nkind: x\n---\napiVersion: v1\nkind: Service\n", KINDS)
    assert [problem.line for problem in content.problems] == [5, 7]
    assert content.manifests == ()


def test_somebody_elses_kind_is_noted_and_asked_nothing() -> None:
    content = check_file("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {generateName: x}", KINDS)
    assert content.notes == ("line 1: Deployment is not a kind that is used here",)
    assert not content.problems


def test_a_kind_of_another_api_is_noted_with_the_one_that_is_used() -> None:
    content = check_file("a.yaml", "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}", KINDS)
    assert content.notes == (
        "line 1: Service of serving.knative.dev/v1 is not a kind that is used here: Service of v1 is",
    )
    assert not content.problems


def test_a_status_is_left_out_and_noted() -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, uid: x}\nstatus: {a: b}"
    content = check_file("a.yaml", text, KINDS)
    (manifest,) = content.manifests
    assert manifest.raw == {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}}
    assert content.notes == ("line 4: status is not read from files",)


def test_the_content_of_a_manifest_is_not_printed() -> None:
    content = check_file("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: hunter2", KINDS)
    assert "hunter2" not in repr(content)
