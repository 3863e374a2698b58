"""Who is let in to a model, and over what (`spec.tls`, `spec.jwt`).

In the words of Envoy Gateway: `tls` is that of a listener of the Gateway API and of ClientTrafficPolicy, `jwt` that of
SecurityPolicy.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from controller.api.contract.entrance import (
    MAX_AUDIENCES,
    MAX_CERTIFICATES,
    MAX_PROVIDERS,
    AlpnProtocol,
    Audience,
    CertificateDetail,
    Issuer,
    Jwks,
    ProviderName,
    TlsVersion,
)
from controller.api.schema.cel import CelRules, Rule
from controller.api.schema.scalars import Flag, SecretName
from controller.api.schema.values import ApiValue

_NOT_EMPTY = "must have at least 1 of them, has 0"
_OTHER_NAMES = "must each have a name of their own"

Item = TypeVar("Item")


# Pydantic's own lower bound also complains of a list whose items have faults: it counts what is left of it.
def _not_empty(listed: tuple[Item, ...]) -> tuple[Item, ...]:
    if not listed:
        raise ValueError(_NOT_EMPTY)
    return listed


def _some(most: int) -> Any:
    return Field(max_length=most, json_schema_extra={"minItems": 1})


class SecretReference(ApiValue):
    """A Secret in the namespace of this ModelDeployment; Secrets of other namespaces cannot be named."""

    name: SecretName
    """The name of the Secret."""


_References = Annotated[tuple[SecretReference, ...], _some(MAX_CERTIFICATES), AfterValidator(_not_empty)]


class ClientValidationSpec(ApiValue):
    """Which clients are let in, by their certificates."""

    ca_certificate_refs: _References
    """The Secrets that hold, in ca.crt, the authorities whose certificates clients may show. Each needs the label
    beamlit.com/credential: serving."""
    optional: Flag = False
    """Whether clients without a certificate are let in, too. One that is shown is verified all the same."""
    cert_details_to_add: Annotated[tuple[CertificateDetail, ...], Field(max_length=3)] = ()
    """What of a client's certificate the replicas are told, in the header x-forwarded-client-cert, beside its hash. It
    never leaves for a remote backend, and what a client writes there never arrives. Default: nothing at all."""


class TlsSpec(ApiValue):
    """TLS between clients and the gateway."""

    certificate_refs: _References
    """The Secrets of type kubernetes.io/tls with the certificates that the gateway shows. With several, it shows the
    one that has the name which the client asks for. Each needs the label beamlit.com/credential: serving."""
    min_version: TlsVersion = "1.2"
    """The lowest version of TLS that clients may speak."""
    alpn_protocols: Annotated[tuple[AlpnProtocol, ...], _some(2), AfterValidator(_not_empty)] = ("http/1.1",)
    """The protocols that clients may choose from, the best first. The replicas are spoken to as the client speaks, so
    h2 is for servers that speak HTTP/2 in the clear, such as those of gRPC."""
    client_validation: ClientValidationSpec | None = None
    """Which clients are let in, by their certificates. Default: all, and none is asked for one."""


class LocalJwks(ApiValue):
    """Keys that stand here."""

    type: Literal["Inline"] = "Inline"
    """Where the keys are: in this object."""
    inline: Jwks
    """A JSON Web Key Set (RFC 7517) of public keys, in JSON."""


class JwtProviderSpec(ApiValue):
    """Who issues tokens, for whom, and by which keys they are known."""

    name: ProviderName
    """A name for it, which no other provider here has."""
    issuer: Issuer
    """Who issues the tokens: what they have in `iss`."""
    audiences: Annotated[tuple[Audience, ...], _some(MAX_AUDIENCES), AfterValidator(_not_empty)]
    """For whom the tokens are: one of these has to be in their `aud`. A token for somebody else is refused."""
    local_jwks: Annotated[LocalJwks, Field(alias="localJWKS")]
    """The public keys that the tokens are signed with."""


_PROVIDER_NAMES = Rule("self.all(one, self.exists_one(other, other.name == one.name))", _OTHER_NAMES)


def _named_once(providers: tuple[JwtProviderSpec, ...]) -> tuple[JwtProviderSpec, ...]:
    if len({one.name for one in providers}) < len(providers):
        raise ValueError(_OTHER_NAMES)
    return _not_empty(providers)


class JwtSpec(ApiValue):
    """Which tokens a client has to show, as `Authorization: Bearer`. Without a valid one it is answered with 401."""

    providers: Annotated[
        tuple[JwtProviderSpec, ...], _some(MAX_PROVIDERS), AfterValidator(_named_once), CelRules(_PROVIDER_NAMES)
    ]
    """Whose tokens let a client in: one of any of them is enough."""
