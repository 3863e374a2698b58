"""What stands at the entrance of a route: its certificates, the authorities of its clients, the keys of its tokens.

Each is looked at before it is served, so that no Envoy refuses it. What cannot be used closes the entrance: nobody is
let in without TLS, or without what he should have shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import SecretStr

from controller.api.contract.credentials import SERVING
from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.route import Route, RouteKey
from controller.api.kubernetes.objects import Secret
from controller.api.registry import SECRET
from controller.store.objects import ObjectRef
from xds_server.resources.jwks import JwksError, public_keys
from xds_server.resources.secret import CertificatePair, entrance_secrets
from xds_server.routes.credentials import (
    Find,
    ServerSecrets,
    ServingProblem,
    UnusableError,
    authorities,
    permitted_secret,
    private_key,
    value_in_secret,
)
from xds_server.snapshot.snapshot import Resource

CERTIFICATE_NOT_USABLE = "CertificateNotUsable"
CERTIFICATE_EXPIRED = "CertificateExpired"
JWKS_NOT_USABLE = "JwksNotUsable"
SERVER_NAME_TAKEN = "ServerNameTaken"

_TLS_SECRET = "kubernetes.io/tls"

# What Envoy serves with (Envoy, "TlsCertificate"; BoringSSL): it refuses all others.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_RSA_BITS = 2048

# Pairs of certificate and key that are remembered with what they were found to be.
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class EntranceProblem(ServingProblem):
    """What is wrong at an entrance. One that `closes` it keeps the route from being served."""

    closes: bool = True


@dataclass(frozen=True, slots=True)
class ResolvedEntrance:
    """The secrets of an entrance, why it is not as it should be, and when the first of its certificates ends."""

    secrets: tuple[Resource, ...] = ()
    problems: tuple[EntranceProblem, ...] = ()
    ends: datetime | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nobody may come in."""
        return any(one.closes for one in self.problems)


def served_secrets(key: RouteKey, route: Route) -> frozenset[ObjectRef]:
    """Name the Secrets that the entrance of a route is served with: always in the namespace of its object."""
    if route.tls is None:
        return frozenset()
    clients = route.tls.client_validation
    names = (*route.tls.certificates, *(clients.authorities if clients else ()))
    return frozenset(ObjectRef(SECRET.kind, key.namespace, name) for name in names)


class Entrances:
    """Finds what entrances are served with.

    It remembers the last usable pair of each Secret: a certificate that is renewed and cannot be used breaks nothing
    that is there. One that is gone, or that may not be served with any more, closes its entrances.
    """

    def __init__(self) -> None:
        self._served: dict[ObjectRef, CertificatePair] = {}
        # Each change of a route asks again, and keys of RSA take their time.
        self._pair = lru_cache(_REMEMBERED)(_checked_pair)

    def resolve(
        self, key: RouteKey, route: Route, find: Find, own: ServerSecrets, now: datetime | None
    ) -> ResolvedEntrance:
        """Find what a route is served with at this time (None: what has ended is not looked for)."""
        problems = [EntranceProblem(JWKS_NOT_USABLE, words) for words in _faults_of_keys(route.jwt)]
        if route.tls is None:
            return ResolvedEntrance(problems=tuple(problems))
        pairs: dict[str, CertificatePair] = {}
        for name in route.tls.certificates:
            ref = ObjectRef(SECRET.kind, key.namespace, name)
            try:
                pairs[name] = self._found_pair(ref, find, own, problems)
            except UnusableError as error:
                problems.append(EntranceProblem(error.reason, str(error)))
                continue
            if now is not None and pairs[name].ends <= now:
                words = f"{ref}: its certificate has expired, at {pairs[name].ends:%Y-%m-%dT%H:%M:%SZ}"
                problems.append(EntranceProblem(CERTIFICATE_EXPIRED, words, closes=False))
        trusted = None
        try:
            trusted = _authorities(key, route.tls, find, own)
        except UnusableError as error:
            problems.append(EntranceProblem(error.reason, str(error)))
        found = ResolvedEntrance(problems=tuple(problems))
        if found.is_closed:
            return found
        secrets = entrance_secrets(key, pairs, trusted, own.version_key)
        return ResolvedEntrance(secrets, found.problems, min(one.ends for one in pairs.values()))

    def _found_pair(
        self, ref: ObjectRef, find: Find, own: ServerSecrets, problems: list[EntranceProblem]
    ) -> CertificatePair:
        try:
            secret = permitted_secret(ref, find, SERVING if own.opt_in else None)
        except UnusableError:
            self._served.pop(ref, None)
            raise
        try:
            self._served[ref] = self._pair(*_pair_in(ref, secret), str(ref))
        except UnusableError as error:
            if ref not in self._served:
                raise
            words = f"{error}; what it had before is served on"
            problems.append(EntranceProblem(error.reason, words, closes=False))
        return self._served[ref]


