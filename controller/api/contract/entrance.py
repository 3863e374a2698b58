"""What an object asks of its entrance, as a route says it: by which certificates it is known, and who is let in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.schema.scalars import SecretName, Shape
from controller.api.schema.values import ForeignValue

MAX_CERTIFICATES = 4
"""So many certificates one object may have, and so many Secrets of authorities."""

MAX_PROVIDERS = 4
"""So many issuers of tokens one object may believe: each of their keys is tried."""

MAX_AUDIENCES = 8
MAX_JWKS_CHARACTERS = 16_384

TlsVersion = Literal["1.2", "1.3"]
AlpnProtocol = Literal["h2", "http/1.1"]
CertificateDetail = Literal["Subject", "DNS", "URI"]

# It stands in names of Envoy's own, and in its statistics.
ProviderName = Annotated[
    str,
    Field(max_length=63),
    Shape(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "the name of a provider: lower case letters, digits and '-'"),
]
Issuer = Annotated[str, Field(max_length=253), Shape(r"[!-~]+", "an issuer: printable ASCII characters, no spaces")]
Audience = Annotated[str, Field(max_length=253), Shape(r"[!-~]+", "an audience: printable ASCII characters, no spaces")]
Jwks = Annotated[str, Field(max_length=MAX_JWKS_CHARACTERS)]


class ClientValidation(ForeignValue):
    """Clients have to show a certificate of one of the authorities in these Secrets; with `optional` they may.

    `told` is what of a certificate the replicas are told.
    """

    authorities: Annotated[tuple[SecretName, ...], Field(min_length=1, max_length=MAX_CERTIFICATES)]
    optional: Literal[True] | None = None
    told: Annotated[tuple[CertificateDetail, ...], Field(max_length=3)] = ()


class EntranceTls(ForeignValue):
    """TLS with clients, from `minVersion` on, with the certificates in these Secrets of the object's own namespace.

    `alpn` are the protocols that clients may choose from, the best first.
    """

    certificates: Annotated[tuple[SecretName, ...], Field(min_length=1, max_length=MAX_CERTIFICATES)]
    min_version: TlsVersion = "1.2"
    alpn: Annotated[tuple[AlpnProtocol, ...], Field(min_length=1, max_length=2)] = ("http/1.1",)
    client_validation: ClientValidation | None = None


class JwtProvider(ForeignValue):
    """Tokens that let a client in: those of `issuer` for one of the `audiences`, signed by a key of `jwks` (RFC 7517).

    The keys are public ones, in JSON.
    """

    name: ProviderName
    issuer: Issuer
    audiences: Annotated[tuple[Audience, ...], Field(min_length=1, max_length=MAX_AUDIENCES)]
    jwks: Jwks
