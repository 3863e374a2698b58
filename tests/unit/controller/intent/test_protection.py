"""TLS and credentials of a remote backend, from the spec to the route."""

import pytest

from controller.api.contract.credentials import CredentialSource
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.values import parse
from controller.intent.remotes import RemoteNotUsableError, remotes_of
from tests.support.objects import a_model

HUSH = "hush-hush"
TOKENS = "https://auth.example/token"
OF_SECRET = CredentialSource.of_secret


def remote(host="models.example", **backend):
    return remotes_of(a_model().with_remote(host, **backend).intent(), None)[0]


def oauth(**config):
    return {"type": "oauth", "oauthConfig": {"clientId": "me", "tokenUrl": TOKENS, **config}}


def api_key(**ref):
    return {"type": "apiKey", "apiKey": {"secretRef": {"name": "s", **ref}}}


@pytest.mark.parametrize(
    ("host", "tls", "expected"),
    [
        ("models.example", None, ("models.example", 443, "models.example")),
        ("models.example:8443", None, ("models.example", 8443, "models.example")),
        ("10.0.0.1:8443", {"sni": "models.example"}, ("10.0.0.1", 8443, "models.example")),
        ("[fd00::1]", {}, ("fd00::1", 443, "fd00::1")),
    ],
)
def test_https_is_verified_by_the_name_asked_for_or_else_by_the_host(host, tls, expected):
    route = remote(host, scheme="https", **({} if tls is None else {"tls": tls}))
    assert (route.host, route.port, route.tls.server_name) == expected
    assert (route.tls.ca, route.tls.client_certificate) == (None, None)


@pytest.mark.parametrize("url", ["https://[1:2]/token", "http://[10.0.0.1]:80"])
def test_a_token_endpoint_that_is_no_address_is_told_and_nothing_leaves(url):
    with pytest.raises(RemoteNotUsableError, match=r"tokenUrl: must have an IPv6 address between its brackets"):
        remote(authConfig=oauth(clientSecretRef={"name": "s"}, tokenUrl=url))


def test_http_is_spoken_in_the_clear():
    assert remote(scheme="http").tls is None


@pytest.mark.parametrize(("ref", "key"), [({"name": "s"}, "ca.crt"), ({"name": "s", "key": "root.pem"}, "root.pem")])
def test_the_authorities_of_a_secret(ref, key):
    assert remote(scheme="https", tls={"caRef": ref}).tls.ca == OF_SECRET("s", key)


def test_the_client_certificate_of_a_secret():
    shown = remote(scheme="https", tls={"clientCertRef": {"name": "s"}}).tls.client_certificate
    assert (shown.certificate, shown.private_key) == (OF_SECRET("s", "tls.crt"), OF_SECRET("s", "tls.key"))


@pytest.mark.parametrize(
    ("config", "source"),
    [
        ({"clientSecretRef": {"name": "s"}}, OF_SECRET("s", "clientSecret")),
        ({"clientSecretRef": {"name": "s", "key": "k"}}, OF_SECRET("s", "k")),
        ({"clientSecret": HUSH}, CredentialSource(source="Spec")),
    ],
)
def test_where_a_client_secret_comes_from(config, source):
    route = remote(authConfig=oauth(scopes=["a", "b"], **config))
    assert route.auth.oauth.client_secret == source
    assert (route.auth.oauth.client_id, route.auth.oauth.token_url) == ("me", TOKENS)
    assert route.auth.oauth.scopes == ("a", "b")
    assert HUSH not in route.model_dump_json()


@pytest.mark.parametrize(("ref", "key"), [({}, "apiKey"), ({"key": "k"}, "k")])
def test_where_an_api_key_comes_from(ref, key):
    credential = remote(authConfig=api_key(**ref)).auth.api_key
    assert (credential.header, credential.value) == ("Authorization", OF_SECRET("s", key))


@pytest.mark.parametrize("secret", [{}, {"clientSecret": HUSH}])
def test_of_the_default_backend_the_xds_server_alone_needs_the_secret(secret):
    default = parse(DefaultRemoteBackend, {"host": "run.example", "scheme": "https", "authConfig": oauth(**secret)})
    (route,) = remotes_of(a_model().offloading().intent(), default)
    assert route.auth.oauth.client_secret == CredentialSource(source="DefaultBackend")


def oauth_with(**config):
    return {"authConfig": {"type": "oauth", "oauthConfig": config}}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (oauth_with(tokenUrl=TOKENS), "authConfig.oauthConfig.clientId"),
        (oauth_with(clientId="me"), "authConfig.oauthConfig.tokenUrl"),
        (
            oauth_with(clientId="me", tokenUrl=TOKENS, clientSecret=HUSH, clientSecretRef={"name": "s"}),
            "authConfig.oauthConfig",
        ),
        ({"tls": {"sni": "x"}}, "tls"),
    ],
)
def test_nothing_leaves_without_the_protection_asked_for(asked, field):
    default = parse(DefaultRemoteBackend, {"host": "h", **asked})
    with pytest.raises(RemoteNotUsableError, match=f"^remoteBackend.{field}: ") as caught:
        remotes_of(a_model().offloading().intent(), default)
    assert HUSH not in str(caught.value)
