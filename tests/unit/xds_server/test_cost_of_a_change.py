"""One change costs the same, whether there are ten models or hundreds: counted in steps of the interpreter, not timed.

What counts are calls, of functions in Python and of those built in, and every turn of a generator.
"""

import sys

import pytest

from controller.api.contract.route import RouteKey
from tests.support.routes import a_remote, a_route, ready
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import MAKE_BEFORE_BREAK
from xds_server.stream.protocol.dialects import DeltaSession
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest
from xds_server.stream.protocol.parts import at_once

pytestmark = pytest.mark.long  # each counts the steps of hundreds of models

FEW, MANY = 10, 400
REPLICAS = ready("10.0.0.1", "10.0.0.2")


class Published:
    """Some models, and one Envoy that has them all."""

    def __init__(self, models):
        self.assembly = Assembly()
        self.translator = Translator(EnvoySettings())
        self.assembly.replace([(self.key(number), self.resources(number)) for number in range(models)])
        self.session = DeltaSession(self.assembly.snapshot, ClientTerms(), now=0)
        for type_url in MAKE_BEFORE_BREAK:
            self.settle(at_once(self.session.receive(DeltaRequest(type_url, subscribe=("*",)), now=0)))

    def key(self, number):
        return RouteKey.of_model("default", f"model-{number}")

    def resources(self, number, away=30, replicas=REPLICAS):
        route = a_route(a_remote(f"r{number % 5}", path_prefix=f"/{number}"), away=away, port=10_000 + number)
        return self.translator.resources(self.key(number), route, replicas)

    def change(self, number, *resources):
        changed = self.assembly.replace([(self.key(number), resources)])
        self.settle(at_once(self.session.publish(self.assembly.snapshot, changed, now=10)))
        assert all(self.session.holds(one.key, one.version) for one in resources)

    def settle(self, output):
        responses = list(output.responses)
        while responses:
            response = responses.pop(0)
            request = DeltaRequest(response.type_url, nonce=response.nonce)
            responses += at_once(self.session.receive(request, now=10)).responses


def steps(do):
    """Count the calls that `do` makes."""
    count = 0

    def counted(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


CHANGES = {
    "a new split": lambda published: published.change(3, *published.resources(3, away=40)),
    "a replica less": lambda published: published.change(3, *published.resources(3, away=30, replicas=REPLICAS[1:])),
    "a model that goes": lambda published: published.change(3),
    "a model that comes": lambda published: published.change(5000, *published.resources(5000)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_takes_as_many_steps_with_many_models_as_with_few(change):
    few, many = Published(FEW), Published(MANY)
    for published in (few, many):
        change(published)  # what is made once, such as how a class is written, is made
        published.change(3, *published.resources(3))
        published.change(5000)
    at_few, at_many = (steps(lambda published=published: change(published)) for published in (few, many))
    assert at_many <= 1.1 * at_few + 50, f"{at_few} steps with {FEW} models, {at_many} with {MANY}"
