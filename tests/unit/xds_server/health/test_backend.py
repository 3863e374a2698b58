"""What of a route is checked."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, OAuth, RemoteAuth
from controller.api.contract.route import HttpCheck, RouteKey
from controller.api.destinations import ANYWHERE, OUTSIDE
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.values import parse
from controller.intent.remotes import remotes_of
from tests.support.objects import a_model
from tests.support.routes import A, B, a_remote, over_tls, with_key, with_token
from xds_server.health.backend import Address, Backend, Trust, backend_for, own_hosts, refusal

HUSH = "hush & hush"


def source(secret, key):
    return CredentialSource.of_secret(secret, key)


def test_a_plain_backend_is_connected_to_every_five_seconds():
    backend = backend_for(A, a_remote(port=8080), {})
    assert backend == Backend(
        backend.name, Address("remote.example", 8080), "remote.example", patience=timedelta(seconds=2)
    )
    assert backend.interval == timedelta(seconds=5)


def test_it_is_one_for_all_that_send_to_the_same_server_in_whichever_namespace():
    remote = a_remote(headers={"x-a": "1"}, path_prefix="/a")
    next_door = RouteKey.of_model("next", "door")
    assert backend_for(A, remote, {}) == backend_for(B, a_remote(), {}) == backend_for(next_door, a_remote(), {})
    assert backend_for(A, remote, {}).name != backend_for(A, a_remote(port=81), {}).name


@pytest.mark.parametrize(("given", "checked"), [("300ms", 5), ("5s", 5), ("1m", 60)])
def test_it_is_asked_for_the_path_of_its_health_check_but_not_too_often(given, checked):
    check = parse(HttpCheck, {"path": "/healthz", "interval": given})
    backend = backend_for(A, a_remote(health_check=check), {})
    assert (backend.path, backend.interval.total_seconds()) == ("/healthz", checked)


def test_who_must_be_there_is_who_envoy_wants_to_be_there():
    values = {source("c", "ca.crt"): "CA", source("c", "tls.crt"): "CERT", source("c", "tls.key"): "KEY"}
    values = {one: SecretStr(value) for one, value in values.items()}
    remote = a_remote(tls=over_tls(ca="c", certificate="c", server_name="models.example"))
    assert backend_for(A, remote, values).trust == Trust("models.example", SecretStr("CA"), SecretStr("CERTKEY"))
    assert backend_for(A, a_remote(tls=over_tls()), {}).trust == Trust("remote.example")


def test_a_token_is_asked_for_as_rfc_6749_says():
    oauth = OAuth(
        client_id="me",
        client_secret=source("s", "clientSecret"),
        token_url="https://auth.example:8443/oauth/token?tenant=a",
        scopes=("read", "write"),
    )
    values = {source("s", "clientSecret"): SecretStr(HUSH)}
    token = backend_for(A, a_remote(auth=RemoteAuth(oauth=oauth)), values).token
    assert (token.address, token.over_tls) == (Address("auth.example", 8443), True)
    assert (token.authority, token.target) == ("auth.example:8443", "/oauth/token?tenant=a")
    assert token.form.get_secret_value() == (
        "grant_type=client_credentials&client_id=me&client_secret=hush+%26+hush&scope=read+write"
    )


def test_the_name_of_a_token_endpoint_is_resolved_as_it_was_written_and_told_as_it_should_be():
    oauth = with_token(url="https://Auth.Example.:443/token?tenant=A")
    token = backend_for(A, a_remote(auth=oauth), {oauth.oauth.client_secret: SecretStr(HUSH)}).token
    assert token.address == Address("auth.example.", 443)
    assert (token.authority, token.target, token.address.name) == ("auth.example", "/token?tenant=A", "auth.example")
    assert str(token.address) == "auth.example:443"


def test_a_key_is_not_needed_for_a_check():
    backend = backend_for(A, a_remote(auth=with_key()), {source("s", "apiKey"): SecretStr(HUSH)})
    assert (backend.token, HUSH in repr(backend)) == (None, False)


def test_prior_fault_26_no_secret_is_in_what_may_be_printed():
    values = {source("s", "clientSecret"): SecretStr(HUSH), source("c", "tls.crt"): SecretStr(HUSH)}
    values[source("c", "tls.key")] = SecretStr(HUSH)
    backend = backend_for(A, a_remote(auth=with_token(), tls=over_tls(certificate="c")), values)
    assert "hush" not in f"{backend} {backend!r}"


def test_another_secret_makes_another_backend_of_the_same_name():
    first, second = (
        backend_for(A, a_remote(auth=with_token()), {source("s", "clientSecret"): SecretStr(value)})
        for value in ("one", "two")
    )
    assert first != second
    assert first.name == second.name


def test_the_hosts_of_our_own_configuration_are_known():
    oauth = {"clientId": "me", "clientSecret": "x", "tokenUrl": "http://auth.example:81/token"}
    auth = {"type": "oauth", "oauthConfig": oauth}
    default = parse(DefaultRemoteBackend, {"host": "models.example:8080", "scheme": "http", "authConfig": auth})
    assert own_hosts(default) == {"models.example", "auth.example"}
    assert own_hosts(None) == frozenset()


@pytest.mark.parametrize("host", ["Models.Example", "models.example.", "Models.Example.:8080", "[2001:DB8:0::1]:80"])
def test_a_host_of_our_own_is_known_however_it_is_written(host):
    default = parse(DefaultRemoteBackend, {"host": host})
    (remote,) = remotes_of(a_model().offloading().intent(), default)
    assert backend_for(A, remote, {}).address.host in own_hosts(default)


# Where checks may connect to.

OWN = frozenset(("default.example",))


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:127.0.0.1"])
def test_in_a_cluster_a_name_may_not_lead_to_what_is_beside_the_gateway(address):
    refused = refusal(OUTSIDE.also_allowing(OWN))
    assert refused("models.example", address)
    assert refused("Default.Example.", address) is None
    assert refusal(ANYWHERE)("models.example", address) is None


def test_a_name_may_lead_to_any_other_address():
    for address in ("10.0.0.1", "203.0.113.7", "fd00::1"):
        assert refusal(OUTSIDE)("models.example", address) is None
