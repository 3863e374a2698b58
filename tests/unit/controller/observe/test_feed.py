"""Which replicas of the xDS server are followed, and to which of them new Envoys may come."""

from __future__ import annotations

from controller.observe.feed import ADMIN_PORT, addresses_of
from tests.support.objects import a_slice


def test_one_that_is_not_ready_is_followed_and_no_new_envoy_comes_to_it() -> None:
    slices = a_slice().port(18001, ADMIN_PORT).ready("10.0.0.1").not_ready("10.0.0.2").terminating("10.0.0.3")
    assert addresses_of((slices.stored(),)) == {"10.0.0.1:18001": True, "10.0.0.2:18001": False}
