"""What a route says of credentials: where each of them comes from, and never what it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from controller.api.schema.http import HeaderName
from controller.api.schema.values import ForeignValue

# The one field of a spec that may hold a credential itself, as the system being replaced had it.
INLINE_CLIENT_SECRET = "spec.offloadingConfig.remoteBackend.authConfig.oauthConfig.clientSecret"
CREDENTIAL = "beamlit.com/credential"
"""The label of a Secret that may be used: its value says for what."""

SENT, SERVING = "true", "serving"
"""As a credential of a remote backend; or at the entrance of a model, shown to clients or compared with what they show.
"""

CREDENTIAL_HOSTS = "beamlit.com/credential-hosts"
"""The annotation of such a Secret: the hosts that it may be used for, with commas between them. Without it, any."""

# Where kubectl keeps what was last applied, all of it.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def inline_client_secret(raw: Mapping[str, Any]) -> object:
    """Return what a ModelDeployment has in its inline field, of the first backend if it lists several; else None."""
    return next((_at(backend, "authConfig", "oauthConfig", "clientSecret") for backend in _backends(raw)), None)


def is_for_inline_secret(raw: Mapping[str, Any], oauth: OAuth) -> bool:
    """Tell whether a ModelDeployment has its inline field for this client and this token endpoint, and for no other."""
    config = next((_at(backend, "authConfig", "oauthConfig") for backend in _backends(raw)), None)
    return (_at(config, "clientId"), _at(config, "tokenUrl")) == (oauth.client_id, oauth.token_url)


def without_inline_credentials(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a ModelDeployment as it may be shown to those who may not read it."""
    shown = copy.deepcopy(dict(raw))
    for backend in _backends(shown):
        config = _at(backend, "authConfig", "oauthConfig")
        if isinstance(config, dict):
            config.pop("clientSecret", None)
    annotations = _at(shown, "metadata", "annotations")
    if isinstance(annotations, dict):
        annotations.pop(_LAST_APPLIED, None)
    return shown


def _backends(raw: Mapping[str, Any]) -> tuple[object, ...]:
    offloading = _at(raw, "spec", "offloadingConfig")
    listed = _at(offloading, "remoteBackends")
    return tuple(listed) if isinstance(listed, list | tuple) else (_at(offloading, "remoteBackend"),)


def _at(value: object, *path: str) -> object:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


class CredentialSource(ForeignValue):
    """Where one credential comes from.

    * `Secret`: the key `key` of the Secret `name` in the object's own namespace. There is no field for another one.
    * `Spec`: the object's own spec, in the field `oauthConfig.clientSecret`.
    * `DefaultBackend`: the configuration of the xDS server, which has the same default backend as the controller.
    """

    source: Literal["Secret", "Spec", "DefaultBackend"]
    name: str = ""
    key: str = ""

    @model_validator(mode="after")
    def _names_a_key_of_a_secret_and_nothing_else(self) -> Self:
        if (self.source == "Secret") != bool(self.name and self.key) or bool(self.name) != bool(self.key):
            raise ValueError("must have a name and a key if its source is Secret, and neither otherwise")
        return self

    @classmethod
    def of_secret(cls, name: str, key: str) -> Self:
        """Name a key of a Secret."""
        return cls(source="Secret", name=name, key=key)


class ClientCertificate(ForeignValue):
    """The certificate that we show, and its private key, both in PEM."""

    certificate: CredentialSource
    private_key: CredentialSource


class RemoteTls(ForeignValue):
    """TLS to a remote backend, whose certificate is always verified.

    The certificate must be for `serverName`, which is sent as the SNI unless it is an address. It must lead to one of
    the authorities of `ca` (PEM), or without it to one that the system of Envoy trusts.
    """

    server_name: str
    ca: CredentialSource | None = None
    client_certificate: ClientCertificate | None = None


class OAuth(ForeignValue):
    """OAuth2 client credentials (RFC 6749, section 4.4): Envoy gets a token at `tokenUrl` and sends it as a bearer."""

    client_id: str
    client_secret: CredentialSource
    token_url: str
    scopes: tuple[str, ...] = ()


class HeaderCredential(ForeignValue):
    """A fixed credential: `value` is sent as it is in the header `header`."""

    header: HeaderName
    value: CredentialSource


class RemoteAuth(ForeignValue):
    """How a remote backend knows us: one of the two."""

    oauth: OAuth | None = None
    api_key: HeaderCredential | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        if (self.oauth is None) == (self.api_key is None):
            raise ValueError("must have one of oauth and apiKey")
        return self
