"""The name by which gateways know their own requests."""

import pytest

from controller.api.contract.installation import check_installation, installation_of


def test_it_is_made_of_what_is_distinct_and_can_be_written():
    parts = (("a", "b"), ("ab",), ("a", "b", ""), ("", "ab"))
    names = {installation_of(*one) for one in parts}
    assert len(names) == len(parts)
    assert {check_installation(name) for name in names} == names
    assert installation_of("a", "b") in names


@pytest.mark.parametrize("name", ["", "a b", "a,b", 'a"', "a'", "a;b", "a:80", "ä", "x" * 64, "a\n"])
def test_a_name_that_cannot_stand_in_the_header_is_refused(name):
    with pytest.raises(ValueError, match="must be 1 to 63 letters"):
        check_installation(name)
