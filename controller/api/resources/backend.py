"""The remote backend: where it is, how it knows us, and how we know it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, model_validator

from controller.api.resources.references import SecretKeyReference
from controller.api.schema.cel import Rule
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.http import (
    Authority,
    CheckedPath,
    CredentialHeaderName,
    HeadersToAdd,
    PathPrefix,
    ServerName,
    Url,
)
from controller.api.schema.scalars import Interval, Shape, WholeNumber
from controller.api.schema.values import ApiValue

# RFC 6749, appendix A.
ClientId = Annotated[str, Field(max_length=1024), Shape(r"[ -~]*", "printable ASCII characters")]
Scope = Annotated[
    str, Field(max_length=256), Shape(r"[!#-\[\]-~]+", "a scope: printable ASCII characters without spaces and quotes")
]


_NO_ID = "is required: the id that the token endpoint knows us by"
_NO_URL = "is required: where tokens are asked for"
_NO_SECRET = "is required, unless clientSecret is given"
_TWO_SECRETS = "must be left out when clientSecretRef is given"
_GIVEN = "(has(self.clientSecret) && self.clientSecret != '')"


class OAuthConfig(ApiValue):
    """OAuth2 client credentials (RFC 6749, section 4.4)."""

    # Of a ModelDeployment alone: the configuration file may leave the credentials to be filled in.
    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.clientId) && self.clientId != ''", _NO_ID, ".clientId"),
        Rule("has(self.tokenUrl) && self.tokenUrl != ''", _NO_URL, ".tokenUrl"),
        Rule(f"{_GIVEN} || has(self.clientSecretRef)", _NO_SECRET, ".clientSecretRef"),
        Rule(f"!{_GIVEN} || !has(self.clientSecretRef)", _TWO_SECRETS, ".clientSecret"),
    )

    client_id: ClientId = ""
    """The client's id."""
    client_secret: Annotated[SecretStr, Field(max_length=8192)] = SecretStr("")
    """The client's secret. Whoever may read this object can read it: clientSecretRef is better."""
    client_secret_ref: SecretKeyReference | None = None
    """The Secret that holds the client's secret, under the key clientSecret if none is named."""
    token_url: Url = ""
    """Where tokens are asked for, such as https://auth.example.com/oauth/token."""
    scopes: Annotated[tuple[Scope, ...], Field(max_length=32)] = ()
    """The scopes to ask for."""

    def faults(self) -> Iterator[FieldFaultError]:
        """Find what it lacks to ask for a token."""
        if not self.client_id:
            yield FieldFaultError(("clientId",), _NO_ID)
        if not self.token_url:
            yield FieldFaultError(("tokenUrl",), _NO_URL)
        inline = bool(self.client_secret.get_secret_value())
        if not inline and self.client_secret_ref is None:
            yield FieldFaultError(("clientSecretRef",), _NO_SECRET)
        if inline and self.client_secret_ref is not None:
            yield FieldFaultError(("clientSecret",), _TWO_SECRETS)


class ApiKey(ApiValue):
    """A fixed credential, sent in a header."""

    secret_ref: SecretKeyReference
    """The Secret that holds the credential, under the key apiKey if none is named. It is sent as it is: one for a
    header such as `Authorization: Bearer abc` holds `Bearer abc`."""
    header: CredentialHeaderName = "Authorization"
    """The header to send it in."""


class AuthConfig(ApiValue):
    """How a remote backend knows us."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("self.type != 'oauth' || has(self.oauthConfig)", "is required when type is oauth", ".oauthConfig"),
        Rule("self.type != 'apiKey' || has(self.apiKey)", "is required when type is apiKey", ".apiKey"),
    )

    type: Literal["oauth", "apiKey"]
    """The kind of credential: oauth (OAuth2 client credentials) or apiKey (a fixed value in a header)."""
    oauth_config: OAuthConfig | None = None
    """The client credentials, when type is oauth."""
    api_key: ApiKey | None = None
    """The credential, when type is apiKey."""

    @model_validator(mode="after")
    def _gives_what_its_type_names(self) -> Self:
        wanted, given = ("oauthConfig", self.oauth_config) if self.type == "oauth" else ("apiKey", self.api_key)
        if given is None:
            raise FieldFaultError((wanted,), f"is required when type is {self.type}")
        return self


_TWO_KEYS = "may not be set: a client certificate is tls.crt and tls.key"


class TlsConfig(ApiValue):
    """How TLS to the remote backend is set up. Its certificate is always verified."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.clientCertRef) || !has(self.clientCertRef.key)", _TWO_KEYS, ".clientCertRef.key"),
    )

    ca_ref: SecretKeyReference | None = None
    """The Secret that holds the certificates of the authorities to trust, in PEM, under the key ca.crt if none is
    named. Default: the authorities that the system trusts."""
    sni: ServerName | None = None
    """The name to ask for, which the certificate must be for. Default: the host."""
    client_cert_ref: SecretKeyReference | None = None
    """The Secret of type kubernetes.io/tls that holds our certificate (tls.crt) and its key (tls.key). Default: we
    show none."""

    @model_validator(mode="after")
    def _names_no_key_of_its_certificate(self) -> Self:
        if self.client_cert_ref and self.client_cert_ref.key is not None:
            raise FieldFaultError(("clientCertRef", "key"), _TWO_KEYS)
        return self


class RemoteHealthCheck(ApiValue):
    """An active HTTP health check of the remote backend."""

    path: CheckedPath
    """The path to ask for; anything but a 200 is unhealthy."""
    interval: Interval = timedelta(seconds=5)
    """The time between two checks."""


class Timeouts(ApiValue):
    """How long the remote backend may take."""

    connect: Interval | None = None
    """How long a connection may take, TLS included. Default: 2s."""
    request: Interval | None = None
    """How long a whole answer may take. One that has not begun by then is asked of a replica, one that has is cut off.
    Default: no limit, since answers may stream for minutes."""


class Retry(ApiValue):
    """What becomes of a request that the remote backend did not answer."""

    attempts: Annotated[WholeNumber, Field(ge=0, le=10)] | None = None
    """How many more times it is tried before it goes to a replica."""


class RemoteBackend(ApiValue):
    """Where traffic goes when it leaves the cluster."""

    host: Authority
    """The host, or host:port, such as models.example.com:8080. It is sent as the Host."""
    scheme: Literal["http", "https"] = "http"
    """The protocol: http, or https with the backend's certificate verified."""
    path_prefix: PathPrefix = ""
    """What is put before the path of each request, such as /$workspace/models/$model. The variables are the platform's
    workspace (without a platform: the namespace) and spec.model."""
    headers_to_add: HeadersToAdd = {}
    """Headers that each request gets on its way to the backend, in place of those of the same name."""
    auth_config: AuthConfig | None = None
    """How the backend knows us. Without it, requests leave without a credential."""
    tls: TlsConfig | None = None
    """How TLS is set up when scheme is https."""
    health_check: RemoteHealthCheck | None = None
    """An HTTP request by which the backend is checked. Default: it is judged by the requests it gets."""
    timeouts: Timeouts | None = None
    """How long the backend may take."""
    retry: Retry | None = None
    """What becomes of a request that the backend did not answer."""
