"""The credentials of a route: where they are found, what they must be, and the route that may be served with them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from controller.api.contract.credentials import (
    CREDENTIAL,
    CREDENTIAL_HOSTS,
    INLINE_CLIENT_SECRET,
    SENT,
    SERVING,
    CredentialSource,
    inline_client_secret,
    is_for_inline_secret,
)
from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.destinations import HostList, parse_destination
from controller.api.kubernetes.objects import Secret
from controller.api.registry import SECRET
from controller.api.resources.backend import RemoteBackend
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.hosts import DEFAULT_PORT, resolved_of
from controller.store.objects import ObjectRef, StoredObject
from xds_server.resources import pem
from xds_server.resources.pem import PemError, PemMemory
from xds_server.resources.secret import Values, credential_of, secret_resources
from xds_server.snapshot.snapshot import Resource, ResourceKey

# What the API server takes as a name (RFC 1123). Other text does not get into a command that somebody may copy.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

# What a header and RFC 6749 (appendix A) let through.
_PRINTABLE = re.compile(r"[ -~]+")

# In characters of base64 with line breaks: no longer text is looked at.
_LONGEST = 2 * pem.LONGEST

_MOST_HOSTS = 100

# Finds an object; one that has a route as it was when the route was decided.
Find = Callable[[ObjectRef], StoredObject | None]
# Returns a value in PEM in the form in which it is used (raises PemError); None for what is sent in a header.
Check = Callable[[SecretStr], SecretStr] | None


class UnusableError(Exception):
    """A credential is not there or cannot be one; the message says whose, and holds nothing of it."""

    def __init__(self, message: str, reason: str = "CredentialNotUsable") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ServingProblem:
    """Why less is served than a route asks for: a reason in CamelCase and a sentence."""

    reason: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class ServerSecrets:
    """The secrets of the server itself: those of the default backend, and the key of the versions of secrets.

    Both must be the same in all replicas. The token by which Envoys are known is a good key: whoever has it may see the
    secrets anyway. `opt_in` says that a Secret is used only if its label says that it may be.
    """

    default_remote: RemoteBackend | None = None
    version_key: bytes = field(default=b"", repr=False)
    opt_in: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedRoute:
    """What may be served of a route: all of it with its `secrets`, or what stays local for `problems`, in words.

    `values` has the credentials that the remote backends name, for those who need them in another form than Envoy.
    """

    route: Route
    secrets: tuple[Resource, ...] = ()
    problems: tuple[ServingProblem, ...] = ()
    values: Values = field(default_factory=dict, repr=False)


def resolve_credentials(
    key: RouteKey, route: Route, find: Find, own: ServerSecrets, memory: PemMemory
) -> ResolvedRoute:
    """Find everything secret that a route needs.

    What is not there takes all that leaves with it: a request never leaves without the credential, or the verification,
    that it should have. That follows from the objects alone, so all replicas of the server agree on it.
    """
    values: dict[CredentialSource, SecretStr] = {}
    problems: list[ServingProblem] = []
    for source, check, host in _needed(route.remotes):
        try:
            values[source] = _checked(check, *_value_of(key, source, host, find, own), memory)
        except UnusableError as error:
            problems.append(ServingProblem(error.reason, str(error)))
    if any(_borrows_credential(remote, own.default_remote) for remote in route.remotes):
        words = "the credential of defaultRemoteBackend is for its own host and token endpoint alone"
        problems.append(ServingProblem("CredentialNotUsable", words))
    if problems:
        return ResolvedRoute(route.without_remotes(), problems=tuple(dict.fromkeys(problems)))
    secrets: dict[ResourceKey, Resource] = {}
    for remote in route.remotes:
        secrets |= {one.key: one for one in secret_resources(key, remote, values, own.version_key)}
    return ResolvedRoute(route, tuple(secrets.values()), values=values)


def _checked(check: Check, value: SecretStr, name: str, memory: PemMemory) -> SecretStr:
    if check is None:
        return header_value(value, name)
    try:
        return memory.found(check, value)
    except PemError as fault:
        raise UnusableError(f"{name} {fault}") from None


def _borrows_credential(remote: Remote, default: RemoteBackend | None) -> bool:
    """Tell whether a remote backend would be sent the credential of the default one, and is another one.

    Whoever may write a status could have that sent to himself. Without a default there is no credential to be sent.
    """
    oauth = remote.auth.oauth if remote.auth else None
    given = default.auth_config.oauth_config if default and default.auth_config else None
    if default is None or given is None or oauth is None or oauth.client_secret.source != "DefaultBackend":
        return False
    place = urlsplit(f"//{default.host}")
    own = (
        resolved_of(place.hostname or ""),
        place.port or DEFAULT_PORT[default.scheme],
        default.scheme == "https",
        given.token_url,
    )
    return (resolved_of(remote.host), remote.port, remote.tls is not None, oauth.token_url) != own


def referred_secrets(key: RouteKey, route: Route) -> frozenset[ObjectRef]:
    """Name the Secrets that a route refers to: always in the namespace of its object."""
    sources = (source for source, _, _ in _needed(route.remotes))
    return frozenset(ObjectRef(SECRET.kind, key.namespace, one.name) for one in sources if one.source == "Secret")


def reads_spec(route: Route) -> bool:
    """Tell whether a part of the object's spec is read beside the route: a credential that stands there."""
    return any(source.source == "Spec" for source, _, _ in _needed(route.remotes))


