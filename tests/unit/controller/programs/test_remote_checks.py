"""Where the checks of remote backends may connect to."""

import pytest

from controller.api.kubernetes.endpoints import admit_all, admit_pods
from controller.programs.remote_checks import refusal

OWN = frozenset(("default.example",))


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:127.0.0.1"])
def test_in_a_cluster_a_name_may_not_lead_to_what_is_beside_the_gateway(address):
    refused = refusal(admit_pods, OWN)
    assert refused("models.example", address)
    assert refused("default.example", address) is None
    assert refusal(admit_all, OWN)("models.example", address) is None


def test_a_name_may_lead_to_any_other_address():
    for address in ("10.0.0.1", "203.0.113.7", "fd00::1"):
        assert refusal(admit_pods, OWN)("models.example", address) is None
