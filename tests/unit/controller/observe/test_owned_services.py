"""Services that name a model as their owner: a few of any number are looked at, and the one that it asks for."""

from datetime import timedelta

import pytest

from controller.frontend.ports import ServicePorts
from controller.observe.chains import places_of
from controller.observe.fronting import TakeoverRules
from controller.observe.index import ObjectIndex
from controller.observe.observation import Defaults, Measured, Observer
from controller.signals.load_reports import NoLoads
from controller.signals.source import Sampler
from controller.store.protocol import Batch
from tests.support.objects import a_model, a_service
from tests.support.proxies import AllProgrammed

MODEL = a_model("chat").at_gateway("z-asked")
ASKED = a_service("z-asked").port(80).owned_by(MODEL.stored())


class Counting(ObjectIndex):
    """An index that counts how often a Service is looked up."""

    looked_up = 0

    def service(self, namespace, name):
        self.looked_up += 1
        return super().service(namespace, name)


def observing(*services):
    """An index with a model and Services, and who observes it."""
    index = Counting()
    index.apply(Batch(changed=tuple(one.stored() for one in (MODEL, a_model("small"), *services))))
    measured = Measured(Sampler({}), NoLoads(), timedelta(seconds=2))
    return index, Observer(index, AllProgrammed(), measured, Defaults(None, ServicePorts(), takeover=TakeoverRules()))


def test_what_it_costs_to_register_a_model_does_not_grow_with_the_services_that_it_owns():
    def costs(many):
        others = [a_service(f"other{number:04}").port(80).owned_by(MODEL.stored()) for number in range(many)]
        index, observer = observing(ASKED, *others)
        observer.register(MODEL.ref)
        services = observer.services_of(MODEL.ref)
        assert ASKED.ref in services
        return index.looked_up, len(services)

    assert costs(500) == costs(50)


@pytest.mark.parametrize("service", [ASKED.owned_by(a_model("small").stored()), a_service("z-asked").port(80)])
def test_the_service_that_it_asks_for_is_none_of_a_model_that_does_not_own_it(service):
    _, observer = observing(service)
    assert observer.services_of(MODEL.ref) == frozenset()


def test_a_service_with_very_many_addresses_is_known_by_some():
    addresses = [f"10.{number // 250}.{number % 250}.1" for number in range(5_000)]
    service = a_service("b").port(80).saying(addresses, "spec", "externalIPs").parsed()
    assert len(places_of("team", "b", service, 80, None)) < 40
