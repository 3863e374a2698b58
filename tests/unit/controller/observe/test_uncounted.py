"""What is behind a Service and is no replica is said, with the names that were compared."""

import pytest

from controller.observe.references import resolve
from tests.support.indexed import view_of
from tests.support.objects import a_model, a_service, a_slice

SERVICE = a_service().port(80, name="http").selecting(app="a")
SLICE = a_slice().port(8080, "http").ready("10.0.0.1")


def said(*objects):
    return resolve(a_model().intent(), view_of(*objects), None).front.uncounted


@pytest.mark.parametrize(
    "slices",
    [
        [SLICE],
        [SLICE.not_ready("10.0.0.2").terminating("10.0.0.3")],
        [SLICE, a_slice(suffix="6").of("IPv6").port(8080, "http").ready("fd00::1")],
        # As the endpoint controller writes the slice of a Service without pods.
        [a_slice()._with(None, "ports")._with(None, "endpoints")],
        [SLICE, a_slice(suffix="2").port(9000, "metrics")],
    ],
    ids=["a replica", "not ready", "two families", "no pods", "an empty slice"],
)
def test_of_what_counts_and_of_nothing_nothing_is_said(slices):
    assert said(SERVICE, *slices) == ()


def test_endpoints_beyond_those_that_are_taken_are_counted():
    many = [{"addresses": [f"10.0.{number // 250}.{number % 250}"]} for number in range(1_200)]
    slices = a_slice().port(8080, "http")._with(many, "endpoints")
    front = resolve(a_model().intent(), view_of(SERVICE, slices), None).front
    assert len(front.replicas) == 1_000
    assert front.uncounted == (
        "200 of 1200 endpoints: of those that are ready the first 1000 by their addresses are taken, and as many of "
        "those that are not",
    )


@pytest.mark.parametrize(
    ("service", "slices", "words"),
    [
        (
            SERVICE,
            [a_slice().port(9000, "metrics").and_port(8080, "web").ready("10.0.0.1", "10.0.0.2")],
            'EndpointSlice default/a-1 (endpoints: 2) has other ports than "http", as the Service calls it: '
            '"metrics", "web"',
        ),
        (
            a_service().port(80),
            [a_slice().port(8080, "http").ready("10.0.0.1")],
            'EndpointSlice default/a-1 (endpoints: 1) has other ports than "", as the Service calls it: "http"',
        ),
        (
            # Of pods that lack the port by whose name the Service finds it.
            SERVICE,
            [a_slice()._with(None, "ports").ready("10.0.0.1")],
            'EndpointSlice default/a-1 (endpoints: 1) has other ports than "http", as the Service calls it: none',
        ),
        (
            SERVICE,
            [a_slice().port(None, "http").ready("10.0.0.1")],
            'EndpointSlice default/a-1 (endpoints: 1) gives its port "http" no number',
        ),
        (
            SERVICE,
            [a_slice().of("FQDN").port(8080, "http").ready("models.example")],
            "EndpointSlice default/a-1 (endpoints: 1) has addressType FQDN, names such as models.example; only IP "
            "addresses count",
        ),
        (
            SERVICE,
            [a_slice("b").ready("10.0.0.1")],
            'no EndpointSlice has the label kubernetes.io/service-name: "a"',
        ),
        (
            a_service().port(80),
            [],
            'no EndpointSlice has the label kubernetes.io/service-name: "a". Endpoints count by the slices into which '
            "a cluster mirrors them, unless they have the label endpointslice.kubernetes.io/skip-mirror: "
            '"true"',
        ),
        (
            a_service().port(80)._with("ExternalName", "spec", "type")._with("m.example", "spec", "externalName"),
            [],
            "Service default/a: it is of type ExternalName, which has no endpoints; m.example can be the host of a "
            "remote backend",
        ),
    ],
    ids=["named otherwise", "unnamed", "no ports", "no number", "names", "another label", "Endpoints", "ExternalName"],
)
def test_what_does_not_count(service, slices, words):
    assert said(service, *slices) == (words,)


def test_what_counts_does_not_hide_what_does_not():
    (words,) = said(SERVICE, SLICE, a_slice(suffix="2").port(9000, "metrics").ready("10.0.0.9"))
    assert words.startswith("EndpointSlice default/a-2 ")


def test_a_long_list_ends_with_a_number():
    others = [a_slice(suffix=f"{n:02}").port(9000, "metrics").ready("10.0.0.1") for n in range(30)]
    assert len(said(SERVICE, *others)) == 6
    assert said(SERVICE, *others)[5] == "and 25 more slices"


def test_a_service_that_names_a_host_and_has_no_port_to_front():
    service = a_service()._with("ExternalName", "spec", "type")._with("m.example", "spec", "externalName")
    (fault,) = resolve(a_model().intent(), view_of(service), None).faults
    assert fault.message.endswith(
        "the Service's TCP ports: none; it is of type ExternalName, which has no endpoints; m.example can be the host "
        "of a remote backend"
    )
