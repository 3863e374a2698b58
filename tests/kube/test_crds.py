"""The custom resources as users meet them, with kubectl and a real API server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.contract.status import (
    Condition,
    HistoryEntry,
    LocalStatus,
    ModelDeploymentStatus,
    RemoteStatus,
    SignalStatus,
    SplitStatus,
)
from controller.api.kubernetes.objects import ObjectMeta
from controller.api.resources.model import ModelDeployment
from controller.api.resources.warnings import warnings_of
from controller.api.schema.values import parse
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import version_of
from tests.support.routes import a_remote, a_route

MANIFESTS = Path(__file__).parent / "manifests"
MODELS = "/apis/deployment.beamlit.com/v1alpha1/namespaces/{}/modeldeployments/{}"
WRONG = "as-the-documentation-has-it-wrong.yaml"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

SMALL = {
    "apiVersion": "deployment.beamlit.com/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "small"},
    "spec": {
        "model": "llama",
        "enabled": False,
        "modelSourceRef": {"name": "llama"},
        "serverlessConfig": {"minNumReplicas": 0},
        "offloadingConfig": {"behavior": {"percentage": 0}, "remoteBackend": {"host": "models.example.com"}},
    },
}

pytestmark = pytest.mark.usefixtures("crds")


def manifest(name: str, namespace: str) -> str:
    """A manifest for a namespace; what it says of namespaces itself is about its own."""
    return (MANIFESTS / name).read_text().replace("namespace: default", f"namespace: {namespace}")


def apply(api_server: Cluster, namespace: str, text: str, *options: str) -> str:
    return api_server.kubectl("apply", f"--namespace={namespace}", *options, "--filename=-", input=text).stdout


def read(api_server: Cluster, namespace: str, name: str) -> dict[str, Any]:
    return json.loads(api_server.kubectl("get", "mdep", name, f"--namespace={namespace}", "--output=json").stdout)


def write_status(api_server: Cluster, namespace: str, name: str, status: dict[str, Any]) -> dict[str, Any]:
    """Write a status as the controller does: applied on the subresource, by its own field manager."""
    patch = {
        "apiVersion": SMALL["apiVersion"],
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "status": status,
    }
    with api_server.client() as client:
        answer = client.patch(
            MODELS.format(namespace, name) + "/status",
            params={"fieldManager": "beamlit-controller", "force": "true"},
            content=json.dumps(patch),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
    written: dict[str, Any] = answer.raise_for_status().json()
    return written


def a_whole_status() -> dict[str, Any]:
    """A status with everything that a status can have."""
    ready = Condition(
        type="Ready", status="True", reason="Ready", message="", observed_generation=1, last_transition_time=NOW
    )
    status = ModelDeploymentStatus(
        observed_generation=1,
        conditions=(ready, ready.model_copy(update={"type": "Programmed", "reason": "Programmed"})),
        serving_port=10000,
        frontend="Gateway",
        metric_port=9090,
        workspace="ws",
        created_at_on_beamlit=NOW,
        updated_at_on_beamlit=NOW,
        split=SplitStatus(local=80, remote=20, reason="Overloaded", message="cpu is at 95 %", since=NOW),
        local=LocalStatus(ready=2, total=3),
        remote=RemoteStatus(host="models.example.com", healthy=False),
        signals=(SignalStatus(name="cpu", current="95", target="90", state="Breached", since=NOW, at=NOW),),
        route=a_route(a_remote(headers={"X-Team": "ml"}), away=20, check="/healthz"),
        memory={"breachedSince": "2026-01-01T00:00:00Z", "nested": {"numbers": [1, 2.5], "none": {}}},
        history=(HistoryEntry(at=NOW, split="80/20", reason="Overloaded", message="cpu is at 95 %"),),
    )
    return status.as_object()


def test_the_quick_start_of_the_original_is_accepted_word_for_word(api_server: Cluster, namespace: str) -> None:
    said = apply(api_server, namespace, manifest("quick-start.yaml", namespace))
    assert said == "modeldeployment.deployment.beamlit.com/php-apache created\n"
    spec = parse(ModelDeployment, read(api_server, namespace, "php-apache")).spec
    assert (spec.service_ref.target_port, spec.offloading_config.behavior.percentage) == (80, 50)


def test_every_field_of_the_original_is_accepted_and_kept(api_server: Cluster, namespace: str) -> None:
    text = manifest("everything-of-the-original.yaml", namespace)
    assert apply(api_server, namespace, text).count(" created\n") == 3
    given = next(yaml.safe_load_all(text))["spec"]
    stored = read(api_server, namespace, "everything")["spec"]
    assert with_what_is_given(stored, given) == given


def with_what_is_given(stored: Any, given: Any) -> Any:
    """Leave out of what is stored what was filled in."""
    if isinstance(given, dict):
        return {name: with_what_is_given(stored.get(name), value) for name, value in given.items()}
    if isinstance(given, list):
        return [with_what_is_given(one, wanted) for one, wanted in zip(stored, given, strict=True)]
    return stored


def test_the_mistake_in_the_originals_documentation_is_accepted_with_a_warning(
    api_server: Cluster, namespace: str
) -> None:
    apply(api_server, namespace, manifest(WRONG, namespace))
    model = parse(ModelDeployment, read(api_server, namespace, "documented"))
    (metric,) = model.spec.offloading_config.metrics
    assert metric.target.value == 10
    warnings = "\n".join(map(str, warnings_of(model)))
    assert "metrics[0].external.metric.target: belongs beside metric" in warnings
    assert "metrics[0].external.metric.selector.my_label: belongs into matchLabels" in warnings


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["by the client", "by the server"])
@pytest.mark.parametrize("name", sorted(file.name for file in MANIFESTS.iterdir()))
def test_the_same_again_changes_nothing(
    api_server: Cluster, namespace: str, name: str, options: tuple[str, ...]
) -> None:
    text = manifest(name, namespace)
    apply(api_server, namespace, text, *options)
    before = api_server.kubectl("get", "beamlit", f"--namespace={namespace}", "--output=json").stdout
    said = apply(api_server, namespace, text, *options)
    if name != WRONG:
        # kubectl takes the null in that one for a change.
        assert {line.rpartition(" ")[2] for line in said.splitlines()} <= {"unchanged", "serverside-applied"}
    assert api_server.kubectl("get", "beamlit", f"--namespace={namespace}", "--output=json").stdout == before


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["by the client", "by the server"])
def test_prior_fault_12_what_is_false_or_zero_survives_every_write(
    api_server: Cluster, namespace: str, options: tuple[str, ...]
) -> None:
    def still_off(stored: dict[str, Any]) -> None:
        spec = stored["spec"]
        assert spec["enabled"] is False
        assert spec["offloadingConfig"]["behavior"]["percentage"] == 0
        assert spec["serverlessConfig"]["minNumReplicas"] == 0
        assert parse(ModelDeployment, stored).spec.enabled is False

    apply(api_server, namespace, json.dumps(SMALL), *options)
    still_off(read(api_server, namespace, "small"))
    still_off(write_status(api_server, namespace, "small", a_whole_status()))
    apply(api_server, namespace, json.dumps({**SMALL, "metadata": {"name": "small", "labels": {"a": "b"}}}), *options)
    stored = read(api_server, namespace, "small")
    still_off(stored)
    # And what the owner of the spec writes takes nothing from the status.
    assert stored["status"] == a_whole_status()


def test_nothing_of_a_status_is_left_out(api_server: Cluster, namespace: str) -> None:
    apply(api_server, namespace, json.dumps(SMALL))
    written = write_status(api_server, namespace, "small", a_whole_status())
    assert written["status"] == a_whole_status()
    assert written["metadata"]["generation"] == 1
    assert parse(ModelDeploymentStatus, written["status"]).as_object() == a_whole_status()


def test_a_status_of_another_version_is_taken_as_it_is(api_server: Cluster, namespace: str) -> None:
    apply(api_server, namespace, json.dumps(SMALL))
    later = {"route": {"port": 0, "tls": {"new": True}}, "split": {"local": 300}, "conditions": [{"type": "New"}]}
    assert write_status(api_server, namespace, "small", later)["status"] == later


def test_the_columns(api_server: Cluster, namespace: str) -> None:
    apply(api_server, namespace, json.dumps(SMALL))
    write_status(api_server, namespace, "small", a_whole_status())

    def table(*options: str) -> dict[str, str]:
        head, row = api_server.kubectl("get", "mdep", f"--namespace={namespace}", *options).stdout.splitlines()
        return dict(zip(head.split(), row.split(), strict=True))

    shown = {"NAME": "small", "MODEL": "llama", "READY": "True", "PORT": "10000", "LOCAL": "2/3"}
    shown |= {"SPLIT": "80/20", "REASON": "Overloaded"}
    narrow, wide = table(), table("--output=wide")
    assert narrow.pop("AGE")
    assert wide.pop("AGE")
    assert narrow == shown
    assert wide == {**shown, "FRONTEND": "Gateway", "REMOTE": "models.example.com", "PROXIES": "Programmed"}


def test_short_names_and_the_category(api_server: Cluster, namespace: str) -> None:
    apply(api_server, namespace, manifest("everything-of-the-original.yaml", namespace))
    for short, name in (("mdep", "everything"), ("bpol", "eu"), ("tdep", "tool")):
        found = api_server.kubectl("get", short, f"--namespace={namespace}", "--output=name").stdout
        assert found.strip().endswith(f"/{name}")
    found = api_server.kubectl("get", "beamlit", f"--namespace={namespace}", "--output=name").stdout
    assert sorted(line.rpartition("/")[2] for line in found.splitlines()) == ["eu", "everything", "tool"]


def test_waiting_for_a_condition(api_server: Cluster, namespace: str) -> None:
    apply(api_server, namespace, json.dumps(SMALL))
    write_status(api_server, namespace, "small", a_whole_status())
    options = ("--for=condition=Ready", "--timeout=3m", f"--namespace={namespace}")
    assert "condition met" in api_server.kubectl("wait", *options, "mdep/small").stdout


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("spec", ("What a model is, which Service it fronts", "offloadingConfig", "-required-", "Default: true.")),
        ("spec.offloadingConfig.behavior", ("percentage", "percent, that is offloaded", "60s.")),
        ("spec.offloadingConfig.behavior.recoverAfter", ("replicas that are ready again", "Default: 5s.")),
        (
            "spec.offloadingConfig.remoteBackend.authConfig.oauthConfig",
            ("client credentials", "clientSecretRef is better"),
        ),
        ("spec.offloadingConfig.metrics.external.metric.selector.matchLabels", ("values they must have",)),
        ("status.split", ("The split in force", "Why, in one word.")),
        ("status.conditions", ("Ready",)),
    ],
)
def test_kubectl_explain(api_server: Cluster, field: str, words: tuple[str, ...]) -> None:
    said = " ".join(api_server.kubectl("explain", f"modeldeployment.{field}").stdout.split())
    for one in words:
        assert one in said


def test_kubectl_explain_names_the_values_of_a_field_that_has_few(api_server: Cluster) -> None:
    said = api_server.kubectl("explain", "modeldeployment.spec.offloadingConfig.behavior").stdout
    assert ("enum: Threshold" in " ".join(said.split())) == (version_of(api_server) >= (1, 30))  # as its kubectl is


def test_the_name_and_namespace_of_an_object_are_read_as_the_api_server_gives_them(
    api_server: Cluster, namespace: str
) -> None:
    apply(api_server, namespace, json.dumps(SMALL))
    stored = read(api_server, namespace, "small")
    assert parse(ObjectMeta, stored["metadata"]).namespace == namespace
