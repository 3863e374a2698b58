"""`serviceRef.targetPort` finds one port of the Service, or says which there are."""

import pytest

from controller.observe.references import PortNotFoundError, port_of
from tests.support.objects import a_service

HEADLESS = a_service().headless()
ONE = a_service().port(80, target=8080)
TWO = a_service().port(80, name="http", target="web").port(9090, name="metrics", target=9100)
CROSSED = a_service().port(80, name="a", target=8080).port(8080, name="b", target=80)
SAME_TARGET = a_service().port(80, name="a", target=8080).port(81, name="b", target=8080)
NAMED_AS_TARGET = a_service().port(80, name="x", target="web").port(81, name="web", target="other")
WITH_UDP = a_service().port(53, name="dns", protocol="UDP").port(80, name="http")


@pytest.mark.parametrize(
    ("service", "wanted", "port"),
    [
        (ONE, None, 80),
        (ONE, 80, 80),
        (ONE, "80", 80),
        (ONE, 8080, 80),
        (TWO, 80, 80),
        (TWO, "web", 80),
        (TWO, "http", 80),
        (TWO, 9100, 9090),
        (TWO, "metrics", 9090),
        (a_service().port(80), 80, 80),
        (WITH_UDP, None, 80),
    ],
)
def test_one_port_fits(service, wanted, port):
    assert port_of(wanted, service.parsed()).port == port


@pytest.mark.parametrize(("wanted", "port"), [(80, 80), (8080, 8080)])
def test_the_port_comes_before_the_target_port(wanted, port):
    assert port_of(wanted, CROSSED.parsed()).port == port


def test_the_target_port_comes_before_the_name():
    assert port_of("web", NAMED_AS_TARGET.parsed()).port == 80


@pytest.mark.parametrize(
    ("service", "wanted", "words"),
    [
        (TWO, None, "is not set, and more than one port fits; the Service's TCP ports: 80 (http), 9090 (metrics)"),
        (TWO, 81, "is 81, and no TCP port fits; the Service's TCP ports: 80 (http), 9090 (metrics)"),
        (SAME_TARGET, 8080, "is 8080, and more than one port fits; the Service's TCP ports: 80 (a), 81 (b)"),
        (WITH_UDP, 53, "is 53, and no TCP port fits; the Service's TCP ports: 80 (http)"),
        (ONE, "http", "is http, and no TCP port fits; the Service's TCP ports: 80"),
        (HEADLESS, None, "is not set, and no TCP port fits; the Service's TCP ports: none"),
    ],
)
def test_the_choices_are_named_otherwise(service, wanted, words):
    with pytest.raises(PortNotFoundError) as caught:
        port_of(wanted, service.parsed())
    assert str(caught.value) == f"serviceRef.targetPort {words}"
