"""What keeps Envoys from addresses that are refused: only where it matters, and for checks alone."""

from datetime import timedelta

import pytest

from controller.api.contract.credentials import CredentialSource, OAuth, RemoteAuth
from controller.api.contract.route import HttpCheck, Remote, RemoteTls, RouteKey
from controller.api.destinations import ANYWHERE, OUTSIDE, Destinations
from tests.support.resources import decoded
from tests.support.routes import a_remote, a_route
from xds_server.resources.guard import NAME, loopback_address
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, LISTENER

A = RouteKey.of_model("ns", "a")
DENIES = ANYWHERE.configured(allow=("models.allowed", "10.7.0.0/16"), deny=("private", "203.0.113.0/24"))


def built(remote: Remote, destinations: Destinations = OUTSIDE) -> dict[tuple[str, str], dict]:
    """What an Envoy gets for a route with this remote backend, by type and name."""
    resources = Translator(EnvoySettings(destinations=destinations)).resources(A, a_route(remote), ())
    return {(one.key.type_url, one.key.name): decoded(one) for one in resources}


def backend(found: dict[tuple[str, str], dict]) -> dict:
    (one,) = (content for (_, name), content in found.items() if name.startswith("backend/"))
    return one


def guarding(found: dict[tuple[str, str], dict]) -> set[str]:
    return {name for _, name in found if name.startswith(NAME)}


@pytest.mark.parametrize("host", ["10.0.0.1", "2001:db8::1", "models.allowed"])
def test_what_leads_nowhere_else_is_checked_as_ever(host):
    found = built(a_remote(host=host), DENIES)
    assert guarding(found) == set()
    assert backend(found) == backend(built(a_remote(host=host), ANYWHERE))


def test_a_name_in_a_folder_without_a_configuration_is_checked_as_ever():
    assert guarding(built(a_remote(host="models.example"), ANYWHERE)) == set()


def test_requests_to_a_name_are_sent_as_ever():
    """What guards it is a matter of its checks."""
    guarded, free = (backend(built(a_remote(host="models.example"), one)) for one in (OUTSIDE, ANYWHERE))
    for one in (guarded, free):
        del one["health_checks"]
        one.pop("transport_socket_matches", None)
    assert guarded == free


@pytest.mark.parametrize(
    ("path", "asked"), [("", ("/", "POST")), ("/healthz", ("/healthz", "METHOD_UNSPECIFIED"))], ids=["connects", "asks"]
)
def test_a_check_names_the_address_that_it_is_for(path, asked):
    check = HttpCheck(path=path, interval=timedelta(seconds=7)) if path else None
    (made,) = backend(built(a_remote(host="models.example", health_check=check)))["health_checks"]
    http = made["http_health_check"]
    assert (http["path"], http.get("method", "METHOD_UNSPECIFIED")) == asked
    assert [one["header"]["value"] for one in http["request_headers_to_add"]] == ["%UPSTREAM_HOST%", NAME]
    # An Envoy that starts asks again soon.
    assert made["no_traffic_interval"] == made["unhealthy_interval"]


def test_a_server_that_is_verified_is_verified_behind_the_listener():
    found = built(a_remote(host="models.example", tls=RemoteTls(server_name="models.example")))
    (name,) = guarding(found) - {NAME}
    assert found[CLUSTER, name]["transport_socket"] == backend(found)["transport_socket"]
    (made,) = backend(found)["health_checks"]
    assert made["http_health_check"]["request_headers_to_add"][1]["header"]["value"] == name
    assert "tls_options" not in made


def test_a_token_endpoint_is_guarded_also_if_the_backend_is_not():
    secret = CredentialSource.of_secret("s", "clientSecret")
    oauth = OAuth(client_id="me", client_secret=secret, token_url="https://auth.example/token")
    found = built(a_remote(host="203.0.113.1", auth=RemoteAuth(oauth=oauth)))
    (tokens,) = (content for (_, name), content in found.items() if name.startswith("auth/"))
    assert tokens["type"] == "STRICT_DNS"
    # Without a healthy host nothing is sent.
    assert tokens["common_lb_config"]["healthy_panic_threshold"] == {}
    assert (LISTENER, NAME) in found
    assert "transport_socket_matches" not in backend(found)


def test_envoys_that_refuse_the_same_share_an_address_and_others_do_not():
    addresses = {
        loopback_address(name, one) for name in ("a", "b") for one in (OUTSIDE, DENIES, OUTSIDE.configured((), ()))
    }
    assert len(addresses) == 4
    assert all(one.startswith("127.") and 1 <= int(one.split(".")[1]) <= 15 for one in addresses)
