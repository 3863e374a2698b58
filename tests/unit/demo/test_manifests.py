"""The demo's YAML is what Kubernetes writes and what the product accepts."""

import yaml

from controller.api.base import parse
from controller.api.core import EndpointSlice, Service
from controller.api.model import ModelDeployment
from demo.manifests import Replica, model_yaml, service_yaml, slices_yaml


def slices(*replicas: Replica) -> list[EndpointSlice]:
    return [parse(EndpointSlice, raw) for raw in yaml.safe_load_all(slices_yaml(replicas))]


def test_the_model_names_its_remote_backend():
    model = parse(ModelDeployment, yaml.safe_load(model_yaml("127.0.0.1:9000")))
    assert model.spec.offloading_config.remote_backend.host == "127.0.0.1:9000"


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