def _pair_in(ref: ObjectRef, secret: Secret) -> tuple[SecretStr, SecretStr]:
    if secret.type != _TLS_SECRET:
        raise UnusableError(f"{ref} is not of the type {_TLS_SECRET}", CERTIFICATE_NOT_USABLE)
    return value_in_secret(ref, "tls.crt", secret)[0], value_in_secret(ref, "tls.key", secret)[0]


def _checked_pair(certificate: SecretStr, key: SecretStr, whose: str) -> CertificatePair:
    """Check a chain of certificates and the private key of the first. Raises UnusableError."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.get_secret_value().encode())
        public = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableError(f'{whose}: key "tls.crt" is not a certificate in PEM', CERTIFICATE_NOT_USABLE) from None
    pem = private_key(key, f'{whose}: key "tls.key"').get_secret_value()
    try:
        # Whether a number is prime takes seconds to say, and Envoy does not ask.
        own = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableError(f'{whose}: key "tls.key" is not a private key in PEM', CERTIFICATE_NOT_USABLE) from None
    if _bytes_of(own.public_key()) != _bytes_of(public) or not _belongs_together(own):
        words = f'{whose}: key "tls.key" is not the private key of the first certificate in "tls.crt"'
        raise UnusableError(words, CERTIFICATE_NOT_USABLE)
    # One that is written in another way, as of RSASSA-PSS or with a curve that is spelled out, Envoy does not read.
    is_plain = _bytes_of(public) in chain[0].tbs_certificate_bytes
    strong = (isinstance(public, rsa.RSAPublicKey) and public.key_size >= _RSA_BITS) or (
        isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES
    )
    if not (strong and is_plain):
        words = f"must be of RSA with {_RSA_BITS} bits or more, or of the curve P-256, P-384 or P-521"
        raise UnusableError(f"{whose}: its key {words}", CERTIFICATE_NOT_USABLE)
    text = b"".join(one.public_bytes(Encoding.PEM) for one in chain).decode()
    written = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return CertificatePair(SecretStr(text), SecretStr(written), chain[0].not_valid_after_utc)


def _belongs_together(key: Any) -> bool:
    """Tell whether the numbers of a key of RSA are those of one key (RFC 8017, section 3.2), as Envoy asks."""
    if not isinstance(key, rsa.RSAPrivateKey):
        return True
    whole = key.private_numbers()
    p, q, d = whole.p, whole.q, whole.d
    return (
        min(p, q) > 1
        and p * q == whole.public_numbers.n
        and all(d * whole.public_numbers.e % (prime - 1) == 1 for prime in (p, q))
        and (whole.dmp1, whole.dmq1) == (d % (p - 1), d % (q - 1))
        and whole.iqmp < p
        and whole.iqmp * q % p == 1
    )


def _bytes_of(key: Any) -> bytes:
    written: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return written


def _authorities(key: RouteKey, tls: EntranceTls, find: Find, own: ServerSecrets) -> SecretStr | None:
    """Return the authorities of clients, all of them in one; None where clients show no certificate."""
    if tls.client_validation is None:
        return None
    found = []
    for name in tls.client_validation.authorities:
        ref = ObjectRef(SECRET.kind, key.namespace, name)
        secret = permitted_secret(ref, find, SERVING if own.opt_in else None)
        found.append(authorities(*value_in_secret(ref, "ca.crt", secret)).get_secret_value())
    # Over all of them, those that live longest are in front: a renewed one may be in a Secret of its own.
    return authorities(SecretStr("".join(found)), "spec.tls.clientValidation")


def _faults_of_keys(providers: tuple[JwtProvider, ...]) -> Iterator[str]:
    """Say what is wrong with the keys of tokens. A text of theirs is not repeated: it may be private."""
    for provider in providers:
        try:
            public_keys(provider.jwks)
        except JwksError as fault:
            yield f"spec.jwt: the localJWKS of provider {provider.name} {fault}"
