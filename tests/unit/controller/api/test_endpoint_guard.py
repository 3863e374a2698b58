"""Which endpoints of a cluster may be sent to."""

import pytest

from controller.api.kubernetes.endpoints import admit_all, admit_pods, refused_address
from controller.api.kubernetes.objects import MANAGED_BY
from tests.support.objects import a_slice

OURS = "endpointslice-controller.k8s.io"


def a_slice_by(writer, *addresses):
    return a_slice().ready(*addresses).written_by(writer).parsed()


def addresses(admitted):
    return [endpoint.addresses[0] for one in admitted.slices for endpoint in one.endpoints]


@pytest.mark.parametrize("writer", [OURS, "endpointslicemirroring-controller.k8s.io"])
def test_slices_of_the_services_own_controllers_count(writer):
    admitted = admit_pods([a_slice_by(writer, "10.0.0.1")], custom=False)
    assert addresses(admitted) == ["10.0.0.1"]
    assert admitted.refused == ()


def test_a_slice_that_somebody_else_wrote_is_left_out_and_said():
    admitted = admit_pods([a_slice_by("somebody", "10.0.0.1"), a_slice_by(OURS, "10.0.0.2")], custom=False)
    assert addresses(admitted) == ["10.0.0.2"]
    (words,) = admitted.refused
    assert "'somebody'" in words
    assert MANAGED_BY in words


def test_a_slice_without_a_writer_is_left_out():
    assert admit_pods([a_slice().ready("10.0.0.1").parsed()], custom=False).slices == ()


def test_a_service_without_a_selector_opts_in_to_slices_written_by_hand():
    assert addresses(admit_pods([a_slice_by("somebody", "10.0.0.1")], custom=True)) == ["10.0.0.1"]


@pytest.mark.parametrize("custom", [False, True])
def test_one_bad_address_takes_nothing_from_the_others(custom):
    admitted = admit_pods([a_slice_by(OURS, "10.0.0.1", "169.254.169.254", "10.0.0.2")], custom=custom)
    assert addresses(admitted) == ["10.0.0.1", "10.0.0.2"]
    assert admitted.refused == ("EndpointSlice default/a-1: 169.254.169.254 is a link-local address",)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
    ],
)
def test_addresses_that_no_pod_has(address):
    assert refused_address(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.01", "169.254.169.0254", "127.1", "127.0.0.1.", "0x7f000001", "0x7F.1", "2130706433", "00.0.0.0", "1:2"],
)
def test_an_address_in_another_form_is_no_way_around(host):
    # Measured: Envoy 1.40 connects to 127.0.0.1 for 127.0.0.01.
    assert admit_pods.destinations.refused_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "64:ff9b::808:808",
        "models.example.com",
        "8.8.8.8",
        "llama3",
        "a.svc.cluster1",
        "service.1",
        "0x7f.example.com",
    ],
)
def test_addresses_that_a_pod_or_a_backend_may_have_and_names(host):
    assert refused_address(host) is None


def test_a_folder_is_trusted():
    assert addresses(admit_all([a_slice().ready("127.0.0.1").parsed()], custom=False)) == ["127.0.0.1"]


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "LOCALHOST.", "127.0.0.1", "metadata.google.internal", "169.254.169.254"]
)
def test_hosts_that_only_the_gateway_can_reach(host):
    assert admit_pods.destinations.refused_host(host)
    assert admit_all.destinations.refused_host(host) is None


@pytest.mark.parametrize("host", ["models.example.com", "10.0.0.1", "localhost.example.com"])
def test_hosts_that_a_model_may_send_to(host):
    assert admit_pods.destinations.refused_host(host) is None