def is_spec_of(raw: Mapping[str, Any], route: Route) -> bool:
    """Tell whether the credential in an object's spec is meant for the token endpoint of this route."""
    endpoints = [remote.auth.oauth if remote.auth else None for remote in route.remotes if _reads_spec(remote)]
    return all(oauth is not None and is_for_inline_secret(raw, oauth) for oauth in endpoints)


def _reads_spec(remote: Remote) -> bool:
    return any(source.source == "Spec" for source, _, _ in _needed((remote,)))


def _needed(remotes: Iterable[Remote]) -> Iterable[tuple[CredentialSource, Check, str]]:
    """List the sources of remote backends, each with what its value must be, and the host that it is used with."""
    for remote in remotes:
        if remote.tls and remote.tls.ca:
            yield remote.tls.ca, pem.authorities, remote.host
        if remote.tls and remote.tls.client_certificate:
            yield remote.tls.client_certificate.certificate, pem.certificates, remote.host
            yield remote.tls.client_certificate.private_key, pem.private_key, remote.host
        if remote.auth:
            oauth = remote.auth.oauth
            host = (urlsplit(oauth.token_url).hostname or "") if oauth else remote.host
            yield credential_of(remote.auth), None, host


def _value_of(
    key: RouteKey, source: CredentialSource, host: str, find: Find, own: ServerSecrets
) -> tuple[SecretStr, str]:
    """Return the value that a source of this route names, and what to call it. Raises UnusableError.

    A Secret is always one of the object's own namespace.
    """
    match source.source:
        case "Secret":
            ref = ObjectRef(SECRET.kind, key.namespace, source.name)
            return value_in_secret(ref, source.key, _usable_secret(ref, host, find, opt_in=own.opt_in))
        case "Spec":
            stored = find(ObjectRef(*key))
            return _given(inline_client_secret(stored.raw) if stored else None, INLINE_CLIENT_SECRET)
        case "DefaultBackend":
            auth = own.default_remote.auth_config if own.default_remote else None
            secret = auth.oauth_config.client_secret if auth and auth.oauth_config else None
            name = "defaultRemoteBackend.authConfig.oauthConfig.clientSecret of the xDS server"
            return _given(secret.get_secret_value() if secret else None, name)


