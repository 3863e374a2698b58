"""What a remote backend needs that is secret: what it is called, and the messages that bring it to Envoy (SDS).

Whatever refers to a secret names where it comes from, so a new value touches the secret and nothing else. A secret has
the name of its use in front: one key may be a credential here and an authority there, which are different messages.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    GenericSecret,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, RemoteAuth
from controller.api.contract.route import Remote, RouteKey
from xds_server.resources import names
from xds_server.resources.encoding import ADS, resource
from xds_server.snapshot.snapshot import SECRET, Resource, ResourceKey

Values = Mapping[CredentialSource, SecretStr]


@dataclass(frozen=True, slots=True)
class SecretNames:
    """What the secrets of one remote backend are called; None for what it does without."""

    authorities: str | None
    certificate: str | None
    credential: str | None

    @property
    def keys(self) -> tuple[ResourceKey, ...]:
        """The secrets that there are."""
        return tuple(
            ResourceKey(SECRET, name) for name in (self.authorities, self.certificate, self.credential) if name
        )


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A chain of certificates, the private key of the first, and when that one ends."""

    chain: SecretStr
    key: SecretStr
    ends: datetime


def credential_of(auth: RemoteAuth) -> CredentialSource:
    """Say where the one credential comes from: the client secret or the fixed value."""
    source = auth.oauth.client_secret if auth.oauth else auth.api_key and auth.api_key.value
    assert source  # of the two, each has one of them
    return source


def secret_names(key: RouteKey, remote: Remote) -> SecretNames:
    """Name the secrets of a remote backend as this route refers to them."""
    tls, auth = remote.tls, remote.auth
    shown = tls.client_certificate if tls else None
    return SecretNames(
        authorities=names.secret("authorities", key, tls.ca) if tls and tls.ca else None,
        certificate=names.secret("certificate", key, shown.certificate) if shown else None,
        credential=names.secret("credential", key, credential_of(auth)) if auth else None,
    )


def secret_resources(key: RouteKey, remote: Remote, values: Values, version_key: bytes) -> tuple[Resource, ...]:
    """Pack the secrets of a remote backend; `values` has one for each source in it.

    A version is told to everybody who may read the state of an Envoy, and a plain hash would let them try out what the
    secret is. So it is a hash with a key, which all replicas of the server share.
    """
    called, packed = secret_names(key, remote), []
    if called.authorities and remote.tls and remote.tls.ca:
        trusted = CertificateValidationContext(trusted_ca=_source(values[remote.tls.ca]))
        packed.append(Secret(name=called.authorities, validation_context=trusted))
    if called.certificate and remote.tls and remote.tls.client_certificate:
        shown = remote.tls.client_certificate
        certificate = TlsCertificate(
            certificate_chain=_source(values[shown.certificate]), private_key=_source(values[shown.private_key])
        )
        packed.append(Secret(name=called.certificate, tls_certificate=certificate))
    if called.credential and remote.auth:
        credential = GenericSecret(secret=_source(values[credential_of(remote.auth)]))
        packed.append(Secret(name=called.credential, generic_secret=credential))
    return tuple(_keyed(resource(one.name, one), version_key) for one in packed)


def entrance_secrets(
    key: RouteKey, pairs: Mapping[str, CertificatePair], authorities: SecretStr | None, version_key: bytes
) -> tuple[Resource, ...]:
    """Pack what the entrance of a route is served with: the pairs by the names of their Secrets, and the authorities
    of its clients."""
    packed = [
        Secret(
            name=names.served_certificate(key, name),
            tls_certificate=TlsCertificate(certificate_chain=_source(pair.chain), private_key=_source(pair.key)),
        )
        for name, pair in pairs.items()
    ]
    if authorities is not None:
        trusted = CertificateValidationContext(trusted_ca=_source(authorities))
        packed.append(Secret(name=names.client_authorities(key), validation_context=trusted))
    return tuple(_keyed(resource(one.name, one), version_key) for one in packed)


def over_sds(name: str) -> SdsSecretConfig:
    """Refer to a secret on the same stream as everything else."""
    return SdsSecretConfig(name=name, sds_config=ADS)


def _source(value: SecretStr) -> DataSource:
    return DataSource(inline_string=value.get_secret_value())


def _keyed(secret: Resource, key: bytes) -> Resource:
    return replace(secret, version=hmac.digest(key, secret.body, "sha256")[:8].hex())
