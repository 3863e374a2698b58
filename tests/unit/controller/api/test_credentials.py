"""What a route says of credentials, and what of an object may be shown."""

import json

import pytest

from controller.api.contract.credentials import (
    CredentialSource,
    RemoteAuth,
    inline_client_secret,
    without_inline_credentials,
)
from controller.api.contract.route import Remote
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from tests.support.objects import a_model

HUSH = "hush-hush"
OAUTH = {"clientId": "me", "clientSecret": HUSH, "tokenUrl": "https://auth.example/token"}
BACKEND = {"host": "h", "authConfig": {"type": "oauth", "oauthConfig": OAUTH}}


@pytest.mark.parametrize(
    "raw",
    [
        {"source": "Secret"},
        {"source": "Secret", "name": "s"},
        {"source": "Secret", "key": "k"},
        {"source": "Spec", "name": "s", "key": "k"},
        {"source": "DefaultBackend", "key": "k"},
        {"source": "Elsewhere"},
        {},
    ],
)
def test_a_source_names_a_key_of_a_secret_and_nothing_else(raw):
    with pytest.raises(InvalidObjectError):
        parse(CredentialSource, raw)


def test_a_secret_of_another_namespace_cannot_be_named():
    assert "namespace" not in CredentialSource.model_fields
    ref = {"name": "s", "namespace": "other"}
    for backend in (
        {"authConfig": {"type": "apiKey", "apiKey": {"secretRef": ref}}},
        {"authConfig": {"type": "oauth", "oauthConfig": {**OAUTH, "clientSecret": "", "clientSecretRef": ref}}},
        {"scheme": "https", "tls": {"caRef": ref}},
        {"scheme": "https", "tls": {"clientCertRef": ref}},
    ):
        with pytest.raises(InvalidObjectError, match="namespace"):
            a_model().with_remote(**backend).parsed()


@pytest.mark.parametrize("raw", [{}, {"oauth": None}, {"oauth": {}, "apiKey": {}}])
def test_a_credential_is_of_one_kind(raw):
    with pytest.raises(InvalidObjectError):
        parse(RemoteAuth, raw)


def test_a_route_that_protects_is_read_back_as_it_was():
    raw = {
        "host": "h",
        "port": 443,
        "authority": "h",
        "tls": {
            "serverName": "h",
            "ca": {"source": "Secret", "name": "s", "key": "ca.crt"},
            "clientCertificate": {
                "certificate": {"source": "Secret", "name": "s", "key": "tls.crt"},
                "privateKey": {"source": "Secret", "name": "s", "key": "tls.key"},
            },
        },
        "auth": {"apiKey": {"header": "x-key", "value": {"source": "Secret", "name": "s", "key": "apiKey"}}},
    }
    route = parse(Remote, raw)
    assert parse(Remote, route.model_dump(mode="json", by_alias=True, exclude_none=True)) == route


@pytest.mark.parametrize("listed", [False, True])
def test_the_inline_secret_is_found_and_not_shown(listed):
    raw = a_model().with_remote("h").raw
    raw["spec"]["offloadingConfig"] = {"remoteBackends": [BACKEND]} if listed else {"remoteBackend": BACKEND}
    raw["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(raw), "kept": "1"}
    parse(ModelDeployment, raw)

    shown = without_inline_credentials(raw)

    assert inline_client_secret(raw) == HUSH
    assert HUSH not in json.dumps(shown)
    assert inline_client_secret(shown) is None
    assert shown["metadata"]["annotations"] == {"kept": "1"}
    assert HUSH in json.dumps(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"spec": None},
        {"spec": {"offloadingConfig": []}},
        {"spec": {"offloadingConfig": {"remoteBackends": []}}},
        {"spec": {"offloadingConfig": {"remoteBackend": {"authConfig": "x"}}}},
    ],
)
def test_an_object_without_one_is_shown_as_it_is(raw):
    assert inline_client_secret(raw) is None
    assert without_inline_credentials(raw) == raw
