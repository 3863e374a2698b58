"""What a route says is looked at again where it is served: the right to write a status is not the right to send."""

import pytest

from controller.api.contract.credentials import CredentialSource, OAuth, RemoteAuth
from controller.api.destinations import ANYWHERE, OUTSIDE
from tests.support.objects import a_model
from tests.support.routes import A, a_remote, a_route
from xds_server.control_plane import ControlPlaneOptions
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.snapshot import CLUSTER
from xds_server.translate import translate

INLINE = CredentialSource(source="Spec")


def served(remote, destinations):
    """The problems of a route with this remote backend, and whether Envoy has a cluster for it."""
    raw = a_route(remote, away=30).model_dump(mode="json", by_alias=True, exclude_none=True)
    stored = a_model(A.name).in_namespace(A.namespace).stored(status={"observedGeneration": 1, "route": raw})
    found = translate([stored], ServingOptions(destinations=destinations))
    problems = [(one.reason, one.message) for one in found.problems.get(A, ())]
    return problems, any(name.startswith("backend/") for name in found.gateway.by_type[CLUSTER])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.01", "169.254.169.254", "::1", "localhost"])
def test_a_host_that_is_refused_as_it_is_written_gets_no_cluster(host):
    words = [("HostRefused", f"{host} is refused; nothing may be sent there")]
    assert served(a_remote(host=host), OUTSIDE) == (words, False)
    assert served(a_remote(host=host), ANYWHERE) == ([], True)


def test_a_token_endpoint_that_is_refused_takes_its_backend_with_it():
    oauth = OAuth(client_id="me", client_secret=INLINE, token_url="http://[::1]:80/token")
    problems, is_there = served(a_remote(host="models.example", auth=RemoteAuth(oauth=oauth)), OUTSIDE)
    assert problems[0] == ("HostRefused", "::1 is refused; nothing may be sent there")
    assert not is_there


def test_other_hosts_are_served():
    for host in ("models.example", "10.0.0.1", "2001:db8::1"):
        assert served(a_remote(host=host), OUTSIDE) == ([], True)


def test_the_guard_of_the_program_is_what_its_routes_are_looked_at_with():
    options = ControlPlaneOptions()
    assert options.serving.destinations == options.serving.gateway.destinations == ANYWHERE
