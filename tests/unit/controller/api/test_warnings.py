"""What is accepted but not served as it is written is said, with its field."""

import pytest

from controller.api.resources.model import ModelDeployment
from controller.api.resources.warnings import warnings_of
from controller.api.schema.values import parse
from tests.support.processes import ROOT

TARGET = {"type": "Value", "value": 1}


def warned(**spec):
    whole = {"model": "a", "modelSourceRef": {"name": "a"}, **spec}
    return [str(one) for one in warnings_of(parse(ModelDeployment, {"metadata": {"name": "a"}, "spec": whole}))]


def warned_of_external(**external):
    metric = {"type": "External", "external": external}
    return warned(offloadingConfig={"metrics": [metric]})


def test_what_is_served_is_not_warned_of():
    assert warned() == []
    served = {
        "frontend": "Gateway",
        "serviceRef": {"name": "a", "targetPort": 80},
        "offloadingConfig": {
            "behavior": {
                "percentage": 50,
                "recoverAfter": "10s",
                "stepInterval": "2s",
                "firstByteTimeout": "5s",
                "maxRequestsPerReplica": 8,
            },
            "remoteBackend": {
                "host": "h",
                "scheme": "https",
                "tls": {"caRef": {"name": "ca"}},
                "authConfig": {"type": "apiKey", "apiKey": {"secretRef": {"name": "s"}}},
                "healthCheck": {"path": "/up"},
                "timeouts": {"connect": "1s", "request": "10m"},
                "retry": {"attempts": 2},
            },
        },
    }
    assert warned(**served) == []


@pytest.mark.parametrize(
    ("mode", "unit", "said"),
    [("Proportional", "Minute", 1), ("Proportional", "Second", 0), ("Threshold", "Minute", 0), (None, "Hour", 0)],
)
def test_a_rate_limit_that_a_new_split_begins_anew(mode, unit, said):
    rules = [{"limit": {"requests": 9, "unit": "Second"}}, {"limit": {"requests": 9, "unit": unit}}]
    offloading = {"offloadingConfig": {"behavior": {"mode": mode}}} if mode else {}
    found = warned(rateLimit={"local": {"rules": rules}}, **offloading)
    assert [one.partition(":")[0] for one in found] == ["spec.rateLimit.local.rules[1].limit.unit"] * said


@pytest.mark.parametrize(
    ("mode", "after", "said"),
    [
        ("Proportional", "0s", 1),
        ("Proportional", "29s", 1),
        ("Proportional", "30s", 0),
        ("Threshold", "0s", 0),
        ("Proportional", None, 0),
    ],
)
def test_a_proportional_share_that_nothing_damps(mode, after, said):
    behavior = {"mode": mode, **({"restoreAfter": after} if after else {})}
    found = warned(offloadingConfig={"behavior": behavior})
    assert [one.partition(":")[0] for one in found] == ["spec.offloadingConfig.behavior.restoreAfter"] * said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"frontend": "Sidecar"}, "spec.frontend: has no effect yet: as with Gateway, clients call the gateway"),
        ({"metricServiceRef": {"name": "a"}}, "spec.metricServiceRef: has no effect yet"),
        ({"serverlessConfig": {}}, "spec.serverlessConfig: has no effect yet"),
        ({"policies": [{"name": "eu"}]}, "spec.policies[0]: is not enforced yet: requests may go to the remote"),
        ({"policies": [{"refType": "remotePolicy"}]}, "spec.policies[0]: names no policy: requests may go"),
    ],
)
def test_the_spec(spec, words):
    (said,) = warned(**spec)
    assert said.startswith(words)


def test_every_mode_has_its_effect():
    for mode in ("Threshold", "Proportional", "Shadow"):
        assert warned(offloadingConfig={"behavior": {"mode": mode}}) == []


def test_a_default_that_is_written_out_is_not_warned_of():
    assert warned(offloadingConfig={"behavior": {"mode": "Threshold", "restoreAfter": "1m", "tolerance": 0.1}}) == []


@pytest.mark.parametrize("type_", ["Resource", "ContainerResource"])
def test_what_pods_use_is_measured_and_a_value_of_it_is_their_sum(type_):
    field = type_[0].lower() + type_[1:]
    source = {"name": "cpu", **({"container": "server"} if type_ == "ContainerResource" else {})}
    average, share = {"type": "AverageValue", "averageValue": 1}, {"type": "Utilization", "averageUtilization": 50}
    for target in (average, share):
        assert warned(offloadingConfig={"metrics": [{"type": type_, field: {**source, "target": target}}]}) == []
    value = {**source, "target": {"type": "Value", "value": 3}}
    (said,) = warned(offloadingConfig={"metrics": [{"type": type_, field: value}]})
    assert said.startswith(f"spec.offloadingConfig.metrics[0].{field}.target: is compared with the sum over all pods")


