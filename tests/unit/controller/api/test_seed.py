"""Manifests of the system being replaced keep their meaning."""

from datetime import timedelta

import pytest
import yaml

from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse

QUICK_START = """
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata:
  name: php-apache
spec:
  model: "php-apache"
  environment: "production"
  modelSourceRef:
    apiVersion: apps/v1
    kind: Deployment
    name: php-apache
    namespace: default
  serviceRef:
    name: php-apache
    namespace: default
    targetPort: 80
  offloadingConfig:
    behavior:
      percentage: 50
    metrics:
      - type: Resource
        resource:
          name: cpu
          target:
            type: Utilization
            averageUtilization: 90
"""

EVERYTHING = """
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: llama, namespace: ml, labels: {app: llama}, finalizers: [modeldeployment.beamlit.com/finalizer]}
spec:
  model: llama
  enabled: false
  environment: staging
  modelSourceRef: {apiVersion: apps/v1, kind: StatefulSet, name: llama, uid: abc, resourceVersion: "7", fieldPath: spec}
  serviceRef: {kind: Service, name: llama, targetPort: http}
  metricServiceRef: {name: llama, targetPort: 9090}
  policies: [{refType: localPolicy, name: eu}, {refType: remotePolicy, name: gpu, namespace: ml}]
  serverlessConfig:
    {minNumReplicas: 0, maxNumReplicas: 3, metric: cpu, target: "80", scaleUpMinimum: 2, scaleDownDelay: 1m,
     stableWindow: 5m, lastPodRetentionPeriod: 0s}
  offloadingConfig:
    behavior: {percentage: 0}
    metrics:
    - {type: Pods, pods: {metric: {name: queue}, target: {type: AverageValue, averageValue: 500m}}}
    - type: Object
      object:
        describedObject: {apiVersion: v1, kind: Service, name: llama}
        metric: {name: rps, selector: {matchLabels: {a: b}}}
        target: {type: Value, value: 2k}
    - type: External
      external:
        metric: {name: jobs, selector: {matchExpressions: [{key: q, operator: In, values: [x]}]}}
        target: {type: Value, value: 10}
    - type: ContainerResource
      containerResource: {name: cpu, container: main, target: {type: Utilization, averageUtilization: 70}}
    remoteBackend:
      host: run.beamlit.com
      scheme: https
      pathPrefix: /$workspace/models/$model
      headersToAdd: {X-Team: ml}
      authConfig:
        type: oauth
        oauthConfig: {clientId: me, clientSecret: hush, tokenUrl: "https://api.beamlit.com/v0/oauth/token"}
status: {offloadingStatus: true, servingPort: 80, anything: goes}
"""


def seed(text: str) -> ModelDeployment:
    return parse(ModelDeployment, yaml.safe_load(text))


def test_the_quick_start_parses():
    spec = seed(QUICK_START).spec
    assert (spec.model, spec.enabled, spec.environment) == ("php-apache", True, "production")
    assert spec.service_ref.target_port == 80
    assert spec.offloading_config.behavior.percentage == 50
    (metric,) = spec.offloading_config.metrics
    assert (metric.type, metric.resource.name) == ("Resource", "cpu")
    assert metric.resource.target.average_utilization == 90


def test_every_field_of_the_original_parses():
    spec = seed(EVERYTHING).spec
    assert spec.policies[1].ref_type == "remotePolicy"
    assert spec.serverless_config.scale_up_minimum == 2
    assert [metric.type for metric in spec.offloading_config.metrics] == [
        "Pods",
        "Object",
        "External",
        "ContainerResource",
    ]
    assert spec.offloading_config.remote_backend.auth_config.oauth_config.client_secret.get_secret_value() == "hush"


@pytest.mark.parametrize("text", [QUICK_START, EVERYTHING], ids=["quick start", "everything"])
def test_what_is_written_back_means_the_same(text):
    model = seed(text)
    # The secret is masked in everything that can be printed, so it is the one thing that does not survive.
    written = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = parse(ModelDeployment, written)
    assert again.spec.model_copy(update={"offloading_config": None}) == model.spec.model_copy(
        update={"offloading_config": None}
    )
    assert again.spec.offloading_config.metrics == model.spec.offloading_config.metrics


def test_prior_fault_12_what_is_false_or_zero_survives_every_write():
    written = seed(EVERYTHING).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["spec"]["enabled"] is False
    assert written["spec"]["offloadingConfig"]["behavior"]["percentage"] == 0
    assert written["spec"]["serverlessConfig"]["minNumReplicas"] == 0
    again = parse(ModelDeployment, written)
    assert again.spec.enabled is False
    assert again.spec.offloading_config.behavior.percentage == 0


def test_the_status_is_not_the_specs_business():
    assert "status" not in seed(EVERYTHING).model_dump()


def test_defaults():
    model = parse(ModelDeployment, {"metadata": {"name": "a"}, "spec": {"model": "a", "modelSourceRef": {"name": "a"}}})
    spec = model.spec
    assert (model.metadata.namespace, spec.enabled, spec.environment) == ("default", True, "production")
    assert (spec.service_ref, spec.policies, spec.offloading_config) == (None, (), None)
    offloading = parse(
        ModelDeployment,
        {
            "metadata": {"name": "a"},
            "spec": {
                "model": "a",
                "modelSourceRef": {"name": "a"},
                "offloadingConfig": {"remoteBackend": {"host": "h"}},
            },
        },
    ).spec.offloading_config
    behavior, backend = offloading.behavior, offloading.remote_backend
    assert (behavior.percentage, behavior.mode, behavior.on_unknown) == (100, "Threshold", "Hold")
    assert (behavior.offload_after, behavior.restore_after) == (timedelta(0), timedelta(seconds=60))
    assert (behavior.recover_after, behavior.step_interval) == (timedelta(seconds=5), timedelta(seconds=1))
    assert (backend.scheme, backend.path_prefix, backend.headers_to_add) == ("http", "", {})


def test_null_is_absent_as_for_the_api_server():
    model = parse(
        ModelDeployment,
        {
            "metadata": {"name": "a", "annotations": None, "namespace": None},
            "spec": {
                "model": "a",
                "enabled": None,
                "modelSourceRef": {"name": "a"},
                "policies": None,
                "offloadingConfig": {"behavior": {"percentage": None, "recoverAfter": None}, "metrics": None},
            },
        },
    )
    assert model.metadata.annotations == {}
    assert model.metadata.namespace == "default"
    assert model.spec.enabled is True
    assert model.spec.offloading_config.behavior.percentage == 100
