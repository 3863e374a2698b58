"""What stands at the entrance of a route: its certificates, the authorities of its clients, the keys of its tokens.

Each is looked at before it is served, so that no Envoy refuses it. What cannot be used closes the entrance: nobody is
let in without TLS, or without what he should have shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from controller.api.contract.credentials import SERVING
from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.route import Route, RouteKey
from controller.api.kubernetes.objects import Secret
from controller.api.registry import SECRET
from controller.store.objects import ObjectRef
from xds_server.resources.jwks import JwksError, public_keys
from xds_server.resources.pem import PemError, PemMemory, authorities, served_pair
from xds_server.resources.secret import CertificatePair, entrance_secrets
from xds_server.routes.credentials import (
    Find,
    ServerSecrets,
    ServingProblem,
    UnusableError,
    permitted_secret,
    value_in_secret,
)
from xds_server.snapshot.snapshot import Resource

CERTIFICATE_NOT_USABLE = "CertificateNotUsable"
CERTIFICATE_EXPIRED = "CertificateExpired"
JWKS_NOT_USABLE = "JwksNotUsable"
SERVER_NAME_TAKEN = "ServerNameTaken"

_TLS_SECRET = "kubernetes.io/tls"


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

    def __init__(self, memory: PemMemory) -> None:
        self._served: dict[ObjectRef, CertificatePair] = {}
        self._memory = memory

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
            trusted = self._authorities(key, route.tls, find, own)
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
            self._served[ref] = self._pair_in(ref, secret)
        except UnusableError as error:
            if ref not in self._served:
                raise
            words = f"{error}; what it had before is served on"
            problems.append(EntranceProblem(error.reason, words, closes=False))
        return self._served[ref]

    def _pair_in(self, ref: ObjectRef, secret: Secret) -> CertificatePair:
        if secret.type != _TLS_SECRET:
            raise UnusableError(f"{ref} is not of the type {_TLS_SECRET}", CERTIFICATE_NOT_USABLE)
        chain, own = (value_in_secret(ref, name, secret)[0] for name in ("tls.crt", "tls.key"))
        try:
            return self._memory.found(served_pair, chain, own)
        except PemError as fault:
            raise UnusableError(f"{ref}: {fault}", CERTIFICATE_NOT_USABLE) from None

    def _authorities(self, key: RouteKey, tls: EntranceTls, find: Find, own: ServerSecrets) -> SecretStr | None:
        """Return the authorities of clients, all of them in one; None where clients show no certificate."""
        if tls.client_validation is None:
            return None
        found = []
        for name in tls.client_validation.authorities:
            ref = ObjectRef(SECRET.kind, key.namespace, name)
            secret = permitted_secret(ref, find, SERVING if own.opt_in else None)
            found.append(self._checked_authorities(*value_in_secret(ref, "ca.crt", secret)).get_secret_value())
        # Over all of them, those that live longest are in front: a renewed one may be in a Secret of its own.
        return self._checked_authorities(SecretStr("".join(found)), "spec.tls.clientValidation")

    def _checked_authorities(self, value: SecretStr, name: str) -> SecretStr:
        try:
            return self._memory.found(authorities, value)
        except PemError as fault:
            raise UnusableError(f"{name} {fault}") from None


def _faults_of_keys(providers: tuple[JwtProvider, ...]) -> Iterator[str]:
    """Say what is wrong with the keys of tokens. A text of theirs is not repeated: it may be private."""
    for provider in providers:
        try:
            public_keys(provider.jwks)
        except JwksError as fault:
            yield f"spec.jwt: the localJWKS of provider {provider.name} {fault}"