def _usable_secret(ref: ObjectRef, host: str, find: Find, *, opt_in: bool) -> Secret:
    """Find a Secret that may be used with a host, as its owner says (docs/adr/0057). Raises UnusableError."""
    secret = permitted_secret(ref, find, SENT if opt_in else None)
    hosts = secret.metadata.annotations.get(CREDENTIAL_HOSTS)
    if hosts is not None and not _names_host(hosts, host, ref):
        raise UnusableError(f"{ref} may not be used with {host}: its annotation {CREDENTIAL_HOSTS} names other hosts")
    return secret


def permitted_secret(ref: ObjectRef, find: Find, use: str | None) -> Secret:
    """Find a Secret whose label permits this use (None: nobody is asked for a label). Raises UnusableError."""
    stored = find(ref)
    if stored is None and use is None:
        raise UnusableError(f"{ref} does not exist", "SecretNotFound")
    try:
        secret = stored.parsed_as(Secret) if stored else None
    except InvalidObjectError as error:
        raise UnusableError(f"{ref}: {error}") from None
    if secret is None or (use is not None and secret.metadata.labels.get(CREDENTIAL) != use):
        # One without the label is not seen: whether it is there is not known.
        what = "served with" if use == SERVING else "used as a credential"
        words = f"{ref} does not exist, or lacks the label that lets it be {what}"
        if _NAME.fullmatch(ref.name):
            words += f"; to let it: `kubectl -n {ref.namespace} label secret {ref.name} {CREDENTIAL}={use}`"
        raise UnusableError(words, "SecretNotFound")
    return secret


def _names_host(hosts: str, host: str, ref: ObjectRef) -> bool:
    if (count := hosts.count(",") + 1) > _MOST_HOSTS:
        # They are read each time that a route is looked at.
        raise UnusableError(f"{ref}: its annotation {CREDENTIAL_HOSTS} names {count} hosts, and may name {_MOST_HOSTS}")
    try:
        listed = HostList.of(parse_destination(one.strip()) for one in hosts.split(",") if one.strip())
    except ValueError as error:
        raise UnusableError(f"{ref}: its annotation {CREDENTIAL_HOSTS}, between two commas, {error}") from None
    return listed.has_name(host) or listed.has_address(host)


def value_in_secret(ref: ObjectRef, key: str, secret: Secret) -> tuple[SecretStr, str]:
    """Return what a Secret has under a key, and what to call it. Raises UnusableError."""
    name = f'{ref}: key "{key}"'
    if any(len(held[key].get_secret_value()) > _LONGEST for held in (secret.string_data, secret.data) if key in held):
        raise UnusableError(f"{name} is longer than anything that is used")
    # As the API server merges the two when it is given both.
    if key in secret.string_data:
        return secret.string_data[key], name
    if key not in secret.data:
        raise UnusableError(f"{name} is missing", "SecretKeyNotFound")
    return _decoded(secret.data[key], name), name


def _decoded(data: SecretStr, name: str) -> SecretStr:
    # Line breaks within are no fault, as for the API server.
    encoded = data.get_secret_value().replace("\n", "").replace("\r", "")
    try:
        return SecretStr(base64.b64decode(encoded, validate=True).decode())
    except binascii.Error:
        raise UnusableError(f"{name} is not base64, as all of `data` must be; `stringData` takes plain text") from None
    except ValueError:
        raise UnusableError(f"{name} is not text") from None


def _given(value: Any, name: str) -> tuple[SecretStr, str]:
    if not isinstance(value, str) or not value:
        raise UnusableError(f"{name} is missing", "CredentialMissing")
    return SecretStr(value), name


def header_value(value: SecretStr, name: str) -> SecretStr:
    """Check what is sent in a header; an editor's line break at the end is no part of it."""
    text = value.get_secret_value().rstrip("\r\n")
    if not text.strip():
        raise UnusableError(f"{name} is empty")
    if not _PRINTABLE.fullmatch(text):
        raise UnusableError(f"{name} has characters that are not printable ASCII")
    return SecretStr(text)