@pytest.mark.parametrize("type_", ["Pods", "Object", "External"])
def test_other_metrics_are_measured_and_are_no_share_of_what_pods_request(type_):
    source = {"metric": {"name": "q"}}
    if type_ == "Object":
        source["describedObject"] = {"kind": "Service", "name": "chat"}
    average = {"type": "AverageValue", "averageValue": 1}
    metric = {"type": type_, type_.lower(): {**source, "target": average}}
    assert warned(offloadingConfig={"metrics": [metric]}) == []
    share = {"type": "Utilization", "averageUtilization": 50}
    (said,) = warned(offloadingConfig={"metrics": [{"type": type_, type_.lower(): {**source, "target": share}}]})
    assert said.startswith(f"spec.offloadingConfig.metrics[0].{type_.lower()}.target: this is no share of what")


def test_requests_are_measured():
    assert warned(offloadingConfig={"metrics": [{"type": "Requests", "requests": {"target": TARGET}}]}) == []


@pytest.mark.parametrize("type_", ["requests", "scrape", "external"])
def test_what_is_no_share_of_what_pods_request(type_):
    metric = {"target": {"type": "Utilization", "averageUtilization": 50}}
    if type_ != "requests":
        metric["metric"] = {"name": "queue"}
    (said,) = warned(offloadingConfig={"metrics": [{"type": type_.title(), type_: metric}]})
    assert said.startswith(f"spec.offloadingConfig.metrics[0].{type_}.target: this is no share")


def test_a_target_inside_its_metric_as_the_originals_documentation_has_it():
    (said,) = warned_of_external(metric={"name": "q", "target": TARGET})
    assert said == (
        "spec.offloadingConfig.metrics[0].external.metric.target: belongs beside metric, not into it; "
        "it is taken as if it stood there"
    )


def test_labels_beside_match_labels_as_the_originals_documentation_has_them():
    selector = {"matchLabels": None, "my_label": "value", "other": 3}
    label, other = warned_of_external(metric={"name": "q", "selector": selector}, target=TARGET)
    assert label.endswith("metric.selector.my_label: belongs into matchLabels; it is taken as if it stood there")
    assert other.endswith("metric.selector.other: belongs into matchLabels; it is left out")


def test_a_secret_in_the_object_itself():
    oauth = {"clientId": "me", "clientSecret": "hush", "tokenUrl": "https://t"}
    backend = {"host": "h", "authConfig": {"type": "oauth", "oauthConfig": oauth}}
    for offloading, at in (
        ({"remoteBackend": backend}, "remoteBackend"),
        ({"remoteBackends": [backend]}, "remoteBackends[0]"),
    ):
        (said,) = warned(offloadingConfig=offloading)
        assert said.startswith(f"spec.offloadingConfig.{at}.authConfig.oauthConfig.clientSecret: everybody who may")
        assert "hush" not in said


def test_a_header_that_is_a_credential():
    headers = {"AUTHORIZATION": "Bearer hush", "X-Team": "ml"}
    (said,) = warned(offloadingConfig={"remoteBackend": {"host": "h", "headersToAdd": headers}})
    assert said.startswith("spec.offloadingConfig.remoteBackend.headersToAdd.AUTHORIZATION: everybody who may")
    assert "hush" not in said


def test_backends_after_the_first_are_not_used_yet():
    (said,) = warned(offloadingConfig={"remoteBackends": [{"host": "a"}, {"host": "b", "retry": {}}]})
    assert said == "spec.offloadingConfig.remoteBackends[1]: has no effect yet: only the first backend is used"


def test_what_has_no_effect_yet_is_in_the_list_of_what_is_not_there_yet():
    listed = (ROOT / "README.md").read_text().partition("\n## What is not there yet\n")[2].partition("\n## ")[0]
    backends = {"offloadingConfig": {"remoteBackends": [{"host": "a"}, {"host": "b"}]}}
    policy = {"policies": [{"name": "eu", "refType": "remotePolicy"}]}
    said = warned(frontend="Sidecar", metricServiceRef={"name": "a"}, serverlessConfig={}, **policy, **backends)
    assert len(said) == 5
    for warning in said:
        name = warning.partition(": ")[0].rpartition(".")[2]
        assert name.removesuffix("[0]") in listed, warning
