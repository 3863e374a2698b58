"""The demo's YAML is what Kubernetes writes and what the product accepts."""

from base64 import b64decode
from functools import partial
from pathlib import Path

import yaml

from controller.api.kubernetes.objects import EndpointSlice, Secret, Service, Workload
from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from demo.credentials import CLIENT_ID, SERVER_NAME, Credentials
from demo.manifests import (
    PLACES,
    Replica,
    deployment_yaml,
    model_yaml,
    secrets_yaml,
    service_yaml,
    slices_yaml,
)


def slices(*replicas: Replica) -> list[EndpointSlice]:
    return [parse(EndpointSlice, raw) for raw in yaml.safe_load_all(slices_yaml(replicas))]


def test_the_model_says_what_its_replicas_take_and_how_to_reach_its_remote_backend():
    model = parse(ModelDeployment, yaml.safe_load(model_yaml("127.0.0.1:9000", "http://127.0.0.1:9001/token")))
    offloading = model.spec.offloading_config
    assert offloading.behavior.max_requests_per_replica == PLACES
    remote = offloading.remote_backend
    assert (remote.host, remote.scheme, remote.tls.sni) == ("127.0.0.1:9000", "https", SERVER_NAME)
    assert remote.auth_config.oauth_config.client_id == CLIENT_ID


def test_the_secrets_are_those_that_the_model_names():
    credentials = Credentials(Path(), "the authority", "the client's secret", "the key")
    found = {
        one.metadata.name: one for one in map(partial(parse, Secret), yaml.safe_load_all(secrets_yaml(credentials)))
    }
    model = parse(ModelDeployment, yaml.safe_load(model_yaml("127.0.0.1:9000", "http://127.0.0.1:9001/token")))
    remote = model.spec.offloading_config.remote_backend
    authority, client = remote.tls.ca_ref.name, remote.auth_config.oauth_config.client_secret_ref.name
    assert b64decode(found[authority].data["ca.crt"].get_secret_value()) == b"the authority"
    assert b64decode(found[client].data["clientSecret"].get_secret_value()) == b"the client's secret"


def test_the_deployment_has_a_readiness_probe_on_the_port_of_the_service():
    deployment = parse(Workload, yaml.safe_load(deployment_yaml(3)))
    service = parse(Service, yaml.safe_load(service_yaml(30123)))
    (container,) = deployment.spec.template.spec.containers
    assert container.readiness_probe.http_get.port == service.spec.ports[0].target_port


def test_the_service_has_the_node_port():
    assert parse(Service, yaml.safe_load(service_yaml(30123))).spec.ports[0].node_port == 30123


def test_replicas_with_one_port_share_a_slice():
    (one,) = slices(Replica("a", "127.0.0.2", 8000), Replica("b", "127.0.0.3", 8000, ready=False))
    assert one.ports[0].port == 8000
    assert [(endpoint.addresses, endpoint.ready) for endpoint in one.endpoints] == [
        (("127.0.0.2",), True),
        (("127.0.0.3",), False),
    ]


def test_replicas_with_several_ports_have_a_slice_each():
    found = slices(Replica("a", "127.0.0.1", 8001), Replica("b", "127.0.0.1", 8000))
    assert [one.ports[0].port for one in found] == [8000, 8001]
    assert len({one.metadata.name for one in found}) == 2
    assert {one.metadata.labels["kubernetes.io/service-name"] for one in found} == {"chat"}
