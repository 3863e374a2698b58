"""A message with a number in it is the same message, whichever way the number gets there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.route import Split
from tests.support.routes import A, a_remote, a_route, ready
from xds_server.resources.encoding import encoded
from xds_server.resources.model import Gateway, resources_for
from xds_server.resources.route import Bounds, model_route
from xds_server.resources.template import Template
from xds_server.snapshot.snapshot import ROUTE


@given(st.binary(), st.binary(), st.integers(1, 127))
def test_a_template_gives_what_was_written_with_the_number(before, behind, number):
    def write(value):
        return before + bytes([value]) + behind

    assert Template.of(write).filled(number) == write(number)


@pytest.mark.parametrize(
    "write",
    [
        lambda number: b"same",
        lambda number: bytes([number, number]),
        lambda number: bytes([1]) * number,
        lambda number: bytes([number + 1]),
        lambda number: b"x" * number + bytes([number]),
    ],
    ids=["not there", "twice", "a length", "not itself", "a length and itself"],
)
def test_a_number_that_is_not_one_byte_makes_no_template(write):
    with pytest.raises(ValueError, match="not one byte"):
        Template.of(write)


@pytest.mark.parametrize("number", [-1, 0, 128, 300])
def test_a_number_of_more_than_one_byte_is_not_filled_in(number):
    with pytest.raises(ValueError, match="from 1 to 127"):
        Template(b"", b"").filled(number)


@pytest.mark.parametrize("headers", [{}, {"x-team": "\x01ml\x02"}], ids=["plain", "with bytes like numbers"])
def test_the_route_of_every_split_is_as_it_is_authored(headers):
    remote = a_remote(path_prefix="/v1", headers=headers)
    for away in range(101):
        route = a_route(remote, away=away)
        built = resources_for(A, route, ready("10.0.0.1"), Gateway())
        (found,) = (one for one in built if (one.key.type_url, one.key.name) == (ROUTE, "model/default/a"))
        (backend,) = (one.key.name for one in built if one.key.name.startswith("backend/"))
        assert found.body == encoded(model_route(A, Split.away(away), remote, backend, Bounds()))
